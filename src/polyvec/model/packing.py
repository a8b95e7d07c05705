"""Packed batches: texts' tokens one after another, never padded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor


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


@dataclass(frozen=True)
class Packed:
    """The tokens of several texts in one row.

    ``token_ids_T`` is int64 of shape ``[total tokens]``; ``lengths`` are tokens per text, in the
    same order; a text may have none.
    """

    token_ids_T: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, token_ids: Sequence[Sequence[int]], device: torch.device | None = None) -> "Packed":
        """Pack token ids, one sequence a text."""
        flat = [token for ids in token_ids for token in ids]
        tokens = torch.tensor(flat, dtype=torch.int64, device=device)
        return cls(tokens, tuple(len(ids) for ids in token_ids))

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
        """Each token's place in its own text, int64 ``[total tokens]``."""
        spans = [torch.arange(run.length).repeat(run.num_texts) for run in self.runs]
        positions = torch.cat(spans) if spans else torch.zeros(0, dtype=torch.int64)
        return positions.to(self.token_ids_T.device)
