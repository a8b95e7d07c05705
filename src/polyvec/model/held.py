"""Weights whose matrices stay in memory as their file has them, blocks and all."""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from polyvec.kernels.blocks import Raw, Stored
from polyvec.model.weights import Weights, has_blocks, stored


class HeldWeights:
    """Weights that read each matrix's bytes once, the first time they are asked for."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._held: dict[str, Stored] = {}

    @property
    def files(self) -> list[Path]:
        """The files the tensors are in."""
        return self._weights.files

    @property
    def names(self) -> Collection[str]:
        """All tensors' names."""
        return self._weights.names

    @property
    def has_blocks(self) -> bool:
        """Whether matrices are stored in quantized blocks."""
        return has_blocks(self._weights)

    def tensor(self, name: str) -> Tensor:
        """Read a tensor; see :class:`polyvec.model.weights.Weights`."""
        return self._weights.tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._weights.shape(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read some rows."""
        return self._weights.rows(name, start, stop)

    def stored_as(self, _name: str) -> torch.dtype | None:
        """Return None: nothing is to be read into the caller's memory."""
        return None

    def stored(self, name: str, start: int, stop: int, into: Raw | None = None) -> Stored:
        """Return some rows as they are, of the memory held; ``into`` is not needed."""
        del into
        if name not in self._held:
            self._held[name] = stored(self._weights, name, 0, self._weights.shape(name)[0])
        whole = self._held[name]
        if whole.order is not None:
            return whole._replace(rows=stop - start, order=whole.order[start:stop])
        row_bytes = len(whole.raw) // whole.rows
        return whole._replace(
            raw=whole.raw[start * row_bytes : stop * row_bytes], rows=stop - start
        )
