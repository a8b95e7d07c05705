"""How a request wants its texts read: role, instruction, and what to do with long ones.

The role comes from the dialect's own field, else the ``X-Polyvec-Role`` header, else the model's
suffix (``default:query``), else it is ``document``, which is what a server without roles does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args
from urllib.parse import unquote

from polyvec.serve.batcher import Lane
from polyvec.serve.failures import ServeError
from polyvec.spec import Role

LongInput = Literal["end", "start", "error", "average"]
"""Cut the end, cut the start, refuse, or embed in pieces and average."""

ROLE_HEADER = "X-Polyvec-Role"
INSTRUCTION_HEADER = "X-Polyvec-Instruction"
LONG_INPUT_HEADER = "X-Polyvec-Long-Input"
PRIORITY_HEADER = "X-Polyvec-Priority"
MODEL_HEADER = "X-Polyvec-Model"
HEADERS = {
    ROLE_HEADER: "query or document",
    INSTRUCTION_HEADER: "The task of the queries in a sentence (percent-encoded UTF-8)",
    LONG_INPUT_HEADER: "What happens to a text over the limit: end, start, error or average",
    PRIORITY_HEADER: "bulk: never overtake other requests",
    MODEL_HEADER: "The model, where the dialect has no field for it (TEI)",
}
"""Request headers that every dialect takes, and what they say."""


@dataclass(frozen=True)
class Reading:
    """How texts are read."""

    role: Role = "document"
    instruction: str | None = None
    long_input: LongInput = "end"
    lane: Lane | None = None
    """None: short requests are urgent."""


def read_headers(
    headers: Mapping[str, str],
    *,
    stated: Role | None,
    suffix: Role | None,
    long_input: LongInput,
) -> Reading:
    """Return how a request's texts are read.

    Args:
        headers: Of the request; names in any case.
        stated: The role by the dialect's own field.
        suffix: The role by the model's suffix.
        long_input: What the dialect says about long texts; the header wins.

    Raises:
        ServeError: A header has a value it cannot have, or two places state different roles.
    """
    header = _choice(headers, ROLE_HEADER, get_args(Role))
    roles = {role for role in (stated, header, suffix) if role is not None}
    if len(roles) > 1:
        raise ServeError(
            "invalid",
            f"Two roles were asked for: the request's field says {stated}, {ROLE_HEADER} "
            f"{header}, the model's suffix {suffix}. Leave all but one out.",
        )
    long_header = _choice(headers, LONG_INPUT_HEADER, get_args(LongInput))
    return Reading(
        role=cast(Role, roles.pop() if roles else "document"),
        instruction=_instruction(headers),
        long_input=cast(LongInput, long_header or long_input),
        lane=cast(Lane | None, _choice(headers, PRIORITY_HEADER, ("bulk",))),
    )


def _choice(headers: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    value = headers.get(name)
    if value is None or value in allowed:
        return value
    raise ServeError(
        "invalid",
        f"The header {name} is {value!r}; allowed: {', '.join(allowed)}, or leave it out.",
    )


def _instruction(headers: Mapping[str, str]) -> str | None:
    value = headers.get(INSTRUCTION_HEADER)
    return None if value is None else unquote(value)
