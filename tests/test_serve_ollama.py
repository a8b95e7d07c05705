"""Ollama's shape, asked by the ``ollama`` package and by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import ollama
import pytest

from polyvec.engine.embedder import Embedder
from tests.live import MAX_TOKENS, Live, close

TEXTS = ["the quick brown fox", "el zorro marrón", "敏捷的棕色狐狸"]
LONG = "the lazy dog " * 60


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[ollama.Client]:
    with ollama.Client(host=live.url) as client:
        yield client


def test_the_client_gets_the_models_vectors(client: ollama.Client, tiny: Embedder) -> None:
    answer = client.embed(model="tiny", input=TEXTS)
    assert close(answer.embeddings, tiny.encode_document(TEXTS))
    assert answer.prompt_eval_count == sum(tiny.embed(TEXTS, "document").token_counts)
    assert answer.total_duration is not None
    assert answer.total_duration > 0
    assert answer.load_duration is not None
    assert close(client.embed(model="tiny", input=TEXTS[0]).embeddings, answer.embeddings[:1])


@pytest.mark.parametrize("name", ["tiny:query", "tiny:query:latest"])
def test_a_suffix_chooses_queries(client: ollama.Client, tiny: Embedder, name: str) -> None:
    assert close(client.embed(model=name, input=TEXTS).embeddings, tiny.encode_query(TEXTS))


def test_the_older_route_embeds_one_text(client: ollama.Client, tiny: Embedder) -> None:
    answer = client.embeddings(model="tiny:latest", prompt=TEXTS[2])
    assert close([answer.embedding], tiny.encode_document(TEXTS[2:]))


def test_too_long_is_cut_or_refused(client: ollama.Client, live: Live, tiny: Embedder) -> None:
    expected = tiny.embed([LONG], "document", truncate="end").vectors
    assert close(client.embed(model="tiny", input=LONG).embeddings, expected)
    with pytest.raises(ollama.ResponseError, match=f"the model reads {MAX_TOKENS}") as caught:
        client.embed(model="tiny", input=LONG, truncate=False)
    assert caught.value.status_code == 400
    # Clients look for Ollama's own words.
    assert caught.value.error.startswith("the input length exceeds the context length: ")
    assert "truncate: true" in caught.value.error
    answer = live.post("/api/embed", {"model": "tiny", "input": ["fox", LONG, LONG]})
    assert answer.headers["X-Polyvec-Truncated"] == "2"
    assert answer.headers["X-Polyvec-Truncated-Texts"] == "1,2"


def test_num_ctx_reads_less_and_other_options_are_named(live: Live, tiny: Embedder) -> None:
    body = {
        "model": "tiny",
        "input": LONG,
        "options": {"num_ctx": 9, "temperature": 0, "seed": None},
    }
    answer = live.post("/api/embed", body)
    assert answer.json()["prompt_eval_count"] == 9
    assert answer.headers["X-Polyvec-Ignored-Fields"] == "options.temperature"
    assert live.post("/api/embed", body | {"options": {"num_ctx": 0}}).status_code == 400


def test_dimensions_are_for_matryoshka_models_only(client: ollama.Client) -> None:
    vectors = np.asarray(client.embed(model="nested", input=TEXTS, dimensions=24).embeddings)
    assert vectors.shape == (3, 24)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(client.embed(model="tiny", input="fox", dimensions=0).embeddings[0]) == 48
    with pytest.raises(ollama.ResponseError, match="not Matryoshka"):
        client.embed(model="tiny", input="fox", dimensions=24)


def test_models_are_listed_shown_and_counted_as_running(client: ollama.Client) -> None:
    listed = {model.model: model for model in client.list().models}
    assert list(listed) == ["tiny", "nested"]
    assert listed["tiny"].details is not None
    assert listed["tiny"].details.format == "safetensors"
    assert listed["tiny"].digest != listed["nested"].digest
    shown = client.show("tiny")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.embedding_length"] == 48
    assert shown.modelinfo["llama.context_length"] == MAX_TOKENS
    client.embed(model="tiny", input="fox", keep_alive="1h30m")
    running = {model.model: model for model in client.ps().models}
    expires = running["tiny"].expires_at
    assert expires is not None
    assert 5300 < (expires - datetime.now(UTC)).total_seconds() <= 5400
    assert running["tiny"].context_length == MAX_TOKENS
    client.embed(model="tiny", input="fox", keep_alive=-1)


def test_a_model_is_unloaded_and_loaded_again(client: ollama.Client, live: Live) -> None:
    before = client.embed(model="nested", input="fox").embeddings
    answer = client.embed(model="nested", input="", keep_alive=0)
    assert list(answer.embeddings) == []
    assert [model.model for model in client.ps().models] == ["tiny"]
    again = client.embed(model="nested", input="fox", keep_alive=-1)
    assert close(again.embeddings, before)
    assert (again.load_duration or 0) > 10**7
    assert {model.model for model in client.ps().models} == {"tiny", "nested"}
    assert live.metric('polyvec_model_events_total{event="unloaded",model="nested"}') >= 1


def test_a_model_expires(client: ollama.Client, live: Live) -> None:
    import time

    client.embed(model="nested", input="fox", keep_alive="0.2s")
    deadline = time.monotonic() + 20
    while any(model.model == "nested" for model in client.ps().models):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    client.embed(model="nested", input="", keep_alive=-1)


@pytest.mark.parametrize("written", [1e300, 10**400, "9" * 400, "99999999999h"])
def test_a_model_may_stay_longer_than_there_are_dates(live: Live, written: object) -> None:
    body = {"model": "nested", "input": "fox", "keep_alive": written}
    assert live.post("/api/embed", body).status_code == 200
    listed = live.get("/api/ps")
    assert listed.status_code == 200
    (nested,) = (model for model in listed.json()["models"] if model["name"] == "nested")
    assert datetime.fromisoformat(nested["expires_at"]).year > datetime.now(UTC).year + 90
    live.post("/api/embed", body | {"keep_alive": -1})


def test_the_version_is_a_version(live: Live) -> None:
    answer = live.get("/api/version").json()
    assert [int(part) for part in answer["version"].split(".")] >= [0, 13]
    assert answer["server"].startswith("polyvec ")


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/api/embed", {"input": "fox"}, 400, "model: Field required"),
        ("/api/embed", {"model": "gone", "input": "fox"}, 404, "No model 'gone' here"),
        ("/api/embed", {"model": "tiny", "input": {"a": 1}}, 400, "valid string"),
        ("/api/embed", {"model": "tiny", "input": "fox", "truncate": 1}, 400, "truncate"),
        ("/api/embed", {"model": "tiny", "input": "fox", "keep_alive": "soon"}, 400, "'5m'"),
        ("/api/embed", {"model": "tiny", "input": "fox", "keep_alive": "²"}, 400, "'5m'"),
        ("/api/embed", {"model": "tiny", "input": [""]}, 400, "Text 0 is empty"),
        ("/api/embeddings", {"model": "tiny", "prompt": ["a"]}, 400, "prompt"),
        ("/api/show", {"model": "gone"}, 404, "No model 'gone' here"),
        ("/api/generate", {"model": "tiny"}, 404, "What is answered here is at /docs"),
    ],
)
def test_errors_have_ollamas_shape(
    live: Live, path: str, body: dict[str, object], status: int, said: str
) -> None:
    answer = live.post(path, body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]


def test_not_a_number_is_no_time_to_stay(live: Live) -> None:
    raw = b'{"model": "tiny", "input": "fox", "keep_alive": NaN}'
    answer = live.http.post("/api/embed", content=raw)
    assert answer.status_code == 400
    assert "keep_alive is nan" in answer.json()["error"]


def test_no_input_loads_and_gives_nothing(client: ollama.Client) -> None:
    assert list(client.embed(model="tiny", input=[]).embeddings) == []
    assert list(client.embeddings(model="tiny", prompt="").embedding) == []
