"""A GGUF file against the same weights in a safetensors folder, and what its keys mean."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyvec.engine.embedder import Embedder
from polyvec.engine.runner import Runner
from polyvec.errors import ModelFileError, PolyvecError, SpecError
from polyvec.model.files import open_model
from polyvec.spec import LlamaArchitecture, Rope
from tests.tiny import Json, byte_bpe, llama3_scaling, shape, weights, write_model
from tests.tiny_gguf import (
    bpe_metadata,
    gguf_metadata,
    rope_factors,
    write_gguf,
    write_raw_gguf,
)

TEXTS = [
    "the quick brown fox",
    "búsqueda 2024",
    "敏捷的棕色狐狸跳过懒狗 over the lazy dog " * 3,
    "a",
]


def _vectors(path: Path, **stated: Any) -> np.ndarray:
    return Embedder(open_model(path, stated), precision="fp32").encode_document(TEXTS)


def _folder(folder: Path, config: Json) -> Path:
    return write_model(folder, {**config, "is_causal": False})


# arch, config, what the GGUF says besides
MODELS: dict[str, tuple[str, Json, Json]] = {
    "llama": ("llama", shape("llama"), {}),
    "llama, own head size": ("llama", shape("llama", head_dim=14), {}),
    "llama-embed": ("llama-embed", shape("llama"), {}),
    "llama, linear rope": (
        "llama",
        shape("llama", rope_scaling={"rope_type": "linear", "factor": 4.0}),
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "qwen2": ("qwen2", shape("qwen2"), {}),
    "qwen3": ("qwen3", shape("qwen3"), {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_gguf_gives_the_vectors_of_the_folder(name: str, tmp_path: Path) -> None:
    arch, config, keys = MODELS[name]
    metadata = gguf_metadata(config, arch, keys)
    path = write_gguf(tmp_path / "m.gguf", config, arch=arch, metadata=metadata)
    folder = _folder(tmp_path / "folder", config)
    np.testing.assert_allclose(_vectors(path), _vectors(folder), rtol=0, atol=1e-6)


def test_rope_factors_give_the_vectors_of_llama3_scaling(tmp_path: Path) -> None:
    config = shape("llama", rope_scaling=llama3_scaling())
    path = write_gguf(
        tmp_path / "m.gguf", config, extra={"rope_freqs.weight": rope_factors(config)}
    )
    folder = _folder(tmp_path / "folder", config)
    np.testing.assert_allclose(_vectors(path), _vectors(folder), rtol=0, atol=1e-6)


def test_rope_factors_matter(tmp_path: Path) -> None:
    config = shape("llama", rope_scaling=llama3_scaling())
    factors = {"rope_freqs.weight": rope_factors(config)}
    scaled = write_gguf(tmp_path / "a.gguf", config, extra=factors)
    plain = write_gguf(tmp_path / "b.gguf", config)
    assert np.abs(_vectors(scaled) - _vectors(plain)).max() > 0.01


def test_rope_factors_of_another_length_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", extra={"rope_freqs.weight": np.ones(3, np.float32)})
    with pytest.raises(ModelFileError, match=r"rope_freqs.weight is \[3\] .* asks for \[4\]"):
        _vectors(path)


def test_causal_and_bidirectional_are_read(tmp_path: Path) -> None:
    config = shape()
    for causal, attention in ((True, "causal"), (False, "bidirectional")):
        metadata = gguf_metadata(config, changes={"attention.causal": causal})
        path = write_gguf(tmp_path / "m.gguf", config, metadata=metadata)
        assert open_model(path).spec.attention == attention


@pytest.mark.parametrize(("number", "pooling"), [(1, "mean"), (2, "cls"), (3, "last")])
def test_pooling_is_llama_cpps_number(number: int, pooling: str, tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={"pooling_type": number})
    assert open_model(write_gguf(tmp_path / "m.gguf", metadata=metadata)).spec.pooling == pooling


@pytest.mark.parametrize("number", [None, 0, 4], ids=["missing", "none", "rank"])
def test_no_pooling_asks_for_the_flag(number: int | None, tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={"pooling_type": number})
    path = write_gguf(tmp_path / "m.gguf", metadata=metadata)
    with pytest.raises(SpecError, match=r"does not state its pooling, .*--pooling mean\|last\|cls"):
        open_model(path)


def test_a_stated_pooling_is_taken(tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={"pooling_type": None})
    path = write_gguf(tmp_path / "m.gguf", metadata=metadata)
    assert open_model(path, {"pooling": "last"}).spec.pooling == "last"


def test_a_language_model_states_neither_pooling_nor_attention(tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={"pooling_type": None, "attention.causal": None})
    path = write_gguf(tmp_path / "m.gguf", metadata=metadata)
    with pytest.raises(SpecError, match=r"attention and pooling.*--attention .* and --pooling"):
        open_model(path)


def test_a_llama_embed_without_the_causal_key_asks_for_the_flag(tmp_path: Path) -> None:
    """llama.cpp's own converter leaves the key out although the model is bidirectional."""
    metadata = gguf_metadata(shape(), "llama-embed", {"attention.causal": None})
    path = write_gguf(tmp_path / "m.gguf", arch="llama-embed", metadata=metadata)
    expected = (
        r"does not state its attention, .*--attention bidirectional\|causal .*attention=\.\.\."
    )
    with pytest.raises(SpecError, match=expected):
        open_model(path)


