"""A model's files, opened: path, format, fingerprint, and files that do not belong together."""

from pathlib import Path

import pytest
import torch

from polyvec.errors import ModelFileError, ModelNotFoundError
from polyvec.model.files import open_model
from tests.tiny import BOS, EOS, byte_bpe, edit_json, shape, weights, write_model
from tests.tiny_gguf import write_gguf


def test_a_path_where_nothing_is_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"No model at .*nowhere: there is no such file"):
        open_model(tmp_path / "nowhere")


def test_the_format_is_told_from_the_path(tmp_path: Path) -> None:
    assert open_model(write_model(tmp_path / "folder")).format == "safetensors"
    assert open_model(write_gguf(tmp_path / "m.gguf")).format == "gguf"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelFileError, match=r"model.bin is not a GGUF file"):
        open_model(tmp_path / "model.bin")


def test_stated_facts_win_over_the_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path, prompts={"query": "query: "})
    stated = {"attention": "causal", "pooling": "last", "max_tokens": 9, "query_prefix": "q: "}
    spec = open_model(folder, stated).spec
    assert (spec.attention, spec.pooling, spec.max_tokens) == ("causal", "last", 9)
    assert spec.query_prefix == "q: "


def test_a_tokenizer_larger_than_the_token_table_is_refused(tmp_path: Path) -> None:
    config = shape(vocab_size=300, is_causal=False)
    folder = write_model(tmp_path, config)
    with pytest.raises(ModelFileError, match=r"tokenizer has 384 tokens and the model's table 300"):
        open_model(folder)


def test_a_token_table_larger_than_the_tokenizer_is_fine(tmp_path: Path) -> None:
    """Tables are padded to round numbers."""
    open_model(write_model(tmp_path, shape(vocab_size=400, is_causal=False)))


def test_the_size_is_that_of_the_weight_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    size = (folder / "model.safetensors").stat().st_size
    assert open_model(folder).size_bytes == size


def test_a_fingerprint_is_the_same_every_time(tmp_path: Path) -> None:
    a, b = write_model(tmp_path / "a"), write_model(tmp_path / "b")
    assert open_model(a).fingerprint() == open_model(b).fingerprint()
    assert len(open_model(a).fingerprint()) == 16


def test_a_fingerprint_tells_weights_apart(tmp_path: Path) -> None:
    tensors = weights(shape())
    tensors["norm.weight"][3] += 1e-3
    a, b = write_model(tmp_path / "a"), write_model(tmp_path / "b", tensors=tensors)
    assert open_model(a).fingerprint() != open_model(b).fingerprint()


def test_a_fingerprint_tells_specs_apart(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    stated = open_model(folder, {"query_prefix": "query: "})
    assert open_model(folder).fingerprint() != stated.fingerprint()


def test_a_fingerprint_tells_tokenizers_apart(tmp_path: Path) -> None:
    tokenizer = byte_bpe()
    tokenizer.add_special_tokens(["the"])
    a = write_model(tmp_path / "a", shape(vocab_size=400, is_causal=False))
    b = write_model(tmp_path / "b", shape(vocab_size=400, is_causal=False), tokenizer=tokenizer)
    assert open_model(a).fingerprint() != open_model(b).fingerprint()


def test_a_fingerprint_tells_shapes_of_equal_weights_apart(tmp_path: Path) -> None:
    """The same numbers under another rotation give other vectors."""
    a, b = write_model(tmp_path / "a"), write_model(tmp_path / "b")
    edit_json(b / "config.json", rope_theta=5000.0)
    assert open_model(a).fingerprint() != open_model(b).fingerprint()


def test_no_weight_is_read_before_it_is_needed(tmp_path: Path) -> None:
    """A broken tensor is found when it is asked for; opening stays quick."""
    tensors = weights(shape()) | {"norm.weight": torch.zeros(3)}
    assert open_model(write_model(tmp_path, tensors=tensors)).architecture.hidden_size == 48


def test_a_fingerprint_tells_which_token_is_bos(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    edit_json(folder / "tokenizer_config.json", add_bos_token=True, bos_token=BOS)
    first = open_model(folder).fingerprint()
    edit_json(folder / "tokenizer_config.json", bos_token=EOS)
    assert open_model(folder).fingerprint() != first
