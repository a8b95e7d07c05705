"""``generate`` against an endpoint that fails in every way a server does."""

import email.utils
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polyvec.data.generate.run import Generator, Status
from polyvec.data.generate.settings import Endpoint, GenerateSettings
from polyvec.errors import RemoteError
from polyvec.records.read import read_records
from tests.chat_server import ChatServer, Step, chatting, completion

RIGHT = json.dumps({"text": "a b c", "same_meaning": "d", "other_meaning": "e"})
IDEAS = Step(json.dumps({"ideas": ["a headline"]}))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chatting() as state:
        yield state


def _run(server: ChatServer, tmp_path: Path, count: int = 1, **endpoint: Any) -> Status:
    own = {"backoff_s": 0.01, "timeout_s": 5.0, "max_concurrent": 1} | endpoint
    one = Endpoint(server.url, "one", **own)
    settings = GenerateSettings("sts", (one,), count, near_duplicate=1.0)
    status = Generator(settings, tmp_path / "out.jsonl").run()
    assert len(list(read_records(tmp_path / "out.jsonl"))) == status.kept == count
    return status


def _facts(status: Status) -> dict[str, Any]:
    (facts,) = status.endpoints.values()
    return facts


@pytest.mark.parametrize(
    "step",
    [
        Step(status=500),
        Step(status=502, body=b"<html>bad gateway</html>"),
        Step(status=503),
        Step(status=429),
        Step(RIGHT, cut=True),
        Step(body=b"no JSON"),
        Step(body=b'{"choices": []}'),
        Step(body=b'{"error": "overloaded"}'),
        Step(RIGHT, wait_s=0.5),
    ],
    ids=["500", "502", "503", "429", "cut", "no-json", "no-choice", "error-200", "timeout"],
)
def test_a_lost_request_is_made_again(server: ChatServer, tmp_path: Path, step: Step) -> None:
    server.steps = [IDEAS, step, Step(RIGHT)]
    status = _run(server, tmp_path, timeout_s=0.25)
    assert _facts(status)["retries"] == 1
    assert (status.failed, len(server.seen)) == (0, 3)
    assert server.seen[1].body == server.seen[2].body


@pytest.mark.parametrize(
    "step",
    [
        Step("Sure! Here is what you want."),
        Step('{"text": "a", "same_meaning": "b"'),
        Step(json.dumps({"text": "a", "same_meaning": 3, "other_meaning": "c"})),
        Step(json.dumps({"text": "a", "same_meaning": "", "other_meaning": "c"})),
        Step(json.dumps({"text": "a", "same_meaning": "...", "other_meaning": "c"})),
        Step(json.dumps({"text": "a b", "same_meaning": "A  B", "other_meaning": "c"})),
        Step(RIGHT, finish="length"),
        Step(body=completion("")),
    ],
    ids=["words", "broken", "wrong-type", "empty", "dots", "copied", "cut-off", "silent"],
)
def test_a_wrong_answer_is_asked_for_again(server: ChatServer, tmp_path: Path, step: Step) -> None:
    server.steps = [IDEAS, step, Step(RIGHT)]
    status = _run(server, tmp_path)
    facts = _facts(status)
    assert (facts["answers"], facts["valid"], facts["retries"]) == (3, 2, 0)
    assert server.seen[1].body["seed"] != server.seen[2].body["seed"]
    assert status.prompt_tokens == 300  # a wrong answer is paid for too


def test_a_job_nobody_does_rightly_is_another_ones_place(
    server: ChatServer, tmp_path: Path
) -> None:
    server.steps = [IDEAS, *[Step("no")] * 3]
    status = _run(server, tmp_path, count=2)
    assert status.failed == 1
    lines = (tmp_path / "out.jsonl.journal.jsonl").read_text().splitlines()
    (failed,) = [entry for entry in map(json.loads, lines) if entry["type"] == "failed"]
    assert "no JSON object" in failed["problem"]


@pytest.mark.parametrize("form", ["seconds", "date", "neither"])
def test_the_server_says_how_long_to_wait(server: ChatServer, tmp_path: Path, form: str) -> None:
    later = email.utils.formatdate(time.time() + 4, usegmt=True)
    value = {"seconds": "0.5", "date": later, "neither": "soon"}[form]
    server.steps = [IDEAS, Step(status=429, headers={"Retry-After": value}), Step(RIGHT)]
    _run(server, tmp_path)
    waited = server.seen[2].time_s - server.seen[1].time_s
    assert waited >= {"seconds": 0.49, "date": 0.9, "neither": 0.0}[form]


