"""Weights resident, packed or streamed give the same vectors; memory is planned or refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyvec.engine import cpu
from polyvec.engine.budget import memory_in_use, needs
from polyvec.engine.embedder import Embedder, load
from polyvec.engine.holding import Holding
from polyvec.engine.plan import WeightsWanted
from polyvec.errors import DeviceError, InputError, ModelFileError
from polyvec.kernels.library import library
from polyvec.model.files import open_model
from polyvec.publish.export import export
from tests.tiny import Json, shape, weights, write_model
from tests.tiny_bert import bert_shape, write_bert_model
from tests.tiny_gguf import write_gguf

TEXTS = ["a short text", "another one, somewhat longer than that", "Habari ya asubuhi", "x", "a b"]
PRECISIONS = ["fp32", "bf16", *(["int8"] if cpu.has_int8() else [])]
needs_int8 = pytest.mark.skipif(not cpu.has_int8(), reason="this processor has no VNNI or AMX")
needs_kernels = pytest.mark.skipif(library() is None, reason="no kernel was compiled here")


def _wide(model_type: str = "llama", **more: object) -> Json:
    return shape(
        model_type, hidden_size=96, intermediate_size=160, num_attention_heads=3, head_dim=32,
        num_key_value_heads=1, num_hidden_layers=3, **more,
    )  # fmt: skip


def _vectors(path: Path, precision: str, weights: WeightsWanted, **more: Any) -> np.ndarray:
    embedder = load(str(path), precision=precision, weights=weights, pooling="mean", **more)
    return embedder.encode_document(TEXTS)


def _quantized(tmp_path: Path, kind: str, config: Json) -> Path:
    source = open_model(write_model(tmp_path / "source", config), {"pooling": "mean"})
    export(source, tmp_path / "m.gguf", "gguf", kind)
    return tmp_path / "m.gguf"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_streamed_vectors_are_the_same(tmp_path: Path, precision: str, model_type: str) -> None:
    folder = write_model(tmp_path / "m", _wide(model_type))
    resident = _vectors(folder, precision, "resident")
    streamed = _vectors(folder, precision, "streamed", max_batch_tokens=8)
    assert np.abs(resident - streamed).max() < (1e-6 if precision == "fp32" else 2e-3)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_bert_streams_too(tmp_path: Path, precision: str) -> None:
    folder = write_bert_model(tmp_path / "m", bert_shape())
    resident = _vectors(folder, precision, "resident")
    assert np.abs(resident - _vectors(folder, precision, "streamed")).max() < 2e-3


@pytest.mark.parametrize("weights", ["packed", "streamed"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "F16"])
def test_a_gguf_keeps_its_blocks(
    tmp_path: Path, precision: str, kind: str, weights: WeightsWanted
) -> None:
    path = _quantized(tmp_path, kind, _wide())
    if kind == "F16" and weights == "packed":
        with pytest.raises(InputError, match="has none"):
            _vectors(path, precision, weights)
        return
    resident = _vectors(path, precision, "resident")
    held = _vectors(path, precision, weights)
    assert np.abs(resident - held).max() < (1e-6 if precision == "fp32" else 2e-3)


@needs_int8
def test_packed_precision_of_a_gguf_is_its_int8(tmp_path: Path) -> None:
    path = _quantized(tmp_path, "Q4_0", _wide())
    assert np.abs(_vectors(path, "packed", "auto") - _vectors(path, "int8", "auto")).max() < 1e-6


@needs_int8
@needs_kernels
def test_packed_precision_of_a_folder_is_four_bits(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", _wide())
    exact, packed = _vectors(folder, "fp32", "auto"), _vectors(folder, "packed", "auto")
    cosines = (exact * packed).sum(1)
    assert 0.85 < cosines.min() < 0.9999


@needs_int8
def test_four_bits_need_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "m", _wide())
    monkeypatch.setenv("POLYVEC_KERNELS", "off")
    library.cache_clear()
    try:
        with pytest.raises(DeviceError, match="needs polyvec's compiled kernels"):
            _vectors(folder, "packed", "auto")
    finally:
        monkeypatch.undo()
        library.cache_clear()


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", _wide())
    with pytest.raises(InputError, match="weights is 'nowhere'"):
        load(str(folder), weights="nowhere", pooling="mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="to round its weights to 4 bits"):
        load(str(folder), precision="fp32", weights="packed", pooling="mean")
    if cpu.has_int8():
        with pytest.raises(InputError, match="precision 'packed' keeps them packed"):
            load(str(folder), precision="packed", weights="streamed", pooling="mean")


def test_two_passes_at_once_wait_for_each_other(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    folder = write_model(tmp_path / "m", _wide())
    embedder = load(str(folder), precision="fp32", weights="streamed", pooling="mean")
    expected = embedder.encode_document(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: embedder.encode_document(TEXTS), range(12)))
    assert all(np.array_equal(expected, result) for result in results)


def test_a_pass_that_was_left_does_not_spoil_the_next(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", _wide())
    embedder = load(str(folder), precision="fp32", weights="streamed", pooling="mean")
    expected = embedder.encode_document(TEXTS)
    layers = embedder.runner.network.source.layers()
    next(layers)
    del layers
    assert np.array_equal(embedder.encode_document(TEXTS), expected)


@pytest.mark.parametrize("change", ["touched", "replaced", "removed", "truncated"])
def test_a_file_that_changes_while_streaming_ends_the_run(tmp_path: Path, change: str) -> None:
    folder = write_model(tmp_path / "m", _wide())
    embedder = load(str(folder), precision="fp32", weights="streamed", pooling="mean")
    embedder.encode_document(TEXTS)
    file = folder / "model.safetensors"
    data = file.read_bytes()
    if change == "touched":
        file.write_bytes(data[:-4] + b"\0\0\0\0")
    elif change == "truncated":
        file.write_bytes(data[: len(data) // 2])
    else:
        file.unlink()
    if change == "replaced":
        file.write_bytes(data)
    expected = "is gone|cannot be read any more" if change == "removed" else "was changed|truncated"
    with pytest.raises(ModelFileError, match=expected):
        embedder.encode_document(TEXTS)


@pytest.mark.parametrize("precision", [*PRECISIONS, "packed"])
def test_numbers_that_are_none_are_named_while_streaming(tmp_path: Path, precision: str) -> None:
    if precision == "packed" and not (cpu.has_int8() and library() is not None):
        pytest.skip("no 4 bits here")
    config = _wide()
    tensors = weights(config)
    name = next(name for name in tensors if name.endswith("layers.1.mlp.up_proj.weight"))
    tensors[name][3, 5] = float("nan")
    folder = write_model(tmp_path / "m", config, tensors=tensors)
    place: WeightsWanted = "auto" if precision == "packed" else "streamed"
    with pytest.raises(ModelFileError, match=r"layers\.1\.mlp\.up_proj\.weight has values"):
        _vectors(folder, precision, place)


def test_too_little_memory_says_what_is_needed(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", _wide())
    with pytest.raises(InputError, match=r"0\.01 GB of memory is too little .* at least \d"):
        load(str(folder), pooling="mean", memory_bytes=10**7)


def test_memory_decides_where_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyvec.engine.budget.memory_in_use", lambda: 0)
    config = _wide() | {"intermediate_size": 160 * 400, "num_hidden_layers": 8}
    folder = write_model(tmp_path / "m", config)
    files = open_model(folder, {"pooling": "mean"})
    dtype = torch.float32
    cores = torch.get_num_threads()
    resident = needs(files, Holding("resident"), "fp32", dtype).least(cores)
    streamed = needs(files, Holding("streamed"), "fp32", dtype).least(cores)
    assert streamed < resident
    ample = Embedder(files, "fp32", memory_bytes=2 * resident)
    tight = Embedder(files, "fp32", memory_bytes=(resident + streamed) // 2)
    assert ample.plan.holding.place == "resident"
    assert tight.plan.holding.place == "streamed"
    assert np.abs(ample.encode_document(TEXTS) - tight.encode_document(TEXTS)).max() < 1e-5


_PROMISE = """
import re, sys
import polyvec
model = polyvec.load(sys.argv[1], precision=sys.argv[2], pooling="mean", weights="streamed",
                     memory_bytes=int(sys.argv[3]))
