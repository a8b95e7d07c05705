"""A GGUF file of a BERT-family encoder against its folder, and what its keys mean."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from polyvec.engine.embedder import Embedder
from polyvec.engine.runner import Runner
from polyvec.errors import ModelFileError, PolyvecError, SpecError
from polyvec.model.files import open_model
from polyvec.spec import BertArchitecture
from tests.tiny import Json
from tests.tiny_bert import (
    TEXTS,
    bert_metadata,
    bert_shape,
    bert_weights,
    gguf_arrays,
    unigram_metadata,
    wordpiece,
    wordpiece_metadata,
    write_bert_gguf,
    write_bert_model,
)
from tests.tiny_gguf import write_raw_gguf

both_kinds = pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])


def _runner(path: Path, dtype: torch.dtype = torch.float32) -> Runner:
    return Runner(open_model(path, {"pooling": "mean"}), dtype, torch.device("cpu"))


def _vectors(path: Path) -> np.ndarray:
    return Embedder(open_model(path), precision="fp32").encode_document(TEXTS)


@both_kinds
def test_a_gguf_gives_the_vectors_of_the_folder(kind: str, tmp_path: Path) -> None:
    config = bert_shape(kind)
    path = write_bert_gguf(tmp_path / "m.gguf", config)
    folder = write_bert_model(tmp_path / "m", config)
    np.testing.assert_allclose(_vectors(path), _vectors(folder), rtol=0, atol=1e-6)


def test_one_tensor_of_queries_keys_and_values_is_read(tmp_path: Path) -> None:
    config = bert_shape()
    arrays = gguf_arrays(config, bert_weights(config))
    for number in range(3):
        for part in ("weight", "bias"):
            names = [f"blk.{number}.attn_{letter}.{part}" for letter in "qkv"]
            stacked = np.concatenate([arrays.pop(name) for name in names])
            arrays[f"blk.{number}.attn_qkv.{part}"] = stacked
    keys = {**bert_metadata(config), **wordpiece_metadata()}
    path = write_raw_gguf(tmp_path / "a.gguf", "bert", keys, arrays)
    apart = write_bert_gguf(tmp_path / "b.gguf", config)
    np.testing.assert_array_equal(_vectors(path), _vectors(apart))


def test_an_odd_tensor_of_queries_keys_and_values_is_refused(tmp_path: Path) -> None:
    arrays = gguf_arrays(bert_shape(), bert_weights(bert_shape()))
    arrays["blk.0.attn_qkv.weight"] = np.zeros((100, 48), np.float32)
    keys = {**bert_metadata(bert_shape()), **wordpiece_metadata()}
    path = write_raw_gguf(tmp_path / "m.gguf", "bert", keys, arrays)
    with pytest.raises(ModelFileError, match=r"does not account for: encoder\.layer\.0\.attn_qkv"):
        _runner(path)


def test_a_gguf_is_bidirectional_whether_it_says_so_or_not(tmp_path: Path) -> None:
    silent = bert_metadata(bert_shape(), **{"attention.causal": None})
    path = write_bert_gguf(tmp_path / "a.gguf", metadata=silent)
    assert open_model(path).spec.attention == "bidirectional"
    causal = bert_metadata(bert_shape(), **{"attention.causal": True})
    path = write_bert_gguf(tmp_path / "b.gguf", metadata=causal)
    with pytest.raises(SpecError, match=r"of type bert is bidirectional by its nature"):
        open_model(path)


@pytest.mark.parametrize(("number", "pooling"), [(1, "mean"), (2, "cls"), (3, "last")])
def test_pooling_is_llama_cpps_number(number: int, pooling: str, tmp_path: Path) -> None:
    metadata = bert_metadata(bert_shape(), pooling_type=number)
    path = write_bert_gguf(tmp_path / "m.gguf", metadata=metadata)
    assert open_model(path).spec.pooling == pooling


def test_the_shape_is_read_from_the_keys(tmp_path: Path) -> None:
    config = bert_shape("xlm-roberta")
    shape = open_model(write_bert_gguf(tmp_path / "m.gguf", config)).architecture
    assert isinstance(shape, BertArchitecture)
    assert (shape.num_positions, shape.position_offset, shape.num_token_types) == (64, None, 1)
    assert shape.norm_eps == pytest.approx(1e-5)


@pytest.mark.parametrize("name", ["token_types.weight", "token_embd.weight"])
def test_a_file_without_a_table_is_refused(name: str, tmp_path: Path) -> None:
    arrays = gguf_arrays(bert_shape(), bert_weights(bert_shape()))
    del arrays[name]
    keys = {**bert_metadata(bert_shape()), **wordpiece_metadata()}
    path = write_raw_gguf(tmp_path / "m.gguf", "bert", keys, arrays)
    with pytest.raises(ModelFileError, match=rf"has no .* \(tensor {name}\)"):
        open_model(path)


@pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])
def test_wordpiece_of_a_gguf_is_the_folders(lowercase: bool, tmp_path: Path) -> None:
    """Whether a model is uncased shows in its vocabulary: it has no capital."""
    tokens = wordpiece_metadata(lowercase)
    path = write_bert_gguf(tmp_path / "m.gguf", tokenizer=tokens)
    files, backend = open_model(path), wordpiece(lowercase)
    spec = files.spec
    for text in [*TEXTS, "Café NAÏVE Instruct: Query", "[SEP] [unused] x]"]:
        assert files.tokenizer.encode([text], spec, "document").ids == [backend.encode(text).ids]


@pytest.mark.parametrize(
    "changes",
    [{"cls_token_id": None, "seperator_token_id": None}, {"bos_token_id": 2, "eos_token_id": 3}],
    ids=["no keys", "bos and eos"],
)
def test_first_and_last_token_of_a_gguf(changes: Json, tmp_path: Path) -> None:
    path = write_bert_gguf(tmp_path / "m.gguf", tokenizer=wordpiece_metadata(**changes))
    tokenizer = open_model(path).tokenizer
    assert (tokenizer.bos_ids, tokenizer.eos_ids) == ([2], [3])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"add_bos_token": False}, ([], [3])),
        ({"add_sep_token": False}, ([2], [])),
        ({"add_sep_token": True}, ([2], [3])),
    ],
    ids=["no first", "no last", "said"],
)
def test_a_gguf_may_add_none(
    changes: Json, expected: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    path = write_bert_gguf(tmp_path / "m.gguf", tokenizer=wordpiece_metadata(**changes))
    tokenizer = open_model(path).tokenizer
    assert (tokenizer.bos_ids, tokenizer.eos_ids) == expected


def test_a_first_token_nobody_names_is_an_error(tmp_path: Path) -> None:
    tokens = wordpiece_metadata(cls_token_id=None)
    tokens["tokenizer.ggml.tokens"][2] = "[BEGIN]"
    path = write_bert_gguf(tmp_path / "m.gguf", tokenizer=tokens)
    with pytest.raises(
        ModelFileError, match=r"not say which token is \[CLS\] \(key .*bos_token_id"
    ):
        open_model(path)


@pytest.mark.parametrize("prefix", [True, False])
def test_unigram_spaces_are_as_the_file_says(prefix: bool, tmp_path: Path) -> None:
    tokens = unigram_metadata(add_space_prefix=prefix)
    path = write_bert_gguf(tmp_path / "m.gguf", bert_shape("xlm-roberta"), tokenizer=tokens)
    files = open_model(path)
    (ids,) = files.tokenizer.encode(["  fox   the "], files.spec, "document").ids
    pieces = [files.tokenizer.backend.id_to_token(token) for token in ids]
    assert pieces == ["<s>", *(["▁fox"] if prefix else ["f", "o", "x"]), "▁the", "</s>"]


@pytest.mark.parametrize(
    "changes",
    [{"scores": [0.5]}, {"unknown_token_id": 10**6}, {"precompiled_charsmap": [1, 2, 3]}],
    ids=["scores", "unknown", "charsmap"],
)
def test_a_unigram_that_contradicts_itself_is_refused(changes: Json, tmp_path: Path) -> None:
    tokens = unigram_metadata(**changes)
    path = write_bert_gguf(tmp_path / "m.gguf", bert_shape("xlm-roberta"), tokenizer=tokens)
    with pytest.raises(ModelFileError):
        open_model(path)


@pytest.mark.parametrize("key", bert_metadata(bert_shape()))
@pytest.mark.parametrize("junk", [0, 1, 2**31, "no", 0.5, [1, 2]], ids=str)
def test_a_junk_key_gives_a_model_or_an_error_of_ours(
    key: str, junk: object, tmp_path: Path
) -> None:
    metadata = {**bert_metadata(bert_shape()), key: junk}
    path = write_bert_gguf(tmp_path / "m.gguf", metadata=metadata)
    with contextlib.suppress(PolyvecError):
        _runner(path)
