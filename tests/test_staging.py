"""What a GPU needs of the engine, shown without one: order of streams, attention's arguments."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from polyvec.engine.embedder import Embedder
from polyvec.engine.layers import StagedLayers
from polyvec.engine.matrices import Arena, Matrices
from polyvec.engine.readers import LlamaReader
from polyvec.engine.staging import CudaStage
from polyvec.errors import InputError
from polyvec.model import parts
from polyvec.model.files import open_model
from polyvec.model.packing import Packed
from polyvec.spec import LlamaArchitecture
from tests.tiny import shape, write_model

CPU = torch.device("cpu")


class _Cuda:
    """The calls of torch.cuda that a stage makes, written down."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events = 0

    def Stream(self, _device: torch.device) -> "_Stream":
        return _Stream(self, "copy")

    def current_stream(self, _device: torch.device) -> "_Stream":
        return _Stream(self, "compute")

    @contextmanager
    def stream(self, stream: "_Stream") -> Iterator[None]:
        self.log.append(f"on {stream.name}")
        yield
        self.log.append(f"off {stream.name}")


class _Stream:
    def __init__(self, cuda: _Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def record_event(self) -> "_Event":
        self.cuda.events += 1
        self.cuda.log.append(f"{self.name} event {self.cuda.events}")
        return _Event(self.cuda, self.cuda.events)

    def wait_event(self, event: "_Event") -> None:
        self.cuda.log.append(f"{self.name} waits for {event.number}")


class _Event:
    def __init__(self, cuda: _Cuda, number: int) -> None:
        self.cuda, self.number = cuda, number

    def synchronize(self) -> None:
        self.cuda.log.append(f"synchronized {self.number}")


class _Reader(LlamaReader):
    def __init__(self, log: list[str], *given: Any) -> None:
        super().__init__(*given)
        self.log = log

    def read(self, number: int, arena: Arena) -> Any:
        self.log.append(f"copy layer {number}")
        return super().read(number, arena)


class _Unpinned(CudaStage):
    is_pinned = False  # there is no device here that could copy from pinned memory


def test_a_copy_waits_for_the_layer_whose_memory_it_takes(tmp_path: Path) -> None:
    files = open_model(write_model(tmp_path, shape(num_hidden_layers=3)))
    assert isinstance(files.architecture, LlamaArchitecture)
    cuda = _Cuda()
    reader = _Reader(cuda.log, Matrices(files), files.architecture, torch.float32, CPU, False)
    source = StagedLayers(reader, stage=_Unpinned(CPU, cuda))
    for number, _ in enumerate(source.layers()):
        source._ahead.submit(lambda: None).result()  # the next layer is made by now
        cuda.log.append(f"compute layer {number}")
    order = cuda.log.index
    # The copy of layer 2 may get layer 0's memory: it waits for an event after layer 0's products.
    made = [entry for entry in cuda.log if entry.startswith("compute event")]
    assert order("compute layer 0") < order(made[1]) < order("copy layer 2")
    waits = f"copy waits for {made[1].split()[-1]}"
    assert order(made[1]) < order(waits) < order("copy layer 2")
    # The host's memory is written again two layers on: the copies are waited for before.
    assert cuda.log.count("on copy") == cuda.log.count("off copy") == 3
    assert sum(entry.startswith("synchronized") for entry in cuda.log) == 3


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int,
    *, window_size: tuple[int, int], enable_gqa: bool,
) -> Tensor:  # fmt: skip
    """Return what torch documents varlen_attn to return, text by text."""
    assert torch.equal(cu_q, cu_k)
    assert max_q == max_k == int((cu_q[1:] - cu_q[:-1]).max())
    outputs = []
    for start, end in zip(cu_q[:-1].tolist(), cu_q[1:].tolist(), strict=True):
        query, key, value = (x[start:end].transpose(0, 1) for x in (q, k, v))
        place = torch.arange(end - start)
        distance = place[:, None] - place[None, :]
        left, right = window_size
        seen = torch.ones_like(distance, dtype=torch.bool)
        if left >= 0:
            seen &= distance <= left
        if right >= 0:
            seen &= -distance <= right
        attended = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, enable_gqa=enable_gqa
        )
        outputs.append(attended.transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_attention_of_a_gpu_is_asked_for_the_same(
    causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Packed.of([[1] * 7, [2] * 7, [3] * 2, [4]])
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(17, heads, 16, generator=random) for heads in (6, 2, 2))
    expected = parts.attend(q, k, v, packed, causal, window)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", _varlen)
    monkeypatch.setattr(parts, "_takes_varlen", lambda _: True)
    assert torch.allclose(parts.attend(q, k, v, packed, causal, window), expected, atol=1e-6)


def test_memory_is_not_planned_on_other_devices(tmp_path: Path) -> None:
    files = open_model(write_model(tmp_path), {"pooling": "mean"})
    with pytest.raises(InputError, match="the device is meta"):
        Embedder(files, "fp32", device="meta", memory_bytes=10**10)


def test_streaming_is_unchanged_by_the_stage(tmp_path: Path) -> None:
    files = open_model(write_model(tmp_path), {"pooling": "mean"})
    texts = ["some words", "other words than those"]
    resident = Embedder(files, "fp32").encode_document(texts)
    streamed = Embedder(files, "fp32", weights="streamed").encode_document(texts)
    assert np.abs(resident - streamed).max() < 1e-6
