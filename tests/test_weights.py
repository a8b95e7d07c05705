"""Named tensors from safetensors folders and GGUF files."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from safetensors.torch import save_file
from torch import Tensor

from polyvec.errors import ModelFileError
from polyvec.model.gguf_file import GgufFile
from polyvec.model.weights import GgufWeights, SafetensorsWeights
from tests.tiny import shape, weights, write_json
from tests.tiny_gguf import write_gguf, write_raw_gguf

CONFIG = shape()
HEADS = (CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"])


def _folder(folder: Path, tensors: dict[str, Tensor], file: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / file)
    return folder


def _sharded(folder: Path, parts: list[dict[str, Tensor]]) -> Path:
    places: dict[str, str] = {}
    for number, part in enumerate(parts):
        _folder(folder, part, f"{number}.safetensors")
        places |= dict.fromkeys(part, f"{number}.safetensors")
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    return folder


# --- safetensors ------------------------------------------------------------------------------


def test_a_tensor_is_read_in_the_dtype_it_is_stored_in(tmp_path: Path) -> None:
    stored = {"a": torch.rand(3, dtype=torch.bfloat16), "b": torch.rand(2, 2)}
    read = SafetensorsWeights(_folder(tmp_path, stored))
    assert set(read.names) == {"a", "b"}
    for name, tensor in stored.items():
        assert read.tensor(name).dtype == tensor.dtype
        assert torch.equal(read.tensor(name), tensor)


def test_the_prefix_of_a_language_model_is_taken_off(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path, {"model.norm.weight": torch.ones(2), "lm_head.weight": torch.ones(2)}
    )
    assert set(SafetensorsWeights(folder).names) == {"norm.weight", "lm_head.weight"}


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    a, b = torch.rand(2), torch.rand(3)
    read = SafetensorsWeights(_sharded(tmp_path, [{"model.a": a}, {"model.b": b}]))
    assert [path.name for path in read.files] == ["0.safetensors", "1.safetensors"]
    assert torch.equal(read.tensor("a"), a)
    assert torch.equal(read.tensor("b"), b)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = _sharded(tmp_path, [{"a": torch.ones(1)}, {"b": torch.ones(1)}])
    (folder / "1.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"lacks 1 shard\(s\): 1\.safetensors"):
        SafetensorsWeights(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 7}}'])
def test_a_broken_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"index\.json is not a safetensors index"):
        SafetensorsWeights(tmp_path)


def test_a_folder_of_pickles_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    expected = r"has no weights: .* polyvec reads safetensors and GGUF, never pickles"
    with pytest.raises(ModelFileError, match=expected):
        SafetensorsWeights(tmp_path)


def test_a_missing_tensor_is_named_with_how_many_there_are(tmp_path: Path) -> None:
    read = SafetensorsWeights(_folder(tmp_path, {"a": torch.ones(1)}))
    with pytest.raises(ModelFileError, match=r"no tensor b, .* \(1 tensors are there\)"):
        read.tensor("b")


def test_whole_numbers_are_refused(tmp_path: Path) -> None:
    read = SafetensorsWeights(_folder(tmp_path, {"a": torch.ones(1, dtype=torch.int8)}))
    with pytest.raises(ModelFileError, match=r"tensor a is torch.int8, not a float type"):
        read.tensor("a")


@pytest.mark.parametrize("kept", [0, 5, 20, 200, -1, -100])
def test_truncated_safetensors_say_so(kept: int, tmp_path: Path) -> None:
    folder = _folder(tmp_path, weights(CONFIG))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        ModelFileError, match=r"model.safetensors is truncated or corrupt \(.*Fetch"
    ):
        SafetensorsWeights(folder)


def test_safetensors_with_a_huge_header_say_so(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}" + bytes(100))
    with pytest.raises(ModelFileError, match=r"model.safetensors is truncated or corrupt"):
        SafetensorsWeights(tmp_path)


# --- GGUF -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["llama", "llama-embed", "qwen2"])
def test_gguf_tensors_have_the_names_and_rows_of_transformers(arch: str, tmp_path: Path) -> None:
    """q and k rows of a Llama are interleaved in the file, Qwen's are not."""
    tensors = weights(CONFIG)
    path = write_gguf(tmp_path / "m.gguf", CONFIG, tensors, arch=arch)
    read = GgufWeights(GgufFile(path), *HEADS)
    assert set(read.names) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(read.tensor(name), tensor), name


def test_biases_are_interleaved_like_their_weights(tmp_path: Path) -> None:
    config = shape(attention_bias=True)
    tensors = weights(config)
    read = GgufWeights(GgufFile(write_gguf(tmp_path / "m.gguf", config, tensors)), *HEADS)
    for name in ("q", "k", "v", "o"):
        name = f"layers.2.self_attn.{name}_proj.bias"
        assert torch.equal(read.tensor(name), tensors[name]), name


def test_quantized_tensors_are_read_as_float32(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    blocks = gguf.quantize(rows, GGMLQuantizationType.Q8_0)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen2")
    writer.add_tensor("blk.0.attn_q.weight", blocks, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = GgufWeights(GgufFile(tmp_path / "m.gguf"), 2, 2).tensor(
        "layers.0.self_attn.q_proj.weight"
    )
    expected = gguf.dequantize(blocks, GGMLQuantizationType.Q8_0)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("name", ["blk.0", "blk", "blk.0.weight", "odd", ".", ""])
def test_a_strange_tensor_name_is_kept(name: str, tmp_path: Path) -> None:
    arrays = {name: np.ones(4, np.float32)}
    path = write_raw_gguf(tmp_path / "m.gguf", "llama", {}, arrays)
    assert len(GgufWeights(GgufFile(path), *HEADS).names) == 1


def test_a_missing_gguf_tensor_is_named(tmp_path: Path) -> None:
    path = write_raw_gguf(tmp_path / "m.gguf", "llama", {}, {"a": np.ones(4, np.float32)})
    with pytest.raises(ModelFileError, match=r"m.gguf has no tensor norm.weight"):
        GgufWeights(GgufFile(path), *HEADS).tensor("norm.weight")


def test_the_files_of_a_gguf_are_itself(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    assert GgufWeights(GgufFile(path), *HEADS).files == [path]
