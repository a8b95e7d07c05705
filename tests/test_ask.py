"""Asking: what is sent, how answers come, which citations hold, and what faults do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyvec.errors import InputError, RemoteError
from polyvec.search.answer import (
    NOT_FOUND,
    Answer,
    AskSettings,
    Sources,
    Words,
    ask,
    is_in_documents,
)
from polyvec.search.chat import BrokenAnswerError, Chat, ChatSettings, chat_settings
from polyvec.search.citations import check_citations, uncited_sentences
from polyvec.search.retrieve import Searcher
from tests.command import Command
from tests.library import Indexed, index_files, make_searcher
from tests.live import write_tiny
from tests.streaming_chat import StreamingChat, Turn, event, streaming

QUESTION = "How do I reset the router?"
GOOD = "Hold the reset button of the router for ten seconds [1]."


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return make_searcher(tmp_path_factory.mktemp("ask"))


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    return index_files(tmp_path_factory.mktemp("indexed"), write_tiny)


def client(chat: StreamingChat, **settings: Any) -> Chat:
    return Chat(ChatSettings(chat.url, "scripted", **({"backoff_s": 0.01} | settings)))


def asked(searcher: Searcher, chat: Chat, question: str = QUESTION, **settings: Any) -> Answer:
    *_, last = ask(question, searcher, chat, AskSettings(**settings))
    assert isinstance(last, Answer)
    return last


# --- The answer -------------------------------------------------------------------------------


def test_sources_come_first_then_words_then_the_whole(searcher: Searcher) -> None:
    with streaming(GOOD) as chat:
        events = list(ask(QUESTION, searcher, client(chat)))
    assert isinstance(events[0], Sources)
    words = [event.text for event in events[1:-1] if isinstance(event, Words)]
    assert len(words) > 3, "they come as they are said"
    assert "".join(words) == GOOD
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert answer.is_in_documents
    assert answer.results == events[0].results
    assert [(c.number, c.verdict) for c in answer.citations] == [(1, "supported")]
    assert answer.notes == ()


def test_what_is_sent_is_the_question_and_its_passages(searcher: Searcher) -> None:
    with streaming(GOOD) as chat:
        answer = asked(searcher, client(chat), passages=2)
    assert chat.seen[0]["stream"] is True
    assert chat.prompt.count("Hold the reset button") == 1
    assert "[1] (manuals/router.md, lines 1-5, Manual > Reset)" in chat.prompt
    assert "[3]" not in chat.prompt
    assert "Eiffel" not in chat.prompt, "no other document"
    assert "English" in chat.prompt
    assert len(answer.results) == 2


def test_the_answers_language_is_the_questions(searcher: Searcher) -> None:
    with streaming("Die Taste zehn Sekunden lang drücken, bis das Licht ausgeht [1].") as chat:
        asked(searcher, client(chat), "Wie setze ich den Router zurück, wenn nichts mehr geht?")
        assert "language of the question (German)" in chat.prompt
        other = asked(searcher, client(chat), "How do I reset the router when it hangs again?")
    assert "The question seems to be in English and the answer in German." in other.notes


def test_passages_that_do_not_fit_are_left_out(searcher: Searcher) -> None:
    with streaming(GOOD) as chat:
        answer = asked(searcher, client(chat), max_prompt_characters=60)
    assert len(answer.results) == 1


def test_what_is_not_in_the_documents_is_not_sent(searcher: Searcher) -> None:
    with streaming(GOOD) as chat:
        answer = asked(searcher, client(chat), "quantum chromodynamics", min_cosine=1.0)
    assert (answer.is_in_documents, answer.text, chat.seen) == (False, "", [])
    assert "--min-cosine" in answer.reason


def test_the_rule_by_cosine_and_by_words(searcher: Searcher) -> None:
    results = searcher.search(QUESTION)
    near, why = is_in_documents(QUESTION, results, 0.5)
    assert near
    assert "of 0.500 needed" in why
    named, why = is_in_documents("Gustave Eiffel built tower", searcher.search("Gustave"), 1.1)
    assert named
    assert "100% of the question's words" in why
    assert is_in_documents(QUESTION, [], 0.0) == (False, "Nothing was found.")


@pytest.mark.parametrize("said", [NOT_FOUND, f" {NOT_FOUND.title()}. Sorry.", "", "**" + NOT_FOUND])
def test_a_model_may_say_that_it_is_not_there(searcher: Searcher, said: str) -> None:
    with streaming(said) as chat:
        events = list(ask(QUESTION, searcher, client(chat)))
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert not answer.is_in_documents
    assert answer.text == ""
    assert not any(isinstance(event, Words) for event in events), "nor is it shown as an answer"


def test_an_answer_that_begins_like_a_refusal_is_shown_whole(searcher: Searcher) -> None:
    said = "Not in every house, but hold the reset button of the router [1]."
    with streaming(said) as chat:
        events = list(ask(QUESTION, searcher, client(chat)))
    assert "".join(e.text for e in events if isinstance(e, Words)) == said


def test_citations_that_do_not_hold_are_noted(searcher: Searcher) -> None:
    said = "Hold the reset button for 99 seconds [1]. It is blue [7]. The end is near."
    with streaming(said) as chat:
        answer = asked(searcher, client(chat))
    assert [(c.number, c.verdict) for c in answer.citations] == [
        (1, "unsupported"), (7, "unknown"),
    ]  # fmt: skip
    assert "[1] may not say this: Hold the reset button for 99 seconds" in answer.notes[0]
    assert "[7] is no passage" in answer.notes[1]
    assert "1 sentence of the answer cite no passage" in answer.notes[2]


# --- Citations --------------------------------------------------------------------------------

PASSAGES = ["The rent is due on the 3rd of each month.", "Cats sleep for 16 hours a day."]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The rent is due on the 3rd [1].", [(1, "supported")]),
        ("The rent is due on the 3rd. [1]", [(1, "supported")]),
        ("The rent is due on the 3rd [2].", [(2, "unsupported")]),
        ("The rent is due on the 5th [1].", [(1, "unsupported")]),
        (
            "Cats sleep, rent due [1, 2].",
            [(1, "supported"), (2, "supported")],
        ),
        ("Cats sleep for 16 hours[2][3]", [(2, "supported"), (3, "unknown")]),
        ("猫每天睡16个小时【2】。", [(2, "unsupported")]),
        ("1. Cats sleep [2]\n2. Rent is due [0]", [(2, "supported"), (0, "unknown")]),
        ("Nothing is cited here.", []),
    ],
)
def test_citations(answer: str, expected: list[tuple[int, str]]) -> None:
    found = check_citations(answer, PASSAGES)
    assert [(c.number, c.verdict) for c in found] == expected
    for one in found:
        assert answer[one.start] in "[【"
        assert answer[one.end - 1] in "]】"


def test_meaning_decides_where_words_cannot_meet() -> None:
    near = {"猫": [0.1, 0.8], "租": [0.7, 0.1]}

    def nearness(sentence: str) -> Any:
        return np.array(near[sentence[0]], dtype=np.float32)

    found = check_citations("猫每天睡16个小时【2】。租金每月到期[2]。", PASSAGES, nearness)
    assert [c.verdict for c in found] == ["supported", "unsupported"]


def test_sentences_without_a_citation() -> None:
    assert uncited_sentences("A b c d. E f g h [1]. I.") == ["A b c d."]


# --- The endpoint -----------------------------------------------------------------------------

ASK = [{"role": "user", "content": "x"}]


def test_busy_endpoints_are_asked_again() -> None:
    with streaming(Turn(status=429, headers={"Retry-After": "0"}), Turn(status=503), GOOD) as chat:
        assert "".join(client(chat).stream(ASK)) == GOOD
    assert len(chat.seen) == 3


def test_an_endpoint_that_stays_busy_is_an_error() -> None:
    with (
        streaming(Turn(status=429)) as chat,
        pytest.raises(RemoteError, match="failed 2 times: 429"),
    ):
        list(client(chat, max_retries=1).stream(ASK))


def test_silence_is_a_timeout() -> None:
    with (
        streaming(Turn(GOOD, wait_s=0.4)) as chat,
        pytest.raises(RemoteError, match=r"nothing came for 0\.1 s"),
    ):
        list(client(chat, timeout_s=0.1, max_retries=0).stream(ASK))


def test_a_stream_that_breaks_is_not_an_answer() -> None:
    said = []
    with streaming(Turn(GOOD, break_after=2)) as chat:
        stream = client(chat).stream(ASK)
        with pytest.raises(BrokenAnswerError, match="in the middle of its answer"):
            for words in stream:
                said.append(words)
    assert "".join(said) == GOOD[:14], "and its words are not said twice"
    assert len(chat.seen) == 1


def test_a_stream_that_breaks_before_its_first_word_is_asked_again() -> None:
    with streaming(Turn(GOOD, break_after=0), GOOD) as chat:
        assert "".join(client(chat).stream(ASK)) == GOOD


def test_an_error_inside_a_stream_is_told() -> None:
    raw = event({"content": "Half"}) + b'data: {"error": {"message": "out of memory"}}\n\n'
    with streaming(Turn(raw=raw)) as chat, pytest.raises(RemoteError, match="out of memory"):
        list(client(chat, max_retries=0).stream(ASK))
    with (
        streaming(Turn(raw=b"data: {oops\n\n")) as chat,
        pytest.raises(RemoteError, match="no JSON"),
    ):
        list(client(chat, max_retries=0).stream(ASK))


def test_a_server_that_does_not_stream_is_understood() -> None:
    with streaming(Turn(GOOD, is_whole=True, finish="length")) as chat:
        one = client(chat)
        assert list(one.stream(ASK)) == [GOOD]
    assert one.was_cut


def test_an_endpoint_that_wants_other_fields_gets_them() -> None:
    """As OpenAI's reasoning models do; what was learnt is kept for the next question."""
    refusals = [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
        "Unsupported value: 'temperature' does not support 0 with this model.",
    ]
    with streaming(*(Turn(text, status=400) for text in refusals), GOOD) as chat:
        one = client(chat, max_retries=0)
        assert "".join(one.stream(ASK)) == GOOD
        assert "".join(one.stream(ASK)) == GOOD
    assert len(chat.seen) == 4
    assert chat.seen[0]["max_tokens"] == chat.seen[2]["max_completion_tokens"] == 512
    assert all({"max_tokens", "temperature"}.isdisjoint(body) for body in chat.seen[2:])


