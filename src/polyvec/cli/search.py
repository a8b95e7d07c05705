"""``polyvec search``: passages of an index that answer a question."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from polyvec.cli.filters import where_of
from polyvec.cli.flags import search as flags
from polyvec.cli.options import (
    MESSAGES,
    BeforeOption,
    ChatModelOption,
    ChatUrlOption,
    DeviceOption,
    IndexModelOption,
    IndexOption,
    JsonOption,
    LanguageOption,
    PathOption,
    PrecisionOption,
    SinceOption,
    StorageOption,
    TypeOption,
)
from polyvec.cli.output import print_json, results_console
from polyvec.cli.passages import copies_line, explained_line, passage_lines, path_line
from polyvec.cli.terminal import visible
from polyvec.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from polyvec.search.retrieve import Mode, Result, SearchSettings


def search(
    query: flags.Query = None,
    index: IndexOption = None,
    storage_option: StorageOption = None,
    ui: flags.Ui = False,
    top_k: flags.TopK = 10,
    mode: flags.Mode = "hybrid",
    diversity: flags.Diversity = 0.0,
    per_document: flags.PerDocument = 0,
    candidates: flags.Candidates = 100,
    path: PathOption = None,
    file_type: TypeOption = None,
    language: LanguageOption = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    explain: flags.Explain = False,
    as_json: JsonOption = False,
    chat_url: ChatUrlOption = None,
    chat_model: ChatModelOption = None,
    model: IndexModelOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Find passages of your documents (after `polyvec index FOLDER`), best first.

    Examples:

    - `polyvec search "how do I reset the router?"`
    - `polyvec search "Kündigungsfrist" --type pdf --since 2026-01-01 --explain`
    - `polyvec search "error 0x80070057" --mode text --json`
    - `polyvec search --ui`
    """
    from polyvec.search.place import find_index
    from polyvec.search.retrieve import SearchSettings, open_searcher
    from polyvec.search.storage import stated_options

    stored = stated_options(storage_option or ())
    settings = SearchSettings(_mode(mode), top_k, candidates, diversity, per_document)
    how = (precision, device, stored, model)
    if ui:
        if as_json or explain:
            raise InputError("--ui shows what --json and --explain print; leave them out.")
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise InputError("--ui needs a terminal to show itself in; leave it out for lines.")
        fields, chat = _fields(path, file_type, language, since, before), (chat_url, chat_model)
        _show_screen(find_index(index), query or "", settings, fields, chat, how)
        return
    where = where_of(path, file_type, language, since, before)
    if query is None or not query.strip():
        raise InputError("The query is empty. Give one, or --ui to type it there.")
    searcher = open_searcher(find_index(index), settings.mode, *how)
    results, store = searcher.search(query, settings, where), searcher.store
    if settings.mode != "dense" and store.count() and not store.has_words():
        MESSAGES.print(
            "[bold yellow]warning:[/] no word was looked for: the run that makes this index has "
            "not come to its end. Give it again: polyvec index"
        )
    if as_json:
        head = {"query": query, "mode": mode, "index": store.uri, "root": store.info.root}
        print_json({**head, "results": [result.facts(query) for result in results]})
        return
    _print(query, results, per_document > 0, explain, store.info.root or store.uri)


def _mode(text: str) -> "Mode":
    if text not in ("hybrid", "dense", "text"):
        raise InputError(f"--mode is {text!r}; allowed: hybrid, dense, text.")
    return text  # type: ignore[return-value]


def _fields(
    path: list[str] | None,
    file_type: list[str] | None,
    language: list[str] | None,
    since: str | None,
    before: str | None,
) -> dict[str, str]:
    """Return the filter that flags ask for as the text-mode interface's fields have it."""
    return {
        "path": ", ".join(path or ()),
        "type": ", ".join(file_type or ()),
        "language": ", ".join(language or ()),
        "since": since or "",
        "before": before or "",
    }


def _show_screen(
    uri: str,
    question: str,
    settings: "SearchSettings",
    fields: dict[str, str],
    chat: tuple[str | None, str | None],
    how: tuple[str, str, dict[str, str], str | None],
) -> None:
    """Run the text-mode interface; the model is loaded while it shows already."""
    import os

    from polyvec.search.chat import MODEL_VARIABLE, URL_VARIABLE, chat_settings
    from polyvec.search.retrieve import open_searcher
    from polyvec.search.store import Store

    try:
        from polyvec.cli.screen import SearchScreen
    except ImportError as error:
        raise MissingExtraError(
            "The text-mode interface needs textual, which is not installed: "
            "pip install 'polyvec[search]'."
        ) from error
    stated = (*chat, os.environ.get(URL_VARIABLE), os.environ.get(MODEL_VARIABLE))
    to = chat_settings(*chat) if any(stated) else None
    # A missing index is told before the screen is taken.
    root = Store.open(uri, None, how[2]).info.root
    folder = Path(root) if root else None  # an index of several folders has no root
    screen = SearchScreen(
        lambda: open_searcher(uri, "hybrid", *how), folder, settings, to, question, fields
    )
    problem = screen.run()
    if problem is not None:
        raise problem


def _print(query: str, results: "list[Result]", is_grouped: bool, why: bool, where: str) -> None:
    console = results_console()
    if not results:
        console.print(Text(f"Nothing found in {visible(where)}."))
        return
    above = None
    for number, result in enumerate(results, 1):
        if not is_grouped or result.chunk.path != above:
            above = result.chunk.path
            console.print(path_line(result), soft_wrap=True)
        console.print(passage_lines(number, result, query), soft_wrap=True)
        for line in (copies_line(result), explained_line(result) if why else None):
            if line is not None:
                console.print(line, soft_wrap=True)
