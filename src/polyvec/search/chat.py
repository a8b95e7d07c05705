"""A chat endpoint in OpenAI's shape, asked for a streamed answer."""

import ipaddress
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson

from polyvec.errors import InputError, MissingExtraError, RemoteError
from polyvec.search.dialects import content_text, respelled, without_thoughts

URL_VARIABLE, MODEL_VARIABLE = "POLYVEC_CHAT_URL", "POLYVEC_CHAT_MODEL"
KEY_VARIABLE = "POLYVEC_CHAT_KEY"
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MAX_WAIT_S = 30.0
_SAID_CHARACTERS = 300

Message = dict[str, str]


@dataclass(frozen=True)
class ChatSettings:
    """Where questions and passages are sent, and how long an answer is waited for."""

    url: str
    """Up to and with ``/v1``."""
    model: str
    api_key_env: str = KEY_VARIABLE
    """The environment variable with the key; an unset one means that none is sent."""
    timeout_s: float = 120.0
    """Until the next words arrive."""
    max_retries: int = 3
    """Of a request that was refused or lost before its first word; waits double."""
    backoff_s: float = 1.0
    max_answer_tokens: int = 512
    temperature: float = 0.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"The chat endpoint {self.url!r} is no http:// or https:// address. Write it up to "
                "and with /v1: http://127.0.0.1:8080/v1."
            )
        if not self.timeout_s > 0 or self.max_answer_tokens < 1 or self.max_retries < 0:
            raise InputError("timeout_s and max_answer_tokens must be above 0, max_retries from 0.")


def chat_settings(url: str | None, model: str | None, **more: Any) -> ChatSettings:  # noqa: ANN401
    """Return settings from flags, and from the environment where a flag is None.

    Raises:
        InputError: No address or no model is given.
    """
    url, model = url or os.environ.get(URL_VARIABLE), model or os.environ.get(MODEL_VARIABLE)
    if not url or not model:
        missing = "address" if not url else "model"
        raise InputError(
            f"No {missing} of a chat endpoint is given. Name any that speaks OpenAI's API, e.g. "
            "--chat-url http://127.0.0.1:11434/v1 --chat-model NAME (Ollama's port), or set "
            f"{URL_VARIABLE} and {MODEL_VARIABLE}. Passages are sent there and nowhere else."
        )
    return ChatSettings(url.rstrip("/"), model, **more)


class BrokenAnswerError(RemoteError):
    """An answer that ended before its model had finished it."""


