"""What to generate and by whom."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from polyvec.errors import InputError

Kind = Literal["retrieval", "classification", "sts", "bitext", "questions", "translate"]
ResponseFormat = Literal["auto", "json_schema", "json_object_schema", "json_object", "none"]

TWO_STEP: frozenset[Kind] = frozenset({"retrieval", "classification", "sts", "bitext"})
"""Kinds whose ideas are thought of first; the others start from the user's own texts."""


@dataclass(frozen=True)
class Endpoint:
    """A server in OpenAI's shape, and how it may be used."""

    url: str
    """Up to and with ``/v1``."""
    model: str
    weight: float = 1.0
    """How often it is asked, in relation to the others."""
    api_key_env: str | None = None
    """The environment variable that holds its key."""
    max_concurrent: int = 4
    max_requests_per_minute: float | None = None
    timeout_s: float = 120.0
    max_retries: int = 5
    """Of a request that was refused or lost; waits double from ``backoff_s`` on."""
    backoff_s: float = 1.0
    max_answer_tokens: int = 1024
    temperature: float = 1.0
    prompt_price: float = 0.0
    """Of a million tokens, in any currency."""
    answer_price: float = 0.0
    """Of a million tokens."""
    response_format: ResponseFormat = "auto"
    """How JSON is asked for; auto tries all in this order until the server takes one."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"The endpoint {self.url!r} is no http:// or https:// address.")
        if self.response_format not in get_args(ResponseFormat):
            raise InputError(
                f"response_format is {self.response_format!r}; allowed: "
                f"{', '.join(get_args(ResponseFormat))}."
            )
        for name in ("weight", "max_concurrent", "timeout_s", "max_answer_tokens"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(
                    f"{name} of {self.url} is {getattr(self, name)}; give one above 0."
                )
        for name in ("max_retries", "backoff_s", "temperature", "prompt_price", "answer_price"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(
                    f"{name} of {self.url} is {getattr(self, name)}; give one from 0 on."
                )
        if self.max_requests_per_minute is not None and not self.max_requests_per_minute > 0:
            raise InputError(f"max_requests_per_minute of {self.url} must be above 0.")

    @property
    def name(self) -> str:
        """What it is called in files and reports."""
        return f"{self.model}@{urlsplit(self.url).netloc}"


def parse_endpoint(address: str) -> Endpoint:
    """Read ``http://host:port/v1?model=NAME&weight=2&api_key_env=KEY``: fields as parameters.

    Raises:
        InputError: The model or the address is missing, or a parameter is none of the fields.
    """
    parts = urlsplit(address)
    url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    return make_endpoint({**dict(parse_qsl(parts.query)), "url": url})


def make_endpoint(given: Mapping[str, Any]) -> Endpoint:
    """Make an endpoint of a TOML table or an address's parameters.

    Raises:
        InputError: A key is none of the fields, a needed one is missing, or a value is no number.
    """
    kinds = {field.name: field.type for field in fields(Endpoint)}
    unknown = sorted(set(given) - set(kinds))
    if unknown:
        raise InputError(f"An endpoint has no {unknown[0]!r}; it has: {', '.join(kinds)}.")
    missing = [name for name in ("url", "model") if not given.get(name)]
    if missing:
        raise InputError(
            f"The endpoint {given.get('url', '')!r} has no {missing[0]}; write e.g. "
            "http://127.0.0.1:8080/v1?model=NAME."
        )
    values: dict[str, Any] = {k: _value(k, value, kinds[k]) for k, value in given.items()}
    return Endpoint(**values)


def _value(name: str, value: object, kind: object) -> object:
    try:
        if kind in (int, "int"):
            return int(str(value))
        if kind in (float, float | None):
            return float(str(value))
    except ValueError as error:
        raise InputError(f"An endpoint's {name} is {value!r}; a number is needed.") from error
    return value


@dataclass(frozen=True)
class GenerateSettings:
    """What to generate."""

    kind: Kind
    endpoints: tuple[Endpoint, ...]
    count: int | None = None
    """Records to keep; None only where the input decides: translation."""
    languages: tuple[str, ...] = ("English",)
    about: str = ""
    """What the texts are about, in a sentence; empty: anything."""
    ideas_per_request: int = 20
    records_per_idea: int = 10
    max_asks: int = 3
    """How often a job is asked again whose answer was not what the schema wants."""
    max_attempts: float = 3.0
    """Jobs in all, in relation to ``count``: duplicates and rejected records are made up for."""
    near_duplicate: float = 0.8
    """Queries whose sets of 4 letters overlap by this much are one; 1 or more: exact only."""
    judge: str | None = None
    """``llm``, or a model that embeds; None keeps everything that is valid."""
    judge_rank: int = 3
    """The embedder keeps a record whose positive is at least this near among all of a round."""
    min_score: float = -1.0
    """The least cosine of query and positive."""
    max_cost: float | None = None
    prompts: Path | None = None
    """A folder of edited prompts; None: those shipped."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"kind is {self.kind!r}; allowed: {', '.join(get_args(Kind))}.")
        if not self.endpoints:
            raise InputError(
                "No endpoint is given: --endpoint http://127.0.0.1:8080/v1?model=NAME."
            )
        if not self.languages:
            raise InputError("No language is given.")
        if self.kind == "bitext" and len(set(self.languages)) < 2:
            raise InputError(
                "Parallel sentences need two languages at least: give --language twice."
            )
        if self.count is None and self.kind != "translate":
            raise InputError(f"How many records of {self.kind} are wanted? Give --count.")
        for name in ("count", "ideas_per_request", "records_per_idea", "max_asks", "judge_rank"):
            _at_least(name, getattr(self, name), 1)
        _at_least("max_attempts", self.max_attempts, 1)
        for name in ("near_duplicate", "max_cost"):
            _at_least(name, getattr(self, name), 0)
        _at_least("min_score", self.min_score, -1)


def _at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:  # nor is NaN
        raise InputError(f"{name} is {value}; it must be at least {least}.")


@dataclass(frozen=True)
class RawSettings:
    """The settings as a file or flags have them: same names, endpoints and lists unread."""

    kind: str = ""
    endpoints: Sequence[str | Mapping[str, Any]] = ()
    count: int | None = None
    languages: Sequence[str] = ("English",)
    about: str = ""
    ideas_per_request: int = 20
    records_per_idea: int = 10
    max_asks: int = 3
    max_attempts: float = 3.0
    near_duplicate: float = 0.8
    judge: str | None = None
    judge_rank: int = 3
    min_score: float = -1.0
    max_cost: float | None = None
    prompts: str | Path | None = None
    seed: int = 0
