"""``polyvec data check``: what is wrong is found, with its line, and nothing else is."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyvec.data.check import run as checking
from polyvec.data.check.languages import languages, script
from polyvec.data.check.lengths import Lengths
from polyvec.data.check.run import CheckSettings, Report, check_files
from polyvec.data.check.seen import keys_of
from polyvec.errors import InputError, MissingExtraError
from polyvec.records.columns import Columns
from tests.command import Command

GOOD = [
    {"query": "Wo ist Paris?", "positives": ["Paris is in France."], "negatives": ["Rome."]},
    {"query": "где собака", "positives": ["The dog is at home."], "task": "bitext"},
]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def characters(texts: Any) -> list[int]:
    return [len(text) for text in texts]


def check(path: Path, *tests: Path, **settings: Any) -> Report:
    return check_files([path], tests, characters, CheckSettings(languages=False, **settings))


def found(report: Report) -> dict[str, tuple[int, int]]:
    return {kind: (x.exact, x.normalized) for kind, x in report.findings.kinds.items()}


def test_good_records_are_clean(tmp_path: Path) -> None:
    report = check(write(tmp_path / "x.jsonl", *GOOD), max_length=12)
    assert report.clean
    assert report.tasks == {"retrieval": 1, "bitext": 1}
    assert report.negatives == {1: 1, 0: 1}
    assert report.lengths["query"] == {
        "texts": 2,
        "p50": 10,
        "p90": 13,
        "p99": 13,
        "max": 13,
        "over_limit": 1,
    }
    assert report.scripts["query"] == {"latin": 1, "cyrillic": 1}
    assert report.instructions["Retrieve parallel sentences"] == 1


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], {"file without a row": (1, 0)}),
        ([{"query": "", "positives": ["p"]}], {"unusable row": (1, 0)}),
        ([["no object"], GOOD[0]], {"unusable row": (1, 0)}),
        ([{"query": "a", "positives": ["a"]}], {"pair of one text": (1, 0)}),
        ([{"query": "Ａ b", "positives": ["a  B"]}], {"pair of one text": (0, 1)}),
        (
            [{"query": "q", "positives": ["p"], "negatives": ["n", "p", "P"]}],
            {"negative that is a positive": (1, 1)},
        ),
        ([GOOD[0], GOOD[0]], {"duplicate record": (1, 0)}),
        ([GOOD[0], {**GOOD[0], "query": "wo ist  paris?"}], {"duplicate record": (0, 1)}),
        ([{**GOOD[0], "instruction": "A"}, {**GOOD[0], "instruction": "B"}], {}),
        ([GOOD[0], {**GOOD[0], "positives": ["It is French."]}], {}),
        (
            [{"text": "a", "label": "joy"}, {"text": "A", "label": "fear"}],
            {"label contradicted": (1, 0)},
        ),
    ],
)
def test_what_is_wrong_is_found(
    tmp_path: Path, rows: list[Any], expected: dict[str, tuple[int, int]]
) -> None:
    report = check(write(tmp_path / "x.jsonl", *rows))
    assert found(report) == expected
    assert report.clean == (not expected)


def test_places_are_named(tmp_path: Path) -> None:
    report = check(write(tmp_path / "x.jsonl", GOOD[0], {"query": "a", "positives": ["a"]}))
    (finding,) = report.findings.kinds.values()
    assert finding.examples == [f"{tmp_path / 'x.jsonl'}, line 2: 'a'"]


def test_repeated_queries_are_no_fault(tmp_path: Path) -> None:
    again = {**GOOD[0], "positives": ["It is French."]}
    assert check(write(tmp_path / "x.jsonl", GOOD[0], again)).repeated_queries == 1


@pytest.mark.parametrize(
    ("row", "kind", "counts"),
    [
        ({"query": "held out", "positives": ["x"]}, "query in a test query", (1, 0)),
        ({"query": "Held  OUT", "positives": ["x"]}, "query in a test query", (0, 1)),
        ({"query": "a secret", "positives": ["x"]}, "query in a test document", (1, 0)),
        ({"query": "x", "positives": ["a", "held out"]}, "document in a test query", (1, 0)),
        ({"query": "x", "positives": ["A secret"]}, "document in a test document", (0, 1)),
    ],
)
def test_leakage(tmp_path: Path, row: Any, kind: str, counts: tuple[int, int]) -> None:
    test = write(tmp_path / "t.jsonl", {"query": "held out", "positives": ["a secret"]})
    report = check(write(tmp_path / "x.jsonl", row), test)
    assert found(report) == {kind: counts}
    assert report.test_texts == 1


def test_test_files_may_be_plain_texts(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a secret\n\nanother\n")
    rows = write(tmp_path / "t.jsonl", {"id": 1, "text": "third"})
    path = write(
        tmp_path / "x.jsonl", *({"query": "q", "positives": [t]} for t in ("third", "a secret"))
    )
    report = check(path, tmp_path / "t.txt", rows)
    assert found(report) == {"document in a test document": (2, 0)}
    assert report.test_texts == 3
    bad = write(tmp_path / "bad.jsonl", {"query": "q"})
    with pytest.raises(InputError, match="line 1: there is no positive column"):
        check(path, bad)


def test_labels_do_not_leak_but_are_counted(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": name} for n, name in enumerate(["joy"] * 3 + ["fear"])]
    path = write(tmp_path / "x.jsonl", *rows)
    test = write(tmp_path / "t.jsonl", *({**row, "text": f"u{row['text']}"} for row in rows))
    report = check(path, test)
    assert report.clean
    assert (report.labels, report.label_imbalance) == ({"joy": 3, "fear": 1}, 3)


def test_stated_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("en,de\nHello,Hallo\nSame,same\n")
    columns = Columns("en", "de", task="bitext")
    assert found(check(path, columns=columns)) == {"pair of one text": (0, 1)}


def test_stated_columns_are_not_those_of_a_test_file_of_corpus_ids(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    pq.write_table(pa.table({"id": ["d1"], "text": ["held out"]}), corpus / "train.parquet")
    (corpus / "merlin_metadata.json").write_text('{"corpus_id": "c"}')
    query = {"question": "q", "corpus_id": "c", "pos_doc": ["d1"]}
    test = tmp_path / "test.json"
    test.write_text(json.dumps({"corpus": {"path": "corpus"}, "data": [query]}))
    path = write(tmp_path / "x.jsonl", {"en": "held out", "de": "zwei"})
    report = check(path, test, columns=Columns("en", "de"))
    assert found(report) == {"query in a test document": (1, 0)}
    with pytest.raises(InputError, match=r"would not be read: query \('en'\), positive \('de'\)\."):
        check(test, columns=Columns("en", "de"))


def test_languages_are_guessed() -> None:
    texts = ["This package contains the documentation of the compiler."]
    texts += ["Dieses Paket enthält die Dokumentation des Übersetzers.", "Этот пакет для сборки"]
    assert languages(texts) == ["en", "de", "ru"]


def test_languages_need_their_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "py3langid", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'polyvec\[data\]'"):
        check_files([tmp_path / "x.jsonl"], [], characters, CheckSettings())


@pytest.mark.parametrize(
    ("text", "name"),
    [("a б в", "cyrillic"), ("漢字", "cjk"), ("123 !", "none"), ("हिन्दी", "devanagari")],
)
def test_scripts(text: str, name: str) -> None:
    assert script(text) == name


def test_samples_are_drawn_from_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_SAMPLED_TEXTS", 40)
    rows = [{"query": ("a" if n < 500 else "б") + str(n), "positives": ["p"]} for n in range(1000)]
    scripts = check(write(tmp_path / "x.jsonl", *rows)).scripts["query"]
    assert sum(scripts.values()) == 40
    assert 8 < scripts["cyrillic"] < 32


def test_lengths_of_more_than_a_batch() -> None:
    lengths = Lengths(characters)
    for n in range(3000):
        lengths.add("x" * (n % 100 + 1))
    expected = {"texts": 3000, "p50": 50, "p90": 90, "p99": 99, "max": 100, "over_limit": 300}
    assert lengths.facts(90) == expected
    assert Lengths(characters).facts(None) == {"texts": 0, "p50": 0, "p90": 0, "p99": 0, "max": 0}


def test_keys_tell_texts_apart() -> None:
    assert keys_of("a", "b") != keys_of("ab")
    assert keys_of("Straße").normalized == keys_of("STRASSE").normalized


def test_the_command(tmp_path: Path, tiny_folder: Path, run: Command) -> None:
    path = write(tmp_path / "x.jsonl", *GOOD)
    clean = run("data", "check", path, "--model", tiny_folder)
    assert clean.code == 0, clean.err
    assert "Nothing wrong was found" in clean.out
    assert "tokens" in clean.out
    test = write(tmp_path / "t.jsonl", GOOD[1])
    wrong = run("data", "check", path, "--test", test, "--model", "none", "--json")
    report = json.loads(wrong.out)
    assert (wrong.code, report["clean"], report["unit"]) == (3, False, "characters")
    assert set(report["findings"]) == {"query in a test query", "document in a test document"}
    assert report["languages"]["query"]["ru"] == 1
    told = run("data", "check", path, "--test", test, "--model", "none", "--no-languages")
    assert told.code == 3
    assert "query in a test query: 1" in told.out
    assert f"{path}, line 2: 'где собака'" in told.out