@dataclass
class Chat:
    """One endpoint."""

    settings: ChatSettings
    was_cut: bool = False
    """Whether the last answer reached ``max_answer_tokens``."""
    _spelled: dict[str, Any] = field(default_factory=dict, repr=False)
    """Fields as the endpoint wants them, once it has refused others."""

    def stream(self, messages: Sequence[Message]) -> Iterator[str]:
        """Yield an answer's words as they come.

        A refused or lost request is sent again before the first word, and not after it: words that
        were shown would be said twice.

        Raises:
            BrokenAnswerError: The answer ended in the middle.
            RemoteError: It was not given, for the reason in the message.
        """
        self.was_cut = False
        problem = ""
        for attempt in range(self.settings.max_retries + 1):
            begun = False
            try:
                for words in without_thoughts(self._answer(messages)):
                    begun = True
                    yield words
                return
            except _TryAgainError as error:
                problem = str(error)
                if begun:
                    raise BrokenAnswerError(
                        f"{self._name} broke off in the middle of its answer: {problem}."
                    ) from error
                if attempt < self.settings.max_retries:
                    self._wait(attempt, error.wait_s)
        tries = self.settings.max_retries + 1
        raise RemoteError(f"{self._name} failed {tries} times: {problem}. Is it running?")

    @property
    def _name(self) -> str:
        return f"{self.settings.model} at {self.settings.url}"

    def _wait(self, attempt: int, asked_s: float) -> None:
        own = self.settings.backoff_s * 2**attempt * random.uniform(0.5, 1)  # noqa: S311
        time.sleep(min(max(own, asked_s), _MAX_WAIT_S))

    def _answer(self, messages: Sequence[Message]) -> Iterator[str]:
        """Ask once, and again in the endpoint's spelling as long as it refuses a field."""
        fields = self._spelled or {
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_answer_tokens,
        }
        while True:
            with self._request(messages, fields) as response:
                if response.status_code != 400:
                    yield from self._words(response)
                    return
                response.read()
                other = respelled(fields, response.text)
                if other is None:
                    self._refuse(response)
                else:
                    fields = self._spelled = other

    def _words(self, response: Any) -> Iterator[str]:  # noqa: ANN401 (httpx is optional)
        if response.status_code != 200:
            self._refuse(response)
        if "text/event-stream" in response.headers.get("content-type", ""):
            yield from self._events(response.iter_lines())
        else:  # a server that does not stream says everything at once
            response.read()
            yield self._whole(response.text)

    @contextmanager
    def _request(self, messages: Sequence[Message], fields: dict[str, Any]) -> Iterator[Any]:
        httpx = httpx_module()
        key = os.environ.get(self.settings.api_key_env)
        body = {
            "model": self.settings.model,
            "messages": list(messages),
            "stream": True,
            **fields,
        }
        # A proxy of the environment has no business between two programs of this machine.
        is_here = _is_loopback(urlsplit(self.settings.url).hostname or "")
        try:
            with (
                httpx.Client(timeout=self.settings.timeout_s, trust_env=not is_here) as client,
                client.stream(
                    "POST",
                    f"{self.settings.url}/chat/completions",
                    json=body,
                    headers={"Authorization": f"Bearer {key}"} if key else {},
                ) as response,
            ):
                yield response
        except httpx.TimeoutException as error:
            raise _TryAgainError(f"nothing came for {self.settings.timeout_s:g} s") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise _TryAgainError(f"{type(error).__name__} {error}".strip()) from error

    def _refuse(self, response: Any) -> None:  # noqa: ANN401 (httpx is optional)
        response.read()
        status, said = response.status_code, " ".join(response.text.split())[:_SAID_CHARACTERS]
        if status in _AGAIN:
            wait = response.headers.get("retry-after", "")
            raise _TryAgainError(f"{status}: {said}", float(wait) if wait.isdecimal() else 0.0)
        hints = {401: "; its key belongs in " + self.settings.api_key_env, 404: "; is the address "
                 "up to and with /v1, and the model one that it has?"}  # fmt: skip
        if status == 400 and "context" in said:
            hints[400] = "; send it less with --passages, or give it a longer context"
        raise RemoteError(f"{self._name} refused: {status}: {said}{hints.get(status, '')}")

    def _events(self, lines: Iterator[str]) -> Iterator[str]:
        """Read server-sent events; an answer is whole when it says why it ended."""
        is_whole = False
        for line in lines:
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                is_whole = True
                break
            event = _parsed(data)
            if event.get("error"):
                raise _TryAgainError(f"{event['error']}"[:_SAID_CHARACTERS])
            for choice in event.get("choices") or ():
                reason = choice.get("finish_reason")
                is_whole = is_whole or reason is not None
                self.was_cut = self.was_cut or reason == "length"
                words = content_text((choice.get("delta") or {}).get("content"))
                if words:
                    yield words
        if not is_whole:
            raise _TryAgainError("the connection ended before the answer did")

    def _whole(self, text: str) -> str:
        answer = _parsed(text)
        try:
            choice = answer["choices"][0]
            self.was_cut = choice.get("finish_reason") == "length"
            return content_text(choice["message"]["content"])
        except (KeyError, IndexError, TypeError) as error:
            raise RemoteError(
                f"{self._name} gave no chat completion: {text[:_SAID_CHARACTERS]!r}"
            ) from error


class _TryAgainError(RemoteError):
    """What another try may mend."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _TryAgainError(f"what it sent is no JSON: {text[:100]!r}") from error
    if not isinstance(value, dict):
        raise _TryAgainError(f"what it sent is no chat completion: {text[:100]!r}")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def httpx_module() -> Any:  # noqa: ANN401 (optional)
    """Return ``httpx``.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import httpx
    except ImportError as error:
        raise MissingExtraError(
            "Asking needs httpx, which is not installed: pip install 'polyvec[search]'."
        ) from error
    return httpx
