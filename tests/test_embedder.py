"""Texts and a role in, vectors out: the same ones whatever comes with them."""

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvec.engine.calibrate import MAX_BATCH_TOKENS, batch_tokens
from polyvec.engine.embedder import Embedder, load
from polyvec.errors import (
    DeviceError,
    InputError,
    InputTypeError,
    ModelNotFoundError,
    SpecError,
    TruncationWarning,
)
from polyvec.model.files import open_model
from polyvec.model.pooling import shape_vectors
from polyvec.spec import LlamaArchitecture
from tests.tiny import WORDS, byte_bpe, shape, weights, write_model

PROMPTS = {"query": "Instruct: Find it\nQuery: "}
LONG = " ".join(WORDS * 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("model"), prompts=PROMPTS, tokenizer=byte_bpe(bos=True)
    )


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    return Embedder(open_model(folder), precision="fp32")


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and (a.size == 0 or float(np.abs(a - b).max()) < 1e-5)


# --- A text's vector does not depend on the others --------------------------------------------

# From no token to some 40: letters and words, so that lengths of 0, 1, 2, ... meet in a batch.
TEXT = st.one_of(
    st.text(alphabet="abct 敏", max_size=12),
    st.lists(st.sampled_from(WORDS[0].split()), max_size=12).map(" ".join),
)
TEXTS = st.lists(TEXT, max_size=8)


@pytest.fixture(scope="module", params=[None, 25], ids=["one batch", "small batches"])
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """A model that adds no token of its own."""
    folder = write_model(tmp_path_factory.mktemp("bare"))
    return Embedder(open_model(folder), precision="fp32", max_batch_tokens=request.param)


@given(texts=TEXTS, data=st.data())
@settings(max_examples=60)
def test_a_text_alone_equals_the_text_in_any_batch_and_order(
    bare: Embedder, texts: list[str], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    batched = bare.encode_document([texts[i] for i in order], on_empty="zero")
    assert batched.shape == (len(texts), 48)
    for place, index in enumerate(order):
        alone = bare.encode_document([texts[index]], on_empty="zero")
        assert _close(batched[place], alone[0])


@pytest.mark.parametrize("budget", [1, 2, 7, 100_000])
@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_any_batch_size_gives_the_same_vectors(
    folder: Path, budget: int, pooling: str, attention: str
) -> None:
    files = open_model(folder, {"pooling": pooling, "attention": attention})
    texts = [LONG[:n] for n in (1, 2, 3, 3, 8, 21, 40, 40)]
    whole = Embedder(files, precision="fp32").encode_document(texts)
    cut = Embedder(files, precision="fp32", max_batch_tokens=budget).encode_document(texts)
    assert _close(cut, whole)


def test_attention_and_pooling_change_the_vectors(folder: Path) -> None:
    """Otherwise the test above would compare one model with itself."""
    seen: list[np.ndarray] = []
    for pooling in ("mean", "last", "cls"):
        for attention in ("bidirectional", "causal"):
            if (pooling, attention) != ("cls", "causal"):  # the first token sees itself only
                files = open_model(folder, {"pooling": pooling, "attention": attention})
                vector = Embedder(files, precision="fp32").encode_document(["the lazy dog"])
                assert all(np.abs(vector - other).max() > 0.05 for other in seen)
                seen.append(vector)


def test_equal_texts_have_equal_vectors(embedder: Embedder) -> None:
    a, b, c = embedder.encode_document(["the fox", "a longer text in between", "the fox"])
    assert _close(a, c)
    assert not _close(a, b)


# --- Roles, instructions, shapes --------------------------------------------------------------


def test_vectors_are_float32_rows_of_length_one(embedder: Embedder) -> None:
    vectors = embedder.encode_document(WORDS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(WORDS), embedder.dimension) == (len(WORDS), 48)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.encode_document([]).shape == (0, 48)


def test_a_query_is_the_document_of_its_rendered_text(embedder: Embedder) -> None:
    rendered = embedder.encode_document(["Instruct: Find it\nQuery: who?"])
    assert _close(embedder.encode_query(["who?"]), rendered)


def test_another_instruction_gives_another_vector(embedder: Embedder) -> None:
    own, other = embedder.encode_query(["who?"]), embedder.encode_query(["who?"], "Find a person")
    rendered = embedder.encode_document(["Instruct: Find a person\nQuery: who?"])
    assert not _close(own, other)
    assert _close(other, rendered)


def test_tuples_and_arrays_of_texts_are_taken(embedder: Embedder) -> None:
    expected = embedder.encode_document(list(WORDS))
    assert _close(embedder.encode_document(WORDS), expected)
    assert _close(embedder.encode_document(np.array(WORDS)), expected)  # type: ignore[arg-type]


def test_counts_are_of_the_rendered_text(embedder: Embedder) -> None:
    rendered = byte_bpe().encode("Instruct: Find it\nQuery: who?").ids
    assert embedder.embed(["who?"], "query").token_counts == [1 + len(rendered)]


def test_progress_adds_up_to_all_texts_and_tokens(folder: Path) -> None:
    embedder = Embedder(open_model(folder), precision="fp32", max_batch_tokens=25)
    seen: list[tuple[int, int]] = []
    embedding = embedder.embed(
        WORDS, "document", progress=lambda texts, tokens: seen.append((texts, tokens))
    )
    assert len(seen) > 1
    assert sum(texts for texts, _ in seen) == len(WORDS)
    assert sum(tokens for _, tokens in seen) == sum(embedding.token_counts)


def test_it_says_what_it_is(embedder: Embedder, folder: Path) -> None:
    assert repr(embedder).startswith(f"Embedder({folder.name}, fp32 on ")


# --- Precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_bf16_is_near_fp32(model_type: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, shape(model_type, is_causal=False))
    bf16 = Embedder(open_model(folder), precision="bf16")
    fp32 = Embedder(open_model(folder), precision="fp32")
    a, b = bf16.encode_document(WORDS), fp32.encode_document(WORDS)
    assert bf16.precision == "bf16"
    assert a.dtype == np.float32
    assert ((a * b).sum(1) > 0.99).all()
    assert not _close(a, b)  # it did round


def test_bf16_alone_is_near_bf16_in_a_batch(folder: Path) -> None:
    bf16 = Embedder(open_model(folder), precision="bf16")
    batched = bf16.encode_document(WORDS)
    alone = np.concatenate([bf16.encode_document([text]) for text in WORDS])
    assert ((batched * alone).sum(1) > 0.999).all()


# --- Dimensions -------------------------------------------------------------------------------


def test_shorter_vectors_are_cut_and_scaled_again(tmp_path: Path) -> None:
    config = shape(is_causal=False, matryoshka_dimensions=[8, 16])
    embedder = Embedder(open_model(write_model(tmp_path, config)), precision="fp32")
    whole, short = (embedder.encode_document(WORDS, dimensions=d) for d in (None, 16))
    expected = whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True)
    assert short.shape == (len(WORDS), 16)
    assert _close(short, expected)


