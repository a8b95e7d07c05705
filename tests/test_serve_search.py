"""Searching and asking over HTTP: what is found, what is streamed, what is refused."""

import http.client
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from polyvec.errors import IndexMissingError, InputError, MissingExtraError
from polyvec.search.place import VARIABLE, index_name, index_of, stated_index
from polyvec.search.retrieve import Searcher, SearchSettings
from polyvec.search.where import Where, read_moment
from polyvec.serve.app import ROUTES, Route
from polyvec.serve.library import Library
from polyvec.serve.settings import ServeSettings
from tests.library import Indexed, index_files
from tests.live import Live, serving, write_tiny
from tests.streaming_chat import StreamingChat, Turn, streaming

pytest.importorskip("lancedb", reason="lancedb is not installed")

QUESTION = "How do I reset the router?"
GOOD = "Hold the reset button of the router for ten seconds [1]. The sky is green [7]."
KEY = "k" * 24
SEARCH_ROUTES = [route for route in ROUTES if route.dialect == "search"]


@dataclass
class Served:
    """A server, the indexes that it searches, and the chat endpoint that it asks."""

    live: Live
    mine: Indexed
    foreign: Indexed
    """Made by a model that is not served."""
    gone: Indexed
    """To be deleted."""
    moved: Indexed
    """To be migrated to ``other``."""
    other: str
    """The other model that is served."""
    chat: StreamingChat

    def search(self, query: str, **body: Any) -> list[dict[str, Any]]:
        answer = self.live.post("/search", {"query": query} | body)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def refused(self, path: str, **body: Any) -> tuple[int, str]:
        answer = self.live.post(path, body)
        return answer.status_code, answer.json().get("error", answer.text)

    def ask(self, **body: Any) -> list[dict[str, Any]]:
        """Return the events of an answer; its question is asked whatever the cosines."""
        asked = {"question": QUESTION, "min_cosine": -1} | body
        with self.live.http.stream("POST", "/ask", json=asked) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["Content-Type"] == "application/x-ndjson"
            assert answer.headers["Cache-Control"] == "no-store"
            return [json.loads(line) for line in answer.iter_lines()]

    def answered(self, path: str, status: int) -> float:
        """Return how many requests were answered so."""
        labels = f'dialect="search",path="{path}",status="{status}"'
        return self.live.metric(f"polyvec_requests_total{{{labels}}}")

    def wait(self, condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            time.sleep(0.01)
        pytest.fail("it does not happen")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    mine, gone, moved = (index_files(folder / n, write_tiny) for n in ("mine", "gone", "moved"))
    foreign = index_files(folder / "foreign", partial(write_tiny, seed=9))
    other = str(write_tiny(folder / "other", seed=5))
    named = {"mine": mine, "gone": gone, "moved": moved, "foreign": foreign}
    with (
        streaming(GOOD) as chat,
        serving(
            f"tiny={mine.model}",
            f"other={other}",
            index=tuple(f"{name}={each.uri}" for name, each in named.items()),
            chat_url=chat.url.replace("://", "://name:secret@"),
            chat_model="scripted",
        ) as live,
    ):
        yield Served(live, mine, foreign, gone, moved, other, chat)


@pytest.fixture
def served(one: Served) -> Served:
    one.chat.turns[:] = [Turn(GOOD)]
    one.chat.seen.clear()
    return one


# --- Searching --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hybrid", "dense", "text"])
def test_it_finds_what_the_library_finds(served: Served, mode: Any) -> None:
    from polyvec.engine.embedder import load
    from polyvec.search.store import Store

    embedder = load(served.mine.model, precision="fp32")
    searcher = Searcher(
        Store.open(served.mine.uri), lambda q: embedder.embed([q], "query").vectors[0]
    )
    expected = searcher.search("reset router", SearchSettings(mode))
    got = served.search("reset router", mode=mode)
    assert [r["chunk_id"] for r in got] == [r.chunk.chunk_id for r in expected]
    assert [r["score"] for r in got] == pytest.approx([r.score for r in expected], abs=1e-4)
    assert "router.md" in {r["path"] for r in got}


def test_a_result_says_where_it_is_and_why(served: Served) -> None:
    first = served.search("reset router", mode="text")[0]
    assert first["path"] == "router.md"
    assert first["place"].startswith("line")
    marked = [first["snippet"]["text"][a:b] for a, b in first["snippet"]["marks"]]
    assert {word.casefold() for word in marked} <= {"reset", "router"}
    assert marked
    assert first["explanation"].startswith("BM25")


def test_the_query_goes_through_the_queue_as_a_short_one(served: Served) -> None:
    lines = 'polyvec_tokens_total{model="tiny",role="query"}', 'batch_seconds_count{lane="urgent"}'
    before = [served.live.metric(line) for line in lines]
    answer = served.live.post("/search", {"query": "reset router"})
    after = [served.live.metric(line) for line in lines]
    assert all(now > then for now, then in zip(after, before, strict=True))
    assert "search;dur=" in answer.headers["Server-Timing"]
    assert served.answered("/search", 200) > 0


def test_filters_and_groups(served: Served) -> None:
    def paths(**body: Any) -> list[str]:
        return [r["path"] for r in served.search("router", **body)]

    assert set(paths(paths=["*.md"])) == {"router.md"}
    assert set(paths(file_types=["html"])) == {"hostile.html"}
    assert paths(languages=["xx"]) == []
    assert paths(since="2999-01-01") == []
    assert set(paths(before="2999-01-01T00:00:00Z")) >= {"router.md", "hostile.html"}
    grouped = paths(per_document=1, limit=2)
    assert len(grouped) == len(set(grouped)) == 2


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"query": " "}, 400, "The query is empty"),
        ({"query": " ", "mode": "text"}, 400, "The query is empty"),
        ({}, 400, "query: Field required"),
        ({"query": "x", "mode": "fuzzy"}, 400, "mode"),
        ({"query": "x", "limit": 0}, 400, "limit"),
        ({"query": "x", "limit": 101}, 400, "limit"),
        ({"query": "x" * 4001}, 400, "query"),
        ({"query": "x", "since": "soon"}, 400, "since is 'soon'; write a day"),
        ({"query": "x", "before": "9999-12-31T23:59:59-23:00"}, 400, "before is"),
        ({"query": "x", "paths": ["../secret"]}, 400, "leads out of the indexed folder"),
        ({"query": "x", "paths": ["a/../../etc/passwd"]}, 400, "leads out"),
        ({"query": "x", "paths": ["..\\secret"]}, 400, "leads out"),
        ({"query": "x", "paths": ["[z-a]"]}, 400, "no set of characters"),
        ({"query": "x", "paths": ["a[]"]}, 400, "no set of characters"),
        ({"query": "x", "index": "none"}, 404, "No index 'none' here. There is mine, gone"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(
    served: Served, body: Any, status: int, words: str
) -> None:
    got, said = served.refused("/search", **body)
    assert got == status
    assert words in said


def test_odd_queries_are_words(served: Served) -> None:
    for query in ("a\0b", '" OR 1=1 --', "+router -button ^2 *:*", "\u202erouter", "😀 𠀀 router"):
        assert served.search(query) is not None
    for path in ("a\0b", "[!", "?" * 400, "(?i)x", "$^", "it's", "\\", "]["):
        assert served.search("router", paths=[path]) == []
    status, said = served.refused("/search", query="router", paths=["/etc/passwd"])
    assert (status, "starts from the machine's root" in said) == (400, True)
    assert served.search("router", paths=["*" * 400])
    assert served.search("router", since="0002-01-01T00:00:00Z")


def test_a_large_body_and_another_method_are_refused(served: Served) -> None:
    limit = served.live.server.settings.max_body_bytes
    answer = served.live.http.post("/search", content=b" " * (limit + 1))
    assert answer.status_code == 413
    assert "--max-body-bytes" in answer.json()["error"]
    assert served.live.http.delete("/search").status_code == 405
    assert served.live.http.post("/search", content=b"{").status_code == 400


# --- What is around a passage -----------------------------------------------------------------


def test_a_passage_is_shown_with_its_neighbours(served: Served) -> None:
    first = served.search("reset button", paths=["router.md"])[0]
    whole = (served.mine.root / "router.md").read_text(encoding="utf-8")
    chunk = f"/search/chunk?id={first['chunk_id']}"
    shown = served.live.get(f"{chunk}&before=0&after=0").json()
    assert [c["is_wanted"] for c in shown["chunks"]] == [True]
    assert shown["chunks"][0]["text"] in whole
    assert (shown["path"], shown["index"]) == ("router.md", "mine")
    assert shown["more_before"] or shown["more_after"]
    more = served.live.get(f"{chunk}&before=9&after=9").json()
    assert not more["more_before"]
    assert not more["more_after"]
    ordinals = [c["ordinal"] for c in more["chunks"]]
    assert ordinals == list(range(len(ordinals)))
    assert len(ordinals) > 1


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ("", 400),
        ("id=nothing", 404),
        ("id=../../../../etc/passwd", 404),
        ("id=%2Fetc%2Fpasswd", 404),
        ("id=x' OR '1'='1", 404),
        ("id=router.md", 404),
        ("id=x&before=-1", 400),
        ("id=x&after=51", 400),
        ("id=x&after=many", 400),
        ("id=x&index=../other", 404),
        ("path=/etc/passwd&id=x", 404),
    ],
)
def test_only_passages_of_the_index_are_shown(served: Served, parameters: str, status: int) -> None:
    answer = served.live.get(f"/search/chunk?{parameters}")
    assert answer.status_code == status
    assert answer.json()["error"]
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/search/../router.md",
        "/search/router.md",
        "/search/chunk/../../etc/passwd",
        "/search/%2e%2e/%2e%2e/etc/passwd",
        "/search/indexes/..%2f..%2fetc/passwd",
    ],
)
def test_no_file_is_served(served: Served, path: str) -> None:
    host, port = served.live.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.request("GET", path)  # as it is: httpx would take the dots out
    assert connection.getresponse().status == 404
    connection.close()


