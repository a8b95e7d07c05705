"""Mining: the nearest documents under the margin, and never one that was dropped."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvec.data.identity import text_key
from polyvec.data.mining import approximate as approximating
from polyvec.data.mining import choose as choosing
from polyvec.data.mining import plan as planning
from polyvec.data.mining import run as running
from polyvec.data.mining import search as searching
from polyvec.data.mining import vectors as storing
from polyvec.data.mining.corpus import Corpus, Document, corpus_of_files, corpus_of_records
from polyvec.data.mining.margin import thresholds
from polyvec.data.mining.part import search_part
from polyvec.data.mining.report import facts, page, table
from polyvec.data.mining.run import Mined, mine
from polyvec.data.mining.search import search
from polyvec.data.mining.settings import MineSettings
from polyvec.data.mining.vectors import Reading, VectorStore
from polyvec.errors import InputError, MissingExtraError, OutputError, ResumeError
from polyvec.records.read import read_records
from polyvec.records.record import Record
from polyvec.records.write import write_records
from tests.command import Command

Floats = Any


class Table:
    """A peer that looks vectors up: by text, else drawn from the text's own bytes."""

    takes_instructions = True
    cut = 0
    dimension = 16

    def __init__(
        self,
        vectors: Mapping[str, Sequence[float]] | None = None,
        name: str = "table",
        salt: int = 0,
    ) -> None:
        self.name, self.salt, self.vectors = name, salt, vectors or {}
        self.fingerprint = f"{name}-{salt}"
        self.calls: list[tuple[str, str | None, list[str]]] = []
        self.fails_after = 10**9

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Floats:
        return self._encode("query", texts, instruction)

    def encode_document(self, texts: Sequence[str]) -> Floats:
        return self._encode("document", texts, None)

    def _encode(self, role: str, texts: Sequence[str], instruction: str | None) -> Floats:
        if len(self.calls) >= self.fails_after:
            raise KeyboardInterrupt
        self.calls.append((role, instruction, list(texts)))
        return np.array([self._vector(text) for text in texts], np.float32)

    def _vector(self, text: str) -> Floats:
        if text in self.vectors:
            known = np.array(self.vectors[text], np.float32)
            return np.pad(known, (0, self.dimension - len(known)))
        seed = int(text_key(text)) ^ self.salt
        return np.random.default_rng(seed).normal(size=self.dimension).astype(np.float32)


def at(cosine: float) -> tuple[float, float]:
    """A vector with that cosine to (1, 0)."""
    return (cosine, float(np.sqrt(1 - cosine**2)))


@pytest.fixture
def dig(tmp_path: Path) -> Callable[..., tuple[list[Record], Mined]]:
    def dig(
        records: Sequence[Record],
        documents: Sequence[str] | Corpus | None = None,
        peers: Sequence[Table] = (),
        store: str = "float16",
        restart: bool = False,
        **settings: Any,
    ) -> tuple[list[Record], Mined]:
        corpus = documents if isinstance(documents, Corpus) else of(documents or [])
        if documents is None:
            corpus = corpus_of_records(records)
        output = tmp_path / "mined.jsonl"
        mined = mine(
            records,
            corpus,
            [lambda peer=peer: peer for peer in peers],  # type: ignore[misc]
            output,
            MineSettings(**settings),
            VectorStore(tmp_path / "cache", store),  # type: ignore[arg-type]
            restart=restart,
        )
        return list(read_records(output)), mined

    return dig


def of(texts: Sequence[str], ids: Sequence[str] | None = None) -> Corpus:
    named: Sequence[str | None] = ids or [None] * len(texts)
    return Corpus(lambda: map(Document, texts, named), "a list")


Run = Callable[..., tuple[list[Record], Mined]]
LADDER = {f"d{score}": at(score / 100) for score in (99, 96, 94, 90, 80, 40, 10)}
TEACHER = {"q": (1.0, 0.0), "pos": at(1.0), **LADDER}


