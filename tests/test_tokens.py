"""Texts to token ids: prefix, BOS, EOS, cuts, and texts that cannot be embedded."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvec.errors import InputError, InputTypeError, TooLongError
from polyvec.model.tokens import Tokenizer, Truncate, check_texts
from polyvec.spec import Role, Spec
from tests.test_spec import FIXED, SPEC
from tests.tiny import VOCAB_SIZE, WORDS, byte_bpe

TOKENIZER = Tokenizer(byte_bpe(), [1], [2])
LONG = " ".join(WORDS)
LOOSE = replace(SPEC, max_tokens=10_000)


def _ids(text: str) -> list[int]:
    return list(byte_bpe().encode(text, add_special_tokens=False).ids)


def _encode(
    text: str, spec: Spec, role: Role = "document", truncate: Truncate = "end"
) -> list[int]:
    (ids,) = TOKENIZER.encode([text], spec, role, truncate=truncate).ids
    return ids


# --- What the model reads ---------------------------------------------------------------------


def test_bos_comes_first_and_eos_last() -> None:
    assert _encode("the fox", LOOSE) == [1, *_ids("the fox"), 2]


def test_a_query_is_read_with_its_template() -> None:
    tokens = TOKENIZER.encode(["who?"], LOOSE, "query", "Find the person")
    assert tokens.ids == [[1, *_ids("Instruct: Find the person\nQuery: who?"), 2]]


def test_prefix_and_text_are_tokenized_as_one_string() -> None:
    """Their ids one after another are other ids, and would give another vector."""
    spec = replace(LOOSE, query_prefix="th", default_instruction="")
    assert _ids("th") + _ids("e lazy dog") != _ids("the lazy dog")
    assert _encode("e lazy dog", spec, "query") == [1, *_ids("the lazy dog"), 2]


def test_a_fixed_prefix_is_read() -> None:
    spec = replace(FIXED, max_tokens=10_000)
    assert _encode("a", spec, "query") == [1, *_ids("query: a"), 2]
    assert _encode("a", spec, "document") == [1, *_ids("passage: a"), 2]


def test_the_files_truncation_and_padding_are_switched_off() -> None:
    backend = byte_bpe()
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    tokens = Tokenizer(backend).encode(["the quick brown fox"], LOOSE, "document")
    assert tokens.ids == [_ids("the quick brown fox")]


def test_texts_keep_their_order() -> None:
    tokens = TOKENIZER.encode(WORDS, LOOSE, "document")
    assert tokens.ids == [[1, *_ids(text), 2] for text in WORDS]


@pytest.mark.parametrize(("characters", "texts"), [(1, 1_024), (60, 1_024), (1_000_000, 2)])
def test_slices_change_nothing(
    characters: int, texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TOKENIZER.encode(WORDS * 2, LOOSE, "query")
    monkeypatch.setattr("polyvec.model.tokens._SLICE_CHARACTERS", characters)
    monkeypatch.setattr("polyvec.model.tokens._SLICE_TEXTS", texts)
    assert TOKENIZER.encode(WORDS * 2, LOOSE, "query") == whole


def test_no_texts_give_no_tokens() -> None:
    tokens = TOKENIZER.encode([], LOOSE, "document")
    assert (tokens.ids, tokens.counts, tokens.cut) == ([], [], [])


def test_ids_come_back_as_text() -> None:
    assert TOKENIZER.decode(_encode("敏捷 fox", LOOSE)) == "<s>敏捷 fox</s>"


def test_the_vocabulary_counts_added_tokens() -> None:
    backend = byte_bpe()
    backend.add_tokens(["<new>"])
    assert Tokenizer(backend).vocab_size == VOCAB_SIZE + 1


# --- Cuts -------------------------------------------------------------------------------------


def test_the_end_is_cut_before_eos() -> None:
    assert _encode(LONG, SPEC) == [1, *_ids(LONG)[:18], 2]


def test_the_start_is_cut_after_bos() -> None:
    assert _encode(LONG, SPEC, truncate="start") == [1, *_ids(LONG)[-18:], 2]


def test_cutting_the_start_keeps_the_prefix() -> None:
    prefix = _ids("query: ")
    ids = _encode(LONG, FIXED, "query", "start")
    # the prefix's last space is one token with the text's first word, so it goes with the text
    assert ids == [1, *prefix[:-1], *_ids("query: " + LONG)[-(18 - len(prefix[:-1])) :], 2]


def test_cutting_the_end_keeps_the_prefix() -> None:
    assert _encode(LONG, FIXED, "query") == [1, *_ids("query: " + LONG)[:18], 2]


@pytest.mark.parametrize("truncate", ["end", "start"])
def test_a_cut_text_has_max_tokens(truncate: Truncate) -> None:
    assert len(_encode(LONG, SPEC, truncate=truncate)) == SPEC.max_tokens


def test_a_text_that_just_fits_is_not_cut() -> None:
    fitting = TOKENIZER.backend.decode(_ids(LONG)[:18])
    tokens = TOKENIZER.encode([fitting], SPEC, "document", truncate="error")
    assert tokens.counts == [20]
    assert tokens.cut == []


def test_counts_are_of_the_whole_text_and_cuts_are_named() -> None:
    tokens = TOKENIZER.encode(["a", LONG, "b", LONG], SPEC, "document")
    whole = len(_ids(LONG)) + 2
    assert tokens.counts == [3, whole, 3, whole]
    assert tokens.cut == [1, 3]


def test_a_long_text_can_be_refused() -> None:
    count = len(_ids(LONG)) + 2
    expected = rf"Text 1 has {count} tokens and the model reads 20\. .*'end' or 'start'"
    with pytest.raises(InputError, match=expected):
        TOKENIZER.encode(["a", LONG], SPEC, "document", truncate="error")


@pytest.mark.parametrize("truncate", ["end", "start"])
@pytest.mark.parametrize("text", ["a", LONG])
def test_an_instruction_that_fills_the_model_is_refused(truncate: Truncate, text: str) -> None:
    expected = r"prefix alone has 18 tokens or more, instruction included, .*none of max_tokens"
    with pytest.raises(InputError, match=expected):
        TOKENIZER.encode([text], SPEC, "query", LONG, truncate)


def test_an_unknown_cut_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"truncate is 'middle'; allowed: end, start, error"):
        TOKENIZER.encode(["a"], SPEC, "document", truncate="middle")  # type: ignore[arg-type]


@given(
    text=st.text(alphabet="the lazyfox敏 ", max_size=60),
    room=st.integers(15, 40),
    truncate=st.sampled_from(["end", "start"]),
)
def test_a_cut_keeps_bos_prefix_and_eos(text: str, room: int, truncate: Truncate) -> None:
    spec = replace(FIXED, max_tokens=room)
    ids = _encode("x" + text, spec, "query", truncate)
    assert len(ids) <= room
    assert (ids[0], ids[-1]) == (1, 2)
    assert ids[1:-1][: len(_ids("query:"))] == _ids("query:")


# --- Texts that cannot be embedded ------------------------------------------------------------


@pytest.mark.parametrize("text", ["one text", b"bytes"])
def test_a_single_text_instead_of_a_list_is_refused(text: str | bytes) -> None:
    kind = type(text).__name__
    with pytest.raises(
        InputTypeError, match=rf"A list of texts is needed and one {kind} was given"
    ):
        check_texts(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("item", [None, 3, 1.5, b"bytes", ["nested"]])
def test_an_item_that_is_not_a_string_is_named(item: object) -> None:
    kind = type(item).__name__
    with pytest.raises(InputTypeError, match=rf"Text 1 is .*, a {kind}; only strings can be"):
        check_texts(["a", item])  # type: ignore[list-item]


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"Text 2 is empty: nothing to embed.*'zero' for empty"):
        check_texts(["a", "b", ""])


@pytest.mark.parametrize("text", [" ", "\n\t ", "\u3000", "\u00a0"])
def test_white_space_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"Text 0 is only white space: nothing to embed"):
        check_texts([text])


def test_empty_texts_pass_where_they_become_zeros() -> None:
    check_texts(["", "  ", "a"], on_empty="zero")


def test_an_unknown_choice_for_empty_texts_is_refused() -> None:
    with pytest.raises(InputError, match=r"on_empty is 'skip'; allowed: error, zero"):
        check_texts(["a"], on_empty="skip")  # type: ignore[arg-type]


def test_a_lone_surrogate_is_refused_with_its_place() -> None:
    expected = r"Text 0 has a lone surrogate \('\\ud83d'\) at character 3, which is not Unicode"
    with pytest.raises(InputError, match=expected):
        check_texts(["abc\ud83d def"])


def test_nul_bytes_are_kept() -> None:
    check_texts(["a\x00b"])
    assert TOKENIZER.decode(_encode("a\x00b", LOOSE)) == "<s>a\x00b</s>"


@pytest.mark.parametrize("on_empty", ["error", "zero"])
def test_a_lone_surrogate_is_refused_whatever_empty_texts_become(on_empty: str) -> None:
    with pytest.raises(InputError, match=r"lone surrogate"):
        check_texts(["\udc80"], on_empty)  # type: ignore[arg-type]


# --- Texts that are ids already, and texts in pieces ------------------------------------------


@pytest.mark.parametrize("around", [False, True], ids=["bare", "with BOS and EOS"])
def test_ids_are_framed_once(around: bool) -> None:
    ids = _ids("the fox")
    given_ids = [1, *ids, 2] if around else ids
    assert TOKENIZER.encode_ids([given_ids], LOOSE, "document").ids == [[1, *ids, 2]]
    query = TOKENIZER.encode_ids([given_ids], LOOSE, "query").ids[0]
    assert query == [1, *_ids(LOOSE.prefix("query")), *ids, 2]


def test_ids_are_cut_or_refused_like_texts() -> None:
    spec = replace(SPEC, max_tokens=5)
    end = TOKENIZER.encode_ids([range(10, 20)], spec, "document")
    assert (end.ids, end.counts, end.cut) == ([[1, 10, 11, 12, 2]], [12], [0])
    start = TOKENIZER.encode_ids([range(10, 20)], spec, "document", truncate="start")
    assert start.ids == [[1, 17, 18, 19, 2]]
    with pytest.raises(TooLongError, match=r"Text 0 has 12 tokens and the model reads 5"):
        TOKENIZER.encode_ids([range(10, 20)], spec, "document", truncate="error")


@pytest.mark.parametrize("wrong", [-1, VOCAB_SIZE])
def test_ids_of_another_tokenizer_are_refused(wrong: int) -> None:
    with pytest.raises(InputError, match=rf"Text 1 has the token id {wrong}, .*Send strings"):
        TOKENIZER.encode_ids([[5], [6, wrong]], LOOSE, "document")


def test_a_text_in_pieces_has_all_its_tokens_and_each_piece_its_frame() -> None:
    spec = replace(SPEC, max_tokens=12, document_prefix="a ")
    prefix = _ids("a ")
    ((short,), long) = TOKENIZER.encode_pieces(["fox", LONG], spec, "document")
    assert short == TOKENIZER.encode(["fox"], spec, "document").ids[0]
    assert all(len(piece) <= 12 for piece in long)
    assert all(piece[: 1 + len(prefix)] == [1, *prefix] and piece[-1] == 2 for piece in long)
    inner = [token for piece in long for token in piece[1 + len(prefix) : -1]]
    assert inner == _ids(LONG)


def test_pieces_need_room_beside_the_prefix() -> None:
    with pytest.raises(InputError, match=r"prefix alone has \d+ tokens or more"):
        TOKENIZER.encode_pieces([LONG], replace(SPEC, max_tokens=4), "query")