model.encode_document(["some words to read again and again " * 40] * 200, show_progress=False)
status = open("/proc/self/status").read()
peak_kb = re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]  # getrusage has the parent's, too
print(int(peak_kb) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read peaks from")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_promise_of_memory_is_kept(tmp_path: Path, precision: str) -> None:
    """Peaks of a process of its own; batches take what is left over, so the limit is near."""
    config = _wide() | {
        "hidden_size": 512, "intermediate_size": 8192, "num_hidden_layers": 8, "head_dim": 64,
        "num_attention_heads": 8, "num_key_value_heads": 8,
    }  # fmt: skip
    tensors = {name: tensor.half() for name, tensor in weights(config).items()}
    folder = write_model(tmp_path / "m", config, tensors=tensors)
    del tensors
    allowed = 750 * 10**6
    command = [sys.executable, "-c", _PROMISE, str(folder), precision, str(allowed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert memory_in_use() > 0
    assert int(done.stdout) < allowed


def test_a_gguf_streams_its_token_table(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    resident = load(str(path), precision="fp32", pooling="mean", attention="bidirectional")
    streamed = load(
        str(path), precision="fp32", pooling="mean", attention="bidirectional", weights="streamed"
    )
    difference = resident.encode_document(TEXTS) - streamed.encode_document(TEXTS)
    assert np.abs(difference).max() < 1e-6