def test_only_documents_under_the_margin_and_the_nearest_first(dig: Run) -> None:
    (record,), mined = dig([Record("q", ("pos",))], list(LADDER), [Table(TEACHER)], negatives=3)
    assert record.negatives == ("d94", "d90", "d80")
    teacher = mined.tally.teachers[0]
    assert (teacher.rejected_documents, teacher.queries_with_rejected) == (2, 1)
    assert [x["text"] for x in mined.samples[0]["rejected"]] == ["d99", "d96"]


def test_fewer_are_returned_rather_than_a_rejected_one(dig: Run) -> None:
    """Automodel's miner sets rejected ones to -inf, takes the best four, and so returns them."""
    documents = ["d99", "d96", "d96", "d94", "d90"]
    (record,), mined = dig([Record("q", ("pos",))], documents, [Table(TEACHER)], negatives=4)
    assert record.negatives == ("d94", "d90")
    assert mined.tally.negatives_a_record.tolist() == [0, 0, 1, 0, 0]
    (record,), _ = dig([Record("q", ("pos",))], ["d99"], [Table(TEACHER)])
    assert record.negatives == ()


@pytest.mark.parametrize(("value", "expected"), [(0.05, "d94"), (0.15, "d80"), (0.0, "d99")])
def test_an_absolute_margin(dig: Run, value: float, expected: str) -> None:
    settings = {"margin": "abs", "margin_value": value, "negatives": 1}
    (record,), _ = dig([Record("q", ("pos",))], list(LADDER), [Table(TEACHER)], **settings)
    assert record.negatives == (expected,)


def test_a_positive_with_a_negative_score(dig: Run) -> None:
    """Multiplied by .95 the threshold would be above the positive: -.0950, and take d-98."""
    vectors = {"q": (1.0, 0.0), "pos": at(-0.10)}
    vectors |= {f"d{-n}": at(-n / 1000) for n in (98, 102, 104, 110)}
    (record,), _ = dig([Record("q", ("pos",))], [*vectors][2:], [Table(vectors)], store="float32")
    assert record.negatives == ("d-110",)


@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32), st.floats(0.01, 1))
def test_thresholds_rise_with_the_score_and_are_never_above_it(
    a: float, b: float, value: float
) -> None:
    scores = np.array(sorted([a, b]), np.float32)
    low, high = thresholds(scores, "perc", value)
    assert low <= high
    assert low <= scores[0] and high <= scores[1]
    if a > 0:
        assert thresholds(np.array([a], np.float32), "perc", value)[0] == pytest.approx(value * a)


def test_thresholds_by_hand() -> None:
    scores = np.array([0.8, 0.0, -0.1], np.float32)
    assert thresholds(scores, "perc", 0.95) == pytest.approx([0.76, 0.0, -0.105])
    assert thresholds(scores, "abs", 0.2) == pytest.approx([0.6, -0.2, -0.3])


def test_the_strictest_of_several_positives_counts(dig: Run) -> None:
    teacher = Table({**TEACHER, "weak": at(0.5)})
    (record,), _ = dig([Record("q", ("pos", "weak"))], list(LADDER), [teacher])
    assert record.negatives == ("d40", "d10")


def test_documents_that_are_the_positive_or_the_query_are_never_taken(dig: Run) -> None:
    vectors = {text: at(0.5) for text in ("Pos", "ＰＯＳ  ", "pos\n", "Q", "other", "by id", "d10")}
    vectors |= {"q": (1.0, 0.0), "pos": at(1.0)}
    documents = [*vectors][:7]
    corpus = of(documents, ["a", "b", "c", "d", "e", "x7", "f"])
    records = [
        Record("q", ("pos",), positive_ids=("x7",)),
        Record("Q ", ("other",)),  # the same query, with another positive
    ]
    (first, second), mined = dig(records, corpus, [Table(vectors)])
    assert (first.negatives, first.negative_ids) == (("d10",), ("f",))
    assert set(second.negatives) <= {"d10"}
    assert mined.duplicates == 2