def test_a_file_put_in_anothers_place_is_not_read(served: Served) -> None:
    """What is shown comes from the index alone."""
    (served.moved.root / "paris.txt").unlink()
    (served.moved.root / "paris.txt").symlink_to("/etc/passwd")
    first = served.search("Eiffel", mode="text", index="moved")[0]
    shown = served.live.get(f"/search/chunk?id={first['chunk_id']}&index=moved").json()
    (text,) = (c["text"] for c in shown["chunks"] if c["is_wanted"])
    assert "Gustave Eiffel" in text
    assert "root:" not in json.dumps(shown)


def test_hostile_texts_are_json(served: Served) -> None:
    first = served.search("router", mode="text", file_types=["html"])[0]
    assert "<img src=x" in "".join(r["text"] for r in served.search("img", mode="text"))
    answer = served.live.get(f"/search/chunk?id={first['chunk_id']}")
    assert answer.headers["Content-Type"] == "application/json"


# --- What there is ----------------------------------------------------------------------------


def test_the_indexes_say_what_is_in_them(served: Served) -> None:
    answer = served.live.get("/search/indexes").json()
    mine = answer["indexes"][0]
    assert (mine["name"], mine["documents"], mine["unread"]) == ("mine", 4, 0)
    assert (mine["problem"], mine["model"]) == (None, "tiny")
    assert mine["file_types"] == {"text": 2, "markdown": 1, "html": 1}
    assert sum(mine["languages"].values()) == mine["chunks"]
    assert answer["chat"]["model"] == "scripted"
    assert "secret" not in json.dumps(answer)
    assert str(served.mine.root) not in json.dumps(mine)


