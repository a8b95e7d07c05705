"""Where the runner gets a model's layers from."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

import torch

from polyvec.engine.matrices import Arena
from polyvec.engine.readers import LayerReader
from polyvec.engine.staging import Stage, stage_of
from polyvec.engine.workers import start_threads
from polyvec.model.reading import Watched

L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)


class LayerSource(Protocol[L_co]):
    """A model's blocks, first to last. The runner does not know where they come from."""

    @property
    def is_resident(self) -> bool:
        """Whether every layer is at hand, so that nothing is gained by passing through in step."""
        ...

    def layers(self) -> Iterator[L_co]:
        """Give each layer, ready to multiply with until the next one is asked for."""
        ...


class ResidentLayers(Generic[L]):
    """All layers in memory, arranged for this machine once."""

    is_resident = True

    def __init__(self, reader: LayerReader[L]) -> None:
        reader.check()
        count = reader.files.architecture.num_layers
        self._layers = [reader.read(number, Arena()) for number in range(count)]

    def layers(self) -> Iterator[L]:
        """Give each layer."""
        return iter(self._layers)


class StagedLayers(Generic[L]):
    """Layers made ready one ahead, by a thread, in two arenas used in turn.

    While a layer computes, the next is read from its file (streamed) or expanded from blocks in
    memory (packed), and copied to where it computes. One pass at a time: a second waits for the
    first.
    """

    is_resident = False

    def __init__(
        self,
        reader: LayerReader[L],
        watched: Watched | None = None,
        stage: Stage | None = None,
    ) -> None:
        reader.check()
        self._reader, self._watched = reader, watched
        self._stage = stage or stage_of(reader.device)
        self._arenas = Arena(self._stage.is_pinned), Arena(self._stage.is_pinned)
        self._ahead = start_threads(1, "polyvec-layers")
        self._passing = threading.Lock()

    def hold(self) -> None:
        """Read every layer once, for readers that keep what they read."""
        for number in range(self._reader.files.architecture.num_layers):
            self._start(number, None).result()

    def layers(self) -> Iterator[L]:
        """Give each layer; the next one is being made meanwhile."""
        count = self._reader.files.architecture.num_layers
        with self._passing:
            ready = self._start(0, None)
            for number in range(count):
                layer = ready.result()
                if number + 1 < count:
                    # What was asked of the device so far used other layers' memory than the next
                    # one's, except the layer before this one: it must be done first.
                    ready = self._start(number + 1, self._stage.mark())
                yield layer

    def _start(self, number: int, after: object) -> Future[L]:
        return self._ahead.submit(self._read, number, after)

    def _read(self, number: int, after: object) -> L:
        if self._watched is not None:
            self._watched.check()
        with torch.inference_mode(), self._stage.making(after):
            return self._reader.read(number, self._arenas[number % 2])
