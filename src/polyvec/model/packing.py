"""Packed batches: texts' tokens one after another, never padded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

_LEAST_STEP, _STEP_BITS = 16, 6


class Run(NamedTuple):
    """Neighbouring texts of equal length: one dense ``[count, length]`` view, no padding."""

    start: int
    """The first token's place in the packed batch."""
    num_texts: int
    length: int

    @property
    def end(self) -> int:
        """The place after the last token."""
        return self.start + self.num_texts * self.length


def round_tokens(tokens: int) -> int:
    """Return the next size of a batch that is used again and again: 16 by 16, then by 32nds.

    oneDNN makes code for every number of rows it meets and keeps the last 1,024 pieces of it, so
    a batch of any size costs milliseconds and, over time, gigabytes (dev/LOG.md).
    """
    step = _step(tokens)
    return -(-tokens // step) * step


def _step(tokens: int) -> int:
    return max(_LEAST_STEP, 1 << max(0, tokens.bit_length() - _STEP_BITS))


def round_sizes(tokens: Sequence[int]) -> list[int]:
    """Return the sizes of a call's batches, of so many tokens each.

    Batches are filled one after another, so one a call is what was left over, of any size: in a
    long run all sizes come up, and keep 6 MB of code each. It is rounded up further, to one of a
    few sizes, as long as that adds a 64th at most to the call and none is above its largest.
    """
    sizes = [round_tokens(count) for count in tokens]
    largest, spare = max(sizes, default=0), sum(tokens) // 64
    for index in sorted(range(len(sizes)), key=sizes.__getitem__):
        if sizes[index] > largest * 15 // 16:
            break
        sizes[index] = _round_within(tokens[index], min(largest, tokens[index] + spare))
        spare -= sizes[index] - tokens[index]
    return sizes


def _round_within(tokens: int, most: int) -> int:
    """Round up to the largest power of two's multiple that is at most ``most``, if any is."""
    size = round_tokens(tokens)
    step = _step(tokens)
    while tokens and (coarser := -(-tokens // (2 * step)) * 2 * step) <= most:
        size, step = coarser, 2 * step
    return size


@dataclass(frozen=True)
class Packed:
    """The tokens of several texts in one row.

    ``token_ids_T`` is int64 of shape ``[total tokens]``; ``lengths`` are tokens per text, in the
    same order; a text may have none. Rows after the last text's are idle: they are no text's, and
    computed only so that a batch has a usual size.
    """

    token_ids_T: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(
        cls,
        token_ids: Sequence[Sequence[int]],
        device: torch.device | None = None,
        size: int = 0,
    ) -> "Packed":
        """Pack token ids, one sequence a text; idle rows fill up to ``size`` (round_sizes)."""
        flat = [token for ids in token_ids for token in ids]
        flat += [0] * (size - len(flat))
        tokens = torch.tensor(flat, dtype=torch.int64, device=device)
        return cls(tokens, tuple(len(ids) for ids in token_ids))

    @cached_property
    def num_tokens(self) -> int:
        """The texts' own tokens."""
        return sum(self.lengths)

    @property
    def num_idle(self) -> int:
        """Rows that are no text's."""
        return len(self.token_ids_T) - self.num_tokens

    def by_run(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split rows into those of each run; idle ones are left out.

        Split, not sliced: a slice's gradient is as large as the whole batch.
        """
        sizes = [run.end - run.start for run in self.runs]
        return x.split([*sizes, self.num_idle])[: len(sizes)]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Texts of equal length side by side, as dense blocks, in the batch's order.

        A batch sorted by length has few runs, and attention over a run is one call.
        """
        runs, start = [], 0
        for length, group in groupby(self.lengths):
            runs.append(Run(start, len(list(group)), length))
            start = runs[-1].end
        return tuple(runs)

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """Cumulative lengths, int32 ``[texts + 1]``: text i is tokens ``[cu[i], cu[i+1])``."""
        sizes = torch.tensor((0, *self.lengths), dtype=torch.int64)
        return sizes.cumsum(0).to(torch.int32).to(self.token_ids_T.device)

    @cached_property
    def positions_T(self) -> Tensor:
        """Each token's place in its own text, int64 ``[total tokens]``; 0 of idle ones."""
        spans = [torch.arange(run.length).repeat(run.num_texts) for run in self.runs]
        idle = torch.zeros(self.num_idle, dtype=torch.int64)
        return torch.cat((*spans, idle)).to(self.token_ids_T.device)
