"""Records: files of every kind in, JSONL out, and errors with their lines."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyvec.errors import InputError, OutputError
from polyvec.records.columns import Columns
from polyvec.records.read import Located, Problem, load_records, read_records, scan_records
from polyvec.records.record import Record
from polyvec.records.write import write_records

FULL = Record(
    "Where is Paris?",
    ("Paris liegt in Frankreich.", "In France."),
    ("Rome est en Italie.",),
    "retrieval",
    "Find the answer",
    "cities",
    "q1",
    ("d1", "d2"),
    ("d3",),
)


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def only(path: Path, columns: Columns | None = None) -> Record:
    (record,) = read_records(path, columns)
    return record


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    sts = Record("a", ("b",), task="sts", source="s")
    assert write_records(tmp_path / name, [FULL, sts]) == 2
    assert list(read_records(tmp_path / name)) == [FULL, sts]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_records(path, [FULL])

    def broken() -> Any:
        yield FULL
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_records(path, broken())
    assert list(read_records(path)) == [FULL]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in \.jsonl"):
        write_records(tmp_path / "x.csv", [FULL])
    with pytest.raises(OutputError, match="there is no folder"):
        write_records(tmp_path / "no" / "x.jsonl", [FULL])


@pytest.mark.parametrize(
    "row",
    [
        {"anchor": "q", "positive": "p", "negative": "n", "negative_1": "m"},
        {"query": "q", "pos": ["p"], "neg": ["n", "m"]},
        {"question": "q", "pos_doc": "p", "neg_doc": ["n", "m"]},
        {
            "query": "q",
            "positive_passages": [{"text": "p"}],
            "negative_passages": [{"text": "n"}, {"text": "m"}],
        },
        {"query": "q", "positives": ["p"], "negatives": ["n", "m"]},
    ],
)
def test_the_layouts_of_other_trainers_are_known(tmp_path: Path, row: dict[str, Any]) -> None:
    record = only(jsonl(tmp_path / "set.jsonl", row))
    assert record == Record("q", ("p",), ("n", "m"), source="set")


def test_titles_and_ids_of_passages_are_kept(tmp_path: Path) -> None:
    row = {
        "query_id": 7,
        "query": "q",
        "positive_passages": [{"docid": "1", "title": "T", "text": "p"}],
        "negative_passages": [],
    }
    record = only(jsonl(tmp_path / "set.jsonl", row))
    assert (record.positives, record.positive_ids, record.query_id) == (("T p",), ("1",), "7")


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
def test_tables_with_short_rows(tmp_path: Path, ending: str) -> None:
    comma = "\t" if ending == "tsv" else ","
    rows = [["anchor", "positive", "negative_1", "negative_2"], ["q", '"p\nx"', "n", ""]]
    raw = "".join(comma.join(row) + "\r\n" for row in rows).encode()
    path = tmp_path / f"t.{ending}"
    path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    assert only(path) == Record("q", ("p\nx",), ("n",), source="t")


def test_parquet_and_stated_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = {"en": ["Hello"], "de": ["Hallo"], "far": ["Tisch"], "key": [3]}
    pq.write_table(pa.table(table), path)
    columns = Columns("en", "de", ("far",), query_id="key", task="bitext", source="opus")
    record = only(path, columns)
    assert record == Record("Hello", ("Hallo",), ("Tisch",), "bitext", None, "opus", "3")
    assert record.symmetric
    assert record.task_instruction == "Retrieve parallel sentences"


def test_a_row_says_more_than_what_was_stated_for_the_file(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "x.jsonl",
        {"query": "q", "positives": ["p"], "task": "sts", "source": "own", "instruction": "I"},
        {"query": "q", "positives": ["p"]},
    )
    first, second = read_records(path, Columns(task="bitext", source="s", instruction="J"))
    assert (first.task, first.source, first.instruction) == ("sts", "own", "I")
    assert (second.task, second.source, second.instruction) == ("bitext", "s", "J")


def test_classification_has_all_other_labels_as_negatives(tmp_path: Path) -> None:
    rows = [{"text": t, "label": name} for t, name in (("a", "joy"), ("b", "fear"), ("c", "anger"))]
    first, second, _ = read_records(jsonl(tmp_path / "emotion.jsonl", *rows))
    assert (first.query, first.positives, first.task) == ("a", ("joy",), "classification")
    assert (first.source, sorted(first.negatives)) == ("emotion", ["anger", "fear"])
    assert sorted(second.negatives) == ["anger", "joy"]


def test_labels_come_in_an_order_of_the_rows_own(tmp_path: Path) -> None:
    """Training takes the first few, so all rows in one order would leave most labels out."""
    rows = [{"text": f"text {n}", "label": f"label {n % 20:02}"} for n in range(100)]
    path = jsonl(tmp_path / "x.jsonl", *rows)
    records = list(read_records(path))
    assert {record.negatives[0] for record in records} == {f"label {n:02}" for n in range(20)}
    assert list(read_records(path)) == records


def test_numbers_are_no_labels(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", {"text": "a", "label": 3, "label_text": "joy"})
    assert only(path).positives == ("joy",)
    path = jsonl(tmp_path / "x.jsonl", {"text": "a", "label": "3"})
    with pytest.raises(
        InputError, match=r"x\.jsonl, line 1: the label 'label' is the number 3; its"
    ):
        only(path)


def test_scored_pairs_need_a_least_score(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": f"b{n}", "score": n} for n in (1, 4, 5)]
    path = jsonl(tmp_path / "sts.jsonl", *rows)
    with pytest.raises(InputError, match=r"State it with --min-score"):
        list(read_records(path))
    kept = list(read_records(path, Columns(min_score=4)))
    assert [record.positives for record in kept] == [("b4",), ("b5",)]
    assert kept[0].task == "sts"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"query": " ", "positives": ["p"]}, "query is empty"),
        ({"query": "q", "positives": []}, "there are no positives"),
        ({"query": "q", "positives": ["p", ""]}, r"positives\[1\] is empty"),
        ({"query": "q", "positives": ["p"], "negatives": [3]}, "'negatives' has 3; strings, or"),
        ({"query": 3, "positives": ["p"]}, "'query' is 3; a string is needed"),
        ({"query": "q", "positives": ["p"], "task": "rerank"}, "task is 'rerank'; allowed: retri"),
        ({"query": "q", "positives": ["p"], "positive_ids": ["1", "2"]}, "1 positives and 2 ids"),
        ({"query": "q", "positives": ["p"], "instrution": "x"}, "did you mean 'instruction'"),
        ({"qury": "q", "positives": ["p"]}, "did you mean 'query'"),
        ({"a": "q", "b": "p"}, "there is no query column. The row has: a, b"),
        ({"query": "q", "pos_doc": [{"id": "7"}]}, "has an id and no text; the corpus it is from"),
    ],
)
def test_a_row_that_is_no_record_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    path = jsonl(tmp_path / "x.jsonl", {"query": "q", "positives": ["p"]}, row)
    with pytest.raises(InputError, match=rf"x\.jsonl, line 2: .*{words}"):
        list(read_records(path))


def test_all_problems_are_found_before_work_starts(tmp_path: Path) -> None:
    good, bad = {"query": "q", "positives": ["p"]}, {"query": "", "positives": ["p"]}
    path = jsonl(tmp_path / "x.jsonl", good, *[bad] * 25)
    kinds = [type(item) for item in scan_records(path)]
    assert kinds == [Located, *[Problem] * 25]
    with pytest.raises(
        InputError, match=r"25 of 26 rows cannot be used:[\s\S]*line 21: [\s\S]*and 5"
    ):
        load_records([path])
    path.write_text('{"query": "q"\n[1]\n{"query": "q", "positives": ["p"]}\n')
    kinds = [type(item) for item in scan_records(path)]
    assert kinds == [Problem, Problem, Located]
    assert load_records([jsonl(path, good), path]) == [Record("q", ("p",), source="x")] * 2


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("x.jsonl", b'{"query": "q"', "line 1: not JSON"),
        ("x.jsonl", b"[1]\n", "line 1: a JSON list; an object"),
        ("x.jsonl", b'{"query": "\xff"}', "line 1 is not UTF-8"),
        ("x.csv", b"query,positive\nq,p,z\n", "line 2 has more cells than the 2"),
        ("x.parquet", b"no", "after row 0"),
        ("x.txt", b"", r"the ending does not say a format of records"),
        ("x.json", b"[]", "is a JSON list"),
        ("x.json", b"{}", "has no 'corpus' and 'data'"),
        ("x.jsonl.gz", b"no", "after line 0"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, raw: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(InputError, match=words):
        list(read_records(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.jsonl cannot be read: No such file"):
        list(read_records(tmp_path / "no.jsonl"))


METADATA = {
    "corpus_id": "fever",
    "class": "TextQADataset",
    "query_instruction": "Instruct: Given a claim, retrieve documents\nQuery:",
    "passage_instruction": "",
    "task_type": "Retrieval",
    "ids_only": False,
}


def corpus_file(folder: Path, metadata: dict[str, Any], data: list[dict[str, Any]]) -> Path:
    corpus = folder / "corpus"
    corpus.mkdir()
    documents = {"id": ["d0", "d1", "d2"], "text": ["zero", "one", "two"]}
    pq.write_table(pa.table(documents), corpus / "train.parquet")
    (corpus / "merlin_metadata.json").write_text(json.dumps(metadata))
    path = folder / "fever.json"
    path.write_text(json.dumps({"corpus": {"path": "corpus"}, "data": data}))
    return path


def question(**facts: Any) -> dict[str, Any]:
    row = {"question_id": "q0", "question": "is it?", "corpus_id": "fever"}
    return row | {"pos_doc": [{"id": "d1"}], "neg_doc": [{"id": "d2"}, {"id": "d0"}]} | facts


def test_the_corpus_id_layout(tmp_path: Path) -> None:
    record = only(corpus_file(tmp_path, METADATA, [question()]))
    assert record == Record(
        "is it?",
        ("one",),
        ("two", "zero"),
        "retrieval",
        "Given a claim, retrieve documents",
        "fever",
        "q0",
        ("d1",),
        ("d2", "d0"),
    )


@pytest.mark.parametrize(
    ("facts", "task"),
    [
        ({"task_type": "Classification"}, "classification"),
        ({"passage_instruction": METADATA["query_instruction"]}, "sts"),
        ({"task_type": "BitextMining"}, "bitext"),
    ],
)
def test_tasks_of_the_corpus_id_layout(tmp_path: Path, facts: dict[str, Any], task: str) -> None:
    assert only(corpus_file(tmp_path, METADATA | facts, [question()])).task == task


def test_what_is_wrong_in_the_corpus_id_layout(tmp_path: Path) -> None:
    data = [question(pos_doc=[{"id": "d9"}]), question(corpus_id="nq"), question(question=None)]
    problems = list(scan_records(corpus_file(tmp_path, METADATA, data)))
    assert [str(problem).split(": ", 1)[1] for problem in problems] == [
        f"{tmp_path / 'corpus'} has no document 'd9'.",
        "corpus_id is 'nq'; the file's corpora are fever.",
        "'question' is None; a string is needed.",
    ]


def test_rows_of_another_shape_in_the_corpus_id_layout(tmp_path: Path) -> None:
    bare: list[Any] = ["a query", question(pos_doc=[{"name": "d1"}]), question()]
    path = corpus_file(tmp_path, METADATA, bare)
    first, second, third = scan_records(path)
    assert str(first) == f"{path}, line 1: a query is 'a query'; an object is needed."
    assert str(second) == f"{path}, line 2: a document is {{'name': 'd1'}}; an 'id' is needed."
    assert isinstance(third, Located)
    path.write_text(json.dumps({"corpus": ["corpus"], "data": []}))
    with pytest.raises(InputError, match=r"'corpus' has 'corpus'; \{\"path\": \.\.\.\} is needed"):
        only(path)


def test_columns_stated_for_the_corpus_id_layout_are_refused(tmp_path: Path) -> None:
    path = corpus_file(tmp_path, METADATA, [question()])
    assert only(path, Columns()) == only(path)
    stated = Columns(query="en", negatives=("bad",), task="bitext")
    with pytest.raises(
        InputError, match=r"query \('en'\), negatives .*, task \('bitext'\)\. Leave"
    ):
        list(scan_records(path, stated))


def test_another_instruction_before_passages_is_refused(tmp_path: Path) -> None:
    path = corpus_file(tmp_path, METADATA | {"passage_instruction": "passage:"}, [question()])
    with pytest.raises(InputError, match="has the passage instruction 'passage:', another than"):
        only(path)


def test_a_subset_folder_as_it_is_published(tmp_path: Path) -> None:
    folder = tmp_path / "SciFact"
    folder.mkdir()
    (folder / "dataset_metadata.json").write_text(json.dumps(METADATA))
    documents = {"id": ["d0", "d1", "d2"], "text": ["zero", "one", "two"]}
    pq.write_table(pa.table(documents), folder / "corpus.parquet")
    pq.write_table(pa.Table.from_pylist([question()]), folder / "queries.parquet")
    record = only(folder)
    assert (record.positives, record.negatives, record.source) == (
        ("one",),
        ("two", "zero"),
        "SciFact",
    )
    (folder / "dataset_metadata.json").write_text(json.dumps(METADATA | {"ids_only": True}))
    with pytest.raises(InputError, match="Restore them first: polyvec data restore"):
        only(folder)
