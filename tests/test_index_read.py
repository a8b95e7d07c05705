"""Reading: every format for real, and what is hostile or broken costs one file and no more."""

import os
import zipfile
from pathlib import Path

import pytest

from polyvec.errors import InputError
from polyvec.search.documents import decoded
from polyvec.search.kinds import kind_by_content
from polyvec.search.reader import Reader
from polyvec.search.rows import ChunkSettings
from polyvec.search.scan import scan
from polyvec.search.settings import ReadSettings
from polyvec.search.worker import Reading
from tests import office
from tests.tiny import byte_bpe

FORMATS = {
    "a.docx": office.docx([("Heading1", "Report"), ("", "Needle in Word."), ("Heading2", "End")]),
    "a.pptx": office.pptx([("One", "first slide"), ("Two", "Needle on a slide")]),
    "a.xlsx": office.xlsx([["Name", "Cost"], ["Needle", 1200.5]]),
    "a.odt": office.odt(["Needle in OpenDocument"]),
    "a.epub": office.epub([("Chapter", "Needle in a book")]),
    "a.pdf": office.pdf([["First page"], ["Needle (in) a PDF"]]),
    "a.eml": office.mail("Lunch", "Needle in a mail"),
    "a.ipynb": office.notebook([("markdown", "# Notes"), ("code", "needle = 'Needle'")]),
    "a.html": b"<html><head><title>T</title></head><body><nav>menu</nav><h1>Head</h1>"
    b"<p>Needle</p><script>bad()</script></body></html>",
    "a.rtf": rb"{\rtf1\ansi Needle in \b rich\b0  text.}",
    "a.md": b"# Top\n\nNeedle\n",
    "a.txt": b"Needle",
    "a.csv": b"name,cost\nNeedle,3\n",
    "a.json": b'{"name": "Needle"}',
    "a.tex": rb"\section{Top} Needle",
    "a.py": b"def f():\n    return 'Needle'\n",
    "README": b"Needle without an ending",
    "a.mbox": office.mailbox([("Lunch", "Needle in a mailbox")]),
    "Inbox": office.mailbox([("Keys", "Needle in Thunderbird's mailbox")]),
    "old.docx": b"Needle under a wrong name",
    "scan.txt": office.pdf([["Needle in a PDF that is named otherwise"]]),
}


def reader(root: Path, **settings: object) -> Reader:
    limits = ReadSettings(**settings)  # type: ignore[arg-type]
    return Reader(root.resolve(), byte_bpe(), ChunkSettings(64, 0), limits)


def test_every_format(tmp_path: Path) -> None:
    for name, content in FORMATS.items():
        (tmp_path / name).write_bytes(content)
    with reader(tmp_path) as read:
        readings = dict(read.read_all((name, "") for name in FORMATS))
    for name, reading in readings.items():
        assert not reading.problem, (name, reading.problem)
        found = [piece for piece in reading.pieces if "Needle" in piece.text]
        assert len(found) == 1, (name, reading.pieces)
    _check_places(readings)


def _check_places(readings: dict[str, Reading]) -> None:
    assert readings["a.docx"].pieces[0].heading == "Report"
    assert [p.page for p in readings["a.pptx"].pieces] == [1]  # both slides fit in one chunk
    assert readings["a.pdf"].pieces[0].page == 1
    assert readings["a.epub"].title == "A Book"
    assert readings["a.eml"].title == "Lunch"
    assert (readings["Inbox"].file_type, readings["a.mbox"].pieces[0].heading) == ("mbox", "Lunch")
    assert (readings["old.docx"].file_type, readings["scan.txt"].file_type) == ("text", "pdf")
    html = readings["a.html"]
    assert html.title == "T"
    assert "bad()" not in html.pieces[0].text
    assert "menu" not in html.pieces[0].text
    assert "title:" not in html.pieces[0].text
    assert (readings["a.txt"].pieces[0].line_start, readings["README"].file_type) == (1, "text")


def test_messages_are_not_cut_into_one_chunk(tmp_path: Path) -> None:
    (tmp_path / "a.mbox").write_bytes(office.mailbox([(f"S{n}", f"text {n}") for n in range(3)]))
    with reader(tmp_path) as read:
        pieces = read.read("a.mbox").pieces
    assert list(dict.fromkeys(p.heading for p in pieces)) == ["S0", "S1", "S2"]
    for piece in pieces:
        others = {"text 0", "text 1", "text 2"} - {f"text {piece.heading[1:]}"}
        assert not any(other in piece.text for other in others), piece


def test_pages_and_slides_are_numbered(tmp_path: Path) -> None:
    long = " ".join(f"word{n}" for n in range(14))
    (tmp_path / "a.pdf").write_bytes(office.pdf([[f"p{n} {long}"] for n in (1, 2, 3)]))
    (tmp_path / "a.pptx").write_bytes(office.pptx([(f"p{n}", long) for n in (1, 2, 3)]))
    with reader(tmp_path) as read:
        for name in ("a.pdf", "a.pptx"):
            pieces = read.read(name).pieces
            starts = {p.page for p in pieces}
            assert starts == {1, 2, 3}, (name, pieces)
            assert all(f"p{p.page}" in p.text for p in pieces if "p" in p.text.split()[0])


def bomb(path: Path, megabytes: int) -> None:
    archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
    with archive, archive.open("word/document.xml", "w") as file:
        for _ in range(megabytes):
            file.write(bytes(10**6))


