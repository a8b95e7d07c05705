"""Which files are read, and by what: decided by a file's name, else by its first bytes."""

import difflib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from polyvec.errors import InputError
from polyvec.search.mailbox import is_mailbox

How = Literal["text", "markdown", "code", "office", "mailbox"]
"""Lines of text; with Markdown's headings; with a grammar; what kreuzberg unpacks; mbox."""


@dataclass(frozen=True)
class Kind:
    """A type of file, and how it is read."""

    file_type: str
    how: How


def _kinds(how: How, **endings: str) -> dict[str, Kind]:
    return {
        ending: Kind(file_type, how)
        for file_type, listed in endings.items()
        for ending in listed.split()
    }


_KINDS = {
    **_kinds(
        "office",
        pdf="pdf",
        docx="docx docm dotx",
        doc="doc",
        pptx="pptx pptm ppsx",
        ppt="ppt",
        xlsx="xlsx xlsm xlsb",
        xls="xls",
        odt="odt",
        ods="ods",
        rtf="rtf",
        epub="epub",
        fb2="fb2",
        html="html htm xhtml",
        mail="eml msg",
        notebook="ipynb",
    ),
    **_kinds("mailbox", mbox="mbox mbx"),
    **_kinds("markdown", markdown="md markdown mdx qmd rmd"),
    **_kinds(
        "code",
        python="py pyi",
        javascript="js mjs cjs jsx",
        typescript="ts mts",
        tsx="tsx",
        c="c h",
        cpp="cc cpp cxx hpp hh hxx",
        java="java",
        go="go",
        rust="rs",
        ruby="rb",
        bash="sh bash",
        csharp="cs",
    ),
    **_kinds(
        "text",
        text="txt text log",
        rst="rst",
        org="org",
        latex="tex",
        asciidoc="adoc asciidoc",
        csv="csv tsv",
        json="json jsonl ndjson",
        xml="xml",
        yaml="yaml yml",
        toml="toml",
        ini="ini cfg conf",
        sql="sql",
        css="css scss",
        subtitles="srt vtt",
        kotlin="kt kts",
        swift="swift",
        php="php",
        scala="scala",
        lua="lua",
        perl="pl pm",
        r="r",
        julia="jl",
        haskell="hs",
        zig="zig",
    ),
}

_WITHOUT_GRAMMAR = (
    "css sql kotlin swift php scala lua perl r julia haskell zig json yaml toml ini xml"
)
SOURCE_CODE = frozenset(kind.file_type for kind in _KINDS.values() if kind.how == "code")
SOURCE_CODE |= frozenset(_WITHOUT_GRAMMAR.split())
"""Types that are not written in a human language."""

ZIPPED = frozenset({"docx", "pptx", "xlsx", "odt", "ods", "epub"})

_WITHOUT_TEXT = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "bmp",
        "webp",
        "tif",
        "tiff",
        "ico",
        "svgz",
        "heic",
        "psd",
        "mp3",
        "ogg",
        "flac",
        "wav",
        "m4a",
        "opus",
        "mp4",
        "mkv",
        "avi",
        "mov",
        "webm",
        "ttf",
        "otf",
        "woff",
        "woff2",
        "zip",
        "gz",
        "bz2",
        "xz",
        "zst",
        "7z",
        "rar",
        "tar",
        "tgz",
        "jar",
        "whl",
        "deb",
        "rpm",
        "iso",
        "exe",
        "dll",
        "so",
        "dylib",
        "a",
        "o",
        "pyc",
        "class",
        "bin",
        "dat",
        "db",
        "sqlite",
        "sqlite3",
        "npy",
        "npz",
        "parquet",
        "arrow",
        "feather",
        "safetensors",
        "gguf",
        "pt",
        "pth",
        "onnx",
        "pkl",
        "pickle",
        "lance",
        "mo",
    ]
)
"""Endings of files that are passed over without a look: pictures, sound, archives, programs."""


def kind_of(path: str) -> Kind | None:
    """Return a file's kind by its name, None where the name does not say."""
    return _KINDS.get(_ending(path))


def file_type_of(stated: str) -> str:
    """Return the type that is meant: by its name (``markdown``) or an ending (``.md``).

    Raises:
        InputError: No file is of such a type.
    """
    low = stated.strip().lower().removeprefix(".")
    types = sorted({kind.file_type for kind in _KINDS.values()})
    if low in types:
        return low
    if low in _KINDS:
        return _KINDS[low].file_type
    near = difflib.get_close_matches(low, [*types, *_KINDS], n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise InputError(
        f"{stated!r} is no type of document.{meant} Known: {', '.join(types)}, or an ending of "
        "theirs."
    )


def has_no_text(path: str) -> bool:
    """Whether the name says that there is nothing to read."""
    return _ending(path) in _WITHOUT_TEXT


def kind_by_content(start: bytes) -> Kind | None:
    """Return the kind of a file without a telling name by its first bytes: text or nothing."""
    if start.startswith(b"%PDF-"):
        return Kind("pdf", "office")
    if is_mailbox(start):  # Thunderbird's have no ending
        return Kind("mbox", "mailbox")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16 and UTF-32 have zero bytes
        return Kind("text", "text")
    if b"\0" in start:
        return None
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1b\b" for byte in start)
    return Kind("text", "text") if control * 100 <= len(start) else None


def actual_kind(named: Kind | None, start: bytes) -> Kind | None:
    """Return the kind of a file by its name, or by its first bytes where they contradict it.

    Raises:
        InputError: A new Office document that is none: locked by a password, or an old one.
    """
    if named is None:
        return kind_by_content(start)
    if start.startswith(b"%PDF-"):
        return Kind("pdf", "office")
    if named.file_type not in ZIPPED or not start or start.startswith(b"PK"):
        return named
    if start.startswith(_OLD_OFFICE):
        raise InputError(
            "it is locked with a password, or an old Office file under a new one's name"
        )
    return kind_by_content(start) or named


_OLD_OFFICE = b"\xd0\xcf\x11\xe0"
"""Of OLE containers: Office before 2007, and what encrypts newer documents."""


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix[1:].lower()
