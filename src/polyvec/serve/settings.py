"""The server's settings: defaults < TOML file < flags."""

import re
from dataclasses import dataclass, fields
from pathlib import Path

from polyvec.engine.plan import WeightsWanted
from polyvec.errors import InputError

OLLAMA_PORT = 11434
_MAX_PORT = 65_535
_NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<what>.+)")


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
    weights: WeightsWanted = "auto"
    """Where each model's weights are: ``resident``, ``packed`` or ``streamed``."""
    model_memory_gb: float | None = None
    """Memory of each model's process; ``auto`` weights are the first that it allows."""
    max_memory_gb: float | None = None
    """Models that were used longest ago are unloaded to stay below; None: no limit."""
    keep_alive: str = "-1"
    """How long a model stays loaded after its last request, as Ollama writes it."""
    max_batch_tokens: int | None = None
    """Tokens computed together; None is what was measured best."""
    urgent_tokens: int = 256
    """Requests of up to so many tokens overtake longer ones."""
    max_connections: int = 2_048
    """Fewer where the system allows fewer files; one more, and one that waits is closed."""
    max_concurrent_requests: int = 512
    max_queue_tokens: int = 2_000_000
    max_request_tokens: int = 1_000_000
    max_texts: int = 2_048
    max_body_bytes: int = 32 * 2**20
    tokenization_threads: int = 2
    body_timeout_s: float = 30.0
    """A request's head must have arrived by then, and its body by then again."""
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
    rental_prices: bool = False
    """Ask Vast.ai and RunPod every hour what renting costs, for ``/models``."""
    index: tuple[str, ...] = ()
    """Indexes to search, each as :func:`polyvec.search.place.stated_index` takes it, or
    ``NAME=INDEX`` to serve it under a name."""
    storage_option: tuple[str, ...] = ()
    """``KEY=VALUE`` of the object stores that indexes are in, for all of them."""
    chat_url: str | None = None
    """The chat endpoint that answers questions; None: what the environment names, else none."""
    chat_model: str | None = None
    search_threads: int = 4
    allow_updates: bool = False
    """Clients may have indexes brought up to date, by ``POST /search/update``."""
    max_answers: int = 8
    """Answers of the chat endpoint that are waited for at a time."""

    def __post_init__(self) -> None:
        for name in ("models", "cors_origins", "index", "storage_option"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise InputError(f"{name} is {value!r}; write a list of strings.")
            object.__setattr__(self, name, tuple(value))  # a TOML file has lists
        for field in fields(self):
            _check_number(field.name, field.type, getattr(self, field.name))
        if self.port > _MAX_PORT:
            raise InputError(f"port is {self.port}; the highest is {_MAX_PORT}.")
        if not self.models:
            raise InputError("No model to serve. Name one, e.g. polyvec serve default.")
        for name in ("rental_prices", "allow_updates"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; write true or false.")
        if self.log_format not in ("text", "json"):
            raise InputError(f"log_format is {self.log_format!r}; allowed: text, json.")
        if self.api_key_file is not None and not Path(self.api_key_file).is_file():
            raise InputError(
                f"There is no file {self.api_key_file} with API keys. Make one: "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE"
            )


def split_name(text: str) -> tuple[str | None, str]:
    """Split ``NAME=WHAT``; there is no name where the whole is a path that exists."""
    match = _NAMED.fullmatch(text)
    if match is None or Path(text).exists():
        return None, text
    return match["name"], match["what"]


def _check_number(name: str, kind: object, value: object) -> None:
    """Refuse what is not of its field's type, or no number over 0."""
    whole, optional = kind in (int, int | None), kind in (int | None, float | None)
    if not (whole or kind in (float, float | None)) or (optional and value is None):
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        what = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {value!r}; it must be {what}.")
    if value < 0 or (value == 0 and name != "port"):
        raise InputError(f"{name} is {value}; it must be greater than 0.")
