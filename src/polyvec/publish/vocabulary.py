"""A tokenizer as GGUF metadata: the way back of ``model.gguf_tokenizer``."""

from typing import Any

import orjson

from polyvec.errors import SpecError
from polyvec.model.gguf_tokenizer import rules_name
from polyvec.model.tokens import Tokenizer
from polyvec.publish.encoder_vocabulary import unigram_keys, wordpiece_keys

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_PADDING, _MASK = ("[PAD]", "<pad>"), ("[MASK]", "<mask>")
_SPACE = "▁"

Json = dict[str, Any]


def tokenizer_metadata(tokenizer: Tokenizer, vocab_size: int) -> Json:
    """Return the ``tokenizer.ggml.*`` keys that describe a tokenizer to llama.cpp.

    Args:
        tokenizer: Byte-level BPE, the BPE or the Unigram of SentencePiece, or WordPiece.
        vocab_size: Rows of the token table; rows without a token get an unused one.

    Raises:
        SpecError: It is of a kind, or does something, that GGUF or polyvec has no words for.
    """
    state = orjson.loads(tokenizer.backend.to_str())
    kinds = _token_kinds(tokenizer, state, vocab_size)
    keys = {
        "tokens": list(kinds),
        "token_type": list(kinds.values()),
        **_own_keys(tokenizer, state, kinds),
        **_special_tokens(tokenizer, state),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def _own_keys(tokenizer: Tokenizer, state: Json, kinds: dict[str, int]) -> Json:
    """Return the keys that tokenizers of a kind have."""
    kind = state["model"]["type"]
    if kind == "WordPiece":
        return wordpiece_keys(state, kinds) | _frame(tokenizer)
    if kind == "Unigram":
        return unigram_keys(state, kinds) | _frame(tokenizer)
    if kind != "BPE":
        raise SpecError(
            f"The tokenizer is of kind {kind}; polyvec writes BPE, WordPiece and Unigram ones into "
            "a GGUF. Export it to a folder."
        )
    if state["model"].get("byte_fallback"):
        return _sentencepiece(state, kinds)
    return _byte_level(tokenizer, state)


def _token_kinds(tokenizer: Tokenizer, state: Json, vocab_size: int) -> dict[str, int]:
    """Return every token, in the order of ids, and its type."""
    tokens = {number: token for token, number in tokenizer.backend.get_vocab().items()}
    added = {
        token["content"]: _CONTROL if token["special"] else _USER_DEFINED
        for token in state["added_tokens"]
    }
    if state["model"].get("byte_fallback"):
        added |= {f"<0x{byte:02X}>": _BYTE for byte in range(256)}
    unknown = _unknown(state)
    if unknown is not None and state["model"]["type"] != "WordPiece":  # there it is a special one
        added[unknown] = _UNKNOWN
    kinds: dict[str, int] = {}
    for number in range(vocab_size):
        token = tokens.get(number)
        if token is None:
            kinds[f"[PAD{number}]"] = _UNUSED  # as llama.cpp's converter names them
        else:
            kinds[token] = added.get(token, _NORMAL)
    if len(kinds) != vocab_size:
        raise SpecError("The vocabulary has a token called [PAD...] where none belongs.")
    return kinds


def _unknown(state: Json) -> str | None:
    """Return the token for what is not in the vocabulary: by name, a Unigram's by number."""
    model = state["model"]
    if model["type"] == "Unigram":
        number = model["unk_id"]
        return None if number is None else str(model["vocab"][number][0])
    unknown: str | None = model.get("unk_token")
    return unknown


def _byte_level(tokenizer: Tokenizer, state: Json) -> Json:
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in _merges(state)]
    return {
        "model": "gpt2",
        "pre": rules_name(tokenizer.backend),
        "merges": [" ".join(pair) for pair in pairs],
    }


def _sentencepiece(state: Json, kinds: dict[str, int]) -> Json:
    """Give each piece a score that falls with the rank of its first merge, as SentencePiece has."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(_merges(state)):
        ranks.setdefault("".join(pair.split(" ") if isinstance(pair, str) else pair), rank)
    last = len(_merges(state))
    scored = {token: -float(ranks.get(token, last)) for token in kinds}
    return {
        "model": "llama",
        "pre": "default",
        "scores": [s if kinds[token] == _NORMAL else 0.0 for token, s in scored.items()],
        "add_space_prefix": _adds_space(state),
    }


def _merges(state: Json) -> list[Any]:
    merges: list[Any] = state["model"]["merges"]
    return merges


def _adds_space(state: Json) -> bool:
    """Whether a text begins as if a space were before it, by either way of saying so.

    Raises:
        SpecError: Spaces are treated in a third way.
    """
    normalizer, splitter = state["normalizer"], state["pre_tokenizer"]
    if splitter is None and normalizer is not None:
        steps = normalizer.get("normalizers", [normalizer])
        kinds = [step["type"] for step in steps]
        if kinds in (["Prepend", "Replace"], ["Replace"]):
            return kinds[0] == "Prepend"
    if normalizer is None and splitter is not None and splitter["type"] == "Metaspace":
        scheme = splitter["prepend_scheme"]
        if splitter["replacement"] == _SPACE and not splitter.get("split", True):
            return bool(scheme != "never")
    raise SpecError(
        "The tokenizer treats spaces in a way that GGUF has no words for (it normalizes by "
        f"{normalizer} and splits by {splitter}). Use the safetensors folder."
    )


def _special_tokens(tokenizer: Tokenizer, state: Json) -> Json:
    added = {"bos": tokenizer.bos_ids, "eos": tokenizer.eos_ids}
    named = {"bos": tokenizer.named_bos, "eos": tokenizer.named_eos}
    keys: Json = {}
    for name, ids in added.items():
        if len(ids) > 1:
            raise SpecError(
                f"The tokenizer adds {len(ids)} tokens for {name.upper()}; a GGUF can say one."
            )
        keys[f"add_{name}_token"] = bool(ids)
        if named[name] is not None:
            keys[f"{name}_token_id"] = named[name]
    unknown = _unknown(state)
    if unknown is not None:
        keys["unknown_token_id"] = tokenizer.backend.token_to_id(unknown)
    return keys


def _frame(tokenizer: Tokenizer) -> Json:
    """Say which token is first and which is last, in BERT's words too.

    Raises:
        SpecError: The model has texts without them, which llama.cpp's WordPiece has not.
    """
    if not tokenizer.bos_ids or not tokenizer.eos_ids:
        raise SpecError(
            "The model's texts have no first or no last token of their own ([CLS] and [SEP], or "
            "<s> and </s>), and llama.cpp always adds both for this kind. Export it to a folder."
        )
    keys: Json = {
        "cls_token_id": tokenizer.bos_ids[0],
        "seperator_token_id": tokenizer.eos_ids[0],  # so spelled in llama.cpp
        "add_sep_token": True,
    }
    for name, tokens in (("padding", _PADDING), ("mask", _MASK)):
        found = [n for n in map(tokenizer.backend.token_to_id, tokens) if n is not None]
        if found:
            keys[f"{name}_token_id"] = found[0]
    return keys