def test_others_wait_too(server: ChatServer, tmp_path: Path) -> None:
    """While one is told to wait, no other asks and is refused as well."""
    server.steps = [IDEAS, Step(status=429, headers={"Retry-After": "0.6"})]
    _run(server, tmp_path, count=6, max_concurrent=1)
    assert sum(seen.time_s - server.seen[1].time_s < 0.55 for seen in server.seen[2:]) == 0


def test_a_rate_is_kept(server: ChatServer, tmp_path: Path) -> None:
    _run(server, tmp_path, count=5, max_concurrent=4, max_requests_per_minute=1200.0)
    times = [seen.time_s for seen in server.seen]
    assert times[-1] - times[0] >= 5 * 0.05 * 0.9


def test_only_so_many_at_once(server: ChatServer, tmp_path: Path) -> None:
    server.answer = lambda *_: Step(wait_s=0.05)
    _run(server, tmp_path, count=6, max_concurrent=2)
    times = [seen.time_s for seen in server.seen[1:]]
    assert times[2] - times[0] >= 0.045  # the third waits for one of the first two


@pytest.mark.parametrize(
    ("refusals", "expected"),
    [
        (
            [Step(status=400, body=b"response_format json_schema is not known")],
            "json_object_schema",
        ),
        ([Step(status=422)] * 2, "json_object"),
        ([Step(status=400)] * 3, "none"),
        (
            [Step(status=500, body=b"body.response_format.type: literal error")],
            "json_object_schema",
        ),
    ],
)
def test_json_is_asked_for_as_the_server_can(
    server: ChatServer, tmp_path: Path, refusals: list[Step], expected: str
) -> None:
    server.steps = [*refusals, IDEAS, Step(RIGHT)]
    status = _run(server, tmp_path)
    assert _facts(status)["response_format"] == expected
    forms = [seen.body.get("response_format", {}) for seen in server.seen]
    assert [form.get("type") for form in forms[:1]] == ["json_schema"]
    assert forms[-1].keys() == forms[-2].keys()  # what was found out is kept
    assert ("schema" in forms[-1]) == (expected == "json_object_schema")
    assert bool(forms[-1]) == (expected != "none")


def test_a_stated_form_is_not_changed(server: ChatServer, tmp_path: Path) -> None:
    server.answer = lambda *_: Step(status=400, body=b"no")
    with pytest.raises(RemoteError, match="No model had an idea"):
        _run(server, tmp_path, response_format="json_object")
    assert {seen.body["response_format"]["type"] for seen in server.seen} == {"json_object"}


def test_newer_models_have_another_name_for_the_limit(server: ChatServer, tmp_path: Path) -> None:
    message = b"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.steps = [Step(status=400, body=message)]
    status = _run(server, tmp_path)
    assert server.seen[-1].body["max_completion_tokens"] == 1024
    assert "max_tokens" not in server.seen[-1].body
    assert _facts(status)["response_format"] == "json_schema"


@pytest.mark.parametrize("code", [401, 403, 404])
def test_no_right_to_ask_ends_it(server: ChatServer, tmp_path: Path, code: int) -> None:
    server.answer = lambda *_: Step(status=code, body=b"no such key")
    with pytest.raises(RemoteError, match=f"{code}: no such key.*goes on from there"):
        _run(server, tmp_path)
    assert len(server.seen) == 1


def test_the_others_go_on_where_one_is_dead(server: ChatServer, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    dead = Endpoint(gone, "gone", weight=9.0, max_retries=0, backoff_s=0.001)
    alive = Endpoint(server.url, "one", backoff_s=0.001)
    said: list[str] = []
    settings = GenerateSettings("sts", (dead, alive), 20, near_duplicate=1.0)
    status = Generator(settings, tmp_path / "out.jsonl", on_message=said.append).run()
    assert status.kept == 20
    assert len(said) == 1
    assert "gone@127.0.0.1" in said[0]
    assert status.endpoints[dead.name]["dead"]


def test_jobs_that_were_lost_are_done_by_the_next_run(server: ChatServer, tmp_path: Path) -> None:
    server.steps = [IDEAS, *[Step(status=503)] * 12]
    with pytest.raises(RemoteError, match="No endpoint answers any more"):
        _run(server, tmp_path, count=3, max_retries=0)
    server.steps = []
    status = _run(server, tmp_path, count=3)
    numbers = [record.query_id for record in read_records(tmp_path / "out.jsonl")]
    assert numbers == ["sts-0-0", "sts-0-1", "sts-0-2"]
    assert status.failed == 0