def test_an_id_of_a_copy_stands_for_its_text(dig: Run) -> None:
    vectors = {"q": (1.0, 0.0), "pos": at(1.0), "same": at(0.5), "Same": at(0.5), "d": at(0.1)}
    corpus = of(["same", "Same", "d"], ["1", "2", "3"])
    (record,), _ = dig([Record("q", ("pos",), positive_ids=("2",))], corpus, [Table(vectors)])
    assert record.negatives == ("d",)


def test_positives_outside_the_corpus_are_embedded_as_they_are(dig: Run) -> None:
    teacher = Table({**TEACHER, "POS": at(0.3), "in": at(1.0), "In": at(0.2)})
    records = [Record("q", ("POS",)), Record("q ", ("pos",)), Record("Q", ("In",))]
    dug, mined = dig(records, ["in", *LADDER], [teacher], samples=3)
    scores = [sample["positive_scores"][0] for sample in mined.samples]
    assert scores[0] == pytest.approx(0.3, abs=1e-3), "not the vector of pos"
    assert "in" not in {text for record in dug for text in record.negatives}
    assert mined.embedded == 8 + 3 + 3


def test_every_teacher_must_agree(dig: Run) -> None:
    start = {"q": (1.0, 0.0), "pos": at(1.0)}
    scores = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}
    first = Table(start | {name: at(score) for name, score in scores.items()}, "first")
    scores = {"a": 0.97, "b": 0.1, "c": 0.8, "d": 0.3}
    second = Table(start | {name: at(score) for name, score in scores.items()}, "second")
    (record,), mined = dig([Record("q", ("pos",))], [*"abcd"], [first, second], negatives=4)
    assert record.negatives == ("c", "b", "d"), "in turn: a (dropped by the second), c; b, d"
    assert mined.tally.vetoed == 1
    scores_of_c = mined.samples[0]["negatives"][0]["scores"]
    assert scores_of_c == pytest.approx([0.7, 0.8], abs=1e-3)


@pytest.mark.parametrize("teachers", [1, 2])
def test_exact_search_equals_sorting_everything(
    dig: Run, teachers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "SHARD_TEXTS", 7)
    monkeypatch.setattr(storing, "_READ_ROWS", 14)
    monkeypatch.setattr(searching, "_QUERIES_A_BLOCK", 4)
    monkeypatch.setattr(choosing, "_QUERIES_A_BLOCK", 3)
    monkeypatch.setattr(planning, "_PART_RECORDS", 6)
    monkeypatch.setattr(planning, "_TEXTS_A_PASS", 9)
    peers = [Table(salt=salt) for salt in range(teachers)]
    documents = [f"document {n}" for n in range(50)]
    records = [Record(f"query {n}", (f"document {n}",), source=str(n)) for n in range(15)]
    settings = {"negatives": 3, "depth": 50, "margin": "abs", "margin_value": 0.1}
    mined, _ = dig(records, documents, peers, "float32", **settings)
    for number, record in enumerate(mined):
        assert record.source == str(number)
        scores = [_cosines(peer, record.query, documents) for peer in peers]
        under = [_ranking(own, float(own[number]) - 0.1, number) for own in scores]
        fit = set.intersection(*map(set, under))
        in_turn = dict.fromkeys(d for turn in zip_longest(*under) for d in turn)
        best = [d for d in in_turn if d in fit][:3]
        assert record.negatives == tuple(documents[d] for d in best)


def _ranking(scores: Floats, limit: float, own: int) -> list[int]:
    return [int(d) for d in np.argsort(-scores) if scores[d] < limit and d != own]


