"""Tokenizers from GGUF metadata against the same ones built by hand, and their refusals."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from polyvec.engine.embedder import Embedder
from polyvec.errors import ModelFileError
from polyvec.model.files import open_model
from polyvec.model.gguf_file import GgufFile
from polyvec.model.gguf_tokenizer import tokenizer_from_gguf
from polyvec.model.tokens import Tokenizer as Ours
from tests.tiny import (
    BOS,
    EOS,
    WORDS,
    Json,
    byte_bpe,
    byte_bpe_like,
    shape,
    weights,
    write_model,
)
from tests.tiny_gguf import (
    bpe_metadata,
    sentencepiece_ids,
    sentencepiece_metadata,
    sentencepiece_pieces,
    write_gguf,
    write_raw_gguf,
)

TEXTS = [*WORDS, "it's 12345 o'clock\n\n\tnow  ", "e\u0301 é", "नमस्ते 狐狸 🦊", "x\x00y"]


def _read(path: Path, metadata: Json) -> Ours:
    """Build the tokenizer that metadata describes; None takes a key out."""
    kept = {key: value for key, value in metadata.items() if value is not None}
    write_raw_gguf(path, "llama", kept, {})
    return tokenizer_from_gguf(GgufFile(path))


def _ids(tokenizer: Ours, text: str) -> list[int]:
    return list(tokenizer.backend.encode(text, add_special_tokens=False).ids)


def _tokens(tokenizer: Ours, text: str) -> list[str]:
    return list(tokenizer.backend.encode(text, add_special_tokens=False).tokens)


# --- Byte-level BPE ---------------------------------------------------------------------------


def _joined(*words: str) -> Json:
    """Metadata of a vocabulary that can join each word's bytes from the left."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = {(word[:i], word[i]): None for word in words for i in range(1, len(word))}
    tokens = [*alphabet, *dict.fromkeys(left + right for left, right in merges)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
    }


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("gpt-2", ["12345"]),
        ("smollm", ["1", "2", "3", "4", "5"]),
        ("llama-bpe", ["123", "4", "5"]),
        ("qwen2", ["1", "2", "3", "4", "5"]),
    ],
)
def test_digits_are_split_by_the_named_rules(pre: str, tokens: list[str], tmp_path: Path) -> None:
    metadata = _joined("12345") | {
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert _tokens(_read(tmp_path / "m.gguf", metadata), "12345") == tokens


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("gpt-2", ["Ġ1", "2"]),
        ("smollm", ["Ġ", "1", "2"]),
        ("llama-bpe", ["Ġ", "12"]),
        ("qwen2", ["Ġ", "1", "2"]),
    ],
)
def test_only_gpt2_joins_a_space_to_digits(pre: str, tokens: list[str], tmp_path: Path) -> None:
    metadata = _joined("Ġ1", "12") | {
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert _tokens(_read(tmp_path / "m.gguf", metadata), " 12") == tokens


@pytest.mark.parametrize(("pre", "joined"), [("gpt-2", False), ("llama-bpe", True)])
def test_newlines_after_a_sign_belong_to_it_in_llama_3(
    pre: str, joined: bool, tmp_path: Path
) -> None:
    metadata = _joined(".ĊĊ") | {
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.add_bos_token": False,
    }
    tokens = _tokens(_read(tmp_path / "m.gguf", metadata), ".\n\n")
    assert (tokens == [".ĊĊ"]) is joined


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("smollm", False)])
def test_a_word_no_merge_makes_is_found_whole_only_by_llama_3(
    pre: str, whole: bool, tmp_path: Path
) -> None:
    metadata = _joined("ab") | {
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.add_bos_token": False,
    }
    metadata["tokenizer.ggml.tokens"] += ["xyz"]
    tokens = _tokens(_read(tmp_path / "m.gguf", metadata), "xyz")
    assert tokens == (["xyz"] if whole else ["x", "y", "z"])


@pytest.mark.parametrize(("pre", "same"), [("qwen2", True), ("gpt-2", False)])
def test_only_qwen2_composes_accents(pre: str, same: bool, tmp_path: Path) -> None:
    metadata = bpe_metadata(byte_bpe(), pre)
    tokenizer = _read(tmp_path / "m.gguf", metadata)
    assert (_ids(tokenizer, "cafe\u0301") == _ids(tokenizer, "café")) is same


def _vectors(path: Path) -> np.ndarray:
    return Embedder(open_model(path), precision="fp32").encode_document(TEXTS)