def test_a_pooled_llama_without_the_causal_key_is_causal(tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={"attention.causal": None})
    path = write_gguf(tmp_path / "m.gguf", metadata=metadata)
    assert open_model(path).spec.attention == "causal"


def test_an_unknown_architecture_names_the_known_ones(tmp_path: Path) -> None:
    path = write_raw_gguf(tmp_path / "m.gguf", "gemma", {}, {"t": np.zeros(4, np.float32)})
    with pytest.raises(
        SpecError, match=r"architecture 'gemma'; polyvec runs llama, llama-embed, q"
    ):
        open_model(path)


@pytest.mark.parametrize("kind", ["yarn", "longrope"])
def test_other_rope_scaling_is_refused(kind: str, tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={"rope.scaling.type": kind})
    path = write_gguf(tmp_path / "m.gguf", metadata=metadata)
    with pytest.raises(SpecError, match=rf"RoPE scaling '{kind}'; polyvec runs none and linear"):
        open_model(path)


def test_the_shape_is_read_from_the_keys(tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={"attention.sliding_window": 9})
    read = open_model(write_gguf(tmp_path / "m.gguf", metadata=metadata)).architecture
    assert isinstance(read, LlamaArchitecture)
    assert (read.num_heads, read.num_kv_heads, read.head_dim, read.max_positions) == (6, 2, 8, 128)
    assert (read.sliding_window, read.rope) == (9, Rope(10000.0))


@pytest.mark.parametrize("key", ["embedding_length", "block_count", "context_length"])
def test_a_missing_size_names_its_key(key: str, tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={key: None})
    path = write_gguf(tmp_path / "m.gguf", metadata=metadata)
    with pytest.raises(ModelFileError, match=rf"key llama\.{key} is None; a whole number"):
        open_model(path)


def test_heads_per_layer_are_refused(tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), changes={"attention.head_count_kv": [2, 2, 1]})
    path = write_gguf(tmp_path / "m.gguf", metadata=metadata)
    with pytest.raises(ModelFileError, match=r"head_count_kv is \[2, 2, 1\]; a whole number"):
        open_model(path)


def test_a_file_without_a_token_table_is_refused(tmp_path: Path) -> None:
    tensors = {k: v for k, v in weights(shape()).items() if k != "embed_tokens.weight"}
    path = write_gguf(tmp_path / "m.gguf", tensors=tensors)
    with pytest.raises(ModelFileError, match=r"no token table \(tensor token_embd.weight\)"):
        open_model(path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = weights(shape())
    del tensors["layers.1.mlp.up_proj.weight"]
    path = write_gguf(tmp_path / "m.gguf", tensors=tensors)
    with pytest.raises(ModelFileError, match=r"no tensor layers\.1\.mlp\.up_proj\.weight"):
        _vectors(path)


def test_rows_that_are_no_heads_are_refused(tmp_path: Path) -> None:
    odd = {"blk.0.attn_q.weight": np.zeros((50, 48), np.float32)}
    path = write_gguf(tmp_path / "m.gguf", extra=odd)
    weights = open_model(path).weights
    with pytest.raises(ModelFileError, match=r"q_proj.weight has 50 rows, which are not 6 heads"):
        weights.tensor("layers.0.self_attn.q_proj.weight")


@pytest.mark.parametrize("key", gguf_metadata(shape()))
@pytest.mark.parametrize("junk", [0, 1, 2**31, "no", 0.5, [1, 2]], ids=str)
def test_a_junk_value_gives_a_model_or_an_error_of_ours(
    key: str, junk: object, tmp_path: Path
) -> None:
    metadata = {**gguf_metadata(shape()), key: junk}
    path = write_gguf(tmp_path / "m.gguf", metadata=metadata)
    with contextlib.suppress(PolyvecError):
        Runner(open_model(path), torch.float32, torch.device("cpu"))


def test_the_file_says_nothing_of_prompts(tmp_path: Path) -> None:
    spec = open_model(write_gguf(tmp_path / "m.gguf")).spec
    assert (spec.query_prefix, spec.document_prefix, spec.default_instruction) == ("", "", "")


def test_bos_is_added_as_the_file_says(tmp_path: Path) -> None:
    tokenizer = bpe_metadata(byte_bpe()) | {"tokenizer.ggml.add_bos_token": True}
    spec = open_model(write_gguf(tmp_path / "m.gguf", tokenizer=tokenizer)).spec
    assert (spec.add_bos, spec.add_eos) == (True, False)
