"""The vocabularies of BERT-like encoders as GGUF metadata: WordPiece and SentencePiece's Unigram.

As llama.cpp's converter writes them (ggml-org/llama.cpp, conversion/bert.py: ``set_vocab`` and
``_xlmroberta_set_vocab``) and its tokenizers read them (src/llama-vocab.cpp: ``WPM``, ``UGM``).
"""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from polyvec.errors import SpecError
from polyvec.model.gguf_tokenizer import wordpiece_from_gguf

CONTROL, UNUSED = 3, 5
_SPACE = "▁"
_LONGEST_WORD = 100
_UNUSED_SCORE = -10_000.0  # as llama.cpp's converter scores rows without a token

Json = dict[str, Any]


def wordpiece_keys(state: Json, kinds: Mapping[str, int]) -> Json:
    """Return the keys of a WordPiece vocabulary.

    llama.cpp looks for ``▁word`` where BERT has ``word`` and for ``ing`` where it has ``##ing``.

    Args:
        state: ``tokenizer.json``.
        kinds: Every token, in the order of ids, and its GGUF type.

    Raises:
        SpecError: The tokenizer is not quite BERT's, or the marks make two tokens one.
    """
    model, normalizer = state["model"], state["normalizer"] or {}
    usual = {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
    }  # fmt: skip
    same = (
        {key: normalizer.get(key) for key in usual} == usual
        and (state["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        and model["continuing_subword_prefix"] == "##"
        and model["max_input_chars_per_word"] == _LONGEST_WORD
    )
    if not same:
        raise SpecError(
            "The tokenizer is WordPiece, but not as BERT has it, and GGUF knows no other (it "
            f"normalizes by {normalizer or None}, splits by {state['pre_tokenizer']}, marks "
            f"continuations by {model['continuing_subword_prefix']!r} and reads words of up to "
            f"{model['max_input_chars_per_word']} characters). Export it to a folder."
        )
    lowercase, accents = normalizer["lowercase"], normalizer.get("strip_accents")
    return {
        "model": "bert",
        "pre": "default",
        "tokens": _marked(kinds),
        "normalizer.lowercase": lowercase,
        "normalizer.strip_accents": lowercase if accents is None else accents,
    }


def _marked(kinds: Mapping[str, int]) -> list[str]:
    """Return tokens with llama.cpp's marks, making sure that they can be undone."""
    marked: dict[str, str] = {}
    for token, kind in kinds.items():
        if kind in (CONTROL, UNUSED):
            written = token
        else:
            written = token[2:] if token.startswith("##") else _SPACE + token
        if written in marked or wordpiece_from_gguf(written, kind) != token:
            raise SpecError(
                f"The token {token!r} would be {written!r} in a GGUF, which there means "
                f"{marked.get(written, wordpiece_from_gguf(written, kind))!r}. Export the model "
                "to a folder, which keeps tokenizer.json."
            )
        marked[written] = token
    return list(marked)


def unigram_keys(state: Json, kinds: Mapping[str, int]) -> Json:
    """Return the keys of a Unigram vocabulary, as XLM-RoBERTa has it.

    Args:
        state: ``tokenizer.json``.
        kinds: Every token, in the order of ids, and its GGUF type.

    Raises:
        SpecError: The tokenizer treats bytes or spaces in a way that GGUF has no words for.
    """
    if state["model"].get("byte_fallback"):
        raise SpecError(
            "The tokenizer is Unigram and spells what it does not know in bytes, which polyvec "
            "does not write into a GGUF. Export it to a folder."
        )
    charsmap, prefix = _characters(state)
    scores = {piece: float(score) for piece, score in state["model"]["vocab"]}
    rest = {token: _UNUSED_SCORE if kind == UNUSED else 0.0 for token, kind in kinds.items()}
    keys: Json = {
        "model": "t5",
        "pre": "default",
        "scores": list((rest | {t: s for t, s in scores.items() if t in rest}).values()),
        "add_space_prefix": prefix,
        "remove_extra_whitespaces": True,
    }
    return keys if charsmap is None else keys | {"precompiled_charsmap": charsmap}


def _characters(state: Json) -> tuple[bytes | None, bool]:
    """Return the table of characters, and whether a text begins as if after a space.

    Two ways of treating spaces are SentencePiece's own, with which one space is as many and none
    at either end counts: to split at white space, or to take ends and repetitions out before.

    Raises:
        SpecError: They are treated in a third way.
    """
    steps, splits = _flat(state["normalizer"], "normalizers"), _splits(state)
    charsmap = None
    if steps and steps[0]["type"] == "Precompiled":
        charsmap = b64decode(steps.pop(0)["precompiled_charsmap"])
    kinds = [step["type"] for step in splits]
    tidy = _tidies(steps)
    # Only a table of characters makes tabs and line ends into the spaces that GGUF splits at.
    known = (kinds == ["WhitespaceSplit", "Metaspace"] and charsmap and (tidy or not steps)) or (
        kinds == ["Metaspace"] and tidy
    )
    last = splits[-1] if splits else {}
    scheme = last.get("prepend_scheme")
    if not known or scheme == "first" or last.get("replacement") != _SPACE:
        raise SpecError(
            "The tokenizer treats spaces in a way that GGUF has no words for (it normalizes by "
            f"{[step['type'] for step in steps]} and splits by {splits}). Export it to a folder."
        )
    return charsmap, scheme == "always"


def _tidies(steps: list[Json]) -> bool:
    """Whether steps take spaces off the end and make one of several; Metaspace needs no more."""
    strips = [step for step in steps if step["type"] == "Strip" and step["strip_right"]]
    joins = [
        step
        for step in steps
        if step["type"] == "Replace"
        and step["pattern"] == {"Regex": " {2,}"}
        and step["content"] in (" ", _SPACE)
    ]
    return len(strips) == len(joins) == 1 and len(steps) == 2


def _splits(state: Json) -> list[Json]:
    return _flat(state["pre_tokenizer"], "pretokenizers")


def _flat(step: Json | None, parts: str) -> list[Json]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [flat for part in step[parts] for flat in _flat(part, parts)]
    return [step]
