"""Home Assistant's strings in 50 languages, from its wheel on the package index (Apache-2.0).

Names of states, settings and errors of a house's devices, with many whole sentences. The wheel is
68 MB, pinned, and only read: ``components/*/translations/XX.json``, nested objects of strings
whose keys are the same in every language.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence

from polyvec.errors import DownloadError, InputError
from polyvec.sources.strings import string_pairs
from polyvec.sources.wheels import wheel

VERSION = "2026.11.0"
PYTHON = "3.14.2"
"""The oldest Python that this version is for; pip shows it to no other."""
LANGUAGES = (
    "ar", "bg", "ca", "cs", "da", "de", "el", "es", "es-419", "et", "eu", "fi", "fr", "fy", "ga",
    "gl", "gsw", "he", "hr", "hu", "id", "is", "it", "ja", "ko", "lb", "lt", "lv", "mk", "nb",
    "nl", "pl", "pt", "pt-BR", "ro", "ru", "sk", "sl", "sr", "sr-Latn", "sv", "tr", "uk", "vi",
    "zh-Hans", "zh-Hant",
)  # fmt: skip
"""Languages that 100 or more of its components are translated into."""

_FOLDER = "/translations/"


def home_strings(languages: Sequence[str] = LANGUAGES) -> Mapping[str, Mapping[str, str]]:
    """Return translated strings by language and English string, fetched on first use (68 MB).

    Both are plain text: see :func:`polyvec.sources.strings.plain_string`.

    Raises:
        InputError: A language is not there; the message lists those that are.
        DownloadError, DiskFullError: They cannot be fetched, or the wheel is broken.
    """
    if unknown := sorted(set(languages) - set(LANGUAGES)):
        raise InputError(
            f"Home Assistant's strings are not read in {', '.join(unknown)}. Languages: "
            f"{', '.join(LANGUAGES)}."
        )
    path = wheel("homeassistant", VERSION, PYTHON)
    try:
        with zipfile.ZipFile(path) as archive:
            english = _leaves(archive, "en")
            if not english:
                raise DownloadError(f"{path} holds no translations; delete it to fetch it anew.")
            return {x: string_pairs(_joined(english, _leaves(archive, x))) for x in languages}
    except (zipfile.BadZipFile, ValueError) as error:
        raise DownloadError(f"{path} is broken ({error}); delete it to fetch it anew.") from error


def _joined(english: Mapping[str, str], other: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((text, other[key]) for key, text in english.items() if key in other)


def _leaves(archive: zipfile.ZipFile, language: str) -> dict[str, str]:
    """Return a language's strings by component and keys."""
    ending = f"{_FOLDER}{language}.json"
    return {
        f"{name.removesuffix(ending)}/{path}": text
        for name in sorted(archive.namelist())
        if name.endswith(ending)
        for path, text in _walk(json.loads(archive.read(name)))
    }


def _walk(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, f"{path}/{key}")
