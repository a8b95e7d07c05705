"""``generate``: every kind's records, mixing, dedupe, judges, resuming, prompts, the command."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polyvec.data.generate.answers import AnswerError, object_schema, read_answer, text_schema
from polyvec.data.generate.confirm import confirm
from polyvec.data.generate.inputs import read_originals, read_passages
from polyvec.data.generate.near import Seen
from polyvec.data.generate.prompts import load_prompt, write_prompts
from polyvec.data.generate.run import Generator, Status
from polyvec.data.generate.settings import (
    Endpoint,
    GenerateSettings,
    Kind,
    make_endpoint,
    parse_endpoint,
)
from polyvec.data.generate.tasks import Inputs, read_ideas
from polyvec.engine.peers import open_peer
from polyvec.engine.rows import Columns
from polyvec.errors import InputError, OutputError, RemoteError, ResumeError
from polyvec.records.read import read_records
from polyvec.records.record import Record
from tests.chat_server import ChatServer, Step, chatting, completion, fitting, schema_of
from tests.command import Command
from tests.tiny import shape, write_model


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chatting() as state:
        yield state


def _endpoint(server: ChatServer, model: str = "one", **more: Any) -> Endpoint:
    return Endpoint(server.url, model, **{"backoff_s": 0.01, "timeout_s": 5.0, **more})


def _settings(server: ChatServer, kind: Kind = "retrieval", **more: Any) -> GenerateSettings:
    own: dict[str, Any] = {"kind": kind, "endpoints": (_endpoint(server),), "count": 5}
    return GenerateSettings(**own | more)


def _generate(
    settings: GenerateSettings, output: Path, inputs: Inputs | None = None, **more: Any
) -> tuple[Status, list[Record]]:
    status = Generator(settings, output, inputs, **more).run()
    return status, list(read_records(output))


# --- Kinds ------------------------------------------------------------------------------------


def test_retrieval_is_thought_of_then_written(server: ChatServer, tmp_path: Path) -> None:
    settings = _settings(server, languages=("German", "Thai"), count=6)
    status, records = _generate(settings, tmp_path / "out.jsonl")
    assert (status.kept, status.wanted, len(records)) == (6, 6, 6)
    ideas = [seen.prompt for seen in server.seen if '"ideas"' in seen.prompt]
    written = [seen.prompt for seen in server.seen if '"positive"' in seen.prompt]
    assert (len(ideas), len(written)) == (1, 6)
    assert Counter("in German:" in prompt for prompt in written) == {True: 3, False: 3}
    for record in records:
        assert record.task == "retrieval"
        assert record.instruction is not None
        assert any(record.instruction in prompt for prompt in written)
        assert record.source == "generated-retrieval:one"
        assert len(record.positives) == len(record.negatives) == 1
    assert len(set(written)) == 6
    assert status.prompt_tokens == 700


@pytest.mark.parametrize("kind", ["classification", "sts", "bitext"])
def test_other_kinds_have_their_shapes(server: ChatServer, tmp_path: Path, kind: Kind) -> None:
    settings = _settings(server, kind, languages=("English", "Hindi"))
    _, records = _generate(settings, tmp_path / "out.jsonl")
    assert {record.task for record in records} == {kind}
    assert all((record.instruction is not None) == (kind == "classification") for record in records)
    assert all(record.negatives for record in records)
    if kind == "bitext":
        prompts = [seen.prompt for seen in server.seen if "translate it into" in seen.prompt]
        assert all(("into Hindi" in p) != ("into English" in p) for p in prompts)


def test_questions_are_asked_over_the_users_passages(server: ChatServer, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = [
        {"id": f"p{i}", "text": f"Passage number {i} costs $5 and ${{more}}."} for i in range(50)
    ]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = read_passages([corpus], Columns(id="id"), 8, seed=3)
    _, records = _generate(_settings(server, "questions", count=8), tmp_path / "o.jsonl", inputs)
    texts = {row["id"]: row["text"] for row in rows}
    assert len({record.positive_ids for record in records}) == 8
    for record in records:
        assert record.positives == (texts[record.positive_ids[0]],)
    assert all(any(row["text"] in seen.prompt for row in rows) for seen in server.seen)
    more = read_passages([corpus], Columns(id="id"), 20, seed=3)
    assert list(more.passages[:8]) == list(inputs.passages)


def test_translation_keeps_the_shape_of_every_record(server: ChatServer, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows: list[dict[str, Any]] = [
        {"query": "q1", "positives": ["a", "b"], "negatives": ["c"], "instruction": "Find it"},
        {"query": "q2", "positives": ["d"], "task": "sts", "positive_ids": ["7"]},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = _settings(server, "translate", count=None, languages=("French", "Dutch"))
    _, records = _generate(settings, tmp_path / "out.jsonl", read_originals([source]))
    assert [(len(r.positives), len(r.negatives)) for r in records] == [(2, 1)] * 2 + [(1, 0)] * 2
    assert [r.instruction for r in records] == ["Find it", "Find it", None, None]
    assert [r.task for r in records] == ["retrieval"] * 2 + ["sts"] * 2
    assert not any(r.positive_ids for r in records)
    assert sorted("French" in seen.prompt for seen in server.seen) == [False, False, True, True]


def test_numbers_before_ideas_are_no_part_of_them() -> None:
    ideas = ["1. Find it", "12) Find that", "- Sort it", "3D models: find them", "4.  x"]
    assert read_ideas({"ideas": ideas}) == [
        "Find it",
        "Find that",
        "Sort it",
        "3D models: find them",
        "x",
    ]


def test_models_are_mixed_by_weight_and_ideas_cross(tmp_path: Path) -> None:
    with chatting() as a, chatting() as b:
        endpoints = (_endpoint(a, "a", weight=3.0), _endpoint(b, "b", weight=1.0))
        b.answer = lambda body, number: Step(json.dumps(fitting(schema_of(body), number + 5000)))
        settings = _settings(a, endpoints=endpoints, count=80, near_duplicate=1.0)
        status, records = _generate(settings, tmp_path / "out.jsonl")
    models = Counter(record.source[-1] for record in records)
    assert 45 < models["a"] < 75
    assert models["a"] + models["b"] == 80
    assert status.endpoints[f"a@{a.url[7:-3]}"]["valid"] >= models["a"]


# --- What is kept -----------------------------------------------------------------------------


def test_duplicates_are_made_up_for(server: ChatServer, tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Step:
        if '"ideas"' in body["messages"][0]["content"] or number > 4:
            return Step()
        return Step(json.dumps({"query": "Same  QUESTION?", "positive": "p", "negative": "n"}))

    server.answer = answer
    settings = _settings(server, endpoints=(_endpoint(server, max_concurrent=1),))
    status, records = _generate(settings, tmp_path / "out.jsonl")
    assert len(records) == 5
    assert status.duplicates == 2
    assert len({record.query for record in records}) == 5


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [
        ("How do I reset my router?", "how do i  reset my ROUTER?", True),
        ("How do I reset my old router today?", "How do I reset my old router today??", True),
        ("How do I reset my router?", "Which rivers flow into the sea?", False),
        ("如何重置我的路由器到出厂设置?", "如何重置我的路由器到出厂设置呢?", True),
        ("如何重置我的路由器到出厂设置?", "哪一条河流最长?", False),
        ("a", "b", False),
    ],
)
def test_near_duplicates(a: str, b: str, near: bool) -> None:
    seen = Seen(0.7)
    assert seen.add(a)
    assert seen.add(b) != near
    exact = Seen(1.0)
    assert exact.add(a)
    assert exact.add(b) == (a.casefold() != " ".join(b.casefold().split()))


def test_it_stops_where_nothing_new_comes(server: ChatServer, tmp_path: Path) -> None:
    def answer(body: dict[str, Any], _: int) -> Step:
        ideas = '"ideas"' in body["messages"][0]["content"]
        made: dict[str, Any] = {"query": "same", "positive": "p", "negative": "n"}
        return Step(json.dumps({"ideas": ["i"]} if ideas else made))

    server.answer = answer
    status, records = _generate(_settings(server, max_attempts=2.0), tmp_path / "out.jsonl")
    assert (len(records), status.duplicates) == (1, 9)
    assert status.stopped is not None
    assert "10 jobs" in status.stopped


def test_an_llm_judges(server: ChatServer, tmp_path: Path) -> None:
    def answer(body: dict[str, Any], number: int) -> Step:
        if '"correct"' in body["messages"][0]["content"]:
            return Step(json.dumps({"correct": number % 3 != 0}))
        return Step()

    server.answer = answer
    settings = _settings(server, judge="llm", endpoints=(_endpoint(server, max_concurrent=1),))
    status, records = _generate(settings, tmp_path / "out.jsonl")
    assert len(records) == 5
    assert status.rejected > 0
    asked = [seen.prompt for seen in server.seen if '"correct"' in seen.prompt]
    assert len(asked) == 5 + status.rejected
    assert any(records[0].query in prompt and records[0].positives[0] in prompt for prompt in asked)


def test_an_embedder_confirms_what_it_would_find(tmp_path: Path) -> None:
    peer = open_peer(str(write_model(tmp_path / "m", shape(is_causal=False))), precision="fp32")
    right = [
        Record(f"{word} {word}", (f"{word} {word}.",), ("zzz 9",)) for word in ("fox", "perro")
    ]
    wrong = [Record("the quick fox", ("敏捷的棕色",), ("the quick fox!",))]
    verdicts = confirm([*right, *wrong], peer, rank=1, min_score=-1.0)
    scores = peer.encode_query([r.query for r in right]), peer.encode_document(["fox fox."])
    assert [verdict.kept for verdict in verdicts] == [True, True, False]
    assert verdicts[0].score == pytest.approx(float(scores[0][0] @ scores[1][0]), abs=1e-5)
    strict = confirm([*right, *wrong], peer, rank=1, min_score=1.1)
    assert not any(verdict.kept for verdict in strict)
    labels = [Record("perro", ("dog",), (), "classification", "c") for _ in range(2)]
    assert all(verdict.kept for verdict in confirm(labels, peer, rank=1, min_score=-1.0))


# --- Resuming ---------------------------------------------------------------------------------


def test_more_of_the_same_pays_only_for_what_is_new(server: ChatServer, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    _, first = _generate(_settings(server, count=4), output)
    asked = len(server.seen)
    status, again = _generate(_settings(server, count=4), output)
    assert (again, len(server.seen), status.resumed) == (first, asked, 5)
    _, more = _generate(_settings(server, count=7), output)
    assert len(server.seen) == asked + 3
    assert more[:4] == first


def test_a_torn_line_is_dropped(server: ChatServer, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    _generate(_settings(server, count=4), output)
    journal = tmp_path / "out.jsonl.journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    asked = len(server.seen)
    _, records = _generate(_settings(server, count=4), output)
    assert (len(records), len(server.seen)) == (4, asked + 1)
    for line in journal.read_text().splitlines():
        json.loads(line)


def test_what_a_judge_could_not_say_is_asked_again(server: ChatServer, tmp_path: Path) -> None:
    output, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal.jsonl"

    def answer(body: dict[str, Any], _: int) -> Step:
        is_judge = '"correct"' in body["messages"][0]["content"]
        return Step(json.dumps({"correct": True})) if is_judge else Step()

    server.answer = answer
    settings = _settings(server, count=3, judge="llm")
    _, first = _generate(settings, output)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:  # as if the server had been lost while it judged
        if line["type"] == "verdict" and line["number"] == 1:
            line |= {"kept": False, "lost": True}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = len(server.seen)
    status, again = _generate(settings, output)
    assert (again, status.rejected, len(server.seen)) == (first, 0, asked + 1)


def test_other_settings_are_another_run(server: ChatServer, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    _generate(_settings(server), output)
    with pytest.raises(ResumeError, match="a run that differs in languages"):
        _generate(_settings(server, languages=("Thai",)), output)
    status, _ = _generate(_settings(server, languages=("Thai",)), output, restart=True)
    assert status.resumed == 0
    (tmp_path / "other.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="--force"):
        _generate(_settings(server), tmp_path / "other.jsonl")


_KILLED = """
import sys
from pathlib import Path
from polyvec.data.generate.run import Generator
from polyvec.data.generate.settings import Endpoint, GenerateSettings
endpoint = Endpoint(sys.argv[1], "one", max_concurrent=2)
Generator(GenerateSettings("retrieval", (endpoint,), 40), Path(sys.argv[2])).run()
"""


def test_a_killed_run_goes_on(server: ChatServer, tmp_path: Path) -> None:
    server.answer = lambda *_: Step(wait_s=0.03)
    output = tmp_path / "out.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _KILLED, server.url, str(output)]
    process = subprocess.Popen(command, env=environment)
    while len(server.seen) < 12:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    asked = len(server.seen)
    server.answer = None
    endpoint = Endpoint(server.url, "one", max_concurrent=2)
    status, records = _generate(_settings(server, count=40, endpoints=(endpoint,)), output)
    assert len(records) == 40
    assert status.resumed >= 9  # all but those in flight
    assert len(server.seen) - asked == 41 - status.resumed


# --- Answers and prompts ----------------------------------------------------------------------


SCHEMA = object_schema(query=text_schema())


@pytest.mark.parametrize(
    "text",
    [
        '{"query": "x"}',
        'Here it is:\n```json\n{"query": "x"}\n```\nEnjoy {braces}!',
        '<think>{"query": "no"}</think> {"query": "x"}',
        'First {"other": 1}, then {"query": "x"}.',
        '{not json} {"query": "x"}',
        '{"query": "x"}{"query": "y"}',
    ],
)
def test_json_is_found_in_what_models_say(text: str) -> None:
    assert read_answer(text, SCHEMA) == {"query": "x"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I cannot help with that.", "no JSON object"),
        ('{"query": "x"', "no JSON object"),
        ('{"query": 3}', "query: 3 is not of type 'string'"),
        ('{"query": "x", "more": 1}', "Additional properties"),
        ("{}", "'query' is a required property"),
        ('{"query": " "}', "no letter"),
        ('{"query": "..."}', r"no letter, '\.\.\.'"),
    ],
)
def test_what_does_not_fit_is_named(text: str, words: str) -> None:
    with pytest.raises(AnswerError, match=words):
        read_answer(text, SCHEMA)


@pytest.mark.parametrize(
    "kind", ["retrieval", "classification", "sts", "bitext", "questions", "translate", "judge"]
)
def test_prompts_can_be_edited(server: ChatServer, tmp_path: Path, kind: str) -> None:
    (path,) = [p for p in write_prompts(tmp_path / "p") if p.stem == kind]
    assert load_prompt(kind, tmp_path / "p").write == load_prompt(kind).write
    path.write_text("write = '''Say ${nothing}'''")
    with pytest.raises(InputError, match=r"cannot be filled .*nothing"):
        prompt = load_prompt(kind, tmp_path / "p")
        prompt.fill(prompt.write, random.Random(0), language="x")
    with pytest.raises(OutputError, match="exists already"):
        write_prompts(tmp_path / "p")


def test_an_edited_prompt_is_what_is_sent(server: ChatServer, tmp_path: Path) -> None:
    write_prompts(tmp_path / "p")
    path = tmp_path / "p" / "sts.toml"
    path.write_text(
        "ideas = 'ideas ${count}: ${place}'\nwrite = 'about ${idea}, costs $$5 in ${place}'\n"
        "[options]\nplace = ['Rome']\n"
    )
    settings = _settings(server, "sts", prompts=tmp_path / "p", count=2)
    _generate(settings, tmp_path / "out.jsonl")
    assert server.seen[0].prompt == "ideas 20: Rome"
    assert server.seen[1].prompt.endswith("costs $5 in Rome")


@pytest.mark.parametrize(
    ("text", "words"),
    [("write = ", "not TOML"), ("other = 'x'", "must have a text 'write'"),
     ("write = 'x'\n[options]\na = []", "with one at least")],
)  # fmt: skip
def test_prompts_that_cannot_be_read(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "sts.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        load_prompt("sts", tmp_path)


# --- Settings and the command -----------------------------------------------------------------


def test_an_address_says_everything() -> None:
    endpoint = parse_endpoint("https://api.x.com/v1/?model=a/b&weight=2&max_concurrent=3")
    assert endpoint == Endpoint("https://api.x.com/v1", "a/b", 2.0, max_concurrent=3)
    assert endpoint.name == "a/b@api.x.com"
    rate = make_endpoint({"url": "http://x/v1", "model": "m", "max_requests_per_minute": 9})
    assert rate.max_requests_per_minute == 9.0


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://x/v1", "has no model"),
        ("ftp://x/v1?model=m", "no http:// or https://"),
        ("http://x/v1?model=m&wieght=2", "has no 'wieght'"),
        ("http://x/v1?model=m&weight=a", "a number is needed"),
        ("http://x/v1?model=m&weight=0", "give one above 0"),
        ("http://x/v1?model=m&response_format=xml", "allowed: auto"),
        ("http://x/v1?model=m&max_retries=-1", "max_retries of http://x/v1 is -1; give one from 0"),
        ("http://x/v1?model=m&prompt_price=nan", "prompt_price of http://x/v1 is nan"),
    ],
)
def test_endpoints_that_make_no_sense(address: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_endpoint(address)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "poems"}, "allowed: retrieval"),
        ({"endpoints": ()}, "--endpoint http"),
        ({"count": None}, "--count"),
        ({"count": 0}, "at least 1"),
        ({"kind": "bitext"}, "two languages"),
        ({"languages": ()}, "No language"),
        ({"near_duplicate": -1.0}, "near_duplicate is -1.0; it must be at least 0"),
        ({"near_duplicate": float("nan")}, "near_duplicate is nan"),
        ({"judge_rank": 0}, "judge_rank is 0; it must be at least 1"),
        ({"max_attempts": 0.0}, "max_attempts is 0.0"),
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any], words: str) -> None:
    own: dict[str, Any] = {"kind": "sts", "endpoints": (Endpoint("http://x", "m"),), "count": 1}
    with pytest.raises(InputError, match=words):
        GenerateSettings(**own | change)


def test_the_command(run: Command, server: ChatServer, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    address = f"{server.url}?model=m&prompt_price=10&answer_price=100"
    done = run("generate", "sts", "-n", "3", "-e", address, "-o", output, "-l", "Thai", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["kept"], said["cost"]) == (3, pytest.approx(4 * 0.003))
    done = run("generate", "sts", "-n", "3", "-e", address, "-o", output, "-l", "Thai")
    assert "4 answers of an earlier run" in done.err
    assert "3 of 3 records" in " ".join(done.out.split())
    address += "&max_concurrent=1"
    done = run("generate", "sts", "-n", "9", "-e", address, "-o", output, "-l", "Thai",
               "--max-cost", "0.02")  # fmt: skip
    assert "were spent (--max-cost)" in done.err
    assert 3 < len(list(read_records(output))) < 9


def test_the_command_reads_a_file_of_settings(
    run: Command, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    config = tmp_path / "generate.toml"
    config.write_text(
        'kind = "retrieval"\ncount = 2\nlanguages = "Thai"\n[[endpoints]]\n'
        f'url = "{server.url}"\nmodel = "m"\napi_key_env = "MY_KEY"\n'
    )
    done = run("generate", "--config", config, "-o", tmp_path / "out.jsonl")
    assert done.code == 0, done.err
    assert {seen.key for seen in server.seen} == {"Bearer secret"}
    journal = (tmp_path / "out.jsonl.journal.jsonl").read_text()
    assert "secret" not in journal
    assert json.loads(journal.splitlines()[0])["languages"] == ["Thai"]
    monkeypatch.delenv("MY_KEY")
    done = run("generate", "--config", config, "-n", "3", "-o", tmp_path / "out.jsonl")
    assert "environment variable MY_KEY" in done.err


def test_the_command_says_what_is_missing(run: Command, tmp_path: Path) -> None:
    done = run("generate", "questions", "-n", "1", "-e", "http://x/v1?model=m", "-o", "x.jsonl")
    assert (done.code, "give --input FILE" in done.err) == (2, True)
    done = run("generate", "sts", "-n", "1")
    assert "--output" in done.err
    done = run("generate", "--write-prompts", tmp_path / "p")
    assert (done.code, len(done.out.split())) == (0, 7)


def test_no_idea_at_all_says_so(server: ChatServer, tmp_path: Path) -> None:
    server.answer = lambda *_: Step(body=completion("I would rather not."))
    with pytest.raises(RemoteError, match="No model had an idea"):
        _generate(_settings(server), tmp_path / "out.jsonl")