@pytest.mark.parametrize("pre", ["smollm", "llama-bpe", "qwen2"])
def test_a_gguf_tokenizer_gives_the_vectors_of_the_folder(pre: str, tmp_path: Path) -> None:
    metadata = bpe_metadata(byte_bpe(), pre)
    gguf = write_gguf(tmp_path / "m.gguf", tokenizer=metadata)
    folder = write_model(tmp_path / "folder", tokenizer=byte_bpe_like(pre))
    np.testing.assert_allclose(_vectors(gguf), _vectors(folder), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_texts_come_back_from_their_ids(pre: str, tmp_path: Path) -> None:
    tokenizer = _read(tmp_path / "m.gguf", bpe_metadata(byte_bpe(), pre))
    for text in (*WORDS, "it's 12345\n\n\tnow  ", "नमस्ते 🦊", "x\x00y"):
        assert tokenizer.decode(_ids(tokenizer, text)) == text


def test_without_a_name_the_rules_are_gpt2s(tmp_path: Path) -> None:
    metadata = _joined("12345")
    assert _tokens(_read(tmp_path / "m.gguf", metadata), "12345") == ["12345"]


def test_unknown_rules_name_the_known_ones(tmp_path: Path) -> None:
    expected = (
        r"rules 'tekken' .*knows gpt-2, smollm, llama-bpe, smaug-bpe, qwen2\. Use the .* folder"
    )
    with pytest.raises(ModelFileError, match=expected):
        _read(tmp_path / "m.gguf", bpe_metadata(byte_bpe(), "tekken"))


def test_control_tokens_in_a_text_are_one_token(tmp_path: Path) -> None:
    tokenizer = _read(tmp_path / "m.gguf", bpe_metadata(byte_bpe()))
    assert _tokens(tokenizer, f"{BOS}a{EOS}") == [BOS, "a", EOS]


def test_merges_of_unknown_tokens_are_refused(tmp_path: Path) -> None:
    metadata = bpe_metadata(byte_bpe()) | {"tokenizer.ggml.merges": ["zz yy"]}
    with pytest.raises(ModelFileError, match=r"tokenizer that contradicts itself: .*`zz`"):
        _read(tmp_path / "m.gguf", metadata)


@pytest.mark.parametrize("key", ["tokens", "merges"])
def test_a_missing_list_is_named(key: str, tmp_path: Path) -> None:
    metadata = bpe_metadata(byte_bpe()) | {f"tokenizer.ggml.{key}": None}
    with pytest.raises(ModelFileError, match=rf"no list under tokenizer\.ggml\.{key}"):
        _read(tmp_path / "m.gguf", metadata)


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no tokenizer \(key tokenizer.ggml.model is missing"):
        _read(tmp_path / "m.gguf", {})


@pytest.mark.parametrize("kind", ["rwkv", "plamo2"])
def test_another_kind_of_tokenizer_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(
        ModelFileError, match=rf"of kind '{kind}'; polyvec builds 'gpt2', 'llama', 'bert' and 't5'"
    ):
        _read(tmp_path / "m.gguf", {"tokenizer.ggml.model": kind})


# --- BOS and EOS ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pre", "stated", "bos"),
    [
        ("llama-bpe", None, [1]),
        ("llama-bpe", False, []),
        ("smollm", None, []),
        ("smollm", True, [1]),
        ("qwen2", None, []),
    ],
)
def test_bos_is_as_stated_else_llama_cpps_default(
    pre: str, stated: bool | None, bos: list[int], tmp_path: Path
) -> None:
    metadata = bpe_metadata(byte_bpe(), pre) | {"tokenizer.ggml.add_bos_token": stated}
    assert _read(tmp_path / "m.gguf", metadata).bos_ids == bos


@pytest.mark.parametrize(("stated", "eos"), [(None, []), (False, []), (True, [2])])
def test_eos_is_added_where_stated(stated: bool | None, eos: list[int], tmp_path: Path) -> None:
    metadata = bpe_metadata(byte_bpe()) | {"tokenizer.ggml.add_eos_token": stated}
    assert _read(tmp_path / "m.gguf", metadata).eos_ids == eos


def test_bos_without_its_number_is_refused(tmp_path: Path) -> None:
    metadata = bpe_metadata(byte_bpe()) | {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": None,
    }
    with pytest.raises(ModelFileError, match=r"add BOS .* \(key tokenizer.ggml.bos_token_id is mi"):
        _read(tmp_path / "m.gguf", metadata)


def test_bos_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    metadata = bpe_metadata(byte_bpe()) | {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 90_000,
    }
    with pytest.raises(ModelFileError, match=r"its bos token is number 90,000 of 384"):
        _read(tmp_path / "m.gguf", metadata)


# --- SentencePiece ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    return _read(tmp_path_factory.mktemp("spm") / "m.gguf", sentencepiece_metadata())


_LETTERS = "".join(piece for piece, _, kind in sentencepiece_pieces() if kind == 1 and piece != "▁")


@given(
    text=st.text(alphabet=st.sampled_from(_LETTERS.replace("▁", "") + "  狐ж\n\x00"), min_size=1)
)
def test_pieces_are_those_of_sentencepiece(sentencepiece: Ours, text: str) -> None:
    assert _ids(sentencepiece, text) == sentencepiece_ids(text)


@pytest.mark.parametrize("text", WORDS)
def test_words_become_the_pieces_of_sentencepiece(sentencepiece: Ours, text: str) -> None:
    assert _ids(sentencepiece, text) == sentencepiece_ids(text)


@pytest.mark.parametrize(
    ("scores", "pieces"),
    [
        ({"ab": -1.0, "bc": -2.0}, ["▁", "ab", "c"]),
        ({"ab": -2.0, "bc": -1.0}, ["▁", "a", "bc"]),
        ({"ab": -2.0, "bc": -3.0, "abc": -1.0}, ["▁", "abc"]),
        ({"ab": -2.0, "bc": -1.0, "▁a": -3.0}, ["▁a", "bc"]),
    ],
)
def test_the_better_score_merges_first(
    scores: dict[str, float], pieces: list[str], tmp_path: Path
) -> None:
    vocabulary = {"<unk>": 0.0, "▁": -9.0, "a": -9.0, "b": -9.0, "c": -9.0} | scores
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(vocabulary),
        "tokenizer.ggml.scores": list(vocabulary.values()),
        "tokenizer.ggml.add_bos_token": False,
    }
    assert _tokens(_read(tmp_path / "m.gguf", metadata), "abc") == pieces


