"""GGUF files that polyvec writes: read back with the gguf package, and by polyvec itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Kind
from gguf.gguf_reader import GGUFReader
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from polyvec.engine.embedder import Embedder
from polyvec.errors import ModelFileError, OutputError, SpecError
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.tokens import Tokenizer as Ours
from polyvec.publish.gguf import write_gguf
from polyvec.publish.mixture import FILE_TYPES, tensor_type
from tests.tiny import (
    BOS,
    EOS,
    WORDS,
    byte_bpe,
    edit_json,
    llama3_scaling,
    shape,
    weights,
    write_model,
    write_transformer,
)
from tests.tiny_gguf import interleave, rope_factors, sentencepiece_metadata
from tests.tiny_gguf import write_gguf as by_hand

PROMPTS = {"query": "Instruct: Find it\nQuery: ", "document": "doc: "}
TEXTS = list(WORDS)


def _written(folder: Path, path: Path, kind: str = "F32", **stated: Any) -> ModelFiles:
    write_gguf(open_model(folder, stated), path, kind)
    return open_model(path)


def _same_vectors(a: ModelFiles, b: ModelFiles) -> bool:
    ours, theirs = (Embedder(files, "fp32") for files in (a, b))
    same_queries = np.allclose(ours.encode_query(TEXTS), theirs.encode_query(TEXTS), atol=1e-5)
    documents = (ours.encode_document(TEXTS), theirs.encode_document(TEXTS))
    return same_queries and bool(np.allclose(*documents, atol=1e-5))


def _metadata(path: Path) -> dict[str, Any]:
    reader = GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


# --- Metadata, read back with the gguf package ------------------------------------------------


def test_keys_say_what_llama_cpp_would_get_wrong(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", pooling="mean", tokenizer=byte_bpe(bos=True))
    write_gguf(open_model(folder), tmp_path / "m.gguf", "F16")
    keys = _metadata(tmp_path / "m.gguf")
    assert keys["general.architecture"] == "llama-embed"
    assert keys["llama-embed.pooling_type"] == 1
    assert keys["llama-embed.attention.causal"] is False
    assert keys["tokenizer.ggml.add_bos_token"] is True
    assert keys["tokenizer.ggml.add_eos_token"] is False
    assert keys["tokenizer.ggml.bos_token_id"] == 1
    assert keys["tokenizer.ggml.pre"] == "gpt-2"
    assert keys["general.file_type"] == 1
    assert len(keys["tokenizer.ggml.tokens"]) == keys["llama-embed.vocab_size"]


@pytest.mark.parametrize(("pooling", "number"), [("mean", 1), ("cls", 2), ("lasttoken", 3)])
@pytest.mark.parametrize(
    ("model_type", "causal", "arch"),
    [
        ("llama", False, "llama-embed"),
        ("llama", True, "llama"),
        ("mistral", True, "llama"),
        ("qwen2", False, "qwen2"),
        ("qwen3", True, "qwen3"),
    ],
)
def test_every_kind_survives(
    tmp_path: Path, model_type: str, causal: bool, arch: str, pooling: str, number: int
) -> None:
    config = shape(model_type, is_causal=causal)
    folder = write_model(
        tmp_path / "m", config, pooling, PROMPTS, tokenizer=byte_bpe(eos=True), normalize=False
    )
    result = _written(folder, tmp_path / "m.gguf")
    keys = _metadata(tmp_path / "m.gguf")
    assert keys["general.architecture"] == arch
    assert (keys[f"{arch}.pooling_type"], keys[f"{arch}.attention.causal"]) == (number, causal)
    source = open_model(folder)
    assert result.spec == source.spec
    assert _same_vectors(source, result)


def test_spec_survives_whole(tmp_path: Path) -> None:
    config = shape(is_causal=False, matryoshka_dimensions=[12, 24])
    folder = write_model(tmp_path / "m", config, prompts=PROMPTS, normalize=False)
    result = _written(folder, tmp_path / "m.gguf", max_tokens=77)
    source = open_model(folder, {"max_tokens": 77})
    assert result.spec == source.spec
    assert result.spec.matryoshka_dimensions == (12, 24)
    assert result.spec.document_prefix == "doc: "
    assert result.spec.default_instruction == "Find it"


def test_a_key_of_ours_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "m.gguf", tokenizer=None)
    write_gguf(open_model(path), tmp_path / "n.gguf", "F32")
    raw = (tmp_path / "n.gguf").read_bytes()
    key = b"polyvec.normalize"
    place = raw.index(key) + len(key)
    (tmp_path / "n.gguf").write_bytes(raw[:place] + b"\0\0\0\0\1" + raw[place + 5 :])
    with pytest.raises(ModelFileError, match=r"polyvec\.normalize is 1; a bool is needed"):
        open_model(tmp_path / "n.gguf")


def test_sliding_window_becomes_the_limit(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", shape("mistral", sliding_window=32))
    result = _written(folder, tmp_path / "m.gguf")
    assert result.spec.max_tokens == result.architecture.max_positions == 32


@pytest.mark.parametrize("scaling", [llama3_scaling(), {"rope_type": "linear", "factor": 2.0}])
def test_rope_scaling_survives(tmp_path: Path, scaling: dict[str, Any]) -> None:
    config = shape(is_causal=False, rope_scaling=scaling)
    folder = write_model(tmp_path / "m", config)
    assert _same_vectors(open_model(folder), _written(folder, tmp_path / "m.gguf"))


def test_rope_factors_are_llama_cpps_and_survive_again(tmp_path: Path) -> None:
    config = shape(is_causal=False, rope_scaling=llama3_scaling())
    folder = write_model(tmp_path / "m", config)
    first = _written(folder, tmp_path / "m.gguf")
    factors = first.weights.tensor("rope_freqs.weight").numpy()
    assert np.allclose(factors, rope_factors(config), rtol=1e-6)
    write_gguf(first, tmp_path / "again.gguf", "F32")
    assert _same_vectors(first, open_model(tmp_path / "again.gguf"))


# --- Tensors ----------------------------------------------------------------------------------


def test_rows_are_in_llama_cpps_order(tmp_path: Path) -> None:
    config = shape(is_causal=False, attention_bias=True)
    tensors = weights(config)
    folder = write_model(tmp_path / "m", config, tensors=tensors)
    write_gguf(open_model(folder), tmp_path / "m.gguf", "F32")
    read = {t.name: t.data for t in GGUFReader(tmp_path / "m.gguf").tensors}
    for ours, theirs, heads in (("q_proj", "attn_q", 6), ("k_proj", "attn_k", 2)):
        for part in ("weight", "bias"):
            expected = interleave(tensors[f"layers.1.self_attn.{ours}.{part}"].numpy(), heads)
            assert np.array_equal(read[f"blk.1.{theirs}.{part}"], expected)
    assert np.array_equal(read["blk.1.attn_v.weight"], tensors["layers.1.self_attn.v_proj.weight"])


def test_output_head_is_left_out(tmp_path: Path) -> None:
    config = shape(is_causal=False)
    tensors = {f"model.{name}": tensor for name, tensor in weights(config).items()}
    tensors["lm_head.weight"] = torch.ones(4, 48)
    folder = write_model(tmp_path / "m", config, tensors=tensors)
    result = _written(folder, tmp_path / "m.gguf")
    assert not {"lm_head.weight"} & set(result.weights.names)
    assert _same_vectors(open_model(folder), result)


def test_a_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    config = shape(is_causal=False)
    tensors = weights(config) | {"layers.0.self_attn.sinks.weight": torch.ones(6)}
    folder = write_model(tmp_path / "m", config, tensors=tensors)
    with pytest.raises(SpecError, match=r"layers\.0\.self_attn\.sinks\.weight has no name in GGUF"):
        write_gguf(open_model(folder), tmp_path / "m.gguf", "F32")


ERRORS = {"F32": 0, "F16": 3e-4, "BF16": 3e-3, "Q8_0": 0.01, "Q6_K": 0.02, "Q5_K_M": 0.04}


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_every_tensor_is_near_its_source_in_every_type(tmp_path: Path, kind: str) -> None:
    config = shape(is_causal=False, hidden_size=256, intermediate_size=320, num_attention_heads=8)
    folder = write_model(tmp_path / "m", config)
    counts = write_gguf(open_model(folder), tmp_path / "m.gguf", kind)
    types = [tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "m.gguf").tensors]
    assert {name: types.count(name) for name in set(types)} == counts
    assert FILE_TYPES[kind].main.name in types
    source, result = open_model(folder).weights, open_model(tmp_path / "m.gguf").weights
    for name in source.names:
        expected = source.tensor(name)
        error = (result.tensor(name) - expected).norm() / expected.norm()
        assert error <= ERRORS.get(kind, 0.1), name


def test_nan_is_refused_by_the_tensors_name(tmp_path: Path) -> None:
    config = shape(is_causal=False)
    tensors = weights(config)
    tensors["layers.2.mlp.up_proj.weight"][3, 3] = float("nan")
    folder = write_model(tmp_path / "m", config, tensors=tensors)
    with pytest.raises(ModelFileError, match=r"tensor layers\.2\.mlp\.up_proj\.weight: .* NaN"):
        write_gguf(open_model(folder), tmp_path / "m.gguf", "Q8_0")


def test_what_does_not_fit_is_refused_by_the_tensors_name(tmp_path: Path) -> None:
    config = shape(is_causal=False)
    tensors = weights(config)
    tensors["layers.2.mlp.up_proj.weight"][3, 3] = 1e6
    folder = write_model(tmp_path / "m", config, tensors=tensors)
    with pytest.raises(OutputError, match=r"tensor layers\.2\.mlp\.up_proj\.weight: .*1,000,000"):
        write_gguf(open_model(folder), tmp_path / "m.gguf", "F16")


# --- The mixture ------------------------------------------------------------------------------


def test_more_bits_go_where_llama_cpp_puts_them() -> None:
    """The layers ``llama-quantize`` gave Q6_K in a 16-layer Llama 3.2 1B at Q4_K_M."""
    kinds = [
        tensor_type(f"blk.{layer}.attn_v.weight", (512, 2048), FILE_TYPES["Q4_K_M"], 16)
        for layer in range(16)
    ]
    six = [layer for layer, kind in enumerate(kinds) if kind == Kind.Q6_K]
    assert six == [0, 1, 4, 7, 10, 13, 14, 15]


@pytest.mark.parametrize(
    ("rows", "file_type", "expected"),
    [(1024, "Q4_K_M", Kind.Q5_K), (8192, "Q4_K_M", Kind.Q4_K), (1024, "Q5_K_M", Kind.Q5_K)],
)
def test_a_70b_has_better_values(rows: int, file_type: str, expected: Kind) -> None:
    """``LLM_TYPE_70B`` in llama.cpp: 80 layers whose values several heads share."""
    name, columns = "blk.10.attn_v.weight", 8192
    assert tensor_type(name, (rows, columns), FILE_TYPES[file_type], 80) == expected
    assert tensor_type("blk.10.attn_k.weight", (rows, columns), FILE_TYPES["Q4_K_M"], 80) == (
        Kind.Q4_K
    )


@pytest.mark.parametrize(
    ("name", "columns", "file_type", "expected"),
    [
        ("blk.0.attn_q.weight", 576, "Q4_K_M", Kind.Q5_0),
        ("blk.0.attn_q.weight", 576, "Q5_K_M", Kind.Q5_1),
        ("blk.0.attn_q.weight", 576, "Q6_K", Kind.Q8_0),
        ("blk.0.attn_v.weight", 576, "Q4_K_M", Kind.Q8_0),
        ("token_embd.weight", 576, "Q4_0", Kind.Q8_0),
        ("token_embd.weight", 2048, "Q4_0", Kind.Q6_K),
        ("token_embd.weight", 2048, "Q8_0", Kind.Q8_0),
        ("blk.0.attn_q.weight", 48, "Q8_0", Kind.F16),
        ("blk.0.attn_q.weight", 48, "F32", Kind.F32),
    ],
)
def test_types_fall_back_as_llama_cpps(
    name: str, columns: int, file_type: str, expected: Kind
) -> None:
    assert tensor_type(name, (8, columns), FILE_TYPES[file_type], 8) == expected


def test_vectors_stay_float32() -> None:
    assert tensor_type("blk.0.attn_norm.weight", (576,), FILE_TYPES["Q4_0"], 8) == Kind.F32


# --- Tokenizers -------------------------------------------------------------------------------


def test_table_rows_without_a_token_get_an_unused_one(tmp_path: Path) -> None:
    config = shape(is_causal=False, vocab_size=shape()["vocab_size"] + 5)
    folder = write_model(tmp_path / "m", config)
    result = _written(folder, tmp_path / "m.gguf")
    assert _metadata(tmp_path / "m.gguf")["tokenizer.ggml.token_type"][-5:] == [5] * 5
    assert _same_vectors(open_model(folder), result)


def test_added_tokens_keep_their_kind(tmp_path: Path) -> None:
    backend = byte_bpe()
    backend.add_tokens(["fox"])
    folder = write_model(
        tmp_path / "m",
        shape(is_causal=False, vocab_size=backend.get_vocab_size()),
        tokenizer=backend,
    )
    result = _written(folder, tmp_path / "m.gguf")
    kinds = _metadata(tmp_path / "m.gguf")["tokenizer.ggml.token_type"]
    assert (kinds[0], kinds[1], kinds[-1]) == (3, 3, 4)
    assert _same_vectors(open_model(folder), result)


def test_sentencepiece_survives(tmp_path: Path) -> None:
    tokenizer = sentencepiece_metadata(add_bos_token=True, add_eos_token=True)
    config = shape(is_causal=False, vocab_size=len(tokenizer["tokenizer.ggml.tokens"]))
    source = open_model(by_hand(tmp_path / "s.gguf", config, weights(config), tokenizer=tokenizer))
    write_gguf(source, tmp_path / "m.gguf", "F32")
    result = open_model(tmp_path / "m.gguf")
    keys = _metadata(tmp_path / "m.gguf")
    assert keys["tokenizer.ggml.model"] == "llama"
    assert keys["tokenizer.ggml.add_space_prefix"] is True
    assert keys["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    assert _same_vectors(source, result)


def _with(backend: Tokenizer, tmp_path: Path) -> ModelFiles:
    folder = write_model(tmp_path / "m", shape(is_causal=False), tokenizer=backend)
    return open_model(folder)


def _refused(backend: Tokenizer, tmp_path: Path, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        write_gguf(_with(backend, tmp_path), tmp_path / "m.gguf", "F32")


def test_unknown_splitting_rules_are_refused(tmp_path: Path) -> None:
    backend = byte_bpe()
    split = pre_tokenizers.Split(Regex(r"\p{L}{1,5}"), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    _refused(
        backend, tmp_path, r"no name polyvec knows \(gpt-2, smollm, llama-bpe, smaug-bpe, qwen2\)"
    )


def test_an_unknown_normalizer_is_refused(tmp_path: Path) -> None:
    backend = byte_bpe()
    backend.normalizer = normalizers.Lowercase()
    _refused(backend, tmp_path, "Lowercase")


def test_ignored_merges_are_refused_where_llama_cpp_follows_them(tmp_path: Path) -> None:
    backend = byte_bpe()
    backend.model.ignore_merges = True
    _refused(backend, tmp_path, "ignores merges")


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    _refused(backend, tmp_path, "of kind WordLevel; polyvec writes BPE")


def test_two_tokens_for_bos_are_refused(tmp_path: Path) -> None:
    files = _with(byte_bpe(), tmp_path)
    files = replace(files, tokenizer=Ours(files.tokenizer.backend, [1, 2]))
    with pytest.raises(SpecError, match="adds 2 tokens for BOS; a GGUF can say one"):
        write_gguf(files, tmp_path / "m.gguf", "F32")


def test_bos_and_eos_that_are_named_and_not_added_stay_so(tmp_path: Path) -> None:
    folder = write_transformer(
        tmp_path / "m", shape(), tokenizer_config={"bos_token": BOS, "eos_token": EOS}
    )
    result = _written(folder, tmp_path / "m.gguf", pooling="last")
    keys = _metadata(tmp_path / "m.gguf")
    assert (keys["tokenizer.ggml.bos_token_id"], keys["tokenizer.ggml.eos_token_id"]) == (1, 2)
    assert (result.spec.add_bos, result.spec.add_eos) == (False, False)


def test_the_official_folder_survives(tmp_path: Path) -> None:
    """nvidia's ``llama_bidirec`` with llama3's scaling, BOS and no EOS."""
    config = shape("llama_bidirec", pooling="avg", rope_scaling=llama3_scaling())
    folder = write_transformer(
        tmp_path / "m", config, byte_bpe(bos=True), tokenizer_config={"bos_token": BOS}
    )
    edit_json(folder / "tokenizer_config.json", add_bos_token=True, add_eos_token=False)
    result = _written(folder, tmp_path / "m.gguf")
    assert result.spec == open_model(folder).spec
    assert _same_vectors(open_model(folder), result)
