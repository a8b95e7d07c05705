"""A tokenizer from GGUF metadata: byte-level BPE, SentencePiece BPE, WordPiece and Unigram.

Splitting rules by name are llama.cpp's (``llama_vocab_pre_type`` in src/llama-vocab.cpp) in the
form the models' own ``tokenizer.json`` files give them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from polyvec.errors import ModelFileError, SpecError
from polyvec.model.gguf_file import GgufFile, Value
from polyvec.model.tokens import Tokenizer

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class _Rules:
    """How text is split before BPE, and llama.cpp's defaults for that kind."""

    split: Callable[[], pre_tokenizers.PreTokenizer]
    ignore_merges: bool = False
    add_bos: bool = False
    nfc: bool = False


def _by_regex(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, byte_level])


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _smollm() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


_RULES = {
    "gpt-2": _Rules(_gpt2),
    "smollm": _Rules(_smollm),
    "llama-bpe": _Rules(lambda: _by_regex(_LLAMA3), ignore_merges=True, add_bos=True),
    # Llama 3's rules where tokenizer.json, as in the first release, follows merges for whole words.
    "smaug-bpe": _Rules(lambda: _by_regex(_LLAMA3)),
    "qwen2": _Rules(lambda: _by_regex(_QWEN2), nfc=True),
}


def rules_name(backend: Backend) -> str:
    """Name the rules by which a byte-level BPE tokenizer splits text, the way back.

    Raises:
        SpecError: They are none of those polyvec knows by name.
    """
    state = orjson.loads(backend.to_str())
    ignores_merges = bool(state["model"].get("ignore_merges"))
    normalizer = _flat(state["normalizer"], "normalizers")
    for name, rules in _RULES.items():
        same = (
            _flat(state["pre_tokenizer"], "pretokenizers") == _flat_split(rules)
            and ignores_merges == rules.ignore_merges
            and normalizer == ([{"type": "NFC"}] if rules.nfc else [])
        )
        if same:
            return name
    raise SpecError(
        "The tokenizer splits text by rules that have no name polyvec knows "
        f"({', '.join(_RULES)}), so a GGUF would be tokenized otherwise. It normalizes by "
        f"{normalizer or 'nothing'}, {'ignores' if ignores_merges else 'follows'} merges for whole "
        f"words and splits by {state['pre_tokenizer']}. Use the safetensors folder."
    )


def _flat_split(rules: _Rules) -> list[dict[str, Any]]:
    bare = Backend(models.BPE())
    bare.pre_tokenizer = rules.split()
    return _flat(orjson.loads(bare.to_str())["pre_tokenizer"], "pretokenizers")