@pytest.mark.parametrize("encode", ["encode_query", "encode_document"])
def test_a_model_that_is_not_matryoshka_is_not_cut(embedder: Embedder, encode: str) -> None:
    with pytest.raises(InputError, match=r"dimensions=16 was asked .* is not Matryoshka"):
        getattr(embedder, encode)(["a"], dimensions=16)


# --- Cuts -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short(folder: Path) -> Embedder:
    return Embedder(open_model(folder, {"max_tokens": 20}), precision="fp32")


def test_cuts_are_warned_of(short: Embedder) -> None:
    longest = len(byte_bpe().encode(LONG).ids) + 1
    expected = (
        rf"2 of 3 texts are longer than the 20 tokens the model reads \(the longest has {longest}\)"
        r" and were cut at their end: texts 1, 2\."
    )
    with pytest.warns(TruncationWarning, match=expected):
        short.encode_document(["a", LONG, LONG[:100]])


def test_the_warning_says_where_texts_were_cut(short: Embedder) -> None:
    with pytest.warns(TruncationWarning, match=r"were cut at their start: texts 0\."):
        short.encode_query([LONG], truncate="start")


def test_many_cuts_are_shown_in_part(short: Embedder) -> None:
    with pytest.warns(TruncationWarning, match=r"7 of 7 .*: texts 0, 1, 2, 3, 4, \.\.\.\."):
        short.encode_document([LONG] * 7)


def test_the_warning_points_at_the_callers_line(short: Embedder) -> None:
    with pytest.warns(TruncationWarning) as caught:
        short.encode_document([LONG])
    assert caught[0].filename == __file__


