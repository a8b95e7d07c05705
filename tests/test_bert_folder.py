"""Folders of BERT-family encoders: what they say, and sentence-transformers on the same."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyvec.engine.embedder import Embedder
from polyvec.engine.runner import Runner
from polyvec.errors import ModelFileError, PolyvecError, SpecError, TruncationWarning
from polyvec.model.files import open_model
from polyvec.model.save import save_folder
from tests.command import Command
from tests.peers import sentence_transformer
from tests.tiny import Json, edit_json, write_json
from tests.tiny_bert import (
    TEXTS,
    bert_shape,
    bert_weights,
    edit_tokenizer,
    write_bert,
    write_bert_gguf,
    write_bert_model,
)

both_kinds = pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])


def _runner(path: Path, dtype: torch.dtype = torch.float32) -> Runner:
    return Runner(open_model(path, {"pooling": "mean"}), dtype, torch.device("cpu"))


def _embedder(path: Path, **stated: Any) -> Embedder:
    return Embedder(open_model(path, stated), precision="fp32")


def _vectors(path: Path, **stated: Any) -> np.ndarray:
    return _embedder(path, **stated).encode_document(TEXTS)


@both_kinds
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_equal_sentence_transformers(kind: str, pooling: str, tmp_path: Path) -> None:
    folder = write_bert_model(tmp_path / "m", bert_shape(kind), pooling)
    peer, embedder = sentence_transformer(folder), _embedder(folder)
    np.testing.assert_allclose(embedder.encode_document(TEXTS), peer.encode(TEXTS), atol=1e-5)
    for text in TEXTS:
        alone = embedder.encode_document([text])
        np.testing.assert_allclose(alone, peer.encode([text]), atol=1e-5)


@both_kinds
def test_a_long_text_is_cut_as_sentence_transformers_cuts_it(kind: str, tmp_path: Path) -> None:
    folder = write_bert_model(tmp_path / "m", bert_shape(kind))
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})
    text = "the quick brown fox jumps over the lazy dog " * 9
    with pytest.warns(TruncationWarning, match=r"longer than the 20 tokens"):
        ours = _embedder(folder).encode_document([text])
    np.testing.assert_allclose(ours, sentence_transformer(folder).encode([text]), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "module", "tokenizer", "expected"),
    [
        ("bert", None, None, 64),
        ("bert", 30, None, 30),
        ("bert", 30, 20, 20),
        ("bert", 512, 512, 64),
        ("xlm-roberta", None, None, 64),
        ("xlm-roberta", 65, 10**30, 64),
    ],
)
def test_the_longest_text_is_the_least_of_all_limits(
    kind: str, module: int | None, tokenizer: int | None, expected: int, tmp_path: Path
) -> None:
    """XLM-RoBERTa has 66 positions and never uses the first two."""
    folder = write_bert_model(tmp_path / "m", bert_shape(kind))
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": module})
    edit_json(folder / "tokenizer_config.json", model_max_length=tokenizer)
    assert open_model(folder).spec.max_tokens == expected


@both_kinds
def test_more_tokens_than_positions_are_refused(kind: str, tmp_path: Path) -> None:
    folder = write_bert_model(tmp_path / "m", bert_shape(kind))
    with pytest.raises(SpecError, match=r"max_tokens is 65 and .* was made for 64"):
        open_model(folder, {"max_tokens": 65})


@both_kinds
def test_first_and_last_token_come_from_the_post_processor(kind: str, tmp_path: Path) -> None:
    files = open_model(write_bert_model(tmp_path / "m", bert_shape(kind)))
    tokens = [files.tokenizer.decode(i) for i in (files.tokenizer.bos_ids, files.tokenizer.eos_ids)]
    assert tokens == (["[CLS]", "[SEP]"] if kind == "bert" else ["<s>", "</s>"])


@both_kinds
def test_a_tokenizer_that_pads_keeps_its_first_and_last_token(kind: str, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2's tokenizer.json pads every text to 128."""
    folder = write_bert_model(tmp_path / "m", bert_shape(kind))
    plain = _vectors(folder)
    padding = {
        "strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    edit_tokenizer(folder, padding=padding)
    np.testing.assert_array_equal(_vectors(folder), plain)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_an_encoder_is_bidirectional_by_its_nature(kind: str, tmp_path: Path) -> None:
    folder = write_bert_model(tmp_path / "m", bert_shape(kind))
    assert open_model(folder).spec.attention == "bidirectional"
    with pytest.raises(SpecError, match=rf"of type {kind} is bidirectional by its nature\. Leave"):
        open_model(folder, {"attention": "causal"})


def test_an_encoder_does_not_vary_its_attention(tmp_path: Path) -> None:
    runner = _runner(write_bert(tmp_path / "m"))
    assert not runner.can_vary_attention
    with pytest.raises(SpecError, match="bidirectional; it cannot run causal"):
        runner.with_attention("causal")
    assert runner.with_attention("bidirectional").network is runner.network


def test_a_plain_folder_does_not_state_its_pooling(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "m")
    with pytest.raises(SpecError, match=r"does not state its pooling, .*--pooling mean\|last\|cls"):
        open_model(folder)
    assert open_model(folder, {"pooling": "cls"}).spec.pooling == "cls"


@pytest.mark.parametrize("prefix", ["bert.", "roberta.", "model."])
def test_the_whole_models_prefix_is_taken_off(prefix: str, tmp_path: Path) -> None:
    plain = write_bert_model(tmp_path / "a")
    tensors = {f"{prefix}{name}": tensor for name, tensor in bert_weights(bert_shape()).items()}
    tensors["cls.predictions.bias"] = torch.ones(3)
    folder = write_bert_model(tmp_path / "b", tensors=tensors)
    np.testing.assert_array_equal(_vectors(folder), _vectors(plain))


def test_old_names_of_norms_are_read(tmp_path: Path) -> None:
    plain = write_bert_model(tmp_path / "a")
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in bert_weights(bert_shape()).items():
        new = next((k for k in names if name.endswith(k)), "")
        tensors[name.removesuffix(new) + names.get(new, "")] = tensor
    folder = write_bert_model(tmp_path / "b", tensors=tensors)
    np.testing.assert_array_equal(_vectors(folder), _vectors(plain))


def test_tensors_that_change_no_vector_are_let_be(tmp_path: Path) -> None:
    plain = write_bert_model(tmp_path / "a")
    tensors = bert_weights(bert_shape()) | {
        "pooler.dense.weight": torch.ones(48, 48),
        "pooler.dense.bias": torch.ones(48),
        "embeddings.position_ids": torch.arange(64)[None],
    }
    folder = write_bert_model(tmp_path / "b", tensors=tensors)
    np.testing.assert_array_equal(_vectors(folder), _vectors(plain))


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.word_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "embeddings.LayerNorm.bias",
        "encoder.layer.0.attention.self.key.weight",
        "encoder.layer.1.attention.output.LayerNorm.weight",
        "encoder.layer.2.output.dense.weight",
    ],
)
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    tensors = bert_weights(bert_shape())
    del tensors[name]
    expected = rf"has no tensor {name}, which its configuration asks"
    with pytest.raises(ModelFileError, match=expected):
        _runner(write_bert(tmp_path / "m", tensors=tensors))