def _flat(step: dict[str, Any] | None, parts: str) -> list[dict[str, Any]]:
    """Write a step of ``tokenizer.json`` as a list, without what changes offsets only."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [flat for part in step[parts] for flat in _flat(part, parts)]
    return [{key: value for key, value in step.items() if key != "trim_offsets"}]


def tokenizer_from_gguf(file: GgufFile) -> Tokenizer:
    """Build the tokenizer a GGUF file describes, with its BOS and EOS.

    Raises:
        ModelFileError: The file describes no tokenizer, or one polyvec cannot build.
    """
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind is None:
        raise ModelFileError(f"{file.path} has no tokenizer (key tokenizer.ggml.model is missing).")
    if kind == "bert":
        return _wordpiece_tokenizer(file)
    if kind == "gpt2":
        backend, add_bos = _byte_level_bpe(file)
    elif kind == "llama":
        backend, add_bos = _sentencepiece_bpe(file), True
    elif kind == "t5":
        backend, add_bos = _unigram(file), False
    else:
        raise ModelFileError(
            f"{file.path} has a tokenizer of kind {kind!r}; polyvec builds 'gpt2', 'llama', "
            "'bert' and 't5'."
        )
    _add_special_tokens(backend, file, _tokens(file))
    return Tokenizer(
        backend,
        _special(file, "bos", default=add_bos),
        _special(file, "eos", default=kind == "t5"),
        _token(file, "bos"),
        _token(file, "eos"),
    )


def _byte_level_bpe(file: GgufFile) -> tuple[Backend, bool]:
    name = file.metadata.get("tokenizer.ggml.pre", "gpt-2")
    rules = _RULES.get(str(name))
    if rules is None:
        raise ModelFileError(
            f"{file.path} splits text by the rules {name!r} (key tokenizer.ggml.pre); polyvec "
            f"knows {', '.join(_RULES)}. Use the model's safetensors folder instead."
        )
    pairs = (str(pair).partition(" ") for pair in _list(file, "tokenizer.ggml.merges"))
    merges = [(left, right) for left, _, right in pairs]
    backend = Backend(_bpe(file, _vocabulary(file), merges, ignore_merges=rules.ignore_merges))
    backend.pre_tokenizer = rules.split()
    backend.decoder = decoders.ByteLevel()
    if rules.nfc:
        backend.normalizer = normalizers.NFC()
    return backend, rules.add_bos


def _sentencepiece_bpe(file: GgufFile) -> Backend:
    vocabulary = _vocabulary(file)
    tokens = _tokens(file)
    scores = _scores(file, len(tokens))
    unknown = _token(file, "unknown")
    backend = Backend(
        _bpe(
            file,
            vocabulary,
            _merges_by_score(vocabulary, scores),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    if file.metadata.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("▁"))
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def _wordpiece_tokenizer(file: GgufFile) -> Tokenizer:
    """Build BERT's tokenizer: its first and last token are [CLS] and [SEP].

    Most files do not say whether a model is uncased; a vocabulary without a single capital is.
    (llama.cpp lower-cases and takes accents off unless it is told; older ones keep accents.)
    """
    words = [*map(wordpiece_from_gguf, _tokens(file), _token_types(file))]
    vocabulary = {word: number for number, word in enumerate(words)}
    uncased = file.metadata.get("tokenizer.ggml.normalizer.lowercase")
    if not isinstance(uncased, bool):
        uncased = all(word == word.lower() for word in words if not _is_bracketed(word))
    accents = file.metadata.get("tokenizer.ggml.normalizer.strip_accents")
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=uncased, strip_accents=accents if isinstance(accents, bool) else uncased
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    _add_special_tokens(backend, file, words)
    first = _named(file, ("bos", "cls"), "[CLS]", vocabulary)
    last = _named(file, ("seperator", "eos"), "[SEP]", vocabulary)  # so spelled in llama.cpp
    adds = (file.metadata.get(f"tokenizer.ggml.add_{n}_token", True) for n in ("bos", "sep"))
    before, after = ([token] if add else [] for token, add in zip((first, last), adds, strict=True))
    return Tokenizer(backend, before, after, first, last)


def wordpiece_from_gguf(token: str, kind: int) -> str:
    """Undo llama.cpp's marks: it writes ``▁word`` for ``word`` and ``ing`` for ``##ing``.

    ``kind`` is the token's GGUF type; special ones bear no mark.
    """
    if kind == _CONTROL or _is_bracketed(token):
        return token
    return token[1:] if token.startswith("▁") and len(token) > 1 else f"##{token}"


def _is_bracketed(token: str) -> bool:
    return token.startswith("[") and token.endswith("]") and len(token) > 1


def _named(file: GgufFile, keys: Sequence[str], name: str, vocabulary: Mapping[str, int]) -> int:
    """Return the id of a special token: what a key says, else the token that is called so."""
    stated = (_token(file, key) for key in keys)
    token = next((t for t in stated if t is not None), vocabulary.get(name))
    if token is None:
        raise ModelFileError(
            f"{file.path} does not say which token is {name} (key tokenizer.ggml.{keys[0]}"
            "_token_id is missing), and none is called so."
        )
    return token


def _unigram(file: GgufFile) -> Backend:
    """Build SentencePiece's Unigram, as XLM-RoBERTa has it."""
    tokens = _tokens(file)
    scores = _scores(file, len(tokens))
    charsmap = file.metadata.get("tokenizer.ggml.precompiled_charsmap")
    steps: list[normalizers.Normalizer] = []
    try:
        pieces = list(zip(tokens, scores, strict=True))
        backend = Backend(models.Unigram(pieces, _token(file, "unknown"), byte_fallback=False))
        if isinstance(charsmap, list):
            steps.append(normalizers.Precompiled(np.array(charsmap).astype(np.uint8).tobytes()))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelFileError(
            f"{file.path} has a tokenizer that contradicts itself: {error}."
        ) from error
    if file.metadata.get("tokenizer.ggml.remove_extra_whitespaces", True):
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    prefix = "always" if file.metadata.get("tokenizer.ggml.add_space_prefix", True) else "never"
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix)
    backend.decoder = decoders.Metaspace(prepend_scheme=prefix)
    return backend


