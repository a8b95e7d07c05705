"""``polyvec search --ui``: searching and asking in a terminal, by keyboard."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import ClassVar, TypeVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from polyvec.cli.passages import passage_lines, path_line, source_line
from polyvec.cli.screen_jobs import Around, Asked, Failed, Found, Jobs, Opened, Unopened
from polyvec.cli.screen_parts import (
    FILTERS,
    Conversation,
    may_run,
    passage_text,
    where_of_fields,
)
from polyvec.cli.terminal import visible, visible_lines
from polyvec.errors import InputError, PolyvecError
from polyvec.search.answer import Answer, AskSettings, Sources, Words
from polyvec.search.chat import ChatSettings
from polyvec.search.retrieve import Mode, Result, Searcher, SearchSettings
from polyvec.search.where import Where

_MODES: tuple[Mode, ...] = ("hybrid", "dense", "text")
Brought = TypeVar("Brought", bound=Message)


class Results(OptionList):
    """The passages found; letters act on the one that is highlighted."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "app.open_file", show=False),
        Binding("c", "app.copy_path", show=False),
        Binding("a", "app.ask", show=False),
        Binding("m", "app.next_mode", show=False),
        Binding("slash", "app.question", show=False),
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
    ]


def _while_shown(
    handler: "Callable[[SearchScreen, Brought], None]",
) -> "Callable[[SearchScreen, Brought], None]":
    """Let what a job brings come to nothing where the screen is closed already."""

    @wraps(handler)
    def handled(app: "SearchScreen", message: Brought) -> None:
        if app.query(Results):
            handler(app, message)

    return handled


