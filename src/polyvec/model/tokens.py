"""Texts to token ids: the only place where a prefix, BOS or EOS is added and a text is cut."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

import tokenizers

from polyvec.errors import InputError, InputTypeError, TooLongError
from polyvec.spec import Role, Spec, check_choice

Truncate = Literal["end", "start", "error"]
OnEmpty = Literal["error", "zero"]

# The tokenizer's own objects take some 200 bytes a token; ids are taken out slice by slice.
_SLICE_CHARACTERS = 1_000_000
_SLICE_TEXTS = 1_024


@dataclass
class Tokens:
    """Token ids of texts, ready to pack, and what happened on the way."""

    ids: list[list[int]] = field(default_factory=list)
    """What the model reads: BOS, prefix, text, EOS, at most ``max_tokens`` of them."""
    counts: list[int] = field(default_factory=list)
    """How many tokens each text had before any cut, BOS, prefix and EOS included."""

    @property
    def cut(self) -> list[int]:
        """Indices of the texts that were cut."""
        return [i for i, ids in enumerate(self.ids) if len(ids) < self.counts[i]]


class Tokenizer:
    """A ``tokenizers`` tokenizer, with the tokens that go before and after each text."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        bos_ids: Sequence[int] = (),
        eos_ids: Sequence[int] = (),
        named_bos: int | None = None,
        named_eos: int | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.bos_ids, self.eos_ids = list(bos_ids), list(eos_ids)
        # The ids the files name as BOS and EOS, added to texts or not.
        self.named_bos = bos_ids[0] if bos_ids else named_bos
        self.named_eos = eos_ids[0] if eos_ids else named_eos

    def encode(
        self,
        texts: Sequence[str],
        spec: Spec,
        role: Role,
        instruction: str | None = None,
        truncate: Truncate = "end",
    ) -> Tokens:
        """Tokenize texts for a role.

        Args:
            texts: Texts that passed :func:`check_texts`.
            spec: Says prefix, BOS, EOS and ``max_tokens``.
            role: ``query`` or ``document``.
            instruction: For queries; None means the model's own.
            truncate: What to do with a text over ``max_tokens``: cut its ``end`` off, cut its
                ``start`` off, or raise an ``error``. The prefix is never cut.

        Raises:
            InputError: A text is too long and ``truncate`` is ``error``, or the prefix alone
                fills ``max_tokens``.
        """
        check_choice("truncate", truncate, Truncate)
        prefix = spec.prefix(role, instruction)
        tokens = Tokens()
        for part in _slices(texts):
            encodings = self.backend.encode_batch(
                [prefix + text for text in part], add_special_tokens=False
            )
            for encoding in encodings:
                self._append(tokens, encoding, spec, len(prefix), truncate)
        return tokens

    def _append(
        self,
        tokens: Tokens,
        encoding: tokenizers.Encoding,
        spec: Spec,
        prefix_characters: int,
        truncate: Truncate,
    ) -> None:
        ids = encoding.ids
        count = len(ids) + len(self.bos_ids) + len(self.eos_ids)
        excess = count - spec.max_tokens
        if excess > 0:
            if truncate == "error":
                raise _too_long(len(tokens.ids), count, spec.max_tokens)
            ids = _cut(encoding, excess, prefix_characters, truncate)
        tokens.ids.append([*self.bos_ids, *ids, *self.eos_ids])
        tokens.counts.append(count)

    def encode_ids(
        self,
        token_ids: Sequence[Sequence[int]],
        spec: Spec,
        role: Role,
        truncate: Truncate = "end",
    ) -> Tokens:
        """Put BOS, prefix and EOS around texts that are this tokenizer's ids already.

        A BOS or EOS that is there is not doubled. The prefix is tokenized by itself, so a merge
        over its seam with the text, which :meth:`encode` makes, is not made.

        Raises:
            InputError: An id is not in the vocabulary, or as for :meth:`encode`.
        """
        check_choice("truncate", truncate, Truncate)
        before, after, room = self._frame(spec, role)
        tokens = Tokens()
        for number, ids in enumerate(token_ids):
            wrong = next((i for i in ids if not 0 <= i < self.vocab_size), None)
            if wrong is not None:
                raise InputError(
                    f"Text {number} has the token id {wrong}, and this model's ids are 0 to "
                    f"{self.vocab_size - 1}: they are another tokenizer's. Send strings."
                )
            inner = _without(ids, self.bos_ids, self.eos_ids)
            if len(inner) > room and truncate == "error":
                raise _too_long(number, len(before) + len(inner) + len(after), spec.max_tokens)
            kept = inner[len(inner) - room :] if truncate == "start" else inner[:room]
            tokens.ids.append([*before, *(kept if len(inner) > room else inner), *after])
            tokens.counts.append(len(before) + len(inner) + len(after))
        return tokens

    def encode_pieces(
        self, texts: Sequence[str], spec: Spec, role: Role, instruction: str | None = None
    ) -> list[list[list[int]]]:
        """Tokenize texts of any length, each as pieces that the model can read.

        Every piece has BOS, prefix and EOS. A text that fits is one piece, the same as
        :meth:`encode` gives.
        """
        before, after, room = self._frame(spec, role, instruction)
        pieces = []
        for text in texts:
            whole = self.encode([text], replace(spec, max_tokens=sys.maxsize), role, instruction)
            if len(whole.ids[0]) <= spec.max_tokens:
                pieces.append(whole.ids)
                continue
            ids = self.backend.encode(text, add_special_tokens=False).ids
            parts = [ids[start : start + room] for start in range(0, len(ids), room)]
            pieces.append([[*before, *part, *after] for part in parts])
        return pieces

    def _frame(
        self, spec: Spec, role: Role, instruction: str | None = None
    ) -> tuple[list[int], list[int], int]:
        """Return the ids before a text, those after it, and how many it may have itself."""
        prefix = self.backend.encode(spec.prefix(role, instruction), add_special_tokens=False).ids
        before, after = [*self.bos_ids, *prefix], self.eos_ids
        room = spec.max_tokens - len(before) - len(after)
        if room < 1:
            raise _no_room_for_text(len(prefix))
        return before, after, room

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included."""
        return str(self.backend.decode(list(ids), skip_special_tokens=False))

    def with_specials(self, bos: bool | None = None, eos: bool | None = None) -> "Tokenizer":
        """Return this tokenizer adding BOS or EOS, or not; None leaves it as it is."""
        before, after = self.bos_ids, self.eos_ids
        if bos is not None:
            before = [self.named_bos] if bos and self.named_bos is not None else []
        if eos is not None:
            after = [self.named_eos] if eos and self.named_eos is not None else []
        return Tokenizer(self.backend, before, after, self.named_bos, self.named_eos)

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary, added ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))


def _cut(
    encoding: tokenizers.Encoding, excess: int, prefix_characters: int, truncate: Truncate
) -> list[int]:
    ids: list[int] = encoding.ids
    num_prefix = sum(end <= prefix_characters for _, end in encoding.offsets[: len(ids) - excess])
    if prefix_characters and num_prefix == len(ids) - excess:
        raise _no_room_for_text(num_prefix)
    if truncate == "end":
        return ids[: len(ids) - excess]
    keep = num_prefix if prefix_characters else 0
    return ids[:keep] + ids[keep + excess :]


def _without(ids: Sequence[int], bos_ids: list[int], eos_ids: list[int]) -> list[int]:
    inner = list(ids)
    if bos_ids and inner[: len(bos_ids)] == bos_ids:
        inner = inner[len(bos_ids) :]
    if eos_ids and inner[-len(eos_ids) :] == eos_ids:
        inner = inner[: -len(eos_ids)]
    return inner


def _too_long(number: int, count: int, max_tokens: int) -> TooLongError:
    return TooLongError(
        f"Text {number} has {count:,} tokens and the model reads {max_tokens:,}.",
        "Shorten it, or choose truncate='end' or 'start'.",
    )


def _no_room_for_text(num_prefix: int) -> InputError:
    return InputError(
        f"The prefix alone has {num_prefix} tokens or more, instruction included, which leaves "
        "none of max_tokens for the text. Shorten it or give a larger max_tokens."
    )


def _slices(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut texts into lists small enough for the tokenizer's own objects to fit in memory."""
    texts = iter(texts)
    while part := list(islice(texts, 1)):
        characters = len(part[0])
        while characters < _SLICE_CHARACTERS and len(part) < _SLICE_TEXTS:
            following = next(texts, None)
            if following is None:
                break
            part.append(following)
            characters += len(following)
        yield part


