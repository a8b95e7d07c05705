"""Texts to chunks: by tokens of the model's own tokenizer, and along the document's structure."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import tokenizers

from polyvec.errors import MissingExtraError
from polyvec.search.documents import Text
from polyvec.search.grammars import grammar, outline
from polyvec.search.kinds import SOURCE_CODE, Kind
from polyvec.search.rows import ChunkSettings, heading_above

HEADING_SHARE = 8
"""A chunk's headings take at most this part (1/8) of its tokens."""
_BLOCK_CHARACTERS, _CODE_BLOCK_CHARACTERS = 20_000, 100_000
"""A splitter sees so much at once: its work grows faster than the text, where that has no spaces
with the square. Code is parsed, and wants to be whole."""
_LANGUAGE_LETTERS, _LANGUAGE_CHARACTERS = 60, 400
"""Fewer letters of a-z, or a third as many others, do not tell a language."""


@dataclass(frozen=True)
class Piece:
    """A chunk before it belongs to a file: see :class:`polyvec.search.rows.Chunk`."""

    text: str
    heading: str
    page: int | None
    line_start: int | None
    line_end: int | None
    language: str
    tokens: int


@dataclass(frozen=True)
class Heading:
    """A heading, or the name of a function, and where it starts."""

    start: int
    level: int
    text: str


