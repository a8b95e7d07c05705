"""OpenAI's shape, asked by the ``openai`` package and by hand."""

import base64
from collections.abc import Iterator

import numpy as np
import openai
import pytest

from polyvec.engine.embedder import Embedder
from tests.live import MAX_TOKENS, Live, close

TEXTS = ["the quick brown fox", "el zorro marrón", "敏捷的棕色狐狸"]
LONG = "the lazy dog " * 60


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_client_gets_the_models_vectors(
    client: openai.OpenAI, tiny: Embedder, encoding: str
) -> None:
    answer = client.embeddings.create(model="tiny", input=TEXTS, encoding_format=encoding)  # type: ignore[arg-type]
    vectors = [item.embedding for item in answer.data]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(v), "<f4").tolist() for v in vectors]  # type: ignore[arg-type]
    assert close(vectors, tiny.encode_document(TEXTS))
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert answer.model == "tiny"
    counts = tiny.embed(TEXTS, "document").token_counts
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(counts)


def test_the_clients_own_default_encoding_works(client: openai.OpenAI, tiny: Embedder) -> None:
    answer = client.embeddings.create(model="tiny", input="the fox")
    assert close([answer.data[0].embedding], tiny.encode_document(["the fox"]))


def test_a_suffix_chooses_queries(client: openai.OpenAI, tiny: Embedder) -> None:
    answer = client.embeddings.create(model="tiny:query", input=TEXTS)
    assert close([item.embedding for item in answer.data], tiny.encode_query(TEXTS))


def test_a_header_chooses_queries_and_their_instruction(
    client: openai.OpenAI, live: Live, tiny: Embedder
) -> None:
    headers = {"X-Polyvec-Role": "query"}
    answer = client.embeddings.create(model="tiny", input=TEXTS, extra_headers=headers)
    assert close([item.embedding for item in answer.data], tiny.encode_query(TEXTS))


def test_token_ids_are_the_texts_they_are_of(client: openai.OpenAI, tiny: Embedder) -> None:
    rows = [tiny.tokenizer.backend.encode(text).ids for text in TEXTS]
    spec = tiny.spec
    expected = tiny.pooled(tiny.tokenizer.encode_ids(rows, spec, "document").ids)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    answer = client.embeddings.create(model="tiny", input=rows)
    assert close([item.embedding for item in answer.data], expected)
    alone = client.embeddings.create(model="tiny", input=rows[0])
    assert close([alone.data[0].embedding], expected[:1])


def test_dimensions_are_for_matryoshka_models_only(client: openai.OpenAI) -> None:
    vector = client.embeddings.create(model="nested", input="fox", dimensions=16).data[0].embedding
    whole = client.embeddings.create(model="nested", input="fox").data[0].embedding
    cut = np.asarray(whole[:16]) / np.linalg.norm(whole[:16])
    assert close([vector], [cut])
    with pytest.raises(openai.BadRequestError, match="this model is not Matryoshka"):
        client.embeddings.create(model="tiny", input="fox", dimensions=16)
    with pytest.raises(openai.BadRequestError, match="this model has 16, 24, 48"):
        client.embeddings.create(model="nested", input="fox", dimensions=17)


def test_too_long_is_refused_as_openai_does_unless_a_header_says_otherwise(
    client: openai.OpenAI, tiny: Embedder
) -> None:
    with pytest.raises(openai.BadRequestError, match=f"model reads {MAX_TOKENS}") as caught:
        client.embeddings.create(model="tiny", input=["fox", LONG])
    assert caught.value.code == "context_length_exceeded"
    for side in ("end", "start"):
        headers = {"X-Polyvec-Long-Input": side}
        raw = client.embeddings.with_raw_response.create(
            model="tiny", input=["fox", LONG], extra_headers=headers
        )
        assert raw.headers["X-Polyvec-Truncated"] == "1"
        assert raw.headers["X-Polyvec-Truncated-Texts"] == "1"
        expected = tiny.embed(["fox", LONG], "document", truncate=side).vectors
        assert close([item.embedding for item in raw.parse().data], expected)


def test_what_was_not_cut_is_reported_too(live: Live) -> None:
    answer = live.post("/v1/embeddings", {"model": "tiny", "input": "fox"})
    assert answer.headers["X-Polyvec-Truncated"] == "0"
    assert "X-Polyvec-Truncated-Texts" not in answer.headers


