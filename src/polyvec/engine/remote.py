"""Vectors from a server someone else runs: OpenAI, Ollama, TEI and Cohere shapes.

Texts are sent as the server should see them; no prompt is asked of it, except that Cohere's shape
cannot be called without naming a role.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt
import orjson

from polyvec.errors import RemoteError
from polyvec.spec import Role

Dialect = Literal["openai", "ollama", "tei", "cohere"]
Vectors = npt.NDArray[np.float32]

_BATCH_TEXTS = 16
_PROBES: dict[Dialect, str] = {"ollama": "/api/version", "tei": "/info", "openai": "/v1/models"}
"""A path that only a server of this dialect answers with JSON; tried in this order."""


@dataclass(frozen=True)
class RemoteEmbedder:
    """A server, its dialect and the model to ask for."""

    base: str
    dialect: Dialect
    model: str
    timeout_s: float = 600.0

    def embed(self, texts: Sequence[str], role: Role = "document") -> Vectors:
        """Return the server's vectors, ``float32 [texts, d]``, as it sends them.

        Raises:
            RemoteError: The server cannot be reached, refuses, or answers in another shape.
        """
        parts = [
            _CALLS[self.dialect](self, list(texts[start : start + _BATCH_TEXTS]), role)
            for start in range(0, len(texts), _BATCH_TEXTS)
        ]
        vectors = np.asarray([vector for part in parts for vector in part], dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise RemoteError(
                f"{self.base} answered {len(texts)} texts with vectors of shape "
                f"{list(vectors.shape)}."
            )
        return vectors

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 (any JSON)
        """Send JSON and return the JSON answer."""
        return _call(self.base + path, orjson.dumps(body), self.timeout_s)


def connect(url: str, timeout_s: float = 600.0) -> RemoteEmbedder:
    """Find out how to ask a server.

    Args:
        url: ``http://host:port``, with ``?model=NAME`` where it has several, and with the dialect
            in front where it cannot be found out: ``cohere+http://host:port?model=NAME``.
        timeout_s: How long one request may take.

    Raises:
        RemoteError: It cannot be reached, or no dialect or model can be found out.
    """
    stated, plus, rest = url.partition("+")
    dialect, address = (stated, rest) if plus and "://" not in stated else (None, url)
    parts = urlsplit(address)
    base = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix("/v1")
    if dialect is None:
        dialect = _find_dialect(base)
    if dialect not in get_args(Dialect):
        raise RemoteError(
            f"{url} names the dialect {dialect!r}; polyvec speaks {', '.join(get_args(Dialect))}."
        )
    spoken = cast(Dialect, dialect)
    model = parse_qs(parts.query).get("model", [""])[0] or _only_model(base, spoken)
    return RemoteEmbedder(base, spoken, model, timeout_s)


def _find_dialect(base: str) -> Dialect:
    problems = []
    for dialect, path in _PROBES.items():
        try:
            _call(base + path, None, 10.0)
        except RemoteError as error:
            problems.append(str(error))
        else:
            return dialect
    raise RemoteError(
        f"{base} answers like none of {', '.join(_PROBES)} ({problems[-1]}) If it is up, state "
        f"its dialect, e.g. cohere+{base}?model=NAME."
    )


def _only_model(base: str, dialect: Dialect) -> str:
    if dialect in ("tei", "cohere"):
        return ""
    path, key, name = ("/api/tags", "models", "name")
    if dialect == "openai":
        path, key, name = ("/v1/models", "data", "id")
    models = [str(model[name]) for model in _call(base + path, None, 10.0).get(key) or []]
    if len(models) == 1:
        return models[0]
    raise RemoteError(
        f"{base} has {len(models)} models{': ' if models else ''}{', '.join(models[:8])}; name one "
        "with ?model=NAME."
    )


def _openai(server: RemoteEmbedder, texts: list[str], _role: Role) -> list[list[float]]:
    body = {"model": server.model, "input": texts, "encoding_format": "float"}
    answer = server.post("/v1/embeddings", body)
    data = sorted(_field(answer, "data", server), key=lambda item: item["index"])
    return [item["embedding"] for item in data]


def _ollama(server: RemoteEmbedder, texts: list[str], _role: Role) -> list[list[float]]:
    answer = server.post("/api/embed", {"model": server.model, "input": texts})
    return _field(answer, "embeddings", server)


def _tei(server: RemoteEmbedder, texts: list[str], _role: Role) -> list[list[float]]:
    answer = server.post("/embed", {"inputs": texts, "truncate": True})
    if not isinstance(answer, list):
        raise RemoteError(f"{server.base}/embed answered {type(answer).__name__}, not a list.")
    return answer


def _cohere(server: RemoteEmbedder, texts: list[str], role: Role) -> list[list[float]]:
    body = {
        "model": server.model,
        "texts": texts,
        "input_type": "search_query" if role == "query" else "search_document",
        "embedding_types": ["float"],
    }
    return _field(_field(server.post("/v2/embed", body), "embeddings", server), "float", server)


_CALLS: dict[Dialect, Callable[[RemoteEmbedder, list[str], Role], list[list[float]]]] = {
    "openai": _openai,
    "ollama": _ollama,
    "tei": _tei,
    "cohere": _cohere,
}


def _field(answer: Any, name: str, server: RemoteEmbedder) -> Any:  # noqa: ANN401 (any JSON)
    if not isinstance(answer, dict) or name not in answer:
        raise RemoteError(f"{server.base} ({server.dialect}) answered without {name!r}.")
    return answer[name]


def _call(url: str, body: bytes | None, timeout_s: float) -> Any:  # noqa: ANN401 (any JSON)
    if not url.startswith(("http://", "https://")):
        raise RemoteError(f"{url} is no http:// or https:// address.")
    request = Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 (checked)
    try:
        with urlopen(request, timeout=timeout_s) as response:  # noqa: S310 (checked)
            return orjson.loads(response.read())
    except HTTPError as error:
        reason = error.read(300).decode(errors="replace").strip()
        raise RemoteError(f"{url} answered {error.code}: {reason or error.reason}.") from error
    except (URLError, TimeoutError, ConnectionError) as error:
        raise RemoteError(f"{url} cannot be reached: {error}.") from error
    except orjson.JSONDecodeError as error:
        raise RemoteError(f"{url} did not answer with JSON.") from error
