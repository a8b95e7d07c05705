"""Files of a collection: BEIR's and TREC's layouts, and every way they can be wrong."""

import gzip
import json
from pathlib import Path

import pytest

from polyvec.errors import InputError
from polyvec.evaluate.collection import Collection, read_collection, read_qrels

QUERIES = [
    {"_id": "q1", "text": "red fox", "language": "en"},
    {"_id": "q2", "text": "zorro rojo", "language": "es"},
]
CORPUS = [
    {"_id": "d1", "title": "Fox", "text": "a red animal"},
    {"_id": "d2", "title": "", "text": "un animal rojo"},
    {"_id": "d3", "text": "a car"},
]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t0\nq2\td2\t1\n"


def lines(path: Path, records: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    (tmp_path / "r.tsv").write_text(QRELS)
    return (
        lines(tmp_path / "q.jsonl", QUERIES),
        lines(tmp_path / "c.jsonl", CORPUS),
        tmp_path / "r.tsv",
    )


Files = tuple[Path, Path, Path]


def test_beirs_layout(files: Files) -> None:
    collection = read_collection(*files)
    assert collection == Collection(
        {"q1": "red fox", "q2": "zorro rojo"},
        {"d1": "Fox a red animal", "d2": "un animal rojo", "d3": "a car"},
        {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}},
        {"q1": "en", "q2": "es"},
    )


@pytest.mark.parametrize(
    "qrels",
    [
        "q1\td1\t2\nq1\td3\t0\nq2\td2\t1\n",
        "q1 0 d1 2\nq1 0 d3 0\nq2 0 d2 1\n",
        "q1\tQ0\td1\t2\n\nq1\tQ0\td3\t0\r\nq2\tQ0\td2\t1",
    ],
)
def test_qrels_with_and_without_a_header(files: Files, qrels: str) -> None:
    beir = read_collection(*files)
    files[2].write_text(qrels)
    assert read_collection(*files) == beir


def test_gzip_and_a_byte_order_mark(files: Files, tmp_path: Path) -> None:
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + files[1].read_bytes()))
    assert read_collection(files[0], packed, files[2]) == read_collection(*files)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"c\.jsonl\.gz cannot be read: Compressed file ended"):
        read_collection(files[0], packed, files[2])


def test_the_fingerprint_knows_every_text_and_grade(files: Files) -> None:
    prints = {read_collection(*files).fingerprint()}
    files[2].write_text(QRELS.replace("\t2\n", "\t1\n"))
    prints.add(read_collection(*files).fingerprint())
    lines(files[1], [*CORPUS[:2], {"_id": "d3", "text": "a cart"}])
    prints.add(read_collection(*files).fingerprint())
    assert len(prints) == 3


def test_missing_ids_are_refused_or_dropped_aloud(files: Files) -> None:
    files[2].write_text(QRELS + "q9\td1\t1\nq1\td8\t1\nq1\td9\t1\n")
    words = (
        r"names 1 queries \(q9\) and 2 documents \(d8, d9\) that are not in the files\. "
        r"Give the files they belong to, or --missing drop"
    )
    with pytest.raises(InputError, match=words):
        read_collection(*files)
    collection = read_collection(*files, missing="drop")
    assert collection.qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}
    assert "these judgements were dropped, so scores are not comparable" in collection.notes[0]


def test_queries_that_nothing_answers_are_left_out_aloud(files: Files) -> None:
    lines(files[0], [*QUERIES, {"_id": "q3", "text": "x"}])
    files[2].write_text("q1 0 d1 1\nq2 0 d2 0\n")
    collection = read_collection(*files)
    assert list(collection.queries) == ["q1"]
    assert collection.languages == {"q1": "en"}
    assert collection.notes == (
        "1 queries have no relevant document and are left out",
        "1 queries have no judgement and are left out",
    )
    files[2].write_text("q1 0 d1 0\n")
    with pytest.raises(InputError, match="names no relevant document"):
        read_collection(*files)


def test_repeated_judgements(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_text("q 0 d 1\nq 0 d 1\n")
    assert read_qrels(path) == ({"q": {"d": 1}}, ["1 judgements are there twice, with one grade"])
    path.write_text("q 0 d 1\nq 0 d 2\n")
    with pytest.raises(InputError, match=r"line 2: query 'q' and document 'd' have grade 2, and 1"):
        read_qrels(path)


@pytest.mark.parametrize("line", ["q d", "q 0 d x 1", "q 0 d 1.5", "just words here"])
def test_lines_that_are_no_judgement(tmp_path: Path, line: str) -> None:
    (tmp_path / "r").write_text(f"q 0 d 1\n{line}\n")
    with pytest.raises(InputError, match=r"line 2 is .*a judgement is 'query document grade'"):
        read_qrels(tmp_path / "r")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ('{"_id": "d1", "text": "again"}', "line 2: the id 'd1' is there already, in line 1"),
        ('{"_id": "d2"}', "line 2 has no string 'text'; it has: _id"),
        ('{"text": "x"}', "line 2 has no '_id'"),
        ("[1]", "line 2 is a JSON list"),
        ("{", "line 2 is no JSON"),
    ],
)
def test_broken_documents(files: Files, record: str, words: str) -> None:
    files[1].write_text('{"_id": "d1", "text": "x"}\n' + record)
    with pytest.raises(InputError, match=words):
        read_collection(*files)


def test_empty_and_missing_files(files: Files, tmp_path: Path) -> None:
    files[1].write_text("\n")
    with pytest.raises(InputError, match=r"c\.jsonl is empty: there is no document in it"):
        read_collection(*files)
    with pytest.raises(InputError, match="No such file"):
        read_collection(files[0], tmp_path / "none", files[2])
    files[1].write_bytes(b'{"_id": "d", "text": "\xff"}')
    with pytest.raises(InputError, match="line 1 is no UTF-8"):
        read_collection(*files)