def test_embed_reports_cuts_without_a_warning(short: Embedder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert short.embed(["a", LONG], "document").cut == [1]


def test_a_cut_text_has_the_vector_of_what_is_left(short: Embedder) -> None:
    left = byte_bpe().decode(byte_bpe().encode(WORDS[0] * 3).ids[:19])
    cut = short.embed([WORDS[0] * 3], "document").vectors
    assert _close(cut, short.encode_document([left]))


def test_a_long_text_can_be_refused(short: Embedder) -> None:
    with pytest.raises(InputError, match=r"Text 1 has .* tokens and the model reads 20\."):
        short.encode_document(["a", LONG], truncate="error")


def test_an_instruction_that_fills_the_model_is_refused(short: Embedder) -> None:
    with pytest.raises(InputError, match=r"prefix alone has 19 tokens or more"):
        short.encode_query(["a"], WORDS[0])


# --- Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "error", "words"),
    [
        ("a text", InputTypeError, r"list of texts is needed and one str was given: 'a text'"),
        (["a", 3], InputTypeError, r"Text 1 is 3, a int; only strings can be embedded"),
        (["a", ""], InputError, r"Text 1 is empty: nothing to embed"),
        (["a", " \n"], InputError, r"Text 1 is only white space"),
        (["\ud800"], InputError, r"Text 0 has a lone surrogate"),
    ],
)
@pytest.mark.parametrize("encode", ["encode_query", "encode_document"])
def test_bad_texts_are_refused_by_name(
    embedder: Embedder, encode: str, texts: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        getattr(embedder, encode)(texts)


def test_empty_texts_can_become_zeros(embedder: Embedder) -> None:
    vectors = embedder.encode_document(["the fox", "", " \n", "a"], on_empty="zero")
    assert np.abs(vectors[1:3]).max() == 0
    assert _close(vectors[[0, 3]], embedder.encode_document(["the fox", "a"]))


@pytest.mark.parametrize("encode", ["encode_query", "encode_document"])
def test_only_empty_texts_can_become_zeros(embedder: Embedder, encode: str) -> None:
    vectors = getattr(embedder, encode)(["", " "], on_empty="zero")
    assert vectors.shape == (2, 48)
    assert np.abs(vectors).max() == 0


def test_nul_bytes_are_ordinary_characters(embedder: Embedder) -> None:
    with_nul, without = embedder.encode_document(["fox\x00dog", "foxdog"])
    assert np.isfinite(with_nul).all()
    assert not _close(with_nul, without)


def test_a_line_of_ten_megabytes_is_cut(embedder: Embedder) -> None:
    line = "敏捷的棕色狐狸跳过懒狗" * 310_000
    assert len(line.encode()) > 10_000_000
    start = time.monotonic()
    with pytest.warns(TruncationWarning, match=r"1 of 1 texts are longer than the 128 tokens"):
        vector = embedder.encode_document([line])
    assert time.monotonic() - start < 60
    assert np.isfinite(vector).all()


def test_an_unknown_role_is_refused(embedder: Embedder) -> None:
    with pytest.raises(InputError, match=r"role is 'passage'; allowed: query, document"):
        embedder.embed(["a"], "passage")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("truncate", "middle", r"truncate is 'middle'; allowed: end, start, error"),
        ("on_empty", "drop", r"on_empty is 'drop'; allowed: error, zero"),
    ],
)
def test_an_unknown_choice_names_the_known_ones(
    embedder: Embedder, option: str, value: str, words: str
) -> None:
    choice: Any = {option: value}
    with pytest.raises(InputError, match=words):
        embedder.encode_document(["a"], **choice)


@pytest.mark.parametrize("tokens", [0, -1])
def test_a_batch_holds_at_least_a_token(folder: Path, tokens: int) -> None:
    with pytest.raises(InputError, match=rf"max_batch_tokens is {tokens}; it must be at least 1"):
        load(str(folder), max_batch_tokens=tokens)


# --- Similarity -------------------------------------------------------------------------------


def test_similarity_is_the_cosine(embedder: Embedder) -> None:
    scores = embedder.similarity([[3.0, 4.0], [0.0, 2.0]], [[6.0, 8.0], [4.0, -3.0], [-3.0, 0.0]])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [[1, 0, -0.6], [0.8, -0.6, 0]], rtol=0, atol=1e-6)