def test_long_texts_are_averaged_when_asked(live: Live, tiny: Embedder) -> None:
    answer = live.post(
        "/v1/embeddings", {"model": "tiny", "input": ["fox", LONG]}, X_Polyvec_Long_Input="average"
    )
    short, long = (np.asarray(item["embedding"]) for item in answer.json()["data"])
    assert answer.headers["X-Polyvec-Truncated"] == "0"
    assert close([short], tiny.encode_document(["fox"]))
    ((*_,), pieces) = tiny.tokenizer.encode_pieces(["fox", LONG], tiny.spec, "document")
    vectors = tiny.pooled(pieces)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = np.average(vectors, axis=0, weights=[len(piece) for piece in pieces])
    assert len(pieces) > 2
    assert close([long], [mean / np.linalg.norm(mean)])
    assert answer.json()["usage"]["prompt_tokens"] > 2 * MAX_TOKENS


def test_models_are_listed_and_shown(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "nested"]
    assert client.models.retrieve("nested").owned_by == "polyvec"
    with pytest.raises(openai.NotFoundError, match=r"No model 'nope' here\. There is tiny, nested"):
        client.models.retrieve("nope")


def test_a_model_of_the_hub_is_shown_by_its_name(
    client: openai.OpenAI, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = live.server.models.all[0]
    monkeypatch.setitem(live.server.models._models, "hf:org/tiny", served)
    assert client.models.retrieve("hf:org/tiny").id == served.name
    answer = client.embeddings.create(model="hf:org/tiny:query", input="fox")
    assert answer.model == "hf:org/tiny:query"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"model": "tiny"}, "input: Field required"),
        ({"model": "tiny", "input": ""}, "Text 0 is empty"),
        ({"model": "tiny", "input": ["fox", " \n"]}, "Text 1 is empty"),
        ({"model": "tiny", "input": []}, "at least 1 item"),
        ({"model": "tiny", "input": [[]]}, "at least 1 item"),
        ({"model": "tiny", "input": 5}, "valid string"),
        ({"model": "tiny", "input": ["fox", 5]}, "valid string"),
        ({"model": "tiny", "input": [True]}, "valid string"),
        ({"model": "tiny", "input": [[384]]}, "ids are 0 to 383: they are another tokenizer's"),
        ({"model": "tiny", "input": [10**30]}, "token id 1000000"),
        ({"model": "tiny", "input": "fox", "dimensions": 0}, "greater than or equal to 1"),
        ({"model": "tiny", "input": "fox", "dimensions": "16"}, "dimensions"),
        ({"model": "tiny", "input": "fox", "encoding_format": "hex"}, "'float' or 'base64'"),
        ({"model": 3, "input": "fox"}, "model: Input should be a valid string"),
        ([], "body: Input should be an object"),
    ],
)
def test_what_cannot_be_used_is_said(live: Live, body: object, said: str) -> None:
    answer = live.post("/v1/embeddings", body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"


def test_unknown_models_are_404_and_the_nearest_is_named(live: Live) -> None:
    answer = live.post("/v1/embeddings", {"model": "tini", "input": "fox"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "Did you mean 'tiny'?" in answer.json()["error"]["message"]


def test_fields_without_effect_are_named_in_a_header(live: Live) -> None:
    body = {"model": "tiny", "input": "fox", "trunkate": True, "über": 1}
    answer = live.post("/v1/embeddings", body)
    assert answer.status_code == 200
    assert answer.headers["X-Polyvec-Ignored-Fields"] == r"trunkate, \xfcber"


@pytest.mark.parametrize(
    ("model", "headers", "said"),
    [
        ("tiny", {"X_Polyvec_Role": "passage"}, "X-Polyvec-Role is 'passage'; allowed: query"),
        ("tiny:document", {"X_Polyvec_Role": "query"}, "Two roles were asked for"),
        ("tiny", {"X_Polyvec_Long_Input": "middle"}, "allowed: end, start, error, average"),
        ("tiny", {"X_Polyvec_Priority": "urgent"}, "allowed: bulk"),
        ("tiny", {"X_Polyvec_Instruction": "Find it"}, "takes? no instruction|without one"),
    ],
)
def test_headers_are_checked(live: Live, model: str, headers: dict[str, str], said: str) -> None:
    import re

    answer = live.post("/v1/embeddings", {"model": model, "input": "fox"}, **headers)
    assert answer.status_code == 400
    assert re.search(said, answer.json()["error"]["message"])
