"""Which texts go into which batch."""

from collections.abc import Iterator, Sequence


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
