"""Cutting: no chunk is too long, nothing is lost, and each knows where it stands."""

import pytest

from polyvec.search.chunks import Cutter, likely_language, markdown_headings
from polyvec.search.documents import Text
from polyvec.search.grammars import outline
from polyvec.search.kinds import Kind, kind_of
from polyvec.search.rows import ChunkSettings, heading_above
from tests.tiny import byte_bpe

MARKDOWN = Kind("markdown", "markdown")


def cutter(tokens: int = 64, overlap: int = 0) -> Cutter:
    return Cutter(byte_bpe(), ChunkSettings(tokens, overlap))


def source(name: str) -> Kind:
    kind = kind_of(name)
    assert kind is not None
    return kind


def words(count: int) -> str:
    return " ".join(f"word{n}" for n in range(count))


TEXTS = [
    ("a.txt", words(3000)),
    ("a.txt", "\n\n".join(words(20) for _ in range(50))),
    ("a.txt", "x" * 5000),
    ("a.txt", "敏捷的棕色狐狸跳过懒狗。" * 300),
    ("a.md", "\n\n".join(f"# Part {n}\n\n## Sub {n}\n\n{words(n)}" for n in range(40))),
    ("a.md", "# " + words(200) + "\n\n" + words(100)),
    ("a.py", "\n\n".join(f"def f{n}(x):\n    return x + {n}" for n in range(60))),
    ("a.rst", "Title\n=====\n\n" + words(100)),
]


@pytest.mark.parametrize("overlap", [0, 12])
@pytest.mark.parametrize(("name", "content"), TEXTS)
def test_no_chunk_is_too_long_and_no_text_is_lost(name: str, content: str, overlap: int) -> None:
    cut, kind = cutter(64, overlap), source(name)
    text = Text(content, is_markdown=kind.how == "markdown", has_lines=True)
    pieces = cut.cut(text, kind)
    place = 0
    for piece in pieces:
        above = heading_above(piece.heading, piece.text)
        embedded = f"{above}\n{piece.text}" if above else piece.text
        assert piece.tokens == len(byte_bpe().encode(embedded).ids) <= 64
        if not overlap:
            start = content.index(piece.text, place)
            assert not content[place:start].strip("# \n")  # white space, or a heading's mark
            place = start + len(piece.text)
    assert overlap or not content[place:].strip()


def test_chunks_overlap_where_a_paragraph_was_cut() -> None:
    first, second, *_ = cutter(64, 24).cut(Text(words(300)), source("a.txt"))
    shared = second.text.split()[0]
    assert shared in first.text.split()
    first, second, *_ = cutter(64, 0).cut(Text(words(300)), source("a.txt"))
    assert second.text.split()[0] not in first.text.split()


def test_headings_and_lines_of_markdown() -> None:
    content = (
        "# Guide\n\nintro\n\n## *Install* it\n\n" + words(70) + "\n\n```sh\n# no heading\n```\n\n"
        "### On [Linux](http://x)\n\n" + words(70) + "\n\nUse\n---\n\n" + words(70)
    )
    text = Text(content, is_markdown=True, has_lines=True)
    pieces = cutter(300).cut(text, MARKDOWN)
    headings = [p.heading for p in pieces]
    assert "Guide > Install it" in headings
    assert "Guide > Install it > On Linux" in headings
    assert "Guide > Use" in headings
    assert not any("no heading" in heading for heading in headings)
    lines = content.splitlines()
    for piece in pieces:
        assert piece.line_start is not None
        assert piece.line_end is not None
        assert piece.text.splitlines()[0].strip() in lines[piece.line_start - 1]
        assert piece.text.splitlines()[-1].strip() in lines[piece.line_end - 1]


def test_an_underline_below_a_list_or_table_is_no_heading() -> None:
    content = "- item\n---\n\n| a | b |\n|---|---|\n\n> quoted\n---\n\nReal\n====\n"
    assert [h.text for h in markdown_headings(content)] == ["Real"]


CODE = {
    "a.py": "import os\n\n\nclass Café:\n    def brew(self, cups):\n        return cups\n",
    "a.c": "int x;\nstatic int *brew(int cups) {\n  return 0;\n}\n",
    "a.rs": "struct Café { a: u8 }\nimpl Café {\n    fn brew(&self) -> u8 { 1 }\n}\n",
    "a.ts": "class Café {\n  brew(cups: number) { return cups; }\n}\n",
    "a.go": "package x\n\nfunc brew(cups int) int { return cups }\n",
    "a.java": "class Cafe {\n  int brew(int cups) { return cups; }\n}\n",
    "a.rb": "class Cafe\n  def brew(cups)\n    cups\n  end\nend\n",
    "a.sh": "brew() {\n  echo 1\n}\n",
    "a.cs": "class Cafe {\n  int brew(int cups) { return cups; }\n}\n",
    "a.cpp": "namespace cafe {\nint brew(int cups) { return cups; }\n}\n",
    "a.js": "function brew(cups) {\n  return cups;\n}\n",
    "a.tsx": "function brew(cups: number) {\n  return <p>{cups}</p>;\n}\n",
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_cut_along_functions(name: str) -> None:
    kind = source(name)
    named = [entry for entry in outline(kind.file_type, CODE[name]) if entry[2]]
    start, depth, text = named[-1]
    assert (text, depth) == ("brew", min(len(named), 2))
    assert "brew" in CODE[name][start:].split("\n")[0]
    pieces = cutter(16).cut(Text(CODE[name], has_lines=True), kind)
    assert len(pieces) > 1
    assert all(piece.language == "" for piece in pieces)


def test_what_follows_a_function_is_not_inside_it() -> None:
    code = "class A:\n    def f(self):\n        return 1\n\n\n" + "\n".join(
        f"value_{n} = {n}" for n in range(40)
    )
    pieces = cutter(40).cut(Text(code, has_lines=True), source("a.py"))
    assert pieces[0].heading.startswith("A")
    assert pieces[-1].heading == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.rst", "Top\n===\n\nx\n\nSub\n---\n\ny " + words(90)),
        ("a.org", "* Top\nx\n** Sub\ny " + words(90)),
        ("a.adoc", "= Top\n\nx\n\n== Sub\n\ny " + words(90)),
        ("a.tex", "\\section{Top}\nx\n\\subsection{Sub}\ny " + words(90)),
    ],
)
def test_headings_of_other_formats(name: str, content: str) -> None:
    pieces = cutter(160).cut(Text(content, has_lines=True), source(name))
    assert pieces[-1].heading == "Top > Sub"


def test_pages() -> None:
    text = Text(words(40) + "\n\n" + words(40), pages=[(0, 1), (len(words(40)) + 2, 2)])
    pieces = cutter().cut(text, Kind("pdf", "office"))
    assert [p.page for p in pieces][:1] == [1]
    assert [p.page for p in pieces][-1:] == [2]
    assert all(p.line_start is None for p in pieces)


def test_text_without_letters_or_numbers_makes_no_chunk() -> None:
    assert cutter().cut(Text("\n \t --- \n***\n"), source("a.txt")) == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (
            "The committee will meet on Tuesday to discuss the new budget of all its schools.",
            "en",
        ),
        (
            "Der Ausschuss trifft sich am Dienstag wieder wegen des neuen Haushalts.",
            "de",
        ),
        ("委员会将于星期二再次开会，讨论学校的新预算和其他事项。", "zh"),
        ("Short", ""),
        ("1234 5678", ""),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert likely_language(text) == language
