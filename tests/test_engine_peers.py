"""Models of every kind behind one face give their own library's vectors."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import polyvec
from polyvec.engine.peers import open_peer
from polyvec.errors import InputError, MissingExtraError, ModelNotFoundError
from polyvec.spec import DEFAULT_INSTRUCTION
from tests.peers import sentence_transformer
from tests.servers import serving
from tests.tiny import shape, weights, write_model

QUERIES, DOCUMENTS = ["the fox", "ленивую собаку"], ["a lazy dog", "敏捷的棕色狐狸", "x"]
INSTRUCT = "Instruct: Find it\nQuery: "


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    def write(seed: int = 0, **prompts: str) -> Path:
        config = shape(is_causal=False)
        tensors = weights(config, seed)
        return write_model(tmp_path / f"m{seed}", config, prompts=prompts, tensors=tensors)

    return write


def same(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() < 1e-5)


def test_a_model_of_ours(model: Callable[..., Path]) -> None:
    folder = model(query=INSTRUCT, document="passage: ")
    peer = open_peer(str(folder), precision="fp32", max_tokens=24)
    embedder = polyvec.load(str(folder), precision="fp32", max_tokens=24)
    assert (peer.dimension, peer.takes_instructions) == (embedder.dimension, True)
    assert same(peer.encode_query(QUERIES, "x"), embedder.encode_query(QUERIES, "x"))
    assert same(peer.encode_document(DOCUMENTS), embedder.encode_document(DOCUMENTS))
    assert peer.cut == 0
    peer.encode_document(["long " * 40, "x"])
    assert peer.cut == 1


def test_fingerprints_tell_models_apart(model: Callable[..., Path]) -> None:
    folder = str(model())
    same_one = [open_peer(folder, precision="fp32").fingerprint for _ in range(2)]
    assert same_one[0] == same_one[1]
    others = [
        open_peer(folder, precision="bf16").fingerprint,
        open_peer(folder, precision="fp32", max_tokens=9).fingerprint,
        open_peer(str(model(seed=1)), precision="fp32").fingerprint,
    ]
    assert len({same_one[0], *others}) == 4


def test_a_sentence_transformers_model(model: Callable[..., Path]) -> None:
    folder = model(query=INSTRUCT, document="passage: ")
    peer = open_peer(f"st:{folder}", device="cpu")
    reference = sentence_transformer(folder)
    assert (peer.dimension, peer.takes_instructions) == (reference.get_embedding_dimension(), True)
    assert same(peer.encode_query(QUERIES), reference.encode_query(QUERIES))
    told = reference.encode(QUERIES, prompt="Instruct: Other\\1\nQuery: ")
    assert same(peer.encode_query(QUERIES, "Other\\1"), told)
    assert same(peer.encode_document(DOCUMENTS), reference.encode_document(DOCUMENTS))
    ours = open_peer(str(folder), precision="fp32")
    assert same(peer.encode_query(QUERIES, "Other"), ours.encode_query(QUERIES, "Other"))


def test_fingerprints_of_sentence_transformers_models(model: Callable[..., Path]) -> None:
    names = [model(query="query: "), model(seed=1, query="query: ")]
    prints = [open_peer(f"st:{name}", device="cpu").fingerprint for name in (*names, names[0])]
    assert prints[0] == prints[2] != prints[1]
    assert open_peer(f"st:{names[0]}", device="cpu", max_tokens=8).fingerprint != prints[0]


def test_a_fixed_prompt_takes_no_instruction(model: Callable[..., Path]) -> None:
    peer = open_peer(f"st:{model(query='query: ')}", device="cpu")
    assert not peer.takes_instructions
    with pytest.raises(InputError, match="writes 'query: ' before every query and takes no"):
        peer.encode_query(QUERIES, "x")
    bare = open_peer(f"st:{model(seed=2)}", device="cpu")
    expected = sentence_transformer(model(seed=2)).encode(QUERIES, prompt="Instruct: x\nQuery: ")
    assert same(bare.encode_query(QUERIES, "x"), expected)


@pytest.mark.parametrize("dialect", ["openai", "ollama", "tei"])
def test_a_server(model: Callable[..., Path], dialect: str) -> None:
    embedder = polyvec.load(str(model()), precision="fp32")

    def embed(texts: list[str]) -> list[list[float]]:
        return embedder.encode_document(texts).tolist()

    with serving(dialect, embed) as url:
        peer = open_peer(url, query_prefix="Instruct: {instruction}\nQuery: ", document_prefix="d ")
        asked = [f"Instruct: why\nQuery: {text}" for text in QUERIES]
        assert same(peer.encode_query(QUERIES, "why"), embedder.encode_document(asked))
        told = [f"d {text}" for text in DOCUMENTS]
        assert same(peer.encode_document(DOCUMENTS), embedder.encode_document(told))
        assert peer.dimension == embedder.dimension
        assert peer.encode_document([]).shape == (0, embedder.dimension)
        assert peer.fingerprint != open_peer(url).fingerprint
        default = f"Instruct: {DEFAULT_INSTRUCTION}\nQuery: "
        asked = [default + text for text in QUERIES]
        assert same(peer.encode_query(QUERIES), embedder.encode_document(asked))
        with pytest.raises(InputError, match=r"is '', which has no \{instruction\} for the"):
            open_peer(url).encode_query(QUERIES, "why")


def test_options_for_another_kind_are_refused(model: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"query_prefix was given for .*knows its own prefixes"):
        open_peer(str(model()), query_prefix="q ")
    with pytest.raises(InputError, match="max_tokens was given for http://x, a server"):
        open_peer("http://x", max_tokens=3)


def test_what_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"sentence-transformers cannot load '.*gone'"):
        open_peer(f"st:{tmp_path / 'gone'}")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match="pip install sentence-transformers"):
        open_peer("st:x")
