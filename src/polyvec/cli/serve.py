"""``polyvec serve``: an embedding server in four dialects."""

from contextlib import suppress
from typing import TYPE_CHECKING

import orjson
import typer

from polyvec.cli.flags import serve as flags
from polyvec.cli.given import settings_given
from polyvec.cli.options import (
    MESSAGES,
    ConfigOption,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    StorageOption,
    WeightsOption,
)
from polyvec.cli.output import print_json
from polyvec.errors import MissingExtraError

if TYPE_CHECKING:
    from polyvec.serve.app import Server
    from polyvec.serve.run import Check
    from polyvec.serve.settings import ServeSettings


def serve(
    context: typer.Context,
    models: flags.Models = None,
    host: flags.Host = None,
    port: flags.Port = None,
    api_key_file: flags.ApiKeyFile = None,
    cors_origins: flags.CorsOrigins = None,
    precision: PrecisionOption | None = None,
    device: DeviceOption | None = None,
    weights: WeightsOption | None = None,
    model_memory_gb: flags.ModelMemoryGb = None,
    threads: flags.Threads = None,
    tokenization_threads: flags.TokenizationThreads = None,
    max_memory_gb: flags.MaxMemoryGb = None,
    keep_alive: flags.KeepAlive = None,
    max_batch_tokens: flags.MaxBatchTokens = None,
    urgent_tokens: flags.UrgentTokens = None,
    max_connections: flags.MaxConnections = None,
    max_concurrent_requests: flags.MaxConcurrentRequests = None,
    max_queue_tokens: flags.MaxQueueTokens = None,
    max_request_tokens: flags.MaxRequestTokens = None,
    max_texts: flags.MaxTexts = None,
    max_body_bytes: flags.MaxBodyBytes = None,
    body_timeout_s: flags.BodyTimeoutS = None,
    request_timeout_s: flags.RequestTimeoutS = None,
    keep_connection_s: flags.KeepConnectionS = None,
    shutdown_timeout_s: flags.ShutdownTimeoutS = None,
    log_format: flags.LogFormat = None,
    otlp_endpoint: flags.OtlpEndpoint = None,
    rental_prices: flags.RentalPrices = None,
    index: flags.Indexes = None,
    storage_option: StorageOption = None,
    chat_url: flags.ChatUrl = None,
    chat_model: flags.ChatModel = None,
    search_threads: flags.SearchThreads = None,
    allow_updates: flags.AllowUpdates = None,
    max_answers: flags.MaxAnswers = None,
    config: ConfigOption = None,
    check: flags.Check = False,
    as_json: JsonOption = False,
) -> None:
    """Serve models over HTTP, in the shapes of OpenAI, Ollama, TEI and Cohere.

    Examples:

    - `polyvec serve`
    - `polyvec serve default nomic=./nomic-embed.gguf --max-memory-gb 4`
    - `polyvec serve --host 0.0.0.0 --api-key-file keys.txt`
    - `polyvec serve --check --config /etc/polyvec/serve.toml`
    - `polyvec serve --index ~/Documents --chat-url http://127.0.0.1:8080/v1 --chat-model NAME`

    Then `curl 127.0.0.1:11434/api/embed -d '{"model": "default", "input": "Hello"}'`; every path
    is described at `http://127.0.0.1:11434/docs`.
    """
    _check_extra()
    from polyvec.serve.settings import ServeSettings

    settings = settings_given(ServeSettings, config, context)  # of the flags named like fields
    if check:
        _check(settings, as_json)
    else:
        _serve(settings, as_json)


def _check_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"The server needs {error.name}, which is not installed: pip install 'polyvec[serve]'"
        ) from error


def _serve(settings: "ServeSettings", as_json: bool) -> None:
    from polyvec.serve.run import is_loopback, serve

    if settings.api_key_file is None and not is_loopback(settings.host):
        _tell(
            f"[bold yellow]warning:[/] {settings.host} can be reached from other machines and no "
            "API key is asked for: everyone there can use this server. Give --api-key-file."
        )

    def on_ready(url: str, server: "Server") -> None:
        names = [model.name for model in server.models.all]
        if as_json:
            # One line, so that a program which waits for it can read a line.
            typer.echo(orjson.dumps({"url": url, "models": names}))
            return
        _tell(
            f"Serving {', '.join(names)} at {url} (in a browser: a page to try it; every path: "
            f"{url}/docs)"
        )
        body = f'{{"model": "{names[0]}", "input": "Hello"}}'
        _tell(f"Try: curl {url}/api/embed -d '{body}'", markup=False)
        if server.library.indexes:
            _tell(f"Search {', '.join(server.library.indexes)} at {url}/search", markup=False)

    serve(settings, on_ready)


def _tell(message: str, *, markup: bool = True) -> None:
    """Print for people. Where nothing can be written (a full disk), the server serves on."""
    with suppress(OSError):
        MESSAGES.print(message, markup=markup)


def _check(settings: "ServeSettings", as_json: bool) -> None:
    from polyvec.serve.run import check

    checks = check(settings)
    if as_json:
        print_json({"ok": True, "models": checks})
        return
    for each in checks:
        typer.echo(_sentence(each))
    typer.echo("Everything is ready to serve.")


def _sentence(check: "Check") -> str:
    return (
        f"{check.name}: {check.precision} on {check.where}, {check.dimension} numbers, "
        f"{check.memory_bytes / 1e6:,.0f} MB, a short query in {check.query_s * 1000:.1f} ms"
    )
