"""Ids-only subsets get their texts back, from small sources of the two layouts there are."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyvec.data.restore import Restored, restore
from polyvec.errors import DownloadError, InputError, OutputError
from polyvec.records.read import read_records
from tests.command import Command

QUERIES = [f"question {n}" for n in range(6)]
DOCUMENTS = [f"document {n}" for n in range(9)]
METADATA = {
    "corpus_id": "scifact",
    "class": "TextQADataset",
    "query_instruction": "Instruct: Given a claim, retrieve documents\nQuery:",
    "passage_instruction": "",
    "ids_only": True,
}
MTEB = {"loader_config": "mteb", "source_repo": "mteb/scifact"}
COLUMN = {
    "loader_config": "column",
    "source_repo": "org/pairs",
    "split": "train",
    "query_column": "title",
    "document_column": "body",
}


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def subset(folder: Path, config: dict[str, Any], **metadata: Any) -> Path:
    rows = [
        {
            "question_id": f"s{n}",
            "question": f"q_{n}",
            "corpus_id": "scifact",
            "pos_doc": [{"id": f"d_{n + 1}"}],
            "neg_doc": [{"id": "d_8"}, {"id": "d_0"}],
        }
        for n in (4, 1)
    ]
    parquet(folder / "queries.parquet", rows)
    parquet(folder / "corpus.parquet", [{"id": f"d_{n}"} for n in (8, 5, 2, 0)])
    (folder / "dataset_metadata.json").write_text(json.dumps(METADATA | metadata))
    (folder / "source_config.json").write_text(json.dumps(config))
    return folder


def mteb_source(folder: Path) -> Path:
    parquet(folder / "queries/queries/0000.parquet", [{"_id": "x", "text": t} for t in QUERIES])
    for part, texts in enumerate((DOCUMENTS[:4], DOCUMENTS[4:])):
        rows = [{"_id": "y", "title": "T", "text": text} for text in texts]
        parquet(folder / f"corpus/corpus/{part:04}.parquet", rows)
    return folder


def column_source(folder: Path, place: str) -> Path:
    pairs = [{"title": f"question {n}", "body": f"document {n}", "other": n} for n in range(9)]
    parquet(folder / place, pairs)
    return folder


def expect(folder: Path) -> None:
    first, second = read_records(folder)
    assert (first.query, first.positives) == ("question 4", ("document 5",))
    assert first.negatives == ("document 8", "document 0")
    assert (first.query_id, first.instruction) == ("s4", "Given a claim, retrieve documents")
    assert (second.query, second.positives) == ("question 1", ("document 2",))


def test_the_mteb_loader(tmp_path: Path) -> None:
    ids, source = subset(tmp_path / "SciFact", MTEB), mteb_source(tmp_path / "source")
    done = restore(str(ids), tmp_path / "out", source)
    assert done == Restored("SciFact", 2, 4, str(source))
    expect(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"queries.parquet", "corpus.parquet", "dataset_metadata.json"}
    assert pq.read_table(tmp_path / "out/corpus.parquet").column("id").to_pylist()[0] == "d_8"


def test_jsonl_sources_as_mteb_publishes_them(tmp_path: Path) -> None:
    ids, source = subset(tmp_path / "SciFact", MTEB), tmp_path / "source"
    source.mkdir()
    for name, texts in (("queries", QUERIES), ("corpus", DOCUMENTS)):
        lines = "".join(json.dumps({"_id": "x", "text": t}) + "\n" for t in texts)
        (source / f"{name}.jsonl").write_text(lines)
    restore(str(ids), tmp_path / "out", source)
    expect(tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({}, "default/train/0000.parquet"),
        ({}, "data/train-00000-of-00001.parquet"),
        ({"subset": "pair"}, "pair/train/0000.parquet"),
        ({"subset": "pair"}, "pair/train-00000-of-00001.parquet"),
    ],
)
def test_the_column_loader(tmp_path: Path, config: dict[str, str], place: str) -> None:
    ids = subset(tmp_path / "NQ", COLUMN | config)
    restore(str(ids), tmp_path / "out", column_source(tmp_path / "source", place))
    expect(tmp_path / "out")


def test_everything_is_fetched_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subset(tmp_path / "set" / "SciFact", MTEB)
    folders = {"nvidia/x": tmp_path / "set", "mteb/scifact": mteb_source(tmp_path / "source")}
    asked = []

    def snapshot(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return str(folders[repository])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    restore("hf:nvidia/x/SciFact", tmp_path / "out")
    expect(tmp_path / "out")
    of_data = {"repo_type": "dataset"}
    converted = of_data | {"revision": "refs/convert/parquet"}
    assert asked == [
        ("nvidia/x", of_data | {"revision": None, "allow_patterns": ["SciFact/*"]}),
        ("mteb/scifact", converted | {"allow_patterns": ["queries/queries/*.parquet"]}),
        ("mteb/scifact", converted | {"allow_patterns": ["corpus/corpus/*.parquet"]}),
    ]


def test_what_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no route\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(DownloadError, match=r"org/x cannot be fetched .*: no route Fetch it on"):
        restore("hf:org/x/SciFact", tmp_path / "out")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    ids = subset(tmp_path / "SciFact", MTEB)
    with pytest.raises(DownloadError, match=r"mteb/scifact has no queries/queries/\*\.parquet"):
        restore(str(ids), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "metadata", "words"),
    [
        (MTEB, {"ids_only": False}, "has its texts already"),
        ({"loader_config": "csv", "source_repo": "x"}, {}, "loader_config 'csv'.*known loaders"),
        ({"loader_config": "mteb"}, {}, "the source_repo None"),
        ({**COLUMN, "split": None} | {"query_column": "no"}, {}, "no files of the config"),
        ({k: v for k, v in COLUMN.items() if k != "split"}, {}, "has no 'split', which the column"),
    ],
)
def test_what_is_no_ids_only_subset(
    tmp_path: Path, config: dict[str, Any], metadata: dict[str, Any], words: str
) -> None:
    ids = subset(tmp_path / "SciFact", config, **metadata)
    with pytest.raises(InputError, match=words):
        restore(str(ids), tmp_path / "out", mteb_source(tmp_path / "source"))


def test_ids_that_the_source_does_not_have(tmp_path: Path) -> None:
    ids, source = subset(tmp_path / "SciFact", MTEB), mteb_source(tmp_path / "source")
    parquet(source / "queries/queries/0000.parquet", [{"text": t} for t in QUERIES[:3]])
    with pytest.raises(InputError, match=r"has q_4, and .* have no such row \(1 are missing\)"):
        restore(str(ids), tmp_path / "out", source)
    parquet(source / "queries/queries/0000.parquet", [{"text": None} for _ in QUERIES])
    with pytest.raises(InputError, match="'text' is None; a text is needed"):
        restore(str(ids), tmp_path / "out", source)
    parquet(ids / "corpus.parquet", [{"id": "17"}])
    mteb_source(source)
    with pytest.raises(InputError, match="has '17' where an id like d_0 is expected"):
        restore(str(ids), tmp_path / "out", source)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_command(tmp_path: Path, run: Command) -> None:
    ids, source = subset(tmp_path / "SciFact", MTEB), mteb_source(tmp_path / "source")
    given = ("data", "restore", ids, tmp_path / "out", "--source", source)
    done = run(*given)
    assert done.code == 0, done.err
    assert "2 queries and 4 documents of SciFact with texts from" in done.out
    assert "exists already" in run(*given).err
    again = json.loads(run(*given, "--force", "--json").out)
    assert (again["queries"], again["documents"]) == (2, 4)
    expect(tmp_path / "out")
    checked = run("data", "check", tmp_path / "out", "--model", "none", "--no-languages")
    assert checked.code == 0, checked.err


def test_an_existing_output_is_kept(tmp_path: Path) -> None:
    ids, source = subset(tmp_path / "SciFact", MTEB), mteb_source(tmp_path / "source")
    restore(str(ids), tmp_path / "out", source)
    with pytest.raises(OutputError, match="exists already; use --force"):
        restore(str(ids), tmp_path / "out", source)
    with pytest.raises(InputError, match=r"is not of the form hf:ORG/NAME/SUBSET"):
        restore("hf:nvidia/SciFact", tmp_path / "other")


def test_force_replaces_nothing_but_a_subset(tmp_path: Path) -> None:
    ids, source = subset(tmp_path / "SciFact", MTEB), mteb_source(tmp_path / "source")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    for other in (tmp_path / "letters", tmp_path / "letters" / "dear.txt"):
        with pytest.raises(OutputError, match=r"is no subset with its texts .* --force does not"):
            restore(str(ids), other, source, force=True)
    assert (tmp_path / "letters" / "dear.txt").exists()
