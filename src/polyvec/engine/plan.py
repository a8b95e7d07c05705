"""Which texts go into which batch, and where weights may be."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

WeightsPlace: TypeAlias = Literal["resident", "packed", "streamed"]
WeightsWanted: TypeAlias = Literal["auto", "resident", "packed", "streamed"]

WINDOW_TEXTS = 8_192
MIN_CORE_TOKENS = 256
"""With fewer a core, one batch on all cores is as fast as a batch on each."""


def plan_batches(lengths: Sequence[int], max_batch_tokens: int) -> Iterator[list[int]]:
    """Group texts into batches of at most ``max_batch_tokens`` tokens; give their indices.

    Longest first: what needs most memory fails at once if it fails, and the time left is never
    underestimated. Texts of equal length end up side by side, so attention over them is one
    call. A text longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batch: list[int] = []
    tokens = 0
    for index in order:
        if batch and tokens + lengths[index] > max_batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def windows(count: int) -> Iterator[slice]:
    """Cut texts into windows that are tokenized, sorted and embedded one after another.

    So memory does not grow with the number of texts, and a window's tokens are made while the one
    before computes. Within a window of so many texts, nearly all have others of equal length.
    """
    for start in range(0, count, WINDOW_TEXTS):
        yield slice(start, min(start + WINDOW_TEXTS, count))


def even_tokens(total: int, largest: int, most: int, cores: int) -> int:
    """Return a batch's tokens, at most ``most``, that give every core as many batches.

    Seven batches on two cores take as long as eight. ``largest`` is the longest text's tokens,
    which are left as slack: a batch ends before the text that no longer fits.
    """
    count = -(-total // most)
    if count > 1 or total >= cores * MIN_CORE_TOKENS:
        count = -(-count // cores) * cores
    return min(most, -(-total // count) + largest) if count else most


def even_share(total: int, most: int, slack: int) -> int:
    """Return the tokens of super-batches of at most ``most`` that are alike in size."""
    count = -(-total // most)
    return min(most, -(-total // count) + slack) if count else most