def test_without_an_index_it_says_how_to_make_one(live: Live) -> None:
    assert live.get("/search/indexes").json() == {"indexes": [], "chat": None}
    for path, body in (("/search", {"query": "x"}), ("/ask", {"question": "x"})):
        answer = live.post(path, body)
        assert answer.status_code == 404
        assert "polyvec index FOLDER; polyvec serve --index FOLDER" in answer.json()["error"]
    assert live.get("/search/chunk?id=x").status_code == 404


def test_an_index_of_another_model_names_the_command_that_migrates(served: Served) -> None:
    mine = served.foreign
    command = f"polyvec index {mine.root} --index {mine.uri} --model {served.mine.model} --migrate"
    for path in ("/search", "/ask"):
        status, said = served.refused(path, query="x", question="x", index="foreign")
        assert status == 409
        assert command in said
    assert served.search("Eiffel", mode="text", index="foreign")[0]["path"] == "paris.txt"
    facts = served.live.get("/search/indexes").json()["indexes"][3]
    assert command in facts["problem"]
    assert facts["documents"] == 4


def test_a_migration_is_noticed(served: Served) -> None:
    """Another process may move the index to another model while it is served."""
    from polyvec.engine.embedder import load
    from polyvec.search.migrate import migrated

    assert served.search("router", index="moved")
    embedder = load(served.other, precision="fp32")
    migrated(served.moved.root, embedder, served.other, served.moved.uri)
    index = served.live.server.library.indexes["moved"]
    index._opened_at = time.monotonic()  # it was looked at just now
    answer = served.live.post("/search", {"query": "router", "index": "moved"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "Ask again" in answer.json()["error"]
    assert served.search("router", index="moved")
    assert served.live.metric('polyvec_texts_total{model="other",role="query"}') > 0


def test_an_index_that_is_gone_is_said(served: Served) -> None:
    assert served.search("router", index="gone")
    shutil.rmtree(served.gone.uri)
    status, said = served.refused("/search", query="router", index="gone", mode="text")
    assert status == 404
    assert "There is no index at" in said


# --- Asking -----------------------------------------------------------------------------------


def test_an_answer_is_streamed_with_sources_and_checked_citations(served: Served) -> None:
    got = served.ask()
    assert got[0]["type"] == "sources"
    assert got[0]["passages"][0]["number"] == 1
    words = [event["text"] for event in got if event["type"] == "words"]
    assert len(words) > 3
    assert "".join(words) == GOOD
    last = got[-1]
    assert (last["type"], last["answer"], last["in_documents"]) == ("answer", GOOD, True)
    assert [c["number"] for c in last["citations"]] == [1, 7]
    assert last["citations"][1]["verdict"] == "unknown"
    assert GOOD[last["citations"][1]["start"] : last["citations"][1]["end"]] == "[7]"
    assert [p["chunk_id"] for p in last["passages"]] == [p["chunk_id"] for p in got[0]["passages"]]
    assert served.answered("/ask", 200) > 0


def test_what_is_not_in_the_documents_is_not_sent(served: Served) -> None:
    (only,) = served.ask(question="quantum chromodynamics", min_cosine=1)
    assert (only["type"], only["in_documents"], only["answer"]) == ("answer", False, "")
    assert "is needed" in only["reason"]
    (only,) = served.ask(paths=["nowhere"])
    assert only["reason"] == "Nothing was found."
    assert served.chat.seen == []


def test_filters_hold_for_asking_too(served: Served) -> None:
    got = served.ask(paths=["paris.txt"], passages=1)
    assert [p["path"] for p in got[0]["passages"]] == ["paris.txt"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"question": " "}, 400, "The question is empty"),
        ({"question": "x", "min_cosine": 2}, 400, "min_cosine"),
        ({"question": "x", "passages": 0}, 400, "passages"),
        ({"question": "x", "paths": [".."]}, 400, "leads out"),
        ({"question": "x", "index": "none"}, 404, "No index"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    served: Served, body: Any, status: int, words: str
) -> None:
    got, said = served.refused("/ask", **body)
    assert got == status
    assert words in said


def test_a_page_of_another_site_cannot_have_passages_sent(served: Served) -> None:
    body = {"question": QUESTION, "min_cosine": -1}
    for origin in ("http://evil.example", "null"):
        assert served.live.post("/ask", body, Origin=origin).status_code == 403
    assert served.chat.seen == []
    assert served.live.post("/ask", body, Origin=served.live.url).status_code == 200


def test_the_key_is_the_servers_and_never_shown(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYVEC_CHAT_KEY", "top-key")
    got = served.ask()
    assert "top-key" not in json.dumps(got) + served.live.get("/search/indexes").text


def test_a_chat_endpoint_that_fails_is_the_last_event(served: Served) -> None:
    served.chat.turns[:] = [Turn(GOOD, break_after=2), Turn(status=401)]
    before = served.answered("/ask", 502)
    broken, refused = served.ask(), served.ask()
    assert served.answered("/ask", 502) == before + 2
    assert [broken[0]["type"], broken[-1]["type"]] == ["sources", "error"]
    assert "broke off in the middle" in broken[-1]["error"]
    assert broken[-1]["status"] == 502
    assert "POLYVEC_CHAT_KEY" in refused[-1]["error"]


def test_an_answer_has_its_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.chat.turns[:] = [Turn(GOOD, wait_s=3), Turn(GOOD)]
    service = served.live.server.service
    monkeypatch.setattr(service, "settings", replace(service.settings, request_timeout_s=1.5))
    got = served.ask()
    assert got[-1]["status"] == 504
    assert "not answered within 1.5 s" in got[-1]["error"]


def test_so_many_answers_at_a_time_and_a_permit_until_the_last_line(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.wait(lambda: served.live.server.exchanges.active == 0)
    served.chat.turns[:] = [Turn(GOOD, wait_s=1.5), Turn(GOOD)]
    server = served.live.server
    monkeypatch.setattr(server.library, "_answers", threading.BoundedSemaphore(1))
    got: list[Any] = []
    asked = threading.Thread(target=lambda: got.extend(served.ask()))
    asked.start()
    served.wait(lambda: len(served.chat.seen) == 1)
    assert server.exchanges.active == 1
    answer = served.live.post("/ask", {"question": QUESTION})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    asked.join()
    assert got[-1]["type"] == "answer"
    served.wait(lambda: served.live.post("/ask", {"question": QUESTION}).status_code == 200)
    served.wait(lambda: server.exchanges.active == 0)


def test_a_client_that_hangs_up_frees_its_place(served: Served) -> None:
    served.chat.turns[:] = [Turn(GOOD, wait_s=1.0), Turn(GOOD)]
    before = served.answered("/ask", 499)
    body = {"question": QUESTION, "min_cosine": -1}
    with served.live.http.stream("POST", "/ask", json=body) as answer:
        next(answer.iter_lines())
    served.wait(lambda: served.answered("/ask", 499) == before + 1)
    assert served.live.server.exchanges.active == 0
    assert served.ask()[-1]["type"] == "answer"


def test_no_text_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "polyvec.serve"):
        served.search("a very secret question")
        served.ask(question="another secret question")
    lines = [f"{r.getMessage()} {getattr(r, 'fields', '')}" for r in caplog.records]
    assert any("/search" in line for line in lines)
    assert not any("secret" in line or "router" in line for line in lines)


# --- Bringing an index up to date -------------------------------------------------------------


def test_an_index_is_not_brought_up_to_date_unless_the_server_may(served: Served) -> None:
    status, said = served.refused("/search/update")
    assert (status, "--allow-updates" in said) == (403, True)
    assert {i["update"] for i in served.live.get("/search/indexes").json()["indexes"]} == {None}


def test_a_client_has_an_index_brought_up_to_date(tmp_path: Path) -> None:
    mine = index_files(tmp_path / "mine", write_tiny)
    (mine.root / "new.md").write_text("# Zebras\n\nThe zebra is striped.")
    (mine.root / "broken.pdf").write_bytes(b"%PDF-1.4")
    with serving(f"tiny={mine.model}", index=(mine.uri,), allow_updates=True) as live:
        body = {"query": "zebra", "mode": "text"}
        assert live.post("/search", body).json()["results"] == []
        other = live.http.post("/search/update", json={}, headers={"Origin": "http://evil.test"})
        assert other.status_code == 403
        assert live.post("/search/update", {"index": "none"}).status_code == 404
        begun = live.post("/search/update", {})
        assert begun.json()["update"] == {"is_running": True, "last": None}
        last = _updated(live)
        assert (last["problem"], last["added"], last["failed"]) == (None, 1, 1)
        time.sleep(2.1)  # an opened index is kept for two seconds
        assert [r["path"] for r in live.post("/search", body).json()["results"]] == ["new.md"]
        shutil.rmtree(mine.root)
        status, said = live.post("/search/update", {}).status_code, live.post("/search/update", {})
        assert (status, "not on the server's machine" in said.json()["error"]) == (400, True)


def test_an_update_that_fails_says_why_and_one_that_runs_ends_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = index_files(tmp_path / "mine", write_tiny)
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr("polyvec.serve.updates.sys.executable", str(fake))
    with serving(f"tiny={mine.model}", index=(mine.uri,), allow_updates=True) as live:
        live.post("/search/update", {})
        assert _updated(live) == {"problem": "broken"}
        fake.write_text("#!/bin/sh\nexec sleep 60\n")
        live.post("/search/update", {})
        assert live.post("/search/update", {}).json()["update"]["is_running"]
        started = time.monotonic()
    assert time.monotonic() - started < 30


def _updated(live: Live) -> dict[str, Any]:
    for _ in range(600):
        update = live.get("/search/indexes").json()["indexes"][0]["update"]
        if not update["is_running"]:
            last: dict[str, Any] = update["last"]
            return last
        time.sleep(0.1)
    pytest.fail("the update does not end")


# --- Keys, settings ---------------------------------------------------------------------------


def test_with_keys_only_the_page_is_open_and_without_an_endpoint_it_says_so(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLYVEC_CHAT_URL", raising=False)
    monkeypatch.delenv("POLYVEC_CHAT_MODEL", raising=False)
    (tmp_path / "keys").write_text(KEY)
    keys, mine = str(tmp_path / "keys"), served.mine
    with serving(f"tiny={mine.model}", index=(mine.uri,), api_key_file=keys) as live:
        assert live.get("/search").status_code == 200
        for path in ("/search/indexes", "/search/chunk?id=x"):
            assert live.get(path).status_code == 401
        for path in ("/search", "/ask"):
            answer = live.post(path, {"query": "router", "question": "router"})
            assert answer.status_code == 401
            assert "Bearer" in answer.json()["error"]
        live.http.headers["Authorization"] = f"Bearer {KEY}"
        assert live.post("/search", {"query": "router"}).json()["results"]
        answer = live.post("/ask", {"question": QUESTION})
        assert answer.status_code == 503
        assert "--chat-url" in answer.json()["error"]
        assert live.get("/search/indexes").json()["chat"] is None


def library(**settings: Any) -> Library:
    return Library(ServeSettings(**settings), None)  # type: ignore[arg-type]


def test_settings_of_indexes(
    tmp_path: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    uri = served.mine.uri
    with pytest.raises(IndexMissingError, match="Make one: polyvec index FOLDER"):
        library(index=("nothing",))
    with pytest.raises(InputError, match="Two indexes are to be served as 'index'"):
        library(index=(uri, uri))
    with pytest.raises(InputError, match="write a list"):
        ServeSettings(index="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no http:// or https:// address"):
        library(index=(uri,), chat_url="x", chat_model="m")


def test_without_the_extra_an_index_names_the_command(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'polyvec\[search\]'"):
        library(index=(served.mine.uri,))
    assert library().indexes == {}


def test_an_index_is_meant_by_place_name_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "indexes"))
    for root in (tmp_path / "a" / "Notes", tmp_path / "b" / "Notes", tmp_path / "Letters"):
        root.mkdir(parents=True)
        (Path(index_of(root)) / "facts.lance").mkdir(parents=True)
    letters = index_of(tmp_path / "Letters")
    for stated in (letters, Path(letters).name, "Letters", str(tmp_path / "Letters")):
        assert stated_index(stated) == letters
    assert index_name(letters) == "Letters"
    assert index_name("s3://bucket/team/") == "team"
    assert stated_index("s3://bucket/team") == "s3://bucket/team"
    with pytest.raises(IndexMissingError, match="Several indexes are called 'Notes'"):
        stated_index("Notes")
    with pytest.raises(IndexMissingError, match="no index's name"):
        stated_index("Other")


def test_moments_and_paths_of_filters() -> None:
    assert read_moment(None, "since") is None
    for text in ("soon", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
        with pytest.raises(InputError, match="--since is"):
            read_moment(text, "--since")
    assert Where(paths=["a..b", "...", "x/..y"]).sql() is not None
    for path in ("..", "../x", "a/..", "/../x"):
        with pytest.raises(InputError, match="leads out"):
            Where(paths=[path]).sql()


# --- The OpenAPI document ---------------------------------------------------------------------


@pytest.mark.parametrize("route", SEARCH_ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_made_up_requests_break_nothing_where_there_is_an_index(
    served: Served, route: Route
) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import given

    from tests.test_serve_schema import CHECKS, QUICK

    document = schemathesis.openapi.from_url(f"{served.live.url}/openapi.json")
    operation = document[route.path][route.method]

    @QUICK
    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()
