"""The default backbone: facts, tokens and vectors, against the reference libraries."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

import polyvec
from polyvec.engine.embedder import Embedder
from polyvec.model.packing import Packed
from polyvec.model.save import save_folder
from polyvec.spec import DEFAULT_INSTRUCTION, INSTRUCT_PREFIX, LlamaArchitecture
from tests.peers import Reference, sentence_transformer

pytestmark = pytest.mark.real_model

TEXTS = [
    "What is the capital of Kenya?",
    "Nairobi is the capital and largest city of Kenya.",
    "¿Cuál es la capital de Kenia en 2024?",
    "肯尼亚的首都是内罗毕。",
    "नैरोबी केन्या की राजधानी है।",
    "عاصمة كينيا هي نيروبي",
    "a",
    "Быстрая лиса прыгает через ленивую собаку. " * 2,
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return polyvec.load("smollm2", precision="fp32")


@pytest.fixture(scope="module")
def saved(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("real") / "saved"
    save_folder(embedder.files, folder)
    yield folder
    shutil.rmtree(folder)  # 540 MB


@pytest.fixture(scope="module")
def ids(embedder: Embedder) -> list[list[int]]:
    return embedder.tokenizer.encode(TEXTS, embedder.spec, "query").ids


def _states(embedder: Embedder, ids: list[list[int]]) -> list[Tensor]:
    (states_TD,) = embedder.runner.run([Packed.of(ids)])
    return list(states_TD.split([len(text) for text in ids]))


# --- Against the reference libraries ----------------------------------------------------------


def test_states_equal_transformers(embedder: Embedder, saved: Path, ids: list[list[int]]) -> None:
    """After the final norm, relative to the largest state, which is near 50 (their spread is 2).

    Measured: 5.5e-6. Inside the network activations reach 700.
    """
    reference = Reference(saved)
    assert reference.model.config.is_causal is False
    for ours, text in zip(_states(embedder, ids), ids, strict=True):
        theirs = reference.states(text)
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 3e-5


def test_vectors_equal_sentence_transformers(embedder: Embedder, saved: Path) -> None:
    peer = sentence_transformer(saved)
    for ours, theirs in (
        (embedder.encode_query(TEXTS), peer.encode_query(TEXTS)),
        (embedder.encode_document(TEXTS), peer.encode_document(TEXTS)),
    ):
        assert (ours * theirs).sum(1).min() > 0.99999


def test_the_saved_folder_gives_the_same_vectors(embedder: Embedder, saved: Path) -> None:
    again = polyvec.load(str(saved), precision="fp32").encode_query(TEXTS)
    np.testing.assert_allclose(again, embedder.encode_query(TEXTS), rtol=0, atol=1e-5)


# --- Facts ------------------------------------------------------------------------------------


def test_the_spec_is_as_it_was(embedder: Embedder) -> None:
    spec = embedder.spec
    assert (spec.attention, spec.pooling, spec.normalize) == ("bidirectional", "mean", True)
    assert (spec.query_prefix, spec.document_prefix) == (INSTRUCT_PREFIX, "")
    assert spec.default_instruction == DEFAULT_INSTRUCTION
    assert (spec.add_bos, spec.add_eos) == (False, False)
    assert (spec.dimension, spec.max_tokens) == (576, 8192)


def test_the_network_is_as_it_was(embedder: Embedder) -> None:
    shape = embedder.files.architecture
    assert isinstance(shape, LlamaArchitecture)
    assert (shape.num_layers, shape.hidden_size, shape.intermediate_size) == (30, 576, 1536)
    assert (shape.num_heads, shape.num_kv_heads, shape.head_dim) == (9, 3, 64)
    assert (shape.vocab_size, shape.rope.theta, shape.rope.kind) == (49_152, 100_000.0, "default")
    assert shape.num_parameters == 134_515_008


TOKENS = {
    "The year 2024 had 366 days.": [504, 713, 216, 34, 32, 34, 36, 761, 216, 35, 38, 38, 2009, 30],
    "¿Dónde está la búsqueda número 3,14?": [
        47416, 52, 7342, 268, 85, 1264, 5415, 2618, 278, 16148, 12484,
        18796, 304, 16148, 763, 95, 216, 35, 28, 33, 36, 47,
    ],
    "快速的棕色狐狸 123": [
        41467, 121, 24838, 249, 11567, 177, 113, 239, 179, 227, 127,
        178, 229, 234, 178, 229, 133, 216, 33, 34, 35,
    ],
    "नमस्ते 42": [30658, 35090, 38770, 16525, 26293, 30581, 216, 36, 34],
    "a\n\n  b\tc": [81, 8866, 278, 197, 83],
    "It's 10 o'clock.": [1589, 506, 216, 33, 32, 263, 23, 17466, 30],
}  # fmt: skip
"""Equal to what transformers makes of the same GGUF (AutoTokenizer, gguf_file=...) on 5.24."""


@pytest.mark.parametrize(("text", "expected"), TOKENS.items())
def test_tokens_are_as_they_were(embedder: Embedder, text: str, expected: list[int]) -> None:
    ids = embedder.tokenizer.encode([text], embedder.spec, "document").ids
    assert ids == [expected]
    assert embedder.tokenizer.decode(expected) == text


# --- Behaviour --------------------------------------------------------------------------------


def test_the_last_token_changes_the_first_state(embedder: Embedder, ids: list[list[int]]) -> None:
    text = ids[0]
    (first,), (changed,) = _states(embedder, [text]), _states(embedder, [[*text[:-1], 500]])
    assert float((first[0] - changed[0]).abs().max()) > 1e-3


def test_alone_equals_in_a_batch(embedder: Embedder) -> None:
    batched = embedder.encode_query(TEXTS)
    alone = np.concatenate([embedder.encode_query([text]) for text in TEXTS])
    np.testing.assert_allclose(batched, alone, rtol=0, atol=1e-5)


def test_bf16_is_near_fp32(embedder: Embedder) -> None:
    bf16 = polyvec.load("smollm2", precision="bf16").encode_query(TEXTS)
    assert (bf16 * embedder.encode_query(TEXTS)).sum(1).min() > 0.99
