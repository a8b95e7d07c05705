"""LangChain's, LlamaIndex's and Haystack's own classes, unchanged, against the server.

LlamaIndex's are not in requirements-dev.txt: one brings pytest-asyncio. Elsewhere::

    pip install llama-index-embeddings-openai llama-index-embeddings-ollama
    python -m pytest -p no:asyncio tests/test_serve_frameworks.py
"""

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from polyvec.engine.embedder import Embedder
from tests.live import Live, close

TEXTS = ["the quick brown fox", "el zorro marrón"]

# Their libraries' own warnings and unclosed clients are not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def framework(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is not installed: see the head of this file")


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Collect what their clients leave open here: later it would fail somebody else's test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def no_phoning_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")


def test_langchain_ollama(live: Live, tiny: Embedder) -> None:
    kind = framework("langchain_ollama").OllamaEmbeddings
    documents = kind(model="tiny", base_url=live.url)
    queries = kind(model="tiny:query", base_url=live.url)
    assert close(documents.embed_documents(TEXTS), tiny.encode_document(TEXTS))
    assert close([queries.embed_query(TEXTS[0])], tiny.encode_query(TEXTS[:1]))


def test_langchain_openai(live: Live, tiny: Embedder) -> None:
    kind = framework("langchain_openai").OpenAIEmbeddings
    base = f"{live.url}/v1"
    model = kind(model="tiny", base_url=base, check_embedding_ctx_length=False)
    assert close(model.embed_documents(TEXTS), tiny.encode_document(TEXTS))
    assert close([model.embed_query(TEXTS[0])], tiny.encode_document(TEXTS[:1]))


def test_llama_index_ollama(live: Live, tiny: Embedder) -> None:
    kind = framework("llama_index.embeddings.ollama").OllamaEmbedding
    model = kind(model_name="tiny", base_url=live.url)
    assert close(model.get_text_embedding_batch(TEXTS), tiny.encode_document(TEXTS))
    assert close([model.get_query_embedding(TEXTS[0])], tiny.encode_document(TEXTS[:1]))


def test_llama_index_openai(live: Live, tiny: Embedder) -> None:
    kind = framework("llama_index.embeddings.openai").OpenAIEmbedding
    model = kind(model_name="tiny", api_base=f"{live.url}/v1", api_key="unused")
    assert close(model.get_text_embedding_batch(TEXTS), tiny.encode_document(TEXTS))


def test_haystack_ollama(live: Live, tiny: Embedder) -> None:
    ollama = framework("haystack_integrations.components.embedders.ollama")
    documents = [framework("haystack").Document(content=text) for text in TEXTS]
    found = ollama.OllamaDocumentEmbedder(model="tiny", url=live.url).run(documents)["documents"]
    assert close([document.embedding for document in found], tiny.encode_document(TEXTS))
    query = ollama.OllamaTextEmbedder(model="tiny:query", url=live.url).run(TEXTS[0])
    assert close([query["embedding"]], tiny.encode_query(TEXTS[:1]))


def test_haystack_openai(live: Live, tiny: Embedder) -> None:
    kind = framework("haystack.components.embedders").OpenAITextEmbedder
    query = kind(model="tiny:query", api_base_url=f"{live.url}/v1").run(TEXTS[0])
    assert close([query["embedding"]], tiny.encode_query(TEXTS[:1]))
