"""What has to be waited for while a layer is made ready beside the one that computes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch


class Stage(Protocol):
    """The order between the thread that makes layers and the device that computes with them."""

    @property
    def is_pinned(self) -> bool:
        """Whether layers are made in memory that a device copies from by itself."""
        ...

    def mark(self) -> object:
        """Return a mark of all that was asked of the device so far."""
        ...

    def making(self, after: object) -> AbstractContextManager[None]:
        """Make a layer inside this: it begins after a mark, and ends with the layer in place."""
        ...


class CpuStage:
    """Nothing to wait for: a layer is computed with when the call returns."""

    is_pinned = False

    def mark(self) -> object:
        """Return no mark."""
        return None

    def making(self, after: object) -> AbstractContextManager[None]:
        """Wait for nothing."""
        del after
        return nullcontext()


class CudaStage:
    """A second stream copies a layer to the device while the first one computes.

    A layer's memory on the device comes from the copying stream's pool and goes back there, so a
    copy must not begin before the layer whose memory it may be given was computed with: that is
    what the mark is of. The making thread waits for its own copies, since the memory they read is
    written again two layers later; nobody else waits for it.
    """

    is_pinned = True

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:  # noqa: ANN401
        """Use ``cuda``, a module like :mod:`torch.cuda`, on ``device``."""
        self._device, self._cuda = device, cuda
        self._copying = cuda.Stream(device)

    def mark(self) -> object:
        """Return an event of the computing stream."""
        return self._cuda.current_stream(self._device).record_event()

    @contextmanager
    def making(self, after: object) -> Iterator[None]:
        """Copy on the second stream, after the mark; leave when the copies are done."""
        with self._cuda.stream(self._copying):
            if after is not None:
                self._copying.wait_event(after)
            yield
        self._copying.record_event().synchronize()


def stage_of(device: torch.device) -> Stage:
    """Return the stage of a device."""
    return CudaStage(device) if device.type == "cuda" else CpuStage()
