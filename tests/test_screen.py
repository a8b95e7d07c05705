"""The text-mode interface, driven by keys as a person would."""

import asyncio
import subprocess
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from polyvec.cli.screen import SearchScreen
from polyvec.cli.screen_jobs import Around, Asked, Failed, Found, Opened, repeated
from polyvec.cli.screen_parts import may_run
from polyvec.errors import IndexMismatchError
from polyvec.search.answer import Words
from polyvec.search.chat import ChatSettings
from polyvec.search.retrieve import Searcher, SearchSettings
from tests.command import Command
from tests.library import HOSTILE, about, make_searcher
from tests.streaming_chat import Turn, streaming
from tests.test_terminal import controls

Scene = Callable[["Pilot[Any]"], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return make_searcher(tmp_path_factory.mktemp("screen"))


def play(app: SearchScreen, scene: Scene, width: int = 110) -> None:
    async def whole() -> None:
        async with app.run_test(size=(width, 36)) as pilot:
            await scene(pilot)

    asyncio.run(whole())


async def until(pilot: "Pilot[Any]", is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what another thread brings."""
    for _ in range(int(seconds / 0.02)):
        if is_so():
            await pilot.pause()
            return
        await pilot.pause(0.02)
    raise AssertionError("it did not come")


def screen(searcher: Searcher, **more: Any) -> SearchScreen:
    settings = more.pop("settings", SearchSettings())
    return SearchScreen(lambda: searcher, more.pop("root", Path("/root")), settings, **more)


def text(app: SearchScreen, name: str) -> str:
    return str(app.query_one(f"#{name}", Static).render())


def listed(app: SearchScreen) -> list[str]:
    return [str(option.prompt) for option in app.query_one(OptionList).options]


def shown(app: SearchScreen) -> str:
    """Return what is on the screen."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)


def test_a_question_is_typed_and_its_passages_are_read(searcher: Searcher) -> None:
    app = screen(searcher)

    async def scene(pilot: "Pilot[Any]") -> None:
        await pilot.press(*"reset router", "enter")
        await until(pilot, lambda: bool(app.results))
        assert "manuals/router.md" in listed(app)[0]
        await until(pilot, lambda: "green light" in text(app, "passage"))
        assert "cosine" in text(app, "passage")
        first = app.query_one(OptionList).options[0].prompt
        assert any("yellow" in str(span.style) for span in first.spans)  # type: ignore[union-attr]
        await pilot.press("down")
        await until(pilot, lambda: app.results[1].chunk.path in text(app, "passage"))
        assert "reset" in shown(app)

    play(app, scene)


def test_another_language_finds_by_meaning_and_words_by_mode(searcher: Searcher) -> None:
    app = screen(searcher, question="路由器", settings=SearchSettings("dense"))

    async def scene(pilot: "Pilot[Any]") -> None:
        await until(pilot, lambda: len(app.results) > 2)
        assert "dense" in text(app, "status")
        await pilot.press("m")
        await until(pilot, lambda: len(app.results) == 1)
        assert "text" in text(app, "status")
        assert app.results[0].chunk.path == "zh/路由.txt"

    play(app, scene)


def test_filters_hold_and_go(searcher: Searcher) -> None:
    app = screen(searcher, question="router", fields={"path": "de, zh"})

    async def scene(pilot: "Pilot[Any]") -> None:
        await until(pilot, lambda: bool(app.results))
        assert {r.chunk.path for r in app.results} == {"de/netz.pdf", "zh/路由.txt"}
        app.query_one("#language", Input).value = "de"
        app.query_one("#language", Input).focus()
        await pilot.press("enter")
        await until(pilot, lambda: len(app.results) == 1)
        app.query_one("#since", Input).value = "soon"
        await pilot.press("escape", "enter")
        await until(pilot, lambda: bool(app._notifications))
        assert "write a day" in next(iter(app._notifications)).message
        await pilot.press("f4", "enter")
        await until(pilot, lambda: len(app.results) > 2)

    play(app, scene)


def test_hostile_texts_do_nothing(searcher: Searcher) -> None:
    app = screen(searcher, question="markup", settings=SearchSettings("text"))

    async def scene(pilot: "Pilot[Any]") -> None:
        await until(pilot, lambda: bool(app.results))
        assert "[bold red]markup[/]" in listed(app)[0]
        assert "[bold red]markup[/]" in text(app, "passage")
        assert controls(listed(app)[0] + text(app, "passage") + shown(app)) == set()
        assert len(text(app, "passage").split("redrum")) == len(HOSTILE.split("redrum"))

    play(app, scene)


def test_the_screen_answers_keys_while_a_search_takes_its_time(searcher: Searcher) -> None:
    go, asked = threading.Event(), list[str]()

    def slow(question: str) -> Any:
        asked.append(question)
        if question == "cat":
            go.wait(20)
        return about(question)

    app = SearchScreen(lambda: Searcher(searcher.store, slow), Path("/root"), SearchSettings())

    async def scene(pilot: "Pilot[Any]") -> None:
        await pilot.press(*"cat", "enter")
        await until(pilot, lambda: asked == ["cat"])
        await pilot.press("escape", *"paris", "enter")
        assert app.query_one("#question", Input).value == "paris"
        go.set()
        await until(pilot, lambda: bool(app.results))
        await pilot.pause(0.2)
        assert app.question == "paris", "the older search's results are not shown"

    play(app, scene)


def test_an_answer_streams_with_checked_citations(searcher: Searcher) -> None:
    said = "Hold the reset button of the router for ten seconds [1]. \x1b[31mIt is [b]red[/b] [9]."
    with streaming(said) as chat:
        app = screen(searcher, chat=ChatSettings(chat.url, "scripted"))

        async def scene(pilot: "Pilot[Any]") -> None:
            await pilot.press(*"reset router", "f3")
            await until(pilot, lambda: app.conversation.answer is not None)
            await until(pilot, lambda: "check:" in text(app, "said"))
            answer = text(app, "said")
            assert "ten seconds [1]. ␛[31mIt is [b]red[/b] [9]." in answer
            assert "[1] manuals/router.md" in answer
            assert "[9] is no passage" in answer
            assert listed(app)[0].startswith("[1] manuals/router.md")
            assert controls(answer + shown(app)) == set()

        play(app, scene)
    assert chat.prompt.count("Hold the reset button") == 1


def test_a_silent_endpoint_holds_up_neither_searches_nor_the_exit(searcher: Searcher) -> None:
    with streaming(Turn("late", wait_s=1.5)) as chat:
        app = screen(searcher, chat=ChatSettings(chat.url, "scripted"))

        async def scene(pilot: "Pilot[Any]") -> None:
            await pilot.press(*"reset router", "f3")
            await until(pilot, lambda: bool(chat.seen))
            await pilot.press("enter")
            await until(pilot, lambda: len(app.results) > 5)
            assert app.conversation.said == ""

        play(app, scene)


def test_what_goes_wrong_is_told(searcher: Searcher) -> None:
    chat = ChatSettings("http://127.0.0.1:9/v1", "none", max_retries=0)
    app = screen(searcher, chat=chat)

    async def scene(pilot: "Pilot[Any]") -> None:
        await pilot.press(*"reset router", "f3")
        await until(pilot, lambda: "Is it running?" in text(app, "said"))

    play(app, scene)
    without = screen(searcher)

    async def unasked(pilot: "Pilot[Any]") -> None:
        await pilot.press(*"reset router", "f3")
        await until(pilot, lambda: bool(without._notifications))
        assert "--chat-url" in next(iter(without._notifications)).message

    play(without, unasked)


def test_what_comes_when_it_is_closing_does_nothing(searcher: Searcher) -> None:
    app = screen(searcher, question="router")

    async def scene(pilot: "Pilot[Any]") -> None:
        await until(pilot, lambda: bool(app.results))
        await app.screen.query("*").remove()
        late = (Opened(searcher), Found("q", [], 0.1), Around("x", "", ""), Asked(Words("w")))
        for message in (*late, Failed("ask", "silent")):
            app.post_message(message)
        await pilot.pause()

    play(app, scene)


def test_an_index_that_does_not_open_ends_it() -> None:
    def opener() -> Searcher:
        raise IndexMismatchError("other vectors")

    app = SearchScreen(opener, Path("/root"), SearchSettings())

    async def scene(pilot: "Pilot[Any]") -> None:
        await until(pilot, lambda: app.return_value is not None)

    play(app, scene)
    assert str(app.return_value) == "other vectors"


def test_files_are_opened_and_paths_copied(
    searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = list[Any]()
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: opened.append(command))
    (tmp_path / "travel").mkdir()
    (tmp_path / "travel" / "paris.txt").write_text("x")
    app = screen(searcher, root=tmp_path, question="Eiffel", settings=SearchSettings("text"))

    async def scene(pilot: "Pilot[Any]") -> None:
        await until(pilot, lambda: bool(app.results))
        await pilot.press("o", "c")
        assert opened[0][1] == str(tmp_path / "travel" / "paris.txt")
        assert app.clipboard == str(tmp_path / "travel" / "paris.txt")
        (tmp_path / "travel" / "paris.txt").unlink()
        (tmp_path / "travel" / "paris.txt").symlink_to("/etc/passwd")
        await pilot.press("o")
        assert len(opened) == 1, "a link that leads out of the folder is not followed"

    play(app, scene)


@pytest.mark.parametrize(
    ("name", "is_program"),
    [
        *(("notes.md", False), ("a.PDF", False), ("README", False), ("run", True)),
        *(("a.py", True), ("a.command", True), ("a.desktop", True), ("a.txt.bat", True)),
    ],
)
def test_what_a_desktop_might_run_is_not_opened(
    tmp_path: Path, name: str, is_program: bool
) -> None:
    (tmp_path / name).write_text("x")
    (tmp_path / name).chmod(0o755 if name == "run" else 0o644)
    assert may_run(tmp_path / name) is is_program


def test_overlaps_are_not_shown_twice() -> None:
    assert repeated("one two three", "two three four") == len("two three")
    assert repeated("one", "two") == 0


def test_the_command_says_what_does_not_go_together(run: Command, searcher: Searcher) -> None:
    flags = ("--index", searcher.store.uri)
    assert "--ui shows what --json" in run("search", "--ui", "--json", *flags).err
    assert "--ui needs a terminal" in run("search", "--ui", *flags).err
    assert "The query is empty" in run("search", *flags).err
