"""Files to text: what a document says, and where its pages, headings and lines are.

Runs in a process of its own (:mod:`polyvec.search.reader`), because a hostile or broken file can
take any reader's time and memory.
"""

import re
import secrets
import zipfile
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from polyvec.errors import InputError, MissingExtraError
from polyvec.search.kinds import ZIPPED, Kind
from polyvec.search.mailbox import mailbox_messages
from polyvec.search.settings import MB, ReadSettings


@dataclass(frozen=True)
class Text:
    """A document's text."""

    content: str
    title: str = ""
    is_markdown: bool = False
    has_lines: bool = False
    """Whether lines of the content are lines of the file."""
    pages: list[tuple[int, int]] = field(default_factory=list)
    """(character where it starts, page number), in order; empty where there are no pages."""
    cuts: list[int] = field(default_factory=list)
    """Characters, in order, that no chunk goes across: where a mailbox's next message begins."""


def read_document(path: Path, kind: Kind, settings: ReadSettings) -> Text:
    """Read a file.

    Raises:
        InputError: It cannot be read; the message says why, without the path.
        OSError: The file system says no.
        MissingExtraError: kreuzberg is not installed.
    """
    if kind.how == "office":
        text = _read_office(path, kind, settings)
    elif kind.how == "mailbox":
        text = _of_mailbox(path.read_bytes())
    else:
        content = decoded(path.read_bytes())
        text = Text(content, is_markdown=kind.how == "markdown", has_lines=True)
    if len(text.content) > settings.max_characters:
        raise InputError(
            f"its text has {len(text.content):,} characters, and {settings.max_characters:,} are "
            "allowed"
        )
    return text


def decoded(data: bytes) -> str:
    """Return the text of bytes in whatever encoding: UTF-8, a marked UTF-16 or UTF-32, or a guess.

    Raises:
        InputError: No encoding makes text of them.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _clean(data.decode(name, errors="replace"))
    try:
        return _clean(data.decode("utf-8"))
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(data[:_GUESSED_BYTES]).best()
        if best is None:
            raise InputError("its bytes are text in no encoding that is known") from None
        return _clean(data.decode(best.encoding, errors="replace"))


_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_GUESSED_BYTES = 200_000


def _clean(text: str) -> str:
    """Return a text with one kind of line end, and without what is no character of a text.

    Terminal colours and overstrikes (of logs and formatted manual pages) are taken out.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|.\x08", "", text)
    return re.sub(r"[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "", text)


def _read_office(path: Path, kind: Kind, settings: ReadSettings) -> Text:
    kreuzberg = _kreuzberg()
    if kind.file_type in ZIPPED:
        _check_expansion(path, settings)
    marker = f"page{secrets.token_hex(8)}n"  # no document can have it
    pages = kreuzberg.PageConfig(
        extract_pages=kind.file_type == "pdf",
        insert_page_markers=kind.file_type in ("pptx", "ppt"),
        marker_format=f"\n\n{marker}{{page_num}}\n\n",
    )
    config = kreuzberg.ExtractionConfig(
        use_cache=False,  # it would keep texts of private documents elsewhere
        enable_quality_processing=False,
        output_format="markdown",
        pages=pages,
        extraction_timeout_secs=max(1, int(settings.read_timeout_s)),
    )
    try:
        mime = "application/pdf" if kind.file_type == "pdf" else None  # whatever its name
        result = kreuzberg.extract_file_sync(str(path), mime, config=config)
    except kreuzberg.KreuzbergError as error:
        raise InputError(_reason(str(error))) from error
    return _text_of(result, kind, marker)


def _of_mailbox(data: bytes) -> Text:
    messages = [_clean(one) + "\n\n" for one in mailbox_messages(data, _text_of_html)]
    starts = list(accumulate(map(len, messages)))[:-1]
    return Text("".join(messages), is_markdown=True, cuts=starts)


def _text_of_html(html: str) -> str:
    """Return a message's text; nothing where its HTML is beyond reading."""
    kreuzberg = _kreuzberg()
    config = kreuzberg.ExtractionConfig(use_cache=False, enable_quality_processing=False)
    try:
        return str(kreuzberg.extract_bytes_sync(html.encode(), "text/html", config=config).content)
    except kreuzberg.KreuzbergError:
        return ""


def _text_of(result: Any, kind: Kind, marker: str) -> Text:  # noqa: ANN401 (kreuzberg's, lazily)
    facts = dict(result.metadata)
    title = " ".join(str(facts.get("title") or facts.get("subject") or "").split())
    if kind.file_type == "pdf" and result.pages:
        return _of_pages([(p["page_number"], p["content"]) for p in result.pages], title, False)
    content = result.content
    if kind.file_type == "html":  # kreuzberg puts the page's head before its text
        content = re.sub(r"\A---\n.*?\n\n(?=\S)", "", content, count=1, flags=re.DOTALL)
    parts = re.split(rf"{marker}(\d+)", content)
    if len(parts) > 1:
        numbered = zip(map(int, parts[1::2]), parts[2::2], strict=True)
        return _of_pages([(0, parts[0]), *numbered] if parts[0].strip() else [*numbered], title)
    return Text(_clean(content), title, is_markdown=True)


def _of_pages(pages: list[tuple[int, str]], title: str, is_markdown: bool = True) -> Text:
    content, starts = "", []
    parts = []
    length = 0
    for number, page in pages:
        part = _clean(page).strip() + "\n\n"
        if number:
            starts.append((length, number))
        parts.append(part)
        length += len(part)
    content = "".join(parts)
    return Text(content, title, is_markdown, pages=starts)


def _check_expansion(path: Path, settings: ReadSettings) -> None:
    """Refuse a zip that says it becomes too large; one that lies meets the process's limits."""
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return  # an old binary file under a new name, or a broken one: the reader tells which
    if expanded > settings.max_expanded_mb * MB:
        raise InputError(
            f"it unpacks to {expanded / MB:,.0f} MB, and {settings.max_expanded_mb:,} are allowed"
        )


def _reason(message: str) -> str:
    """Return a reader's message without its type's name and what it says twice."""
    parts = list(dict.fromkeys(part.strip() for part in message.split(":")))
    return ": ".join(part for part in parts if part and not part.endswith("Error"))[:300]


def _kreuzberg() -> Any:  # noqa: ANN401 (a module)
    try:
        import kreuzberg
    except ImportError as error:
        raise MissingExtraError(
            "Documents are read by kreuzberg, which is not installed: "
            "pip install 'polyvec[search]'."
        ) from error
    return kreuzberg
