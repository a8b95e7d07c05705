"""text-embeddings-inference's shape, asked by ``huggingface_hub.InferenceClient`` and by hand."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from huggingface_hub import InferenceClient

from polyvec.engine.embedder import Embedder
from tests.live import MAX_TOKENS, Live, close

TEXTS = ["the quick brown fox", "el zorro marrón", "敏捷的棕色狐狸"]
LONG = "the lazy dog " * 60


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[InferenceClient]:
    with InferenceClient(f"{live.url}/embed") as client:
        yield client


def test_the_client_gets_the_models_vectors(client: InferenceClient, tiny: Embedder) -> None:
    vectors = client.feature_extraction(TEXTS)
    assert vectors.dtype == np.float32
    assert close(vectors, tiny.encode_document(TEXTS))
    assert close(client.feature_extraction(TEXTS[0]), tiny.encode_document(TEXTS[:1]))


@pytest.mark.parametrize(
    ("name", "role"), [("query", "query"), ("document", "document"), ("passage", "document")]
)
def test_a_prompt_name_chooses_the_role(
    client: InferenceClient, tiny: Embedder, name: str, role: Any
) -> None:
    vectors = client.feature_extraction(TEXTS, prompt_name=name)
    assert close(vectors, tiny.embed(TEXTS, role).vectors)


@pytest.mark.parametrize("direction", ["right", "left"])
def test_a_side_is_cut(client: InferenceClient, tiny: Embedder, direction: Any) -> None:
    vectors = client.feature_extraction(LONG, truncate=True, truncation_direction=direction)
    side: Any = {"right": "end", "left": "start"}[direction]
    assert close(vectors, tiny.embed([LONG], "document", truncate=side).vectors)


def test_too_long_is_refused_when_cutting_is_not_wanted(live: Live) -> None:
    answer = live.post("/embed", {"inputs": ["fox", LONG], "truncate": False})
    assert answer.status_code == 413  # TEI's own for this, beside 422 for wrong types
    assert answer.json()["error_type"] == "Validation"
    assert f"the model reads {MAX_TOKENS}" in answer.json()["error"]
    assert "truncate: true" in answer.json()["error"]
    answer = live.post("/embed", {"inputs": ["fox", LONG]})
    assert answer.headers["X-Polyvec-Truncated-Texts"] == "1"


def test_vectors_need_not_be_normalized(client: InferenceClient, tiny: Embedder) -> None:
    vectors = client.feature_extraction(TEXTS, normalize=False)
    tokens = tiny.tokenizer.encode(TEXTS, tiny.spec, "document")
    assert close(vectors, tiny.pooled(tokens.ids))
    assert not close(vectors, tiny.encode_document(TEXTS))


def test_dimensions_are_for_matryoshka_models_only(live: Live) -> None:
    answer = live.post("/embed", {"inputs": "fox", "dimensions": 16}, X_Polyvec_Model="nested")
    assert len(answer.json()[0]) == 16
    answer = live.post("/embed", {"inputs": "fox", "dimensions": 16})
    assert answer.status_code == 422
    assert "not Matryoshka" in answer.json()["error"]


def test_token_ids_are_taken(live: Live, tiny: Embedder) -> None:
    ids = tiny.tokenizer.backend.encode("the fox").ids
    expected = tiny.pooled(tiny.tokenizer.encode_ids([ids], tiny.spec, "document").ids)
    assert close(live.post("/embed", {"inputs": ids, "normalize": False}).json(), expected)
    assert close(live.post("/embed", {"inputs": [ids], "normalize": False}).json(), expected)


def test_every_token_has_a_vector(live: Live, tiny: Embedder) -> None:
    answer = live.post("/embed_all", {"inputs": TEXTS}).json()
    tokens = tiny.tokenizer.encode(TEXTS, tiny.spec, "document")
    for states, expected in zip(answer, tiny.token_states(tokens.ids), strict=True):
        assert close(states, expected)


def test_sentences_are_compared(live: Live, tiny: Embedder) -> None:
    expected = tiny.similarity(tiny.encode_document(TEXTS[:1]), tiny.encode_document(TEXTS))[0]
    for path in ("/similarity", ""):
        with InferenceClient(f"{live.url}{path}") as client:
            scores = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS)
        assert close(scores, expected)


def test_the_root_embeds_as_teis_does(live: Live, tiny: Embedder) -> None:
    with InferenceClient(live.url) as client:
        assert close(client.feature_extraction(TEXTS[0]), tiny.encode_document(TEXTS[:1]))


def test_texts_are_ranked_by_similarity_and_it_says_so(live: Live, tiny: Embedder) -> None:
    texts = [*TEXTS, "the quick fox"]
    cosines = tiny.similarity(tiny.encode_query(["fox"]), tiny.encode_document(texts))[0]
    order = np.argsort(-cosines).tolist()
    body = {"query": "fox", "texts": texts, "raw_scores": True, "return_text": True}
    answer = live.post("/rerank", body)
    ranks = answer.json()
    assert [rank["index"] for rank in ranks] == order
    assert [rank["text"] for rank in ranks] == [texts[i] for i in order]
    assert close([rank["score"] for rank in ranks], cosines[order])
    assert answer.headers["X-Polyvec-Rerank"] == "embedding similarity"
    ranks = live.post("/rerank", {"query": "fox", "texts": texts}).json()
    assert close([rank["score"] for rank in ranks], (1 + cosines[order]) / 2)
    assert "text" not in ranks[0]


@pytest.mark.parametrize(
    ("query", "texts", "count", "named"),
    [
        (LONG, ["fox", "dog"], "1", "query"),
        ("fox", ["dog", LONG], "1", "1"),
        (LONG, [LONG, "fox", LONG], "3", "query,0,2"),
        ("fox", ["dog"], "0", None),
    ],
)
def test_rerank_reports_what_was_cut_of_query_and_texts(
    live: Live, query: str, texts: list[str], count: str, named: str | None
) -> None:
    tokens = 'polyvec_tokens_total{model="tiny",role="document"}'
    before = live.metric(tokens)
    answer = live.post("/rerank", {"query": query, "texts": texts})
    assert answer.headers["X-Polyvec-Truncated"] == count
    assert answer.headers.get("X-Polyvec-Truncated-Texts") == named
    embedded = live.metric(tokens) - before
    assert embedded > MAX_TOKENS * int(count), "the query's tokens are counted, too"


def test_tokens_are_shown_and_turned_back(live: Live, tiny: Embedder) -> None:
    tokens = live.post("/tokenize", {"inputs": "the fox"}).json()[0]
    prompted = live.post("/tokenize", {"inputs": ["the fox"], "prompt_name": "query"}).json()[0]
    spec = tiny.spec
    assert [t["id"] for t in prompted] == tiny.tokenizer.encode(["the fox"], spec, "query").ids[0]
    assert [t["id"] for t in tokens] == tiny.tokenizer.encode(["the fox"], spec, "document").ids[0]
    ids = [t["id"] for t in tokens if not t["special"]]
    assert live.post("/decode", {"ids": ids}).json() == ["passage: the fox"]
    assert live.post("/decode", {"ids": [ids, ids[-1:]]}).json() == ["passage: the fox", "ox"]


def test_info_says_limits_and_how_the_role_is_chosen(live: Live) -> None:
    info = live.get("/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == MAX_TOKENS
    assert info["max_client_batch_size"] == live.server.settings.max_texts
    assert info["polyvec"]["query_prefix"] == "query: "
    for way in ("input_type", "prompt_name", "NAME:query", "X-Polyvec-Role"):
        assert way in info["polyvec"]["role"]
    assert "cross-encoder" in info["polyvec"]["rerank"]
    assert live.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/embed", {}, "inputs: Field required"),
        ("/embed", {"inputs": ""}, "Text 0 is empty"),
        ("/embed", {"inputs": "fox", "prompt_name": "web"}, "allowed: query, document, passage"),
        ("/embed", {"inputs": "fox", "truncation_direction": "up"}, "'left'"),
        ("/embed", {"inputs": "fox", "normalize": "yes"}, "valid boolean"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, "Field required"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "at least 1 item"),
        ("/rerank", {"query": "a", "texts": ["b"], "prompt_name": "query"}, "is read as one"),
        ("/decode", {"ids": [99999]}, "There is no token 99999; ids are 0 to 383"),
        ("/decode", {"ids": [-1]}, "There is no token -1"),
        ("/decode", {"ids": "a"}, "valid array"),
        ("/tokenize", {"inputs": []}, "at least 1 item"),
    ],
)
def test_errors_have_teis_shape(live: Live, path: str, body: dict[str, Any], said: str) -> None:
    answer = live.post(path, body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error", "error_type"}
    assert answer.json()["error_type"] == "Validation"
    assert said in answer.json()["error"]


def test_token_states_are_not_averaged(live: Live) -> None:
    answer = live.post("/embed_all", {"inputs": LONG}, X_Polyvec_Long_Input="average")
    assert answer.status_code == 422
    assert "cannot be averaged" in answer.json()["error"]
