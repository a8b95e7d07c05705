"""One endpoint asked, within its limits, again where that may help."""

import asyncio
import email.utils
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import orjson

from polyvec.data.generate.answers import Schema
from polyvec.data.generate.settings import Endpoint, ResponseFormat
from polyvec.errors import InputError, MissingExtraError, RemoteError

_FORMATS: tuple[ResponseFormat, ...] = ("json_schema", "json_object_schema", "json_object", "none")
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_NEVER = frozenset({401, 402, 403, 404, 405})
_MAX_WAIT_S = 120.0


class EndpointDeadError(RemoteError):
    """An endpoint that will not answer the next request either: no such model, no right to it."""


class RefusedError(RemoteError):
    """A request that an endpoint will not serve, though it may serve others."""


@dataclass(frozen=True)
class Reply:
    """What a model said."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    cut: bool
    """Whether it was still speaking at ``max_answer_tokens``."""


@dataclass
class Usage:
    """What an endpoint did so far."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    answers: int = 0
    valid: int = 0
    """Answers that fit the schema."""


@dataclass
class Chat:
    """A client of one endpoint; used as ``async with``."""

    endpoint: Endpoint
    usage: Usage = field(default_factory=Usage)
    dead: str | None = None
    """Why it is not asked any more."""

    def __post_init__(self) -> None:
        httpx = httpx_module()
        stated = self.endpoint.response_format
        self._format = 0 if stated == "auto" else _FORMATS.index(stated)
        self._limit_field = "max_tokens"
        self._slots = asyncio.Semaphore(self.endpoint.max_concurrent)
        self._next_s = 0.0
        self._client = httpx.AsyncClient(timeout=self.endpoint.timeout_s, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        name = self.endpoint.api_key_env
        if name is None:
            return {}
        if not os.environ.get(name):
            raise InputError(
                f"The key of {self.endpoint.name} should be in the environment variable {name}, "
                "which is not set."
            )
        return {"Authorization": f"Bearer {os.environ[name]}"}

    async def __aenter__(self) -> "Chat":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(self, prompt: str, schema: Schema, seed: int) -> Reply:
        """Ask once, and again while the server is busy or the connection breaks.

        Raises:
            EndpointDeadError: It will not answer the next request either.
            RefusedError: It will not answer this one.
            RemoteError: It did not answer this one in ``max_retries`` further tries.
        """
        async with self._slots:
            for attempt in range(self.endpoint.max_retries + 1):
                if attempt:
                    self.usage.retries += 1
                problem, wait_s = await self._try(prompt, schema, seed)
                if isinstance(problem, Reply):
                    return problem
                own = self.endpoint.backoff_s * 2**attempt * random.uniform(0.5, 1)  # noqa: S311
                self._pause(min(max(own, wait_s), _MAX_WAIT_S))
        raise RemoteError(
            f"{self.endpoint.name} failed {self.endpoint.max_retries + 1} times: {problem}"
        )

    async def _try(self, prompt: str, schema: Schema, seed: int) -> tuple[Reply | str, float]:
        """Return the reply, or what went wrong and how long the server asked to wait."""
        httpx = httpx_module()
        while True:
            await self._turn()
            self.usage.requests += 1
            try:
                response = await self._client.post(
                    f"{self.endpoint.url}/chat/completions", json=self._body(prompt, schema, seed)
                )
            except httpx.TimeoutException:
                return f"no answer in {self.endpoint.timeout_s:g} s", 0.0
            except httpx.TransportError as error:
                return f"{type(error).__name__} {error}".strip(), 0.0
            if response.status_code == 200:
                return self._read(response.content), 0.0
            if self._adapt(response):
                continue
            if response.status_code in _AGAIN:
                return _said(response), _retry_after_s(response.headers.get("retry-after"))
            self._refuse(response)

    def _refuse(self, response: Any) -> NoReturn:  # noqa: ANN401 (httpx is optional)
        if response.status_code in _NEVER:
            raise EndpointDeadError(f"{self.endpoint.name} answered {_said(response)}")
        raise RefusedError(f"{self.endpoint.name} refused a request: {_said(response)}")

    def _adapt(self, response: Any) -> bool:  # noqa: ANN401 (httpx is optional)
        """Ask in a plainer way if that may be why a request was refused."""
        # llama-cpp-python's server says 500 where others say 400
        named = response.status_code == 500 and "response_format" in response.text
        if not named and response.status_code not in (400, 415, 422, 501):
            return False
        if "max_completion_tokens" in response.text and self._limit_field == "max_tokens":
            self._limit_field = "max_completion_tokens"
            return True
        if self.endpoint.response_format != "auto" or self._format == len(_FORMATS) - 1:
            return False
        self._format += 1
        return True

    @property
    def response_format(self) -> ResponseFormat:
        """How JSON is asked for now."""
        return _FORMATS[self._format]

    def _body(self, prompt: str, schema: Schema, seed: int) -> dict[str, Any]:
        form: dict[ResponseFormat, dict[str, Any] | None] = {
            "json_schema": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            },
            "json_object_schema": {"type": "json_object", "schema": schema},
            "json_object": {"type": "json_object"},
            "none": None,
        }
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.endpoint.temperature,
            "seed": seed,
            self._limit_field: self.endpoint.max_answer_tokens,
        }
        chosen = form[self.response_format]
        return body if chosen is None else body | {"response_format": chosen}

    def _read(self, content: bytes) -> Reply | str:
        try:
            answer = orjson.loads(content)
            choice = answer["choices"][0]
            text = choice["message"]["content"]
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
            return f"an answer that is no chat completion: {content[:200]!r}"
        used = cast(dict[str, Any], answer.get("usage") or {})
        asked, said = (int(used.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
        reply = Reply(text or "", asked, said, cut=choice.get("finish_reason") == "length")
        self.usage.prompt_tokens += reply.prompt_tokens
        self.usage.answer_tokens += reply.answer_tokens
        self.usage.answers += 1
        return reply

    async def _turn(self) -> None:
        """Wait until the endpoint's rate, and what it asked for, allow a request."""
        now = time.monotonic()
        start = max(now, self._next_s)
        rate = self.endpoint.max_requests_per_minute
        self._next_s = start + (60 / rate if rate else 0.0)
        if start > now:
            await asyncio.sleep(start - now)

    def _pause(self, seconds: float) -> None:
        """Let nobody ask for so long: others would be refused as well."""
        self._next_s = max(self._next_s, time.monotonic() + seconds)


def _said(response: Any) -> str:  # noqa: ANN401 (httpx is optional)
    return f"{response.status_code}: {' '.join(response.text.split())[:300]}"


def _retry_after_s(value: str | None) -> float:
    """Read seconds or a date (RFC 9110, 10.2.3); what is neither is no wish."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def httpx_module() -> Any:  # noqa: ANN401 (optional)
    """Return ``httpx``.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError(
            "Generating needs httpx, which is not installed: pip install 'polyvec[generate]'."
        ) from error
    return httpx
