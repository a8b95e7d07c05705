"""Benchmarks run through mteb, on small stand-in tasks of its own classes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polyvec.errors import DownloadError, InputError
from polyvec.evaluate.benchmark_plan import Speed, Texts, plan, task_texts
from polyvec.evaluate.mmteb_instructions import instructions, published
from tests.command import Command

pytest.importorskip("mteb", reason="benchmarks run through mteb, an extra: polyvec[evaluate]")

# mteb loads a few libraries whose warnings are not ours.
pytestmark = pytest.mark.filterwarnings("default")

ENGLISH = [f"the {word} text" for word in ("red", "blue", "green", "old", "new", "tall")]
GERMAN = [f"the {word} text !" for word in ("red", "blue", "green", "old", "new", "tall")]


class WordPeer:
    """A bag of words; counts what it is asked and remembers what it was told."""

    name, dimension, cut = "org/words", 64, 0

    def __init__(self, fingerprint: str = "f1", takes_instructions: bool = True) -> None:
        self.fingerprint, self.takes_instructions = fingerprint, takes_instructions
        self.asked: list[tuple[str, str | None]] = []

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Any:
        self.asked += [(text, instruction) for text in texts]
        return self._vectors(texts)

    def encode_document(self, texts: Sequence[str]) -> Any:
        self.asked += [(text, "") for text in texts]
        return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> Any:
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                vectors[row, sum(map(ord, word)) % 64] += 1
        return vectors


def _bitext(name: str = "MyBitextMining") -> Any:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskBitextMining

    from polyvec.evaluate.offline_tasks import _metadata, _Offline

    class Bitext(_Offline, AbsTaskBitextMining):
        metadata = _metadata(name, "BitextMining", "x", ("de",), "accuracy", None)

        def load_data(self, *_: object, **__: object) -> None:
            pairs = Dataset.from_dict({"sentence1": GERMAN, "sentence2": ENGLISH})
            self.dataset = {"de": DatasetDict(test=pairs)}
            self.data_loaded = True

    return Bitext()


def _retrieval(name: str = "MyRetrieval") -> Any:
    from mteb.abstasks import AbsTaskRetrieval

    from polyvec.evaluate.offline_sets import Search
    from polyvec.evaluate.offline_tasks import _metadata, _Offline, _split

    class Retrieval(_Offline, AbsTaskRetrieval):
        metadata = _metadata(name, "Retrieval", "x", ("de",), "ndcg_at_10", {"query": "Find it"})

        def load_data(self, *_: object, **__: object) -> None:
            ids = [str(i) for i in range(len(ENGLISH))]
            queries = dict(zip(ids, GERMAN, strict=True))
            documents = dict(zip(ids, ENGLISH, strict=True))
            search = Search(queries, documents, dict(zip(ids, ids, strict=True)))
            self.dataset = {"de": {"test": _split(search)}}  # type: ignore[dict-item]
            self.data_loaded = True

    return Retrieval()


def _failing() -> Any:
    task = _bitext("MyFailingBitextMining")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("the hub is out of reach")

    task.load_data = fail
    return task


def _run(tasks: list[Any], peer: WordPeer, folder: Path) -> Any:
    from polyvec.evaluate.benchmarks import Benchmark, run_benchmark

    return run_benchmark(Benchmark("mine", tasks), peer, folder / "out", folder / "cache")


def test_a_task_that_fails_does_not_lose_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = _run([_failing(), _retrieval(), _bitext()], WordPeer(), tmp_path)
    assert "%|" not in capfd.readouterr().err  # no bars but ours
    failed, retrieval, bitext = outcome.tasks
    assert (failed.score, failed.error) == (None, "the hub is out of reach")
    assert (retrieval.score, bitext.score) == (1.0, 1.0)
    written = json.loads((outcome.folder / "MyRetrieval.json").read_text())
    assert written["scores"]["test"][0]["main_score"] == 1.0  # mteb's own format
    assert json.loads((outcome.folder / "model_meta.json").read_text())["name"] == "org/words"


def test_texts_that_tasks_share_are_embedded_once_for_an_instruction(tmp_path: Path) -> None:
    peer = WordPeer()
    _run([_retrieval("One"), _retrieval("Two"), _bitext()], peer, tmp_path)
    bitext = [(text, "Retrieve parallel sentences") for text in (*GERMAN, *ENGLISH)]
    retrieval = [(text, "Find it") for text in GERMAN] + [(text, "") for text in ENGLISH]
    assert sorted(map(str, peer.asked)) == sorted(map(str, bitext + retrieval))


def test_a_model_that_takes_no_instructions_is_given_none(tmp_path: Path) -> None:
    peer = WordPeer(takes_instructions=False)
    _run([_bitext()], peer, tmp_path)
    assert {told for _, told in peer.asked} == {None}


def test_what_is_done_is_not_done_again_and_another_model_is(tmp_path: Path) -> None:
    first = _run([_retrieval()], WordPeer(), tmp_path)
    peer = WordPeer()
    again = _run([_retrieval(), _bitext()], peer, tmp_path)
    assert [task.was_done for task in again.tasks] == [True, False]
    assert {told for _, told in peer.asked} == {"Retrieve parallel sentences"}
    other = _run([_retrieval()], WordPeer("f2"), tmp_path)
    assert not other.tasks[0].was_done
    assert other.folder != first.folder


def test_a_result_that_a_kill_left_half_is_made_again(tmp_path: Path) -> None:
    outcome = _run([_retrieval()], WordPeer(), tmp_path)
    path = outcome.folder / "MyRetrieval.json"
    path.write_text(path.read_text()[:100])
    again = _run([_retrieval()], WordPeer(), tmp_path)
    assert (again.tasks[0].was_done, again.tasks[0].score) == (False, 1.0)
    assert json.loads(path.read_text())["task_name"] == "MyRetrieval"


def test_another_edition_of_the_texts_is_another_result(tmp_path: Path) -> None:
    task = _retrieval()
    task.with_edition("bookworm 12.15")
    _run([task], WordPeer(), tmp_path)
    newer = _retrieval()
    newer.with_edition("trixie 13.1")
    assert not _run([newer], WordPeer(), tmp_path).tasks[0].was_done


def test_published_instructions_go_before_mtebs() -> None:
    import mteb

    arguana = instructions(mteb.get_task("ArguAna").metadata)
    assert arguana == published()["ArguAna"]
    assert arguana.query == arguana.document != ""  # both sides
    covid = instructions(mteb.get_task("TRECCOVID").metadata)
    assert covid.query.startswith("Given a query on COVID-19")
    assert covid.document == ""
    news = published()["MasakhaNEWSClassification"].query
    assert news.endswith("religion ")  # the blank is part of what was measured


def test_the_published_table_is_the_benchmark(tmp_path: Path) -> None:
    from polyvec.evaluate.benchmarks import open_benchmark

    tasks = open_benchmark("MTEB(Multilingual, v2)").tasks
    assert {task.metadata.name for task in tasks} == set(published())
    assert all(list(task_texts(task)) for task in tasks)  # mteb knows how long their texts are
    asked = {t.metadata.name: instructions(t.metadata) for t in tasks}
    made = plan(tasks, asked, ["STS12"], WordPeer(), Speed(1_000.0, 4.0, is_exact=True))
    tokens = [task.tokens or 0.0 for task in made.tasks]
    assert tokens == sorted(tokens)
    left = sum(task.tokens or 0.0 for task in made.tasks if task.task != "STS12")
    assert made.tokens == pytest.approx(left)
    assert made.hours == pytest.approx(left / 250 / 3600)
    assert made.architecture is None  # a model whose size nobody knows


def test_a_plan_counts_distinct_texts_and_what_is_written_before_them() -> None:
    task = _retrieval()
    task.load_data()
    assert {text.side: text.count for text in task_texts(task)} == {"query": 6, "document": 6}
    asked = {"MyRetrieval": instructions(task.metadata)}
    speed = Speed(1_000.0, 1.0, is_exact=True)
    made = plan([task], asked, [], WordPeer(), speed)
    prefix = len("Instruct: Find it\nQuery: ")
    assert made.tokens == sum(map(len, ENGLISH)) + sum(len(x) + prefix for x in GERMAN)
    plain = plan([task], asked, [], WordPeer(takes_instructions=False), speed)
    assert plain.tokens == sum(map(len, (*ENGLISH, *GERMAN)))
    assert Texts(6, 2.0).side is None


def test_unknown_names_are_errors_that_list_the_nearest() -> None:
    from polyvec.evaluate.benchmarks import open_benchmark

    with pytest.raises(InputError, match=r"MTEB\(Multilingual, v2\)"):
        open_benchmark("MTEB(Multilingual, v3)")
    with pytest.raises(InputError, match=r"no task 'STS1'\. Nearest: STS1"):
        open_benchmark("MTEB(Multilingual, v2)", ["STS1"])


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from polyvec.evaluate import offline_tasks

    def fail(*_: object, **__: object) -> None:
        raise DownloadError("no apt-get here")

    monkeypatch.setattr(offline_tasks, "help_pages", fail)
    monkeypatch.setattr(offline_tasks, "descriptions", fail)
    return iter(())


def test_a_dry_run_says_what_it_costs_here_and_elsewhere_and_runs_nothing(
    run: Command, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    from polyvec.evaluate import benchmarks
    from polyvec.evaluate.benchmarks import Benchmark
    from polyvec.fit.elsewhere import ASSUMED_PRICE_PER_H

    def stand_in(name: str, only: Sequence[str]) -> Benchmark:
        assert not only
        return Benchmark(name, [_retrieval(), _bitext()])

    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))  # no prices in it
    monkeypatch.setattr(benchmarks, "open_benchmark", stand_in)
    given = ("evaluate", str(tiny_folder), "--benchmark", "mine", "--output", str(tmp_path / "out"))
    done = run(*given, "--dry-run", "--json")
    assert done.code == 0
    (facts,) = json.loads(done.out)
    assert [task["done"] for task in facts["tasks"]] == [False, False]
    assert facts["hours"] == pytest.approx(facts["tokens"] / facts["tokens_per_s"] / 3600, rel=0.01)
    for found in facts["elsewhere"]:
        price = ASSUMED_PRICE_PER_H[found["device"]]
        assert found["dollars"] == pytest.approx(found["hours"] * price)
        assert found["price_is_assumed"]
    assert len(facts["elsewhere"]) == len(ASSUMED_PRICE_PER_H)
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.usefixtures("offline")
def test_sets_that_cannot_be_fetched_are_skipped_by_name_with_the_reason() -> None:
    from polyvec.evaluate.benchmarks import open_benchmark
    from polyvec.evaluate.offline_tasks import TASKS

    benchmark = open_benchmark("offline")
    assert benchmark.tasks == []
    assert dict(benchmark.skipped) == dict.fromkeys(TASKS, "no apt-get here")


@pytest.mark.usefixtures("offline")
def test_the_command_names_every_set_it_skips_and_ends_with_1(
    run: Command, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    from polyvec.evaluate.offline_tasks import TASKS

    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    output = ("--output", str(tmp_path / "out"))
    done = run("evaluate", str(tiny_folder), "--benchmark", "offline", *output)
    assert done.code == 1
    for name in TASKS:
        assert f"skipped: {name}: no apt-get here" in " ".join(done.err.split())


def test_the_offline_tasks_run_on_descriptions(tmp_path: Path) -> None:
    from polyvec.evaluate import offline_sets as sets
    from polyvec.evaluate import offline_tasks as tasks
    from tests.test_offline_sets import HELD_OUT, _descriptions

    train = [f"s{i}" for i in range(60)]
    texts = _descriptions([*HELD_OUT[:30], *train], [*sets.LANGUAGES])
    kinds = [tasks.ShortRetrieval, tasks.EnglishRetrieval, tasks.MonolingualRetrieval]
    built: list[Any] = [kind(texts) for kind in kinds]
    outcome = _run(built, WordPeer(), tmp_path)
    assert [task.error for task in outcome.tasks] == [None] * 3
    assert set(outcome.tasks[0].subsets) == set(sets.LANGUAGES)


def test_a_collection_and_a_benchmark_are_not_given_together(run: Command) -> None:
    done = run("evaluate", "default", "--benchmark", "offline", "--queries", "q.jsonl")
    assert done.code == 2
    assert "--benchmark brings its own texts" in done.err.replace("\n", " ")
    done = run("evaluate", "default", "--dry-run")
    assert done.code == 2
    assert "name it with --benchmark" in done.err.replace("\n", " ")
