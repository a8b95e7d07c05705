"""JSON out of what a language model says, checked against a schema."""

import json
import re
from typing import Any

from polyvec.errors import MissingExtraError, PolyvecError

Schema = dict[str, Any]

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


class AnswerError(PolyvecError):
    """An answer that is not what was asked for; the model may be asked again."""


def read_answer(text: str, schema: Schema) -> dict[str, Any]:
    """Return the first JSON object of an answer that fits a schema.

    Thoughts are passed over; the object may stand in a fence or among words.

    Raises:
        AnswerError: There is none; the message says what was wrong with the likeliest.
    """
    spoken = _THOUGHT.sub("", text)
    problem = "no JSON object in it"
    for candidate in [*_FENCE.findall(spoken), spoken]:
        for value in _objects(candidate):
            found = _problem(value, schema)
            if found is None:
                return value
            problem = found
    raise AnswerError(f"{problem}: {' '.join(text.split())[:200]!r}")


def _objects(text: str) -> list[dict[str, Any]]:
    """Return every outermost JSON object of a text."""
    decoder, found, place = json.JSONDecoder(strict=False), [], text.find("{")
    while place >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError:
            place += 1
        else:
            found.append(value)
        place = text.find("{", place)
    return found


def _problem(value: dict[str, Any], schema: Schema) -> str | None:
    error = next(jsonschema_module().Draft202012Validator(schema).iter_errors(value), None)
    if error is None:
        return _blank(value)
    place = ".".join(map(str, error.absolute_path)) or "the answer"
    return f"{place}: {error.message[:200]}"


def _blank(value: object) -> str | None:
    """Say if a text has no letter: small models copy a prompt's ``...`` as if it were one."""
    if isinstance(value, str):
        return None if any(map(str.isalnum, value)) else f"a text has no letter, {value[:20]!r}"
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := _blank(part))), None)


def jsonschema_module() -> Any:  # noqa: ANN401 (untyped and optional)
    """Return ``jsonschema``.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import jsonschema
    except ImportError as error:
        raise MissingExtraError(
            "Generating needs jsonschema, which is not installed: pip install 'polyvec[generate]'."
        ) from error
    return jsonschema


def text_schema(**limits: int) -> Schema:
    """Return the schema of a text."""
    return {"type": "string", "minLength": 1, **limits}


def list_schema(least: int, most: int | None = None) -> Schema:
    """Return the schema of a list of texts."""
    schema: Schema = {"type": "array", "items": text_schema(), "minItems": least}
    return schema if most is None else schema | {"maxItems": most}


def object_schema(**properties: Schema) -> Schema:
    """Return the schema of an object with these fields and no others, all needed."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