@pytest.mark.parametrize(
    ("name", "size", "asked"),
    [
        ("embeddings.position_embeddings.weight", (63, 48), r"\[64, 48\]"),
        ("embeddings.word_embeddings.weight", (900, 40), r"\[\d+, 48\]"),
        ("encoder.layer.0.attention.self.query.weight", (48, 40), r"\[48, 48\]"),
        ("encoder.layer.1.intermediate.dense.bias", (48,), r"\[72\]"),
        ("encoder.layer.2.output.LayerNorm.bias", (72,), r"\[48\]"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(
    name: str, size: tuple[int, ...], asked: str, tmp_path: Path
) -> None:
    tensors = bert_weights(bert_shape()) | {name: torch.zeros(size)}
    expected = rf"tensor {name} is \[.*\] and the configuration asks for {asked}"
    with pytest.raises(ModelFileError, match=expected):
        _runner(write_bert(tmp_path / "m", tensors=tensors))


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer.3.output.dense.weight",
        "encoder.layer.0.crossattention.self.query.weight",
        "encoder.layer.0.attention.self.distance_embedding.weight",
        "embeddings.ngram_embeddings.weight",
    ],
)
def test_a_tensor_nobody_asks_for_is_refused(name: str, tmp_path: Path) -> None:
    tensors = bert_weights(bert_shape()) | {name: torch.ones(8)}
    expected = rf"has 1 tensor\(s\) its configuration does not account for: {name}"
    with pytest.raises(ModelFileError, match=expected):
        _runner(write_bert(tmp_path / "m", tensors=tensors))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_act": "gelu_new"}, r"hidden_act 'gelu_new'; .* polyvec runs 'gelu'"),
        ({"position_embedding_type": "relative_key"}, r"'relative_key'; polyvec runs 'absolute'"),
        ({"is_decoder": True}, r"says is_decoder: it is no encoder"),
        ({"num_attention_heads": 5}, r"hidden_size 48 cannot be shared by 5 heads"),
        ({"num_hidden_layers": 0}, r"num_layers is 0; it must be a positive"),
    ],
)
def test_what_is_not_run_is_refused(changes: Json, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=expected):
        open_model(write_bert(tmp_path / "m", bert_shape() | changes))


