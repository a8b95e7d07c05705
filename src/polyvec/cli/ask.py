"""``polyvec ask``: a question answered from your documents, by a chat model of your choice."""

from typing import TYPE_CHECKING

import typer
from rich.text import Text

from polyvec.cli.filters import where_of
from polyvec.cli.flags import ask as flags
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
from polyvec.cli.passages import source_line
from polyvec.cli.terminal import visible, visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polyvec.search.answer import Answer, Event


def ask(
    question: flags.Question,
    index: IndexOption = None,
    storage_option: StorageOption = None,
    chat_url: ChatUrlOption = None,
    chat_model: ChatModelOption = None,
    max_answer_tokens: flags.MaxAnswerTokens = 512,
    chat_timeout: flags.ChatTimeout = 120.0,
    passages: flags.Passages = 5,
    min_cosine: flags.MinCosine = None,
    path: PathOption = None,
    file_type: TypeOption = None,
    language: LanguageOption = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    as_json: JsonOption = False,
    model: IndexModelOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Answer a question from your documents, with numbered sources that are checked.

    The best passages and the question go to the chat endpoint you name (Ollama, llama.cpp, a
    cloud), and nowhere else. A key for it is read from POLYVEC_CHAT_KEY.

    Examples:

    - `polyvec ask "When is the rent due?" --chat-url http://127.0.0.1:11434/v1 --chat-model qwen3`
    - `POLYVEC_CHAT_URL=... POLYVEC_CHAT_MODEL=... polyvec ask "Wann läuft der Vertrag aus?"`
    """
    from polyvec.search.answer import MIN_COSINE, AskSettings
    from polyvec.search.answer import ask as answer
    from polyvec.search.chat import Chat, chat_settings
    from polyvec.search.place import find_index
    from polyvec.search.retrieve import open_searcher
    from polyvec.search.storage import stated_options

    stored = stated_options(storage_option or ())
    to = chat_settings(
        chat_url, chat_model, timeout_s=chat_timeout, max_answer_tokens=max_answer_tokens
    )
    settings = AskSettings(passages, min_cosine=MIN_COSINE if min_cosine is None else min_cosine)
    where = where_of(path, file_type, language, since, before)
    searcher = open_searcher(find_index(index), "hybrid", precision, device, stored, model)
    whole = _followed(answer(question, searcher, Chat(to), settings, where=where), as_json)
    if as_json:
        print_json({"chat": f"{to.model} at {to.url}", **whole.facts()})
        return
    _print(whole)


def _followed(events: "Iterator[Event]", is_quiet: bool) -> "Answer":
    """Show words as they come, and return the whole answer."""
    from polyvec.search.answer import Answer, Words

    for event in events:
        if isinstance(event, Answer):
            return event
        if isinstance(event, Words) and not is_quiet:
            typer.echo(visible_lines(event.text), nl=False)
    raise AssertionError("the last event is the answer")


def _print(answer: "Answer") -> None:
    console = results_console()
    if not answer.is_in_documents:
        console.print(Text("Not in your documents.", style="bold"))
        MESSAGES.print(Text(visible(answer.reason), style="dim"))
        if answer.results:
            console.print(Text("Nearest, and not enough:", style="dim"))
    else:
        console.print("\n")
    verdicts = {citation.number: citation.verdict for citation in answer.citations}
    shown = answer.results if answer.is_in_documents else answer.results[:3]
    for number, result in enumerate(shown, 1):
        console.print(source_line(number, result, verdicts.get(number)), soft_wrap=True)
    for note in answer.notes:
        MESSAGES.print(Text.assemble(("check: ", "bold yellow"), visible(note)))
