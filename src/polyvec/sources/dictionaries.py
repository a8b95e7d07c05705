"""FreeDict's dictionaries between English and 29 languages, from Debian's packages.

Their licences differ: GPL-2+, GPL-3+ or CC-BY-SA-3.0, each in its package's copyright file.
A package ``dict-freedict-XXX-YYY`` (0.02-17 MB) has dictd's two files: an index of headwords with
places in base 64, and the text, gzipped. An entry begins with its headwords, with pronunciation
and grammar, then come its senses.
"""

import gzip
import re
import string
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from polyvec.errors import DownloadError, InputError
from polyvec.sources.apt import packages
from polyvec.sources.deb import files

_DICTIONARIES = {
    "af": ("afr-eng",), "ar": ("eng-ara", "ara-eng"), "bg": ("eng-bul",), "cy": ("cym-eng",),
    "da": ("dan-eng",), "de": ("deu-eng",), "el": ("ell-eng",), "eo": ("epo-eng",),
    "es": ("spa-eng", "eng-spa"), "fi": ("fin-eng", "eng-fin"), "fr": ("fra-eng",),
    "hi": ("eng-hin",), "hr": ("hrv-eng", "eng-hrv"), "hu": ("hun-eng", "eng-hun"),
    "id": ("eng-ind",), "is": ("isl-eng",), "it": ("ita-eng", "eng-ita"),
    "ja": ("jpn-eng", "eng-jpn"), "kmr": ("kur-eng",), "la": ("lat-eng",),
    "lt": ("lit-eng", "eng-lit"), "nb": ("eng-nor",), "nl": ("nld-eng",), "pl": ("pol-eng",),
    "pt": ("por-eng",), "ru": ("eng-rus",), "sl": ("slv-eng",), "sv": ("swe-eng",),
    "sw": ("swh-eng", "eng-swh"), "tr": ("eng-tur", "tur-eng"),
}  # fmt: skip
LANGUAGES = tuple(_DICTIONARIES)
"""Languages with 1,000 or more entries in Debian 12."""

_DIGITS = {x: i for i, x in enumerate(string.ascii_uppercase + string.ascii_lowercase)} | {
    x: i + 52 for i, x in enumerate("0123456789+/")
}
_SOUND = re.compile(r"//.*?//|/[^/]*/")
_MARKS = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)|\{[^{}]*\}|（[^（）]*）")
_NUMBER = re.compile(r"(?:\d+|[IVX]+)\.\s*")
_NOTE = re.compile(r"(Note|Synonyms?|Antonyms?|See also|see|Translation|Example)s?\b.*:|\"|-")
_KANA_NOTE = "Note: word usually written using kana alone"
"""It has no line end after it in jpn-eng: the sense follows at once."""
_PLAIN = str.maketrans({"~": " ", "_": " ", "`": "'", "‐": "-"})
_MAX_WORDS = 8
"""What is longer is an explanation and no word."""


def word_pairs(
    languages: Sequence[str] = LANGUAGES, max_senses: int = 2, max_words: int = 3
) -> Mapping[str, list[tuple[str, str]]]:
    """Return (foreign, English) by language, once each, fetched on first use (73 MB for all).

    Args:
        languages: Which ones.
        max_senses: A pair for each of so many of a headword's first senses.
        max_words: A sense's first so many words of the same meaning, with commas between.

    Raises:
        InputError: A language is not there; the message lists those that are.
        DownloadError, DiskFullError: They cannot be fetched, or a package is broken.
    """
    if unknown := sorted(set(languages) - set(LANGUAGES)):
        raise InputError(
            f"There is no dictionary of {', '.join(unknown)}. Languages: {', '.join(LANGUAGES)}."
        )
    names = {x: [f"dict-freedict-{pair}" for pair in _DICTIONARIES[x]] for x in languages}
    found = packages([name for several in names.values() for name in several])
    pairs = {}
    for language, several in names.items():
        read = (p for x in several for p in _pairs(x, found[x], max_senses, max_words))
        pairs[language] = list(dict.fromkeys(read))
    return pairs


def _pairs(name: str, path: Path, max_senses: int, max_words: int) -> Iterator[tuple[str, str]]:
    from_english = name.startswith("dict-freedict-eng-")
    for entry in _entries(path):
        headword, senses = parse_entry(entry, max_senses, max_words)
        for sense in senses if headword else ():
            if sense.casefold() != headword.casefold():
                yield (sense, headword) if from_english else (headword, sense)


def _entries(package: Path) -> Iterator[str]:
    """Yield the text of every entry in the text's order; several headwords may have one."""
    parts = {path.rpartition(".")[2]: data for path, data in files(package, "usr/share/dictd/")}
    try:
        text = gzip.decompress(parts["dz"])
        lines = parts["index"].decode().splitlines()
        rows = (line.split("\t") for line in lines if not line.startswith("00"))
        places = sorted({(_number(row[1]), _number(row[2])) for row in rows})
        for start, length in places:
            yield unicodedata.normalize("NFC", text[start : start + length].decode())
    except (KeyError, IndexError, EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise DownloadError(
            f"{package} is broken ({error!r}); delete it to fetch it anew."
        ) from error


def _number(digits: str) -> int:
    """Return a number as dictd writes it (dictfmt(1)): base 64, the highest digit first."""
    value = 0
    for digit in digits:
        value = 64 * value + _DIGITS[digit]
    return value


def parse_entry(entry: str, max_senses: int = 2, max_words: int = 3) -> tuple[str, list[str]]:
    """Return an entry's headword and its first senses, without sounds, marks and explanations.

    A sense is the first line after its number, or after the headword: further ones explain it.
    """
    first, *lines = entry.strip().splitlines() or [""]
    headword = next(iter(_words(_SOUND.sub("", first))), "")
    if headword.startswith("-") or headword.endswith("-"):
        return headword, []  # a part of words
    senses: list[str] = []
    waiting = True
    for line in lines:
        text = line.strip().removeprefix(_KANA_NOTE)
        if number := _NUMBER.match(text):
            text = text[number.end() :]
            waiting = bool(text)  # an empty sense has an explanation only
        words = [] if _NOTE.match(text) else _words(text)[:max_words]
        if waiting and words:
            senses.append(", ".join(words))
            waiting = False
    return headword, list(dict.fromkeys(senses))[:max_senses]


def _words(text: str) -> list[str]:
    """Return what commas part, cleaned; too long ones and those without a letter are left out."""
    before = None
    while before != text:  # brackets stand in brackets
        before, text = text, _MARKS.sub(" ", text)
    pieces = re.split("[,;،]", text.translate(_PLAIN))
    parts = (" ".join(piece.split()).strip(" .") for piece in pieces)
    kept = (x for x in parts if x and any(map(str.isalpha, x)) and len(x.split()) <= _MAX_WORDS)
    return [x for x in dict.fromkeys(kept) if not re.search(r"[<>\[\]{}()/\\]", x)]
