"""llama.cpp itself on exported files, told nothing but their path.

Needs a Python with llama-cpp-python, which builds llama.cpp and is no development dependency::

    POLYVEC_LLAMA_PYTHON=/path/to/python python -m pytest tests/test_llama_cpp.py

bench/parity.py does the same on the default model.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from polyvec.engine.embedder import Embedder
from polyvec.model.files import open_model
from polyvec.publish.export import export
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


def _llama_cpp(path: Path) -> np.ndarray:
    texts, out = path.with_suffix(".json"), path.with_suffix(".npy")
    texts.write_text(json.dumps(TEXTS))
    subprocess.run([PYTHON, str(PEER), str(path), str(texts), str(out)], check=True)
    vectors = np.load(out)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _agree(source: Path, tmp_path: Path, **stated: Any) -> None:
    export(open_model(source, stated), tmp_path / "out.gguf", type_name="F32")
    ours = Embedder(open_model(tmp_path / "out.gguf"), "fp32").encode_document(TEXTS)
    assert (ours * _llama_cpp(tmp_path / "out.gguf")).sum(1).min() > 0.9999


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
