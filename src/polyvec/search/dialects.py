"""How chat endpoints differ that all speak OpenAI's API: limits, thoughts, parts, refusals."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

_OPEN, _CLOSE = "<think>", "</think>"


def respelled(body: dict[str, Any], said: str) -> dict[str, Any] | None:
    """Return a request as an endpoint wants it that refused it for a field, None where none helps.

    OpenAI's reasoning models take ``max_completion_tokens`` and no temperature; older servers know
    only ``max_tokens``.

    Args:
        body: What was refused.
        said: Why, in the endpoint's words.
    """
    if "max_tokens" in body and "max_completion_tokens" in said:
        rest = {key: value for key, value in body.items() if key != "max_tokens"}
        return rest | {"max_completion_tokens": body["max_tokens"]}
    if "temperature" in body and re.search(r"\btemperature\b", said):
        return {key: value for key, value in body.items() if key != "temperature"}
    return None


def content_text(content: object) -> str:
    """Return an answer's words, which some endpoints give as a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(str(part.get("text", "")) for part in parts)


def without_thoughts(words: Iterable[str]) -> Iterator[str]:
    """Pass an answer's words on, but not the thoughts that some models begin with.

    Most servers keep them apart; where they do not, they stand between ``<think>`` and
    ``</think>``, before the answer.
    """
    held, is_thinking, is_answer = "", False, False
    for part in words:
        if is_answer:
            yield part
            continue
        held += part
        begun = held.lstrip()
        if begun.startswith(_OPEN):
            is_thinking = True
            _, end, rest = begun.partition(_CLOSE)
            is_answer = bool(end) and bool(rest.strip())  # blank lines after thoughts are not said
            if is_answer:
                yield rest.lstrip()
        elif not _OPEN.startswith(begun):
            is_answer = True
            yield held
    if held and not is_answer and not is_thinking:
        yield held