class SearchScreen(App[PolyvecError]):
    """The interface. It ends with an error where the index cannot be opened."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #question { border: round $primary; }
    #filters { height: 3; display: none; }
    #filters.shown { display: block; }
    #filters Input { width: 1fr; border: round $secondary; }
    #results { width: 1fr; height: 1fr; border: round $primary; }
    #preview { width: 1fr; border: round $primary; padding: 0 1; }
    #answer { height: 12; border: round $accent; padding: 0 1; display: none; }
    #answer.shown { display: block; }
    #status { height: 1; color: $text-muted; }
    Screen.-narrow #preview { display: none; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-wide")]  # noqa: RUF012 (as the base has it)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "question", "Question"),
        Binding("f2", "next_mode", "Mode"),
        Binding("f3", "ask", "Ask"),
        Binding("f4", "filters", "Filters"),
        Binding("f5", "open_file", "Open"),
        Binding("f6", "copy_path", "Copy path"),
        Binding("ctrl+q", "quit", "Quit", priority=True),
    ]

    def __init__(
        self,
        opener: Callable[[], Searcher],
        root: Path | None,
        settings: SearchSettings,
        chat: ChatSettings | None = None,
        question: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """Make it; nothing is opened before it runs.

        Args:
            opener: Opens the index and its model; called off the screen's thread.
            root: The indexed folder; None for an index of several, whose files are not opened.
            settings: How to search at first.
            chat: Where questions are sent when they are asked; None: they cannot be.
            question: Searched at the start.
            fields: What the filters say at first, by the names of ``FILTERS``.
        """
        super().__init__()
        self.jobs, self.opener, self.root = Jobs(self), opener, root
        self.settings, self.chat, self.first_question = settings, chat, question
        self.first_fields = dict(fields or {})
        self.question, self.results = "", list[Result]()
        self.conversation = Conversation("")
        self.waiting: Callable[[], None] | None = None

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Input(self.first_question, placeholder="Search in any language", id="question")
        is_filtered = any(self.first_fields.values())
        with Horizontal(id="filters", classes="shown" if is_filtered else ""):
            for name, hint in FILTERS.items():
                yield Input(self.first_fields.get(name), placeholder=hint, id=name)
        with Horizontal():
            yield Results(id="results", markup=False)
            with VerticalScroll(id="preview"):
                yield Static(id="passage", markup=False)
        with VerticalScroll(id="answer"):
            yield Static(id="said", markup=False)
        yield Static(id="status", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Open the index."""
        self._tell("opening the index and its model")
        if self.first_question.strip():
            self._search()
        self.jobs.open(self.opener)

    # What the keys do

    def on_input_submitted(self) -> None:
        """Search, from the question or a filter."""
        self._search()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show the passage."""
        self._preview(event.option_index)

    def on_option_list_option_selected(self) -> None:
        """Move into the passage, to scroll it."""
        self.query_one("#preview").focus()

    def action_question(self) -> None:
        """Go back to the question."""
        box = self.query_one("#question", Input)
        box.focus()
        box.select_all()

    def action_next_mode(self) -> None:
        """Search by meaning, by words, or both."""
        after = (_MODES.index(self.settings.mode) + 1) % len(_MODES)
        self.settings = replace(self.settings, mode=_MODES[after])
        self._tell()
        if self.question:
            self._search()

    def action_filters(self) -> None:
        """Show the filters, or hide and empty them."""
        filters = self.query_one("#filters")
        filters.toggle_class("shown")
        if filters.has_class("shown"):
            self.query_one("#path", Input).focus()
            return
        for name in FILTERS:
            self.query_one(f"#{name}", Input).value = ""
        self.action_question()

    def action_ask(self) -> None:
        """Send the question and its passages to the chat endpoint."""
        if self.chat is None:
            self._warn("No chat endpoint was named: --chat-url and --chat-model.")
            return
        given = self._given()
        if given is not None:
            self._when_open(lambda: self._ask(*given))

    def action_open_file(self) -> None:
        """Open the file of the highlighted passage with its program."""
        result = self._chosen()
        if result is None:
            return
        if self.root is None:
            self._warn("The index is of several folders, maybe of other machines; c copies paths.")
            return
        path = self.root / result.chunk.path
        if not path.resolve().is_relative_to(self.root.resolve()) or not path.is_file():
            self._warn(f"{path} is not there any more.")
        elif may_run(path):
            self._warn("It may be a program, and is not opened; c copies the path.")
        else:
            self._open(path)

    def action_copy_path(self) -> None:
        """Put the path of the highlighted passage's file into the clipboard."""
        result = self._chosen()
        if result is not None:
            path = str((self.root or Path()) / result.chunk.path)
            self.copy_to_clipboard(path)
            self.notify(visible(path), title="Copied", markup=False)

    # What comes back

    @_while_shown
    def on_opened(self, message: Opened) -> None:
        """Do what was wanted before the index was open."""
        self._tell(
            f"{message.searcher.store.count():,} passages of {self.root or 'several folders'}"
        )
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting()

    def on_unopened(self, message: Unopened) -> None:
        """End."""
        self.exit(message.error)

    @_while_shown
    def on_found(self, message: Found) -> None:
        """List results."""
        self._list(message.results, message.question)
        self._tell(f"{len(message.results)} passages in {1000 * message.seconds:,.0f} ms")
        if not message.results:
            self.query_one("#passage", Static).update("Nothing found.")
        elif self.focused is not None and isinstance(self.focused, Input):
            self.query_one(Results).focus()

    @_while_shown
    def on_around(self, message: Around) -> None:
        """Show what stands around the passage, if it is still the one looked at."""
        result = self._chosen()
        if result is not None and result.chunk.chunk_id == message.chunk_id:
            shown = passage_text(result, self.question, message.before, message.after)
            self.query_one("#passage", Static).update(shown)

    @_while_shown
    def on_asked(self, message: Asked) -> None:
        """Show an answer as it comes."""
        event = message.event
        if isinstance(event, Sources):
            self._list(list(event.results), self.conversation.question, are_sources=True)
        elif isinstance(event, Words):
            self.conversation.said += event.text
        elif isinstance(event, Answer):
            self.conversation.answer = event
            self._list(list(event.results), event.question, are_sources=True)
            self._tell("answered")
        self._show_answer()

    @_while_shown
    def on_failed(self, message: Failed) -> None:
        """Say why nothing came."""
        self._tell()
        self._warn(message.reason)
        if message.kind == "ask":
            self.conversation.problem = message.reason
            self._show_answer()

    # How

    def _given(self) -> tuple[str, Where] | None:
        """Return the question and the filters, None where something is wrong with them."""
        question = self.query_one("#question", Input).value.strip()
        fields = {name: self.query_one(f"#{name}", Input).value for name in FILTERS}
        try:
            if not question:
                raise InputError("The question is empty.")
            return question, where_of_fields(fields)
        except InputError as error:
            self._warn(str(error))
            return None

    def _search(self) -> None:
        given = self._given()
        if given is None:
            return
        question, where = given
        self.jobs.void("ask")
        self.query_one("#answer").remove_class("shown")
        self._tell("searching" if self.jobs.searcher else "opening the index and its model")
        self._when_open(lambda: self.jobs.find(question, self.settings, where))

    def _ask(self, question: str, where: Where) -> None:
        assert self.chat is not None, "checked where the key is"
        self.jobs.void("find")
        self.conversation = Conversation(question)
        self._show_answer()
        self.query_one("#answer").add_class("shown")
        self._tell("asking")
        few = SearchSettings(self.settings.mode, AskSettings.passages)
        self.jobs.ask(question, self.chat, few, where)

    def _when_open(self, job: Callable[[], None]) -> None:
        """Do it now, or as soon as the index is open; of several the last."""
        if self.jobs.searcher is None:
            self.waiting = job
        else:
            job()

    def _list(self, results: list[Result], question: str, are_sources: bool = False) -> None:
        self.question, self.results = question, results
        listed = self.query_one(Results)
        listed.clear_options()
        verdicts = self.conversation.verdicts()
        for number, result in enumerate(results, 1):
            lines = Text("\n").join((path_line(result), passage_lines(number, result, question)))
            if are_sources:
                lines = source_line(number, result, verdicts.get(number))
            listed.add_option(Option(lines))
        if results:
            listed.highlighted = 0

    def _preview(self, number: int) -> None:
        if number < len(self.results):
            result = self.results[number]
            self.query_one("#passage", Static).update(passage_text(result, self.question))
            self.query_one("#preview").scroll_home(animate=False)
            self.jobs.look_around(result)

    def _chosen(self) -> Result | None:
        number = self.query_one(Results).highlighted
        return self.results[number] if number is not None and number < len(self.results) else None

    def _show_answer(self) -> None:
        self.query_one("#said", Static).update(self.conversation.shown())
        self.query_one("#answer").scroll_end(animate=False)

    def _tell(self, what: str = "") -> None:
        to = "no chat endpoint" if self.chat is None else f"F3 asks {self.chat.url}"
        parts = (what, self.settings.mode, to)
        line = " · ".join(part for part in parts if part)
        self.query_one("#status", Static).update(Text(visible(line)))

    def _warn(self, text: str) -> None:
        self.notify(visible_lines(text), severity="warning", markup=False)

    def _open(self, path: Path) -> None:
        try:
            if sys.platform == "win32":
                os.startfile(path)  # noqa: S606
            else:
                opener = "open" if sys.platform == "darwin" else "xdg-open"
                quiet = subprocess.DEVNULL
                subprocess.Popen(
                    [opener, str(path)], stdout=quiet, stderr=quiet, start_new_session=True
                )
        except OSError as error:
            self._warn(f"{path} was not opened: {error.strerror or error}; c copies the path.")