def test_similarity_with_zeros_is_zero(embedder: Embedder) -> None:
    assert embedder.similarity([[0.0, 0.0]], [[1.0, 2.0]]).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("a", "b", "given"),
    [
        ([1.0, 2.0], [[1.0, 2.0]], r"\[2\] and \[1, 2\]"),
        ([[1.0, 2.0]], [1.0, 2.0], r"\[1, 2\] and \[2\]"),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], r"\[1, 2\] and \[1, 3\]"),
        ([[[1.0]]], [[1.0]], r"\[1, 1, 1\] and \[1, 1\]"),
    ],
)
def test_similarity_of_wrong_shapes_says_what_was_given(
    embedder: Embedder, a: Any, b: Any, given: str
) -> None:
    with pytest.raises(InputError, match=rf"two sets of vectors of one length.*given: {given}"):
        embedder.similarity(a, b)


def test_similarity_of_ragged_rows_is_refused(embedder: Embedder) -> None:
    with pytest.raises(InputError, match=r"similarity takes two sets of vectors"):
        embedder.similarity([[1.0], [1.0, 2.0]], [[1.0]])


# --- load -------------------------------------------------------------------------------------


def test_a_folder_is_loaded_by_its_path(folder: Path, embedder: Embedder) -> None:
    loaded = load(str(folder), precision="fp32")
    assert _close(loaded.encode_query(["a"]), embedder.encode_query(["a"]))


def test_facts_can_be_stated(folder: Path) -> None:
    spec = load(str(folder), attention="causal", pooling="last", max_tokens=9).spec
    assert (spec.attention, spec.pooling, spec.max_tokens) == ("causal", "last", 9)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"precision": "int3"}, DeviceError, r"precision is 'int3'; allowed: auto, fp32, bf16"),
        ({"device": "tpu"}, DeviceError, r"device 'tpu' cannot be used here"),
        ({"attention": "full"}, SpecError, r"attention is 'full'; allowed: bidirectional, causal"),
        ({"pooling": "max"}, SpecError, r"pooling is 'max'; allowed: mean, last, cls"),
        ({"max_tokens": 129}, SpecError, r"max_tokens is 129 and .* was made for 128; give that"),
        ({"max_tokens": 1}, SpecError, r"max_tokens is 1, which leaves no room for text"),
    ],
)
def test_an_option_it_cannot_take_is_refused(
    folder: Path, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        load(str(folder), **options)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match=r"No model 'defualt'.*Nearest: default"):
        load("defualt")


def test_a_model_in_half_precision_is_read(tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in weights(shape()).items()}
    vectors = load(str(write_model(tmp_path, tensors=halves)), precision="fp32")
    assert np.isfinite(vectors.encode_document(["a"])).all()


CPU = torch.device("cpu")


def test_wide_models_get_smaller_batches(folder: Path) -> None:
    """Llama-3.1-8B's queries, keys and values are 6,144 wide: 1,280 tokens of them in fp32 fit."""
    shape = open_model(folder).architecture
    assert isinstance(shape, LlamaArchitecture)
    wide = replace(shape, num_heads=32, num_kv_heads=8, head_dim=128)
    assert batch_tokens(shape, torch.bfloat16, CPU) == MAX_BATCH_TOKENS[torch.bfloat16]
    wider = replace(wide, num_heads=64, num_kv_heads=64)
    assert batch_tokens(wide, torch.bfloat16, CPU) == 2_048
    assert batch_tokens(wider, torch.bfloat16, CPU) == 512


def test_pooled_tokens_become_the_vectors_of_their_texts(embedder: Embedder) -> None:
    tokens = embedder.tokenizer.encode(list(WORDS), embedder.spec, "query")
    calls: list[int] = []
    pooled = embedder.pooled(tokens.ids, lambda: calls.append(1))
    assert pooled.dtype == np.float32
    assert not np.allclose(np.linalg.norm(pooled, axis=1), 1.0)
    vectors = shape_vectors(torch.from_numpy(pooled), embedder.dimension, unit=True)
    assert _close(vectors, embedder.encode_query(list(WORDS)))
    assert len(calls) == 3  # layers


def test_token_states_are_one_row_a_token_and_pool_to_the_vector(embedder: Embedder) -> None:
    tokens = embedder.tokenizer.encode(["the fox", "лиса"], embedder.spec, "document")
    states = embedder.token_states(tokens.ids)
    assert [s.shape for s in states] == [(len(ids), embedder.dimension) for ids in tokens.ids]
    assert _close(np.stack([s.mean(0) for s in states]), embedder.pooled(tokens.ids))
