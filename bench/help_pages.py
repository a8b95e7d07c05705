"""Real text in 24 languages: LibreOffice's help pages, from Debian's packages (MPL-2.0).

Paragraphs have ids that are the same in every language, and a page has a title that asks for its
body. A tenth of the pages, by a hash of the page's name, is held out: no polyvec model is trained
on them, and only they are used here.
"""

import hashlib
import random
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

LANGUAGES = (
    "en-us", "ca", "cs", "da", "de", "el", "es", "et", "fi", "fr", "hi", "hu", "id", "it", "ja",
    "ko", "nl", "pl", "pt-br", "ru", "sv", "tr", "vi", "zh-cn",
)  # fmt: skip
HELD_OUT = 10
"""One page in so many."""
MIN_CHARACTERS, MAX_CHARACTERS = 40, 400
_PARAGRAPH = re.compile(r"(par|hd)_id\w+")


@dataclass
class Page:
    """A help page."""

    title: str = ""
    paragraphs: dict[str, str] = field(default_factory=dict)
    """Its text by the paragraph's id, headings and links left out."""

    @property
    def body(self) -> str:
        """The start of its text."""
        return " ".join(self.paragraphs.values())[:MAX_CHARACTERS]


@dataclass(frozen=True)
class Retrieval:
    """Queries, and for each the one document that answers it, at the same place."""

    language: str
    queries: list[str]
    documents: list[str]


def fetch(languages: Sequence[str], folder: Path) -> dict[str, Path]:
    """Return each language's package, downloaded into ``folder`` unless it is there.

    Raises:
        SystemExit: This is no Debian, or a package is not to be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [f"libreoffice-help-{x}" for x in languages if not _package(folder, x)]
    if missing:
        if not shutil.which("apt-get"):
            raise SystemExit(
                f"The help pages come from Debian's packages and there is no apt-get here. Put "
                f"{', '.join(missing)} (.deb, from any Debian mirror) into {folder}."
            )
        subprocess.run(["apt-get", "download", "-qq", *missing], cwd=folder, check=True)
    return {language: _required(folder, language) for language in languages}


def paragraphs(packages: dict[str, Path], each: int) -> list[str]:
    """Draw ``each`` paragraphs a language: no translations of each other, none left in English."""
    english = {text for _, text in _paragraphs(packages["en-us"])}
    draw, ids, chosen = random.Random(0), set[str](), list[str]()
    for language, package in packages.items():
        foreign = english if language != "en-us" else set[str]()
        found = {t: i for i, t in _paragraphs(package) if t not in foreign and i not in ids}
        texts = draw.sample(sorted(found), each)
        ids.update(found[text] for text in texts)
        chosen += texts
    return chosen


def _paragraphs(package: Path) -> list[tuple[str, str]]:
    """Return every paragraph of a fitting length, with its id."""
    pages = read_pages(package)
    found = [(i, text) for page in pages for i, text in page.paragraphs.items()]
    return [(i, text) for i, text in found if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS]


def retrieval(language: str, package: Path) -> Retrieval:
    """Return titles as queries and the starts of their pages' bodies as documents."""
    pages = {page.title: page.body for page in read_pages(package) if len(page.body) >= 100}
    texts = {body: title for title, body in pages.items()}  # one of those that share a body
    return Retrieval(language, list(texts.values()), list(texts))


def read_pages(package: Path) -> list[Page]:
    """Return the held-out pages, by name.

    Raises:
        SystemExit: The package is broken or holds none.
    """
    try:
        pages = [_parse(html) for name, html in sorted(_files(package)) if _held_out(name)]
    except tarfile.TarError as error:
        raise SystemExit(f"{package} is broken ({error}); delete it to fetch it anew.") from error
    if not pages:
        raise SystemExit(f"{package} holds no help pages; delete it to fetch it anew.")
    return pages


def _files(package: Path) -> Iterator[tuple[str, str]]:
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".html") else None
            if content:
                yield member.name.split("/text/")[-1], content.read().decode()


def _held_out(name: str) -> bool:
    return int(hashlib.md5(name.encode()).hexdigest(), 16) % HELD_OUT == 0


def _package(folder: Path, language: str) -> Path | None:
    return next(folder.glob(f"libreoffice-help-{language}_*.deb"), None)


def _required(folder: Path, language: str) -> Path:
    package = _package(folder, language)
    if package is None:
        raise SystemExit(f"apt-get left no libreoffice-help-{language}_*.deb in {folder}.")
    return package


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page, self.into, self.parts = Page(), "", list[str]()

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


def _parse(html: str) -> Page:
    parser = _Parser()
    parser.feed(html)
    return parser.page