def check_texts(texts: Sequence[str], on_empty: OnEmpty = "error") -> None:
    """Refuse what cannot be embedded, naming the text by its index.

    NUL bytes and control characters are kept: they are ordinary characters to a tokenizer.

    Raises:
        InputTypeError: ``texts`` is a single string, or holds something that is not a string.
        InputError: A text is empty or white space (unless ``on_empty`` is ``zero``), or holds a
            lone surrogate.
    """
    if isinstance(texts, str | bytes):
        raise InputTypeError(
            f"A list of texts is needed and one {type(texts).__name__} was given: {texts[:40]!r}. "
            "Write it as a list: [text]."
        )
    check_choice("on_empty", on_empty, OnEmpty)
    for index, text in enumerate(texts):
        problem = text_problem(text, on_empty)
        if problem is not None:
            kind = InputError if isinstance(text, str) else InputTypeError
            raise kind(f"Text {index} {problem}")


def text_problem(text: object, on_empty: OnEmpty = "error") -> str | None:
    """Return what is wrong with a text, as the end of a sentence, or None."""
    if not isinstance(text, str):
        return f"is {text!r:.60}, a {type(text).__name__}; only strings can be embedded."
    if on_empty == "error" and not text.strip():
        what = "only white space" if text else "empty"
        return f"is {what}: nothing to embed. Leave it out, or choose 'zero' for empty texts."
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"has a lone surrogate ({text[error.start]!a}) at character {error.start}, which is "
            "not Unicode text. Read the source with the right encoding, or errors='replace'."
        )
    return None