def test_a_refusal_that_no_spelling_mends_is_told() -> None:
    said = "the request exceeds the available context size"
    with (
        streaming(Turn(said, status=400)) as chat,
        pytest.raises(RemoteError, match=r"context size.*--passages"),
    ):
        list(client(chat).stream(ASK))
    assert len(chat.seen) == 1


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"<think>Router? Yes.</think>\n\n{GOOD}", GOOD),
        (f"\n<think>\n</think>{GOOD}", GOOD),
        ("<think>never ends", ""),
        ("<thing> is a tag [1].", "<thing> is a tag [1]."),
        ("Text with <think> inside </think> [1].", "Text with <think> inside </think> [1]."),
        ("<th", "<th"),
    ],
)
def test_thoughts_are_no_part_of_an_answer(said: str, shown: str) -> None:
    with streaming(said) as chat:
        assert "".join(client(chat).stream(ASK)) == shown


def test_an_answer_in_parts_is_read() -> None:
    parts = [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": GOOD}]
    raw = event({"content": parts}) + event({"content": None}, "stop") + b"data: [DONE]\n\n"
    with streaming(Turn(raw=raw)) as chat:
        assert "".join(client(chat).stream(ASK)) == GOOD


def test_refusals_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_CHAT_KEY", "secret")
    with streaming(Turn(status=401)) as chat:
        with pytest.raises(RemoteError, match="POLYVEC_CHAT_KEY") as raised:
            list(client(chat).stream(ASK))
        assert chat.keys == ["Bearer secret"]
        assert "secret" not in str(raised.value)
    with streaming(Turn(status=404)) as chat, pytest.raises(RemoteError, match="/v1"):
        list(client(chat).stream(ASK))


def test_a_redirect_is_not_followed() -> None:
    with (
        streaming(GOOD) as elsewhere,
        streaming(Turn(status=307, headers={"Location": elsewhere.url})) as chat,
        pytest.raises(RemoteError, match="307"),
    ):
        list(client(chat).stream(ASK))
    assert elsewhere.seen == []


def test_a_proxy_of_the_environment_does_not_see_local_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with streaming(GOOD) as proxy, streaming(GOOD) as chat:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        list(client(chat).stream(ASK))
        assert (len(proxy.seen), len(chat.seen)) == (0, 1)


def test_a_dead_endpoint_is_told() -> None:
    with streaming(GOOD) as chat:
        pass
    with pytest.raises(RemoteError, match="Is it running"):
        list(client(chat, max_retries=0).stream(ASK))


def test_an_endpoint_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLYVEC_CHAT_URL", raising=False)
    monkeypatch.delenv("POLYVEC_CHAT_MODEL", raising=False)
    with pytest.raises(InputError, match="No address of a chat endpoint"):
        chat_settings(None, "m")
    with pytest.raises(InputError, match="No model of a chat endpoint"):
        chat_settings("http://127.0.0.1/v1", None)
    with pytest.raises(InputError, match="no http:// or https://"):
        chat_settings("ftp://x", "m")
    monkeypatch.setenv("POLYVEC_CHAT_URL", "http://127.0.0.1:1/v1/")
    assert chat_settings(None, "m").url == "http://127.0.0.1:1/v1"


# --- The command ------------------------------------------------------------------------------


def test_the_command_answers_with_sources(run: Command, indexed: Indexed) -> None:
    with streaming("Hold the reset button [1]. It is \x1b[31mred [9].") as chat:
        flags = ("--index", indexed.uri, "--chat-url", chat.url, "--chat-model", "m")
        done = run("ask", "How do I reset the router?", *flags, "--min-cosine", "-1")
    assert done.code == 0
    assert "Hold the reset button [1]." in done.out
    assert "\x1b[31m" not in done.out
    assert "router.md" in done.out
    assert "[9] is no passage" in done.err


def test_the_command_gives_json(run: Command, indexed: Indexed) -> None:
    with streaming("It is in Paris [1].") as chat:
        flags = ("--index", indexed.uri, "--chat-url", chat.url, "--chat-model", "m", "--json")
        done = run("ask", "Eiffel tower", *flags, "--min-cosine", "-1")
        away = run("ask", "zebra", *flags, "--min-cosine", "1")
    answer = json.loads(done.out)
    assert answer["answer"] == "It is in Paris [1]."
    assert answer["passages"][0]["number"] == 1
    nothing = json.loads(away.out)
    assert (nothing["in_documents"], nothing["answer"]) == (False, "")


def test_the_command_wants_an_endpoint(
    run: Command, indexed: Indexed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("POLYVEC_CHAT_URL", raising=False)
    done = run("ask", "x", "--index", indexed.uri)
    assert (done.code, "POLYVEC_CHAT_URL" in done.err) == (2, True)