class Cutter:
    """Cuts documents; keeps the splitters, which are dear to make."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, settings: ChunkSettings) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self._most_heading_tokens = settings.max_tokens // HEADING_SHARE
        self._splitters: dict[str, Any] = {}

    def cut(self, text: Text, kind: Kind) -> list[Piece]:
        """Return a document's pieces in order; none where it has no text."""
        places = _Places(text, kind)
        return [
            self._piece(start, part, places, kind)
            for start, part in self._parts(text, kind)
            if any(map(str.isalnum, part))
        ]

    def _parts(self, text: Text, kind: Kind) -> Iterator[tuple[int, str]]:
        name = kind.file_type if kind.how == "code" else "text"
        splitter = self._splitter("markdown" if text.is_markdown else name)
        most = _CODE_BLOCK_CHARACTERS if kind.how == "code" else _BLOCK_CHARACTERS
        borders = [0, *text.cuts, len(text.content)]
        for begin, end in pairwise(borders):
            for start, block in _blocks(text.content[begin:end], most):
                for offset, part in splitter.chunk_indices(block):
                    yield begin + start + offset, part

    def _piece(self, start: int, part: str, places: "_Places", kind: Kind) -> Piece:
        heading = self._fitting(places.headings_at(start, part))
        lines = places.lines(start, start + len(part))
        above = heading_above(heading, part)
        tokens = self._count(f"{above}\n{part}" if above else part)
        language = "" if kind.file_type in SOURCE_CODE else likely_language(part)
        return Piece(part, heading, places.page(start), *lines, language, tokens)

    def _fitting(self, headings: list[str]) -> str:
        """Join headings, without the outermost where all would take too many tokens."""
        while headings and self._count(" > ".join(headings)) > self._most_heading_tokens:
            headings = headings[1:]
        return " > ".join(headings)

    def _count(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _splitter(self, name: str) -> Any:  # noqa: ANN401 (the library is imported lazily)
        if name not in self._splitters:
            self._splitters[name] = self._make(name)
        return self._splitters[name]

    def _make(self, name: str) -> Any:  # noqa: ANN401
        try:
            from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter
        except ImportError as error:
            raise MissingExtraError(
                "Texts are cut by semantic-text-splitter, which is not installed: "
                "pip install 'polyvec[search]'."
            ) from error
        room = self.settings.max_tokens - self._most_heading_tokens
        sizes = (self.tokenizer, room, min(self.settings.overlap_tokens, room - 1))
        language = grammar(name)
        if language is not None:
            return CodeSplitter.from_huggingface_tokenizer(language, *sizes)
        make = MarkdownSplitter if name == "markdown" else TextSplitter
        return make.from_huggingface_tokenizer(*sizes)


class _Places:
    """Where in a document a character is: under which headings, on which page and line."""

    def __init__(self, text: Text, kind: Kind) -> None:
        self.text, self.kind = text, kind

    @cached_property
    def _headings(self) -> list[Heading]:
        if self.text.is_markdown:
            return markdown_headings(self.text.content)
        if self.kind.how == "code":
            named = outline(self.kind.file_type, self.text.content)
            return [Heading(start, level, name) for start, level, name in named]
        find = _HEADINGS_OF.get(self.kind.file_type)
        return find(self.text.content) if find else []

    @cached_property
    def _trails(self) -> tuple[list[int], list[list[str]]]:
        """Return where each heading starts, and the headings above text after it."""
        starts, trails = [], []
        open_headings: list[Heading] = []
        for heading in self._headings:
            open_headings = [h for h in open_headings if h.level < heading.level]
            open_headings.append(heading)
            starts.append(heading.start)
            trails.append([h.text for h in open_headings if h.text])
        return starts, trails

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n", self.text.content))]

    def headings_at(self, start: int, part: str) -> list[str]:
        """Return the headings over a part; one that starts in its first line is over it too."""
        starts, trails = self._trails
        first_line = start + len(part.split("\n", 1)[0])
        number = bisect_right(starts, first_line) - 1
        return trails[number] if number >= 0 else []

    def lines(self, start: int, end: int) -> tuple[int | None, int | None]:
        """Return the first and last line, from 1."""
        if not self.text.has_lines:
            return None, None
        first = bisect_right(self._line_starts, start)
        return first, bisect_right(self._line_starts, max(start, end - 1))

    def page(self, start: int) -> int | None:
        """Return the page, from 1."""
        number = bisect_right(self.text.pages, start, key=lambda page: page[0]) - 1
        return self.text.pages[number][1] if number >= 0 else None


def markdown_headings(content: str) -> list[Heading]:
    """Return the headings of a Markdown text, ``#`` and underlined ones, outside code blocks."""
    found, fence, start, before = [], "", 0, ""
    for line in content.splitlines(keepends=True):
        bare = line.strip()
        mark = re.match(r"(```+|~~~+)", bare)
        if mark and (not fence or bare.startswith(fence)):
            fence = "" if fence else mark[1][:3]
        elif not fence:
            hashes = re.match(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$", line)
            if hashes:
                found.append(Heading(start, len(hashes[1]), _plain(hashes[2])))
            elif before.strip() and re.fullmatch(r"=+|-{3,}", bare) and _is_words(before):
                place = start - len(before)
                found.append(Heading(place, 1 if bare[0] == "=" else 2, _plain(before)))
        start += len(line)
        before = line
    return found


def _is_words(line: str) -> bool:
    """Whether a line can be an underlined heading: not one of a list, table or quotation."""
    return not re.match(r"\s*([-*+>|#]|\d+[.)])", line)


def _plain(text: str) -> str:
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[*`]|\\(?=[^\w\s])", "", text).split())


def _marked(pattern: str) -> Callable[[str], list[Heading]]:
    """Return a finder of headings whose level is the length of the mark before them."""

    def find(content: str) -> list[Heading]:
        matches = re.finditer(pattern, content, re.MULTILINE)
        return [Heading(m.start(), len(m[1]), " ".join(m[2].split())) for m in matches]

    return find


def _underlined(content: str) -> list[Heading]:
    """Return reStructuredText's headings; a level is a sign of underlining, in order of use."""
    signs: list[str] = []
    found = []
    for match in re.finditer(r"^(\S.*)\n(([=\-~^\"'`#*+.:_])\3{2,})$", content, re.MULTILINE):
        if len(match[2]) >= len(match[1].rstrip()):
            if match[3] not in signs:
                signs.append(match[3])
            found.append(Heading(match.start(), signs.index(match[3]) + 1, match[1].strip()))
    return found


def _latex(content: str) -> list[Heading]:
    levels = {"chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4}
    matches = re.finditer(r"\\(chapter|(?:sub){0,2}section)\*?\{([^{}\n]*)\}", content)
    return [Heading(m.start(), levels[m[1]], m[2]) for m in matches]


_HEADINGS_OF = {
    "rst": _underlined,
    "latex": _latex,
    "org": _marked(r"^(\*+)\s+(.+)$"),
    "asciidoc": _marked(r"^(=+)\s+(.+)$"),
}


def likely_language(text: str) -> str:
    """Return a text's likely language as an ISO 639 code, empty where it is too short to tell.

    A guess of py3langid, which is right for 99.6% of paragraphs (see docs/data.md).
    """
    start = text[:_LANGUAGE_CHARACTERS]
    letters = sum(1 if letter.isascii() else 3 for letter in start if letter.isalpha())
    if letters < _LANGUAGE_LETTERS:
        return ""
    import py3langid

    return str(py3langid.classify(start)[0])


def _blocks(content: str, most: int) -> Iterator[tuple[int, str]]:
    """Cut a long text at a paragraph's or line's end into blocks that splitters can take."""
    start = 0
    while start < len(content):
        end = min(len(content), start + most)
        if end < len(content):
            for sign in ("\n\n", "\n", "。", " "):
                place = content.rfind(sign, start + most // 2, end)
                if place > start:
                    end = place + len(sign)
                    break
        yield start, content[start:end]
        start = end
