"""Strangers' texts on a terminal: nothing in them steers it, whichever command prints them."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from polyvec.cli.terminal import visible, visible_json, visible_lines
from polyvec.search.retrieve import Searcher
from polyvec.search.rows import Document, IndexInfo
from polyvec.search.store import Store
from tests.command import Command
from tests.library import WHEN, about, passage
from tests.live import write_tiny
from tests.streaming_chat import streaming

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x85[red]router[/red] \u202erouter\u2066 \x7f\\[b]"
PATH = f"evil/{EVIL.replace('/', '')}\n.txt"


def controls(text: str) -> set[str]:
    """Return what a terminal might obey."""
    signs = {sign for sign in text if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")}
    return (signs - {"\n", "\t"}) | (set(text) & set("\u202d\u202e\u2066\u2067\u2068\u2069"))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index, searched by words, of a document that is hostile all over."""
    folder = tmp_path_factory.mktemp("evil")
    info = IndexInfo(EVIL, "0123456789abcdef", 5, f"/root/{EVIL}")
    store = Store.create(str(folder / "index"), info)
    chunks = [passage(PATH, 0, f"reset {EVIL}", heading=EVIL, title=EVIL),
              passage(PATH + "2", 0, f"reset {EVIL}", heading=EVIL, title=EVIL)]  # fmt: skip
    store.put_chunks(chunks, np.stack([about(chunk.text) for chunk in chunks]))
    failed = Document(PATH, "", 1, 0, "text", EVIL, "failed", EVIL, 0, 0, WHEN)
    store.put_documents([failed])
    store.refresh()
    return store.uri


def test_the_text_is_clean_and_hostile() -> None:
    assert controls(EVIL) >= {"\x1b", "\x07", "\x9b", "\x85", "\x7f", "\u202e"}


def test_what_steers_is_shown_and_places_stay() -> None:
    shown = visible(f"a{EVIL}\n\tb")
    assert controls(shown) | (set(shown) & {"\n", "\t"}) == set()
    assert len(shown) == len(f"a{EVIL}\n\tb")
    assert shown.startswith("a␛]0;owned␇␛[2J�31m�[red]router[/red] ")
    assert visible_lines("a\n\tb\r\x1b") == "a\n\tb␍␛"
    assert visible("\ud800") == "�"


@pytest.mark.parametrize(
    "text", ["می\u200cخواهم", "क्\u200dष", "👩\u200d👩\u200d👧", "Grüße 路由器"]
)
def test_letters_and_joiners_stay(text: str) -> None:
    assert visible(text) == text


def test_json_says_the_same() -> None:
    document = json.dumps({"a": EVIL, EVIL: [1.5]}, ensure_ascii=False)
    assert controls(visible_json(document)) == set()
    assert json.loads(visible_json(document)) == {"a": EVIL, EVIL: [1.5]}


def test_search_prints_no_control_characters(run: Command, uri: str) -> None:
    for flags in ((), ("--explain",), ("--per-document", "2"), ("--json",)):
        done = run("search", "reset", "--mode", "text", "--index", uri, *flags)
        assert (done.code, controls(done.out + done.err)) == (0, set()), flags
        assert "[red]router[/red]" in done.out
    assert json.loads(done.out)["results"][0]["path"] == PATH
    nothing = run("search", "zebra", "--mode", "text", "--index", uri)
    assert "Nothing found in /root/␛]0;" in nothing.out
    assert controls(nothing.out) == set()


def test_status_prints_no_control_characters(run: Command, uri: str, tmp_path: Path) -> None:
    for flags in ((), ("--json",)):
        done = run("index", tmp_path, "--status", "--index", uri, *flags)
        assert (done.code, controls(done.out + done.err)) == (0, set())
        assert "[red]router[/red]" in done.out + done.err


def test_errors_are_printed_as_they_are(run: Command, tmp_path: Path) -> None:
    done = run("search", "x", "--index", tmp_path / EVIL.replace("/", ""))
    assert controls(done.err) == set()
    assert "[red]router[red]" in done.err
    assert r"\[b]" in done.err


def test_ask_prints_no_control_characters(
    run: Command, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "polyvec.search.retrieve.open_searcher", lambda *_: Searcher(Store.open(uri), about)
    )
    with streaming(f"Reset the {EVIL} [1]. {EVIL} می\u200cخواهم [9].") as chat:
        flags = ("--index", uri, "--chat-url", chat.url, "--chat-model", "m")
        done = run("ask", "reset router", *flags, "--min-cosine", "-1")
        away = run("ask", "reset zebra quagga", *flags, "--min-cosine", "1")
    assert (done.code, controls(done.out + done.err)) == (0, set())
    assert "می\u200cخواهم" in done.out, "what letters need stays"
    assert (away.code, controls(away.out + away.err)) == (0, set())


def test_a_failed_file_is_told_without_its_controls(run: Command, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "\x1b[31mevil\x9b[b].pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "good.txt").write_text("hello")
    model = write_tiny(tmp_path / "model")
    done = run("index", folder, "--index", tmp_path / "index", "--model", model)
    assert done.code == 0
    assert controls(done.out + done.err) == set()
    assert "␛[31mevil�[b].pdf" in done.err