HOSTILE = {
    "locked.docx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000),
    "locked.pdf": office.pdf([["secret"]], office.encryption()),
    "broken.pdf": b"%PDF-1.4 nothing more",
    "broken.docx": b"PK\x03\x04 nothing more",
    "cut.docx": FORMATS["a.docx"][:400],
    "empty.pdf": b"",
}


def test_hostile_and_broken_files_are_said_and_the_next_is_read(tmp_path: Path) -> None:
    for name, content in HOSTILE.items():
        (tmp_path / name).write_bytes(content)
    bomb(tmp_path / "bomb.docx", 60)
    (tmp_path / "good.txt").write_bytes(b"Needle")
    with reader(tmp_path, max_expanded_mb=50) as read:
        problems = {name: read.read(name).problem for name in (*HOSTILE, "bomb.docx")}
        assert read.read("good.txt").pieces[0].text == "Needle"
        assert "No such file" in read.read("gone.txt").problem
    assert all(problems.values()), problems
    assert "password" in problems["locked.pdf"]
    assert "password" in problems["locked.docx"]
    assert problems["bomb.docx"] == "it unpacks to 60 MB, and 50 are allowed"


def test_a_bomb_that_lies_about_its_size_meets_the_memory_limit(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.docx", 900)
    data = (tmp_path / "bomb.docx").read_bytes()
    size = (900 * 10**6).to_bytes(4, "little")
    (tmp_path / "bomb.docx").write_bytes(data.replace(size, (1000).to_bytes(4, "little")))
    (tmp_path / "good.txt").write_bytes(b"Needle")
    with reader(tmp_path, read_memory_mb=900) as read:
        assert not read.read("bomb.docx").pieces
        assert read.read("good.txt").pieces[0].text == "Needle"


def test_a_file_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "slow.txt").write_bytes(b"x y " * 100_000)
    (tmp_path / "good.txt").write_bytes(b"Needle")
    with reader(tmp_path, read_timeout_s=0.001) as read:
        read.settings = ReadSettings(read_timeout_s=60)
        assert read.read("good.txt").pieces  # the process is there
        read.settings = ReadSettings(read_timeout_s=0.001)
        read._timeout_s = lambda path: 0.001  # type: ignore[method-assign]
        assert "took more than" in read.read("slow.txt").problem
        del read._timeout_s
        assert read.read("good.txt").pieces[0].text == "Needle"


def test_a_text_of_too_many_characters_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 100)
    with reader(tmp_path, max_characters=400) as read:
        assert "500 characters, and 400 are allowed" in read.read("a.txt").problem


def test_a_path_that_leads_outside_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    with reader(root) as read:
        for path in ("link.txt", "../secret.txt", str(tmp_path / "secret.txt")):
            assert read.read(path).problem == "it lies outside the folder"


def test_a_file_with_known_content_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Needle")
    with reader(tmp_path) as read:
        first = read.read("a.txt")
        again = read.read("a.txt", first.document_id)
    assert again == Reading(first.document_id, is_known=True)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "shift_jis", "gb18030"]
)
def test_encodings(encoding: str) -> None:
    texts = {"shift_jis": "これは日本語の文書です。", "gb18030": "这是一份中文文件，讨论预算。"}
    text = texts.get(encoding, "Der Gerätepark für Büroräume gehört überprüft, ») says Zoë.\n")
    text = text * 20 if encoding != "cp1252" else text.replace("»", "") * 20
    assert decoded(text.encode(encoding)) == text


def test_what_is_no_character_is_taken_out() -> None:
    assert decoded(b"a\r\nb\rc\x00\x1b[31mred\x1b[0m N\x08Na\x0c") == "a\nb\ncred Na\x0c"
    assert decoded("a\x9b31mb\x85c\x7fd".encode()) == "a31mbcd"


def test_binary_files_are_known_by_their_first_bytes() -> None:
    assert kind_by_content(b"\x7fELF\0\0\x01") is None
    assert kind_by_content(bytes(range(1, 32)) * 9) is None
    assert kind_by_content("Grüße".encode()) is not None
    assert kind_by_content("Grüße".encode("utf-16")) is not None
    assert kind_by_content(b"%PDF-1.7 x").file_type == "pdf"  # type: ignore[union-attr]


def test_a_walk_passes_over_links_hidden_and_ignored_files(tmp_path: Path) -> None:
    for path in (
        "a.txt",
        ".hidden.txt",
        "sub/b.txt",
        "sub/skip.log",
        "sub/keep.log",
        "out/c.txt",
        "node_modules/x.js",
        "p.png",
        "idx/data.txt",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text("x")
    (tmp_path / ".gitignore").write_text("*.log\n/out\n")
    (tmp_path / "sub" / ".polyvecignore").write_text("!keep.log\n")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    found = scan(tmp_path, ReadSettings(), tmp_path / "idx")
    assert [seen.path for seen in found.files] == ["a.txt", "sub/b.txt", "sub/keep.log"]
    assert (found.links, found.without_text) == (2, 2)
    everything = scan(tmp_path, ReadSettings(hidden=True, ignore_files=False))
    assert {".hidden.txt", ".gitignore", "out/c.txt", "sub/skip.log", "idx/data.txt"} <= {
        seen.path for seen in everything.files
    }
    with pytest.raises(InputError, match="is no folder"):
        scan(tmp_path / "none", ReadSettings())


def test_a_name_that_is_not_unicode_is_said(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.txt"))).write_text("x")
    assert scan(tmp_path, ReadSettings()).unreadable == {
        "bad\\udcff.txt": "its name is not UTF-8; rename it"
    }