def _scores(file: GgufFile, count: int) -> list[float]:
    scores = [s for s in _list(file, "tokenizer.ggml.scores") if isinstance(s, int | float)]
    if len(scores) != count:
        raise ModelFileError(
            f"{file.path} has {len(scores):,} token scores and {count:,} tokens; every token needs "
            "one. Fetch it again."
        )
    return scores


def _bpe(
    file: GgufFile,
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    **options: Any,  # noqa: ANN401 (tokenizers' own)
) -> models.BPE:
    try:
        return models.BPE(vocab=vocabulary, merges=merges, **options)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelFileError(
            f"{file.path} has a tokenizer that contradicts itself: {error}."
        ) from error


def _merges_by_score(vocabulary: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Recover BPE merges: a piece with a higher score is merged earlier, as SentencePiece does."""
    ranked = []
    for piece, token in vocabulary.items():
        splits = [
            (piece[:i], piece[i:])
            for i in range(1, len(piece))
            if piece[:i] in vocabulary and piece[i:] in vocabulary
        ]
        splits.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        ranked += [(-scores[token], order, pair) for order, pair in enumerate(splits)]
    ranked.sort(key=lambda item: (item[0], item[1]))
    return [pair for _, _, pair in ranked]


def _vocabulary(file: GgufFile) -> dict[str, int]:
    return {token: number for number, token in enumerate(_tokens(file))}


def _tokens(file: GgufFile) -> list[str]:
    return [str(token) for token in _list(file, "tokenizer.ggml.tokens")]


def _add_special_tokens(backend: Backend, file: GgufFile, tokens: Sequence[str]) -> None:
    added = [
        AddedToken(token, special=kind != _USER_DEFINED, normalized=False)
        for token, kind in zip(tokens, _token_types(file), strict=True)
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    backend.add_tokens(added)


def _token_types(file: GgufFile) -> list[int]:
    """Return each token's type; 0 for those the file does not tell of."""
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    count = len(_list(file, "tokenizer.ggml.tokens"))
    known = [k if isinstance(k, int) else 0 for k in kinds] if isinstance(kinds, list) else []
    return (known + [0] * count)[:count]


def _special(file: GgufFile, name: str, default: bool) -> list[int]:
    """Return the ids to add for BOS or EOS: the file's own word, else llama.cpp's default."""
    if not file.metadata.get(f"tokenizer.ggml.add_{name}_token", default):
        return []
    token = _token(file, name)
    if token is None:
        raise ModelFileError(
            f"{file.path} says to add {name.upper()} and does not say which token it is "
            f"(key tokenizer.ggml.{name}_token_id is missing)."
        )
    return [token]


def _token(file: GgufFile, name: str) -> int | None:
    value = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
    if not isinstance(value, int):
        return None
    count = len(_list(file, "tokenizer.ggml.tokens"))
    if not 0 <= value < count:
        raise ModelFileError(
            f"{file.path} says its {name} token is number {value:,} of {count:,}. Fetch it again."
        )
    return value


def _list(file: GgufFile, key: str) -> list[Value]:
    value = file.metadata.get(key)
    if not isinstance(value, list):
        raise ModelFileError(f"{file.path} has no list under {key}, which its tokenizer needs.")
    return value
