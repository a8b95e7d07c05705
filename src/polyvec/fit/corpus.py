"""How many texts and tokens a corpus has, counted with the model's own tokenizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from polyvec.errors import InputError

if TYPE_CHECKING:
    from polyvec.model.files import ModelFiles

_TEXTS_AT_ONCE = 1_024


@dataclass(frozen=True)
class Counted:
    """What a corpus asks of a model."""

    texts: int
    tokens: int
    """That the model reads: what is beyond its limit is not in it."""
    longest: int
    """Tokens of the longest text, before any cut."""
    cut: int
    """Texts that are longer than the model reads."""


def count_tokens(files: "ModelFiles", texts: Iterable[str]) -> Counted:
    """Count the tokens of documents; texts without a word are left out.

    Raises:
        InputError: There is no text.
    """
    total = tokens = longest = cut = 0
    limit = files.spec.max_tokens
    rest = (text for text in texts if text.strip())
    while part := list(islice(rest, _TEXTS_AT_ONCE)):
        counts = files.tokenizer.encode(part, files.spec, "document").counts
        total += len(counts)
        tokens += sum(min(count, limit) for count in counts)
        longest = max(longest, *counts)
        cut += sum(count > limit for count in counts)
    if not total:
        raise InputError("The corpus has no text in it.")
    return Counted(total, tokens, longest, cut)