def _cosines(peer: Table, query: str, documents: list[str]) -> Floats:
    vectors = np.array([peer._vector(text) for text in (query, *documents)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[1:] @ vectors[0]


def test_approximate_search_finds_what_exact_search_finds(
    dig: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "SHARD_TEXTS", 40)
    monkeypatch.setattr(approximating, "_QUERIES_A_BLOCK", 7)
    documents = [f"document {n}" for n in range(200)]
    records = [Record(f"query {n}", (f"document {n}",)) for n in range(20)]
    settings = {"negatives": 3, "depth": 30, "margin": "abs", "margin_value": 0.1}
    exact, counted = dig(records, documents, [Table()], **settings)
    near, report = dig(records, documents, [Table()], search="approximate", **settings)
    assert near == exact
    teacher = report.tally.teachers[0]
    assert teacher.neighbours_found == teacher.neighbours_checked > 400
    assert ("  found of what exact search finds", "100.0%") in table(report)
    assert 0 < teacher.rejected_documents <= counted.tally.teachers[0].rejected_documents
    monkeypatch.setattr(approximating, "_keep", lambda *_: 1 / 0)
    again, _ = dig(records, documents, [Table()], search="approximate", **settings)
    assert again == exact, "the index was kept"


def test_approximate_search_never_takes_what_is_excluded_or_too_near(dig: Run) -> None:
    records = [Record("q", ("pos",), positive_ids=("i90",))]
    corpus = of(["pos", "Q", *LADDER], ["p", "q", *(f"i{name[1:]}" for name in LADDER)])
    (record,), _ = dig(records, corpus, [Table(TEACHER)], search="approximate")
    assert record.negatives == ("d94", "d80", "d40", "d10")
    settings = {"search": "approximate", "margin_value": 0.3}
    (record,), mined = dig(records, corpus, [Table(TEACHER)], **settings)
    assert record.negatives == ("d10",)
    assert mined.tally.teachers[0].rejected_documents == 5


def test_approximate_search_needs_its_library(dig: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'polyvec\[approximate\]'"):
        dig([Record("q", ("p",))], ["d"], [Table()], search="approximate")


def test_search_counts_what_is_above() -> None:
    generator = np.random.default_rng(0)
    queries, documents = ((generator.normal(size=(n, 8)) / 4).astype(np.float32) for n in (5, 40))
    limits, positives = np.full(5, 0.2, np.float32), np.full(5, 0.3, np.float32)
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    shards = [(0, documents[:25]), (25, documents[25:])]
    found = search(queries, shards, positives, limits, nothing, depth=60)
    scores = queries @ documents.T
    assert found.rejected_Q.tolist() == (scores >= 0.2).sum(1).tolist()
    assert found.above_Q.tolist() == (scores > 0.3).sum(1).tolist()
    for q in range(5):
        rows = found.rows_QK[q][found.rows_QK[q] >= 0]
        under = [d for d in np.argsort(-scores[q]) if scores[q, d] < 0.2]
        assert rows.tolist() == under
        assert np.isneginf(found.scores_QK[q][len(rows) :]).all()


def test_symmetric_tasks_read_documents_as_queries(dig: Run) -> None:
    teacher = Table()
    records = [
        Record("a", ("b",), task="sts"),
        Record("c", ("d",), instruction="Find it"),
        Record("e", ("f",), task="bitext", instruction="Own"),
        Record("t", ("joy",), ("fear",), task="classification"),
    ]
    mined, report = dig(records, None, [teacher], margin="abs", margin_value=0.0)
    read = {(role, told, text) for role, told, texts in teacher.calls for text in texts}
    sts = "Retrieve semantically similar text"
    assert {("query", sts, "b"), ("query", "Own", "b"), ("document", None, "b")} <= read
    assert {("query", sts, "a"), ("query", "Find it", "c"), ("query", "Own", "e")} <= read
    assert mined[3].negatives == ("fear",), "labels stay"
    assert (report.records, report.mined) == (4, 3)


def test_a_model_without_instructions_is_not_told_any(dig: Run) -> None:
    teacher = Table()
    teacher.takes_instructions = False
    dig([Record("c", ("d",), instruction="Find it")], ["x", "y"], [teacher])
    assert {told for _, told, _ in teacher.calls} == {None}


def test_skip_and_random_sampling(dig: Run) -> None:
    peers = [Table(TEACHER)]
    records = [Record("q", ("pos",))]
    (record,), _ = dig(records, list(LADDER), peers, skip=1, negatives=2)
    assert record.negatives == ("d90", "d80")
    seen: set[str] = set()
    for seed in range(12):
        settings = {"sampling": "random", "negatives": 2, "seed": seed}
        once, _ = dig(records, list(LADDER), peers, **settings)
        assert once == dig(records, list(LADDER), peers, **settings)[0]
        seen.update(once[0].negatives)
    assert seen == {"d94", "d90", "d80", "d40", "d10"}


def test_own_negatives_can_be_kept(dig: Run) -> None:
    record = Record("q", ("pos",), ("d80",), negative_ids=("n80",))
    corpus = of(list(LADDER), [f"n{k[1:]}" for k in LADDER])
    (kept,), _ = dig([record], corpus, [Table(TEACHER)], keep_negatives=True, negatives=3)
    assert (kept.negatives, kept.negative_ids) == (("d80", "d94", "d90"), ("n80", "n94", "n90"))
    (new,), _ = dig([record], corpus, [Table(TEACHER)], negatives=1)
    assert new.negatives == ("d94",)


def test_records_without_negatives_can_be_left_out(dig: Run) -> None:
    rows = [
        Record("q", ("pos",), ("own",)),
        Record("r", ("low",)),  # every document is nearer to it than its positive
        Record("t", ("joy",), ("fear",), "classification"),
        Record("u", ("joy",), (), "classification"),
    ]
    teacher = {"q": at(1.0), "r": at(1.0), "pos": at(0.99), "low": at(0.05), "d90": at(0.9)}
    settings: dict[str, Any] = {"negatives": 1, "margin_value": 1.0}
    found, mined = dig(rows, ["d90"], [Table(teacher)], **settings)
    assert [r.query for r in found] == ["q", "r", "t", "u"]
    assert (mined.without_negatives, mined.written) == (2, 4)
    assert ("records without any negative, written as they are", "2") in table(mined)
    found, mined = dig(rows, ["d90"], [Table(teacher)], drop_without_negatives=True, **settings)
    assert [(r.query, r.negatives) for r in found] == [("q", ("d90",)), ("t", ("fear",))]
    assert ("records without any negative, left out", "2") in table(mined)
    report = facts(mined)
    assert [report[k] for k in ("records", "written", "without_negatives")] == [4, 2, 2]


def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "SHARD_TEXTS", 5)
    monkeypatch.setattr(planning, "_PART_RECORDS", 4)


RECORDS = [Record(f"query {n}", (f"document {n}",)) for n in range(10)]
DOCUMENTS = [f"document {n}" for n in range(23)]


def test_an_interrupted_run_embeds_only_what_is_missing(
    dig: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small_shards(monkeypatch)
    whole, _ = dig(RECORDS, DOCUMENTS, [Table(salt=1)], margin_value=0.5)
    teacher = Table(salt=2)
    teacher.fails_after = 3
    with pytest.raises(KeyboardInterrupt):
        dig(RECORDS, DOCUMENTS, [teacher], margin_value=0.5)
    again = Table(salt=2)
    resumed, report = dig(RECORDS, DOCUMENTS, [again], margin_value=0.5)
    assert not {str(call) for call in teacher.calls} & {str(call) for call in again.calls}
    assert report.embedded == 23 + 10 - 15, "positives are documents of the corpus"
    fresh, _ = dig(RECORDS, DOCUMENTS, [Table(salt=2)], margin_value=0.5)
    assert resumed == fresh != whole


def test_an_interrupted_search_goes_on(dig: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _small_shards(monkeypatch)
    expected, counted = dig(RECORDS, DOCUMENTS, [Table()], margin_value=0.5)
    real = search_part
    seen: list[int] = []

    def failing(plan: Any, part: int, *rest: Any) -> Any:
        seen.append(part)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(plan, part, *rest)

    monkeypatch.setattr(running, "search_part", failing)
    with pytest.raises(KeyboardInterrupt):
        dig(RECORDS, DOCUMENTS, [Table()], margin_value=0.5)
    with pytest.raises(ResumeError, match=r"interrupted run with other settings\. Run it again"):
        dig(RECORDS, DOCUMENTS, [Table()], margin_value=0.4)
    with pytest.raises(ResumeError, match="with other records and corpus"):
        dig(RECORDS[:9], DOCUMENTS[:20], [Table()], margin_value=0.5)
    mined, report = dig(RECORDS, DOCUMENTS, [Table()], margin_value=0.5)
    assert seen == [0, 1, 2, 2]
    assert (mined, report.resumed, report.embedded) == (expected, 8, 0)
    assert report.tally.facts() == counted.tally.facts()
    assert sorted(map(str, report.samples)) == sorted(map(str, counted.samples))


def test_restart_throws_choices_away(dig: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = write_records
    monkeypatch.setattr(running, "write_records", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dig(RECORDS, DOCUMENTS, [Table()])
    monkeypatch.setattr(running, "write_records", real)
    _, report = dig(RECORDS, DOCUMENTS, [Table()], negatives=1, restart=True)
    assert report.resumed == 0


def test_vectors_without_direction_are_refused(dig: Run) -> None:
    with pytest.raises(InputError, match="table gives no usable vector for 'zero'"):
        dig([Record("q", ("pos",))], ["zero"], [Table({"zero": (0.0,)})])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"margin_value": 1.5}, "a share of the positive's score, 0 to 1; given: 1.5"),
        ({"margin": "abs", "margin_value": -1}, "a difference of cosines, 0 to 2; given: -1"),
        ({"margin": "rel"}, "margin is 'rel'; allowed: perc, abs"),
        ({"sampling": "best"}, "sampling is 'best'; allowed: top, random"),
        ({"negatives": 0}, "negatives must be at least 1"),
        ({"depth": 3}, "depth is 3; to pass over 0 documents and take 4 it must be at least 4"),
    ],
)
def test_settings_that_have_no_meaning(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        MineSettings(**settings)


def test_nothing_to_mine(dig: Run) -> None:
    labelled = Record("t", ("joy",), ("fear",), task="classification")
    with pytest.raises(InputError, match="nothing to mine: 0 records that are not classification"):
        dig([labelled], ["d"], [Table()])
    with pytest.raises(InputError, match="No teacher"):
        dig([Record("q", ("p",))], ["d"], [])


def test_corpora_in_files(tmp_path: Path) -> None:
    titled = [{"_id": "1", "title": "T", "text": "x"}, {"_id": "2", "title": "", "text": "y"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, titled)))
    (tmp_path / "b.txt").write_text("z\n\nw\n")
    (tmp_path / "c.csv").write_text("key,body\n7,v\n")
    read = corpus_of_files([tmp_path / "a.jsonl", tmp_path / "b.txt"]).read
    assert [tuple(d) for d in read()] == [("T x", "1"), ("y", "2"), ("z", None), ("w", None)]
    stated = corpus_of_files([tmp_path / "c.csv"], "body", "key")
    assert [tuple(d) for d in stated.read()] == [("v", "7")]
    with pytest.raises(InputError, match=r"c\.csv, line 2 has no text column .* It has: key, body"):
        list(corpus_of_files([tmp_path / "c.csv"]).read())
    with pytest.raises(InputError, match="there is no such file"):
        corpus_of_files([tmp_path / "d.txt"])


def test_a_corpus_that_changes_under_the_run() -> None:
    texts = ["a", "b", "c"]
    corpus = Corpus(lambda: (Document(text, None) for text in texts), "it")
    index = corpus.index((), ())
    texts.append("d")
    with pytest.raises(InputError, match="it had 3 documents when the run began and has 4 now"):
        list(corpus.documents(index))


def test_the_report(dig: Run) -> None:
    records = [Record("q", ("pos <b>",)), Record("t", ("joy",), ("fear",), "classification")]
    teacher = Table({**TEACHER, "pos <b>": at(1.0)})
    _, mined = dig(records, list(LADDER), [teacher], negatives=3)
    report = json.loads(json.dumps(facts(mined)))
    assert sum(report["teachers"][0]["negatives"]) == 3
    assert report["teachers"][0]["positive_first"] == 1
    assert [x["text"] for x in report["samples"][0]["negatives"]] == ["d94", "d90", "d80"]
    assert "pos &lt;b&gt;" in page(mined)
    assert "too near the positive, says table" in page(mined)


def test_the_command(tiny_folder: Path, tmp_path: Path, run: Command) -> None:
    pairs, corpus = tmp_path / "pairs.csv", tmp_path / "corpus.jsonl"
    pairs.write_text("anchor,positive\nfox,the brown fox\ndog,a lazy dog\n")
    texts = ["the brown fox", "a lazy dog", "敏捷的棕色狐狸", "search finds passages"]
    corpus.write_text("".join(json.dumps({"id": n, "text": t}) + "\n" for n, t in enumerate(texts)))
    output = tmp_path / "out.jsonl"
    given = ("mine", pairs, "--corpus", corpus, "-t", str(tiny_folder), "-o", output)
    options = ("--cache", tmp_path / "v", "--margin", "abs", "--margin-value", "0", "-n", "3")
    done = run(*given, *options)
    assert done.code == 0, done.err
    assert "negatives found" in done.out
    records = list(read_records(output))
    assert [record.query for record in records] == ["fox", "dog"]
    assert all(set(r.negatives) <= set(texts) - {r.positives[0]} for r in records)
    assert (tmp_path / "out.jsonl.audit.html").exists()
    again = run(*given, *options, "--json", "--force", "--drop-without-negatives")
    report = json.loads(again.out)
    assert (report["embedded"], report["settings"]["drop_without_negatives"]) == (0, True)
    assert report["written"] == report["records"] - report["without_negatives"]
    refused = run(*given, *options)
    assert (refused.code, "exists already" in refused.err) == (1, True)
    wrong = run("mine", pairs, "-o", tmp_path / "x.csv", "--cache", tmp_path / "v")
    assert "must end in .jsonl" in wrong.err


def test_records_with_columns_of_other_names(
    tiny_folder: Path, tmp_path: Path, run: Command
) -> None:
    pairs, output = tmp_path / "pairs.csv", tmp_path / "out.jsonl"
    pairs.write_text("en,de\nfox,the brown fox\ndog,a lazy dog\n")
    given = ("mine", pairs, "-t", str(tiny_folder), "-o", output, "--cache", tmp_path / "v")
    options = ("--margin", "abs", "--margin-value", "0")
    refused = run(*given, *options)
    assert (refused.code, "there is no query column" in refused.err) == (2, True), refused.err
    columns = ("--query-column", "en", "--positive-column", "de", "--task", "bitext")
    named = run(*given, *options, *columns)
    assert named.code == 0, named.err
    records = list(read_records(output))
    assert [(r.query, r.positives[0], r.task) for r in records] == [
        ("fox", "the brown fox", "bitext"),
        ("dog", "a lazy dog", "bitext"),
    ]


def test_an_output_of_another_kind(tmp_path: Path) -> None:
    opener = partial(Table)
    with pytest.raises(OutputError, match=r"must end in \.jsonl"):
        output, store = tmp_path / "x.txt", VectorStore(tmp_path)
        mine(RECORDS, of(DOCUMENTS), [opener], output, MineSettings(), store)


def test_readings_are_told_apart_in_the_store(tmp_path: Path) -> None:
    store, peer = VectorStore(tmp_path), Table()
    readings = [Reading("document"), Reading("query"), Reading("query", "Find it")]
    paths = {store.shards(peer, ["a"], reading)[0] for reading in readings}
    assert len(paths) == 3
    with pytest.raises(InputError, match="store is 'int8'; allowed: float16, float32"):
        VectorStore(tmp_path, "int8")  # type: ignore[arg-type]
