"""The server's settings: defaults < TOML file < flags."""

from dataclasses import dataclass, fields
from pathlib import Path

from polyvec.errors import InputError

OLLAMA_PORT = 11434


@dataclass(frozen=True)
class ServeSettings:
    """Everything that ``polyvec serve`` can be told."""

    models: tuple[str, ...] = ("default",)
    """Models, each as for :func:`polyvec.load`, or ``NAME=MODEL`` to serve it under a name."""
    host: str = "127.0.0.1"
    port: int = OLLAMA_PORT
    api_key_file: str | None = None
    """A file of API keys or their hashes, one a line; None: open to all who reach it."""
    cors_origins: tuple[str, ...] = ()
    """Web pages of these origins may ask; empty: none."""
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    """Threads of each model's computation; None is torch's own choice."""
    max_memory_gb: float | None = None
    """Models that were used longest ago are unloaded to stay below; None: no limit."""
    keep_alive: str = "-1"
    """How long a model stays loaded after its last request, as Ollama writes it."""
    max_batch_tokens: int | None = None
    """Tokens computed together; None is what was measured best."""
    urgent_tokens: int = 256
    """Requests of up to so many tokens overtake longer ones."""
    max_concurrent_requests: int = 512
    max_queue_tokens: int = 2_000_000
    max_request_tokens: int = 1_000_000
    max_texts: int = 2_048
    max_body_bytes: int = 32 * 2**20
    tokenization_threads: int = 2
    body_timeout_s: float = 30.0
    """A request's body must have arrived by then."""
    request_timeout_s: float = 600.0
    """A request must have been answered by then."""
    keep_connection_s: float = 30.0
    """An idle connection is closed after."""
    shutdown_timeout_s: float = 30.0
    """Requests that are being answered have so long when the server is stopped."""
    log_format: str = "text"
    """``text`` or ``json``."""
    otlp_endpoint: str | None = None
    """Where OpenTelemetry traces go, e.g. ``http://127.0.0.1:4318``."""

    def __post_init__(self) -> None:
        for name in ("models", "cors_origins"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in fields(self):
            _check_number(field.name, getattr(self, field.name))
        if not self.models:
            raise InputError("No model to serve. Name one, e.g. polyvec serve default.")
        if self.log_format not in ("text", "json"):
            raise InputError(f"log_format is {self.log_format!r}; allowed: text, json.")
        if self.api_key_file is not None and not Path(self.api_key_file).is_file():
            raise InputError(
                f"There is no file {self.api_key_file} with API keys. Make one: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE"
            )


def _check_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if value < (0 if name == "port" else 1e-9):
        raise InputError(f"{name} is {value}; it must be greater than 0.")