def test_frequent_words_are_long_pieces(sentencepiece: Ours) -> None:
    """Otherwise the two tests above would compare letters."""
    assert "▁the" in _tokens(sentencepiece, "jumps over the lazy dog")


def test_an_unknown_character_becomes_its_bytes(sentencepiece: Ours) -> None:
    assert _tokens(sentencepiece, "狐") == ["▁", "<0xE7>", "<0x8B>", "<0x90>"]


def test_pieces_come_back_as_text(sentencepiece: Ours) -> None:
    assert sentencepiece.decode(_ids(sentencepiece, "the lazy 狐")) == " the lazy 狐"


def test_the_space_in_front_can_be_switched_off(tmp_path: Path) -> None:
    metadata = sentencepiece_metadata(add_space_prefix=False)
    tokenizer = _read(tmp_path / "m.gguf", metadata)
    assert tokenizer.decode(_ids(tokenizer, "the")) == "the"


def test_sentencepiece_adds_bos_unless_told_otherwise(sentencepiece: Ours, tmp_path: Path) -> None:
    silent = _read(tmp_path / "m.gguf", sentencepiece_metadata(add_bos_token=False))
    assert (sentencepiece.bos_ids, silent.bos_ids) == ([1], [])


@pytest.mark.parametrize("scores", [[], [0.0] * 3], ids=["none", "three"])
def test_scores_for_some_tokens_only_are_refused(scores: list[float], tmp_path: Path) -> None:
    metadata = sentencepiece_metadata(scores=scores)
    expected = rf"has {len(scores)} token scores and \d+ tokens|no list under .*scores"
    with pytest.raises(ModelFileError, match=expected):
        _read(tmp_path / "m.gguf", metadata)


def _sentencepiece_by_hand() -> Tokenizer:
    """Build the BPE that transformers' converter makes of the same pieces."""
    from transformers.tokenization_utils_base import generate_merges

    vocabulary = {piece: number for number, (piece, _, _) in enumerate(sentencepiece_pieces())}
    scores = {piece: score for piece, score, kind in sentencepiece_pieces() if kind == 1}
    merges = generate_merges(vocabulary, scores)
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    backend.add_special_tokens(["<unk>", BOS, EOS])
    return backend


def test_a_sentencepiece_gguf_gives_the_vectors_of_the_folder(tmp_path: Path) -> None:
    config = shape(vocab_size=len(sentencepiece_pieces()), is_causal=False)
    tensors = weights(config)
    metadata = sentencepiece_metadata(add_bos_token=False)
    gguf = write_gguf(tmp_path / "m.gguf", config, tensors, tokenizer=metadata)
    folder = write_model(
        tmp_path / "folder",
        config,
        tensors=tensors,
        tokenizer=_sentencepiece_by_hand(),
        tokenizer_config={"pad_token": "<unk>"},
    )
    np.testing.assert_allclose(_vectors(gguf), _vectors(folder), rtol=0, atol=1e-6)
