"""LibreOffice's help in 24 languages and English, from Debian's packages (MPL-2.0).

Paragraphs have ids that are the same in every language, so they are parallel; and a page has a
title that asks for its body.
"""

import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from polyvec.errors import DownloadError, InputError
from polyvec.sources.apt import packages
from polyvec.sources.split import HeldOut, Split, page_split

LANGUAGES = (
    "ca", "ca-valencia", "cs", "da", "de", "el", "es", "et", "fi", "fr", "hi", "hu", "id", "it",
    "ja", "ko", "nl", "pl", "pt-BR", "ru", "sv", "tr", "vi", "zh-CN",
)  # fmt: skip
"""Languages with a few thousand translated paragraphs, beside ``en-US``."""

_SHARED = {"ca-valencia": "ca"}
"""Languages in another one's package."""
_PARAGRAPH = re.compile(r"(par|hd)_id\w+")


@dataclass
class Page:
    """A help page in one language."""

    name: str = ""
    """Its path, the same in every language: ``swriter/01/01120000.html``."""
    title: str = ""
    paragraphs: dict[str, str] = field(default_factory=dict)
    """Its text by the paragraph's id, headings and links left out."""

    @property
    def body(self) -> str:
        """Its paragraphs in a row."""
        return " ".join(self.paragraphs.values())

    @property
    def split(self) -> Split:
        """Whether it is held out for tests."""
        return page_split(self.name)


@dataclass(frozen=True)
class HelpPages:
    """Pages by language, then by name; ``en-US`` is always there."""

    by_language: Mapping[str, Mapping[str, Page]]

    def of(self, split: Split) -> "HelpPages":
        """Return one side of the split.

        For ``train`` every title and paragraph goes that equals a held-out one in any language
        here, and every page that is left without title or text.
        """
        held_out = self.held_out() if split == "train" else HeldOut()
        chosen = {}
        for language, pages in self.by_language.items():
            kept = (_without(page, held_out) for page in pages.values() if page.split == split)
            chosen[language] = {page.name: page for page in kept if page.title and page.paragraphs}
        return HelpPages(chosen)

    def held_out(self) -> HeldOut:
        """Return every title, paragraph and body of the test side."""
        found = (page for pages in self.by_language.values() for page in pages.values())
        tests = (page for page in found if page.split == "test")
        return HeldOut(x for p in tests for x in (p.title, p.body, *p.paragraphs.values()))


def _without(page: Page, held_out: HeldOut) -> Page:
    kept = {i: text for i, text in page.paragraphs.items() if text not in held_out}
    return Page(page.name, "" if page.title in held_out else page.title, kept)


def help_pages(languages: Sequence[str] = LANGUAGES, split: Split | None = None) -> HelpPages:
    """Read the help in ``en-US`` and the given languages, fetched on first use (2-4 MB each).

    Args:
        languages: Which ones.
        split: Read only the pages of one side, which is faster; texts on both sides stay, see
            :meth:`HelpPages.of`.

    Raises:
        InputError: There is no help in a language; the message lists those it is read in.
        DownloadError, DiskFullError: It cannot be fetched, or a package is broken.
    """
    if unknown := sorted(set(languages) - set(LANGUAGES) - {"en-US"}):
        raise InputError(
            f"LibreOffice's help is not read in {', '.join(unknown)}. Languages: en-US, "
            f"{', '.join(LANGUAGES)}."
        )
    chosen = ("en-US", *(x for x in languages if x != "en-US"))
    names = {x: f"libreoffice-help-{_SHARED.get(x, x).lower()}" for x in chosen}
    files = packages(list(dict.fromkeys(names.values())))
    return HelpPages({x: read_pages(files[names[x]], x, split) for x in chosen})


def parallel_paragraphs(english: Mapping[str, Page], other: Mapping[str, Page]) -> dict[str, str]:
    """Return translated paragraphs by their English text; those left in English are no pairs.

    A text that stands on several pages is paired once.
    """
    pairs: dict[str, str] = {}
    for name in english.keys() & other.keys():
        theirs = other[name].paragraphs
        for number, text in english[name].paragraphs.items():
            translated = theirs.get(number, text)
            if translated != text:
                pairs.setdefault(text, translated)
    return pairs


def read_pages(package: Path, language: str, split: Split | None = None) -> dict[str, Page]:
    """Return a package's pages in a language by name, all or one side of the split.

    Raises:
        DownloadError: The package is broken or holds none.
    """
    try:
        pages = {
            name: _parse(name, html)
            for name, html in _files(package, f"/help/{language}/text/".lower())
            if split is None or page_split(name) == split
        }
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise DownloadError(
            f"{package} is broken ({error}); delete it to fetch it anew."
        ) from error
    if not pages:
        raise DownloadError(f"{package} holds no help pages; delete it to fetch it anew.")
    return dict(sorted(pages.items()))


def _files(package: Path, folder: str) -> Iterator[tuple[str, str]]:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            _, inside, name = member.name.partition("/text/")
            if folder not in member.name.lower() or not inside or not name.endswith(".html"):
                continue
            content = archive.extractfile(member)
            if content:
                yield name, content.read().decode()


class _Parser(HTMLParser):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.page, self.into, self.parts = Page(name), "", list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        name = facts.get("id") or ""
        if tag == "title" or (tag == "p" and _PARAGRAPH.fullmatch(name)):
            related = facts.get("class") in ("related", "embedded")
            self.into, self.parts = ("" if related else name or tag), []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("p", "title") or not self.into:
            return
        text = " ".join("".join(self.parts).split())
        if self.into == "title":
            self.page.title = text
        elif text:
            self.page.paragraphs.setdefault(self.into, text)
        self.into = ""


def _parse(name: str, html: str) -> Page:
    parser = _Parser(name)
    parser.feed(html)
    return parser.page
