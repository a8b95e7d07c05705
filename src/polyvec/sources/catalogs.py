"""LibreOffice's menus, dialogs and messages in 90 languages, from Debian's packages (MPL-2.0).

A package ``libreoffice-l10n-XX`` (0.3-0.9 MB) has gettext's ``.mo`` files; a translation's key is
the English string. Many are one word; a tenth to a half of a language's are of four and more.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from polyvec.errors import DownloadError, InputError
from polyvec.sources.apt import packages
from polyvec.sources.deb import files
from polyvec.sources.strings import string_pairs

LANGUAGES = (
    "af", "am", "ar", "as", "ast", "be", "bg", "bn", "br", "bs", "ca", "ca-valencia", "cs", "cy",
    "da", "de", "dz", "el", "eo", "es", "et", "eu", "fa", "fi", "fr", "ga", "gd", "gl", "gu",
    "gug", "he", "hi", "hr", "hu", "id", "is", "it", "ja", "ka", "kk", "km", "kmr", "kn", "ko",
    "lt", "lv", "mk", "ml", "mn", "mr", "nb", "ne", "nl", "nn", "nr", "nso", "oc", "om", "or",
    "pa", "pl", "pt", "pt-BR", "ro", "ru", "rw", "si", "sk", "sl", "sr", "sr-Latn", "ss", "st",
    "sv", "szl", "ta", "te", "tg", "th", "tn", "tr", "ts", "ug", "uk", "uz", "ve", "vi", "xh",
    "zh-CN", "zh-TW", "zu",
)  # fmt: skip
"""Languages with 1,000 or more strings in Debian 12."""

_PLACES = {
    "ca-valencia": ("ca", "ca@valencia"),
    "kmr": ("kmr", "kmr@latin"),
    "pa": ("pa-in", "pa_IN"),
    "sr-Latn": ("sr", "sr@latin"),
}
"""The package and the folder of those that are not called as their language is."""


def ui_strings(languages: Sequence[str] = LANGUAGES) -> Mapping[str, Mapping[str, str]]:
    """Return translated strings by language and English string, fetched on first use (52 MB).

    Both are plain text: see :func:`polyvec.sources.strings.plain_string`.

    Raises:
        InputError: A language is not there; the message lists those that are.
        DownloadError, DiskFullError: They cannot be fetched, or a package is broken.
    """
    if unknown := sorted(set(languages) - set(LANGUAGES)):
        raise InputError(
            f"LibreOffice's strings are not read in {', '.join(unknown)}. Languages: "
            f"{', '.join(LANGUAGES)}."
        )
    places = {x: _PLACES.get(x, (x.lower(), x.replace("-", "_"))) for x in languages}
    names = {x: f"libreoffice-l10n-{package}" for x, (package, _) in places.items()}
    found = packages(list(dict.fromkeys(names.values())))
    return {x: string_pairs(_strings(found[names[x]], places[x][1])) for x in languages}


def _strings(package: Path, folder: str) -> Iterator[tuple[str, str]]:
    where = f"usr/lib/libreoffice/program/resource/{folder}/"
    for name, content in files(package, where, ".mo"):
        try:
            yield from read_mo(content)
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise DownloadError(
                f"{name} in {package} is broken ({error}); delete it to fetch it anew."
            ) from error


def read_mo(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield (string, translation) of a compiled gettext file, without its context.

    Strings with a plural, and the header (whose string is empty), are left out. The format is the
    one of gettext's manual, section "The Format of GNU MO Files".

    Raises:
        ValueError, struct.error, UnicodeDecodeError: It is no such file, or cut short.
    """
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(content[:4])
    if order is None:
        raise ValueError("it does not begin as a .mo file does")
    count, strings, translations = struct.unpack_from(f"{order}3I", content, 8)
    for row in range(count):
        string = _text(content, order, strings + 8 * row)
        translation = _text(content, order, translations + 8 * row)
        if string and translation and "\0" not in string:
            yield string.rpartition("\x04")[2], translation


def _text(content: bytes, order: str, at: int) -> str:
    length, start = struct.unpack_from(f"{order}2I", content, at)
    if start + length > len(content):
        raise ValueError("it is cut short")
    return content[start : start + length].decode()
