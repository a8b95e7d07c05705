"""A model saved as a standard folder: the same vectors here and in the reference libraries."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyvec.engine.embedder import Embedder
from polyvec.errors import DiskFullError, ModelFileError, OutputError, SpecError
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.packing import Packed
from polyvec.model.save import save_folder
from tests.peers import Reference, sentence_transformer
from tests.tiny import (
    WORDS,
    Json,
    byte_bpe,
    byte_bpe_like,
    llama3_scaling,
    shape,
    weights,
    write_model,
)
from tests.tiny_gguf import (
    bpe_metadata,
    gguf_metadata,
    rope_factors,
    sentencepiece_metadata,
    sentencepiece_pieces,
    write_gguf,
)

TEXTS = [*WORDS, "a", " ".join(WORDS)]

LLAMA_3 = shape(rope_theta=500_000.0, rope_scaling=llama3_scaling(8192, 32.0), head_dim=16)
MODELS: dict[str, Json] = {
    "llama": shape(is_causal=False),
    "causal": shape(is_causal=True),
    "every bias": shape(is_causal=False, attention_bias=True, mlp_bias=True),
    "llama3 rope": shape(is_causal=False, rope_scaling=llama3_scaling()),
    "linear rope": shape(is_causal=False, rope_scaling={"rope_type": "linear", "factor": 4.0}),
    "own head size": shape(is_causal=False, head_dim=14),
    "bidirec": shape("llama_bidirec"),
    "mistral": shape("mistral", is_causal=False, sliding_window=7),
    "qwen2": shape("qwen2", is_causal=False),
    "qwen2, window": shape(
        "qwen2",
        is_causal=False,
        use_sliding_window=True,
        sliding_window=7,
        max_window_layers=0,
    ),
    "qwen3": shape("qwen3", is_causal=False),
}
PROMPTS = {"query": "Instruct: Find it\nQuery: ", "document": "passage: "}


def _vectors(files: ModelFiles, role: Any = "query") -> np.ndarray:
    return Embedder(files, precision="fp32").embed(TEXTS, role).vectors


def _written(folder: Path, config: Json, **options: Any) -> ModelFiles:
    # transformers gives every Qwen Qwen2's splitting rules, whatever its tokenizer.json says
    rules = "qwen2" if config["model_type"].startswith("qwen") else "llama-bpe"
    tokenizer = options.pop("tokenizer", byte_bpe_like(rules))
    return open_model(write_model(folder, config, prompts=PROMPTS, tokenizer=tokenizer, **options))


def _saved(files: ModelFiles, folder: Path) -> ModelFiles:
    save_folder(files, folder)
    return open_model(folder)


# --- The same vectors -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_folder_gives_the_same_vectors(name: str, tmp_path: Path) -> None:
    files = _written(tmp_path / "model", MODELS[name])
    saved = _saved(files, tmp_path / "saved")
    np.testing.assert_allclose(_vectors(saved), _vectors(files), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_folder_says_the_same_facts(name: str, tmp_path: Path) -> None:
    files = _written(tmp_path / "model", MODELS[name])
    assert _saved(files, tmp_path / "saved").spec == files.spec


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("name", MODELS)
def test_sentence_transformers_agrees_on_a_saved_folder(
    name: str, role: str, tmp_path: Path
) -> None:
    files = _written(tmp_path / "model", MODELS[name])
    save_folder(files, tmp_path / "saved")
    peer = sentence_transformer(tmp_path / "saved")
    encode = peer.encode_query if role == "query" else peer.encode_document
    assert (_vectors(files, role) * encode(TEXTS)).sum(1).min() > 0.99999


@pytest.mark.parametrize("name", MODELS)
def test_transformers_agrees_on_a_saved_folder(name: str, tmp_path: Path) -> None:
    files = _written(tmp_path / "model", MODELS[name])
    save_folder(files, tmp_path / "saved")
    ids = list(range(3, 40))
    embedder = Embedder(files, precision="fp32")
    (states,) = embedder.runner.run([Packed.of([ids])])
    assert float((states - Reference(tmp_path / "saved").states(ids)).abs().max()) < 1e-4


@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "cls"])
@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, True), (True, True)])
def test_bos_eos_and_pooling_are_kept(pooling: str, bos: bool, eos: bool, tmp_path: Path) -> None:
    files = _written(
        tmp_path / "model", MODELS["llama"], pooling=pooling, tokenizer=byte_bpe(bos, eos)
    )
    saved = _saved(files, tmp_path / "saved")
    assert saved.tokenizer.bos_ids == files.tokenizer.bos_ids == [1] * bos
    assert saved.tokenizer.eos_ids == files.tokenizer.eos_ids == [2] * eos
    theirs = sentence_transformer(tmp_path / "saved").encode_query(TEXTS)
    assert (_vectors(files) * theirs).sum(1).min() > 0.99999


def test_stated_facts_are_saved(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    stated = {"attention": "causal", "pooling": "last", "max_tokens": 30, "query_prefix": "q: "}
    files = open_model(folder, stated)
    assert _saved(files, tmp_path / "saved").spec == files.spec


def test_sentence_transformers_cuts_where_we_do(tmp_path: Path) -> None:
    files = open_model(write_model(tmp_path / "model"), {"max_tokens": 30})
    save_folder(files, tmp_path / "saved")
    peer = sentence_transformer(tmp_path / "saved")
    assert peer.max_seq_length == 30
    assert (_vectors(files) * peer.encode_query(TEXTS)).sum(1).min() > 0.99999


def test_vectors_that_are_not_normalized_stay_so(tmp_path: Path) -> None:
    files = _written(tmp_path / "model", MODELS["llama"], normalize=False)
    saved = _saved(files, tmp_path / "saved")
    np.testing.assert_allclose(_vectors(saved), _vectors(files), rtol=0, atol=1e-5)
    assert not saved.spec.normalize


def test_shorter_dimensions_are_kept(tmp_path: Path) -> None:
    config = shape(is_causal=False, matryoshka_dimensions=[8, 16])
    saved = _saved(_written(tmp_path / "model", config), tmp_path / "saved")
    assert saved.spec.matryoshka_dimensions == (8, 16)


# --- From a GGUF ------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", ["smollm", "llama-bpe", "gpt-2", "qwen2"])
def test_a_gguf_saved_as_a_folder_gives_the_same_vectors(pre: str, tmp_path: Path) -> None:
    tokenizer = bpe_metadata(byte_bpe(), pre) | {"tokenizer.ggml.add_bos_token": True}
    files = open_model(write_gguf(tmp_path / "m.gguf", tokenizer=tokenizer))
    saved = _saved(files, tmp_path / "saved")
    np.testing.assert_allclose(_vectors(saved), _vectors(files), rtol=0, atol=1e-6)
    theirs = sentence_transformer(tmp_path / "saved").encode_query(TEXTS)
    assert (_vectors(files) * theirs).sum(1).min() > 0.99999


def test_a_sentencepiece_gguf_saved_as_a_folder_gives_the_same_vectors(tmp_path: Path) -> None:
    config = shape(vocab_size=len(sentencepiece_pieces()))
    path = write_gguf(tmp_path / "m.gguf", config, tokenizer=sentencepiece_metadata())
    files = open_model(path)
    saved = _saved(files, tmp_path / "saved")
    np.testing.assert_allclose(_vectors(saved), _vectors(files), rtol=0, atol=1e-6)
    theirs = sentence_transformer(tmp_path / "saved").encode_query(TEXTS)
    assert (_vectors(files) * theirs).sum(1).min() > 0.99999


def test_rope_factors_of_a_gguf_become_llama3_scaling(tmp_path: Path) -> None:
    factors = {"rope_freqs.weight": rope_factors(LLAMA_3)}
    files = open_model(write_gguf(tmp_path / "m.gguf", LLAMA_3, extra=factors))
    saved = _saved(files, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["rope_scaling"] == llama3_scaling(8192, 32.0)
    np.testing.assert_allclose(_vectors(saved), _vectors(files), rtol=0, atol=1e-6)


def test_rope_factors_without_words_are_refused(tmp_path: Path) -> None:
    config = shape(rope_scaling=llama3_scaling(16, 7.0))
    factors = {"rope_freqs.weight": rope_factors(config) + np.float32(0.3)}
    files = open_model(write_gguf(tmp_path / "m.gguf", config, extra=factors))
    with pytest.raises(SpecError, match=r"rope_freqs.weight\) that config.json has no words for"):
        save_folder(files, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_llama_embed_is_saved_as_a_llama(tmp_path: Path) -> None:
    metadata = gguf_metadata(shape(), "llama-embed")
    path = write_gguf(tmp_path / "m.gguf", arch="llama-embed", metadata=metadata)
    save_folder(open_model(path), tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config["model_type"], config["is_causal"]) == ("llama", False)


# --- Files ------------------------------------------------------------------------------------


def test_a_large_model_is_saved_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyvec.model.save._MAX_SHARD_BYTES", 40_000)
    files = _written(tmp_path / "model", MODELS["llama"])
    saved = _saved(files, tmp_path / "saved")
    names = sorted(path.name for path in (tmp_path / "saved").glob("*.safetensors"))
    assert len(names) > 2
    assert names[0] == f"model-00001-of-{len(names):05}.safetensors"
    np.testing.assert_allclose(_vectors(saved), _vectors(files), rtol=0, atol=1e-6)
    theirs = sentence_transformer(tmp_path / "saved").encode_query(TEXTS)
    assert (_vectors(files) * theirs).sum(1).min() > 0.99999


def test_a_small_model_is_one_file(tmp_path: Path) -> None:
    save_folder(_written(tmp_path / "model", MODELS["llama"]), tmp_path / "saved")
    assert [p.name for p in (tmp_path / "saved").glob("*.safetensors*")] == ["model.safetensors"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_weights_are_saved_in_the_asked_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    save_folder(_written(tmp_path / "model", MODELS["llama"]), tmp_path / "saved", dtype)
    saved = open_model(tmp_path / "saved").weights
    for name, tensor in weights(MODELS["llama"]).items():
        assert saved.tensor(name).dtype == dtype
        assert torch.equal(saved.tensor(name), tensor.to(dtype)), name


def test_an_output_head_is_left_out(tmp_path: Path) -> None:
    tensors = weights(shape()) | {"lm_head.weight": torch.ones(384, 48)}
    save_folder(_written(tmp_path / "model", MODELS["llama"], tensors=tensors), tmp_path / "saved")
    assert "lm_head.weight" not in open_model(tmp_path / "saved").weights.names


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_existing_path_is_refused(kind: str, tmp_path: Path) -> None:
    files = _written(tmp_path / "model", MODELS["llama"])
    target = tmp_path / "saved"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
    with pytest.raises(OutputError, match=r"saved exists already; give another path or remove"):
        save_folder(files, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "saved"]


@pytest.mark.parametrize("place", ["_with_post_processor", "_save_weights", "_standard_files"])
def test_a_failure_leaves_nothing_half_written(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    files = _written(tmp_path / "model", MODELS["llama"])
    monkeypatch.setattr(f"polyvec.model.save.{place}", fail)
    with pytest.raises(DiskFullError, match=r"disk of .*saved\. Nothing of it was kept"):
        save_folder(files, tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_another_error_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    files = _written(tmp_path / "model", MODELS["llama"])
    monkeypatch.setattr("polyvec.model.save._save_weights", fail)
    with pytest.raises(OSError, match=r"Input/output error"):
        save_folder(files, tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    files = _written(tmp_path / "model", MODELS["llama"])
    left = tmp_path / ".saved.partial"
    left.mkdir()
    (left / "old.safetensors").write_bytes(b"half")
    save_folder(files, tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "saved"]
    assert not (tmp_path / "saved" / "old.safetensors").exists()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(number: float, tmp_path: Path) -> None:
    tensors = weights(shape())
    tensors["layers.1.mlp.up_proj.weight"][3, 4] = number
    files = _written(tmp_path / "model", MODELS["llama"], tensors=tensors)
    with pytest.raises(ModelFileError, match=r"layers.1.mlp.up_proj.weight holds NaN or infinity"):
        save_folder(files, tmp_path / "saved")


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    tensors = weights(shape())
    tensors["norm.weight"][0] = 1e6
    files = _written(tmp_path / "model", MODELS["llama"], tensors=tensors)
    with pytest.raises(OutputError, match=r"norm.weight has weights beyond F16's range.*as BF16"):
        save_folder(files, tmp_path / "saved", torch.float16)
