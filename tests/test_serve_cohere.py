"""Cohere's shape, asked by the ``cohere`` package and by hand."""

import base64
from collections.abc import Iterator
from typing import Any

import cohere
import numpy as np
import pytest

from polyvec.engine.embedder import Embedder
from tests.live import MAX_TOKENS, Live, close

TEXTS = ["the quick brown fox", "el zorro marrón", "敏捷的棕色狐狸"]
LONG = "the lazy dog " * 60


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(api_key="unused", base_url=live.url) as client:
        yield client


@pytest.mark.parametrize(
    ("input_type", "role"),
    [
        ("search_query", "query"),
        ("search_document", "document"),
        ("classification", "document"),
        ("clustering", "document"),
    ],
)
def test_the_input_type_chooses_the_role(
    client: cohere.ClientV2, tiny: Embedder, input_type: str, role: Any
) -> None:
    answer = client.embed(model="tiny", input_type=input_type, texts=TEXTS)
    assert close(answer.embeddings.float_, tiny.embed(TEXTS, role).vectors)
    assert answer.texts == TEXTS
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.input_tokens == sum(tiny.embed(TEXTS, role).token_counts)


def test_every_type_of_number(client: cohere.ClientV2, tiny: Embedder) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    found = client.embed(
        model="tiny", input_type="search_document", texts=TEXTS, embedding_types=types
    ).embeddings
    vectors = tiny.encode_document(TEXTS)
    assert close(found.float_, vectors)
    assert found.base64 is not None
    raw = [np.frombuffer(base64.b64decode(text), "<f4") for text in found.base64]
    assert close(raw, vectors)
    int8 = np.asarray(found.int8)
    assert int8.min() >= -127
    assert np.abs(int8).max(axis=1).tolist() == [127, 127, 127]
    cosines = (int8 * vectors).sum(1) / np.linalg.norm(int8, axis=1)
    assert cosines.min() > 0.9999
    assert (np.asarray(found.uint8) == int8 + 128).all()
    bits = np.unpackbits(np.asarray(found.ubinary, dtype=np.uint8), axis=1)
    assert (bits == (vectors > 0)).all()
    assert (np.asarray(found.binary) == np.asarray(found.ubinary) - 128).all()


def test_binary_is_what_sentence_transformers_makes(
    client: cohere.ClientV2, tiny: Embedder
) -> None:
    quantize = pytest.importorskip("sentence_transformers.util").quantize_embeddings
    found = client.embed(
        model="tiny", input_type="search_query", texts=TEXTS, embedding_types=["binary", "ubinary"]
    ).embeddings
    vectors = tiny.encode_query(TEXTS)
    assert (np.asarray(found.binary) == quantize(vectors, "binary")).all()
    assert (np.asarray(found.ubinary) == quantize(vectors, "ubinary")).all()


def test_output_dimension_is_for_matryoshka_models_only(client: cohere.ClientV2) -> None:
    answer = client.embed(
        model="nested", input_type="search_query", texts=["fox"], output_dimension=16
    )
    assert answer.embeddings.float_ is not None
    assert len(answer.embeddings.float_[0]) == 16
    with pytest.raises(cohere.BadRequestError, match="not Matryoshka"):
        client.embed(model="tiny", input_type="search_query", texts=["fox"], output_dimension=16)


@pytest.mark.parametrize(("truncate", "side"), [("START", "start"), ("END", "end")])
def test_a_side_is_cut(client: cohere.ClientV2, tiny: Embedder, truncate: Any, side: Any) -> None:
    answer = client.embed(
        model="tiny", input_type="search_document", texts=[LONG], truncate=truncate
    )
    expected = tiny.embed([LONG], "document", truncate=side).vectors
    assert close(answer.embeddings.float_, expected)


def test_too_long_is_refused_with_none(client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.BadRequestError, match=f"the model reads {MAX_TOKENS}"):
        client.embed(model="tiny", input_type="search_query", texts=[LONG], truncate="NONE")


def test_inputs_in_parts_and_max_tokens(live: Live, tiny: Embedder) -> None:
    content = [{"type": "text", "text": "the quick"}, {"type": "text", "text": "brown fox"}]
    body = {"model": "tiny", "input_type": "search_document", "inputs": [{"content": content}]}
    vectors = live.post("/v2/embed", body).json()["embeddings"]["float"]
    assert close(vectors, tiny.encode_document(["the quick\nbrown fox"]))
    answer = live.post("/v2/embed", body | {"max_tokens": 8})
    assert answer.headers["X-Polyvec-Truncated"] == "1"
    assert answer.json()["meta"]["billed_units"]["input_tokens"] == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_type": None}, "input_type"),
        ({"input_type": "image"}, "'search_query'"),
        ({"texts": None}, "Give either texts or inputs"),
        ({"texts": []}, "at least 1 item"),
        ({"texts": ["fox", ""]}, "Text 1 is empty"),
        ({"embedding_types": ["int4"]}, "'float'"),
        ({"embedding_types": []}, "at least 1 item"),
        ({"truncate": "MIDDLE"}, "'NONE'"),
        ({"texts": None, "inputs": [{"content": [{"type": "image_url"}]}]}, "'text'"),
    ],
)
def test_errors_have_coheres_shape(live: Live, changes: dict[str, Any], said: str) -> None:
    body = {"model": "tiny", "input_type": "search_query", "texts": ["fox"]} | changes
    answer = live.post("/v2/embed", body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["message"]
    assert said in answer.json()["message"]


def test_two_roles_are_one_too_many(live: Live) -> None:
    body = {"model": "tiny:document", "input_type": "search_query", "texts": ["fox"]}
    assert "Two roles were asked for" in live.post("/v2/embed", body).json()["message"]
