"""Which texts go into which batch."""

from collections.abc import Iterator, Sequence

WINDOW_TEXTS = 8_192


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
