"""Vectors to the bytes of an answer: JSON numbers, base64, whole numbers and bits."""

import asyncio
import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from polyvec.serve.texts import Vectors

_SLICE_NUMBERS = 65_536
"""Written at a stretch, some milliseconds; then other requests have a turn."""


class Raw:
    """JSON that is written already, put into a larger value as it is."""

    def __init__(self, json: bytes) -> None:
        self.json = json


def dumps(value: object) -> bytes:
    """Write JSON; numpy arrays and :class:`Raw` may be in it."""
    options = orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(value, default=_default, option=options)


def _default(value: object) -> Any:  # noqa: ANN401 (what orjson takes)
    if isinstance(value, Raw):
        return orjson.Fragment(value.json)
    raise TypeError(f"{type(value).__name__} is no JSON")


async def rows_json(
    rows: Sequence[npt.NDArray[Any]] | npt.NDArray[Any],
    one: Callable[[int, Any], object] | None = None,
) -> Raw:
    """Write rows as one JSON array, letting other requests have a turn in between.

    Args:
        rows: Vectors, or other arrays.
        one: What to write for a row's index and value; None writes the row itself.
    """
    parts, size = [], 0
    for index, row in enumerate(rows):
        parts.append(dumps(np.ascontiguousarray(row) if one is None else one(index, row)))
        size += row.size
        if size > _SLICE_NUMBERS:
            await asyncio.sleep(0)
            size = 0
    return Raw(b"[" + b",".join(parts) + b"]")


def to_base64(row: npt.NDArray[np.float32]) -> str:
    """Return a vector's float32 numbers, little-endian, as base64, as OpenAI does."""
    return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode()


def to_int8(vectors: Vectors) -> npt.NDArray[np.int8]:
    """Scale each vector so that its largest number is 127, and round.

    The scale is the vector's own, so cosines stay; lengths and dot products do not.
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-12)
    result: npt.NDArray[np.int8] = np.rint(vectors / largest * 127).astype(np.int8)
    return result


def to_uint8(vectors: Vectors) -> npt.NDArray[np.uint8]:
    """Return :func:`to_int8` shifted up by 128."""
    result: npt.NDArray[np.uint8] = (to_int8(vectors).astype(np.int16) + 128).astype(np.uint8)
    return result


def to_ubinary(vectors: Vectors) -> npt.NDArray[np.uint8]:
    """Return one bit a number, set where it is positive, eight to a byte, the first one highest."""
    return np.packbits(vectors > 0, axis=1)


def to_binary(vectors: Vectors) -> npt.NDArray[np.int8]:
    """Return :func:`to_ubinary` shifted down by 128, as Cohere and sentence-transformers do."""
    result: npt.NDArray[np.int8] = (to_ubinary(vectors).astype(np.int16) - 128).astype(np.int8)
    return result