def test_positions_that_leave_none_are_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "m", bert_shape("xlm-roberta"))
    edit_json(folder / "config.json", max_position_embeddings=2)
    with pytest.raises(SpecError, match=r"2 positions counted from 2 leave none"):
        open_model(folder)


@pytest.mark.parametrize("key", bert_shape("xlm-roberta"))
@pytest.mark.parametrize("junk", [0, -1, 2**31, "no", 0.5, None, [1]], ids=str)
def test_a_junk_value_gives_a_model_or_an_error_of_ours(
    key: str, junk: object, tmp_path: Path
) -> None:
    folder = write_bert(tmp_path / "m", bert_shape("xlm-roberta"))
    edit_json(folder / "config.json", **{key: junk})
    with contextlib.suppress(PolyvecError):
        _runner(folder)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("write", [write_bert_model, write_bert_gguf], ids=["folder", "gguf"])
def test_a_saved_folder_gives_the_same_vectors_here_and_there(
    write: Callable[[Path, Json], Path], kind: str, tmp_path: Path
) -> None:
    source, folder = write(tmp_path / "m.gguf", bert_shape(kind)), tmp_path / "saved"
    save_folder(open_model(source), folder)
    np.testing.assert_array_equal(_vectors(folder), _vectors(source))
    peer = sentence_transformer(folder)
    np.testing.assert_allclose(peer.encode(TEXTS), _vectors(source), atol=1e-5)


def test_info_says_what_an_encoder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_bert_model(tmp_path / "m", bert_shape("xlm-roberta"), "cls")
    result = Command(monkeypatch, capfd)("info", folder)
    words = " ".join(result.out.split())
    for expected in (
        "attention bidirectional: every token sees every token",
        "pooling cls: the first token's state",
        "added tokens first <s>, last </s>",
        "network xlm-roberta, 3 layers, 48 wide",
        "heads 6 of 8 positions learned, 64 of them",
    ):
        assert expected in words, result
    facts = json.loads(Command(monkeypatch, capfd)("info", folder, "--json").out)
    assert facts["architecture"]["position_offset"] == 2
