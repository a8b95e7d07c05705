"""Queries that name documents by id, and the corpora the ids are of (nvidia's layout).

Either a JSON file ``{"corpus": {"path": ...}, "data": [{question_id, question, corpus_id, pos_doc,
neg_doc}]}`` beside corpus folders (``merlin_metadata.json`` and Parquet files of id and text), or a
folder as nvidia/embed-nemotron-dataset-v1 has it: ``queries.parquet``, ``corpus.parquet`` and
``dataset_metadata.json``. Only the texts that the queries name are kept in memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from polyvec.errors import InputError
from polyvec.records.record import Record, Task
from polyvec.records.table import read_table

QUERIES, CORPUS = "queries.parquet", "corpus.parquet"
SUBSET_METADATA, CORPUS_METADATA = "dataset_metadata.json", "merlin_metadata.json"
_BEFORE, _AFTER = "Instruct: ", "\nQuery:"
_TASK_WORDS: tuple[tuple[str, Task], ...] = (
    ("classif", "classification"),
    ("bitext", "bitext"),
    ("sts", "sts"),
)


@dataclass(frozen=True)
class Corpus:
    """One corpus: what its metadata says, and the texts the queries name."""

    path: Path
    instruction: str | None
    task: Task
    texts: Mapping[str, str]


def is_corpus_layout(path: Path) -> bool:
    """Whether a path is a JSON file or a folder of this layout."""
    return path.suffix == ".json" or (path / QUERIES).is_file()


def corpus_records(path: Path) -> Iterator[tuple[int, Record | InputError]]:
    """Read the queries of a JSON file or a folder with their documents' texts.

    Yields:
        (row from 1, the record, or what is wrong with the row).

    Raises:
        InputError: A file is missing or no such layout.
    """
    queries, folders = _read_folder(path) if path.is_dir() else _read_json(path)
    named: dict[str, set[str]] = {}
    for query in queries:
        with suppress(InputError):  # the second time over says which row and why
            ids = {*_ids(_object(query).get("pos_doc")), *_ids(query.get("neg_doc"))}
            named.setdefault(str(query.get("corpus_id", "")), set()).update(ids)
    corpora = {name: _read_corpus(folder, named.get(name, set())) for name, folder in folders}
    for number, query in enumerate(queries, start=1):
        try:
            yield number, _record(_object(query), corpora, path.stem)
        except InputError as error:
            yield number, error


def read_json_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object.

    Raises:
        InputError: It is missing or no JSON object.
    """
    try:
        value = orjson.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} is a JSON {type(value).__name__}; an object is needed.")
    return value


_Queries = tuple[list[dict[str, Any]], list[tuple[str, Path]]]


def _read_json(path: Path) -> _Queries:
    value = read_json_object(path)
    if not isinstance(value.get("data"), list) or "corpus" not in value:
        raise InputError(
            f"{path} has no 'corpus' and 'data'; a .json file must be of the corpus-id layout. "
            "Rows of one object a line belong in a .jsonl file."
        )
    corpora = value["corpus"] if isinstance(value["corpus"], list) else [value["corpus"]]
    wrong = [c for c in corpora if not isinstance(c, dict) or not isinstance(c.get("path"), str)]
    if wrong:
        raise InputError(f"{path}: 'corpus' has {wrong[0]!r:.40}; {{\"path\": ...}} is needed.")
    folders = [path.parent / corpus["path"] for corpus in corpora]  # an absolute path stays
    return value["data"], [(_corpus_id(folder / CORPUS_METADATA), folder) for folder in folders]


def _read_folder(path: Path) -> _Queries:
    metadata = read_json_object(path / SUBSET_METADATA)
    if metadata.get("ids_only"):
        raise InputError(
            f"{path} has ids without texts (ids_only). Restore them first: polyvec data restore "
            f"{path} OUTPUT."
        )
    corpus_id = _corpus_id(path / SUBSET_METADATA)
    queries = [{"corpus_id": corpus_id, **row} for _, row in read_table(path / QUERIES)]
    return queries, [(corpus_id, path)]


def _corpus_id(path: Path) -> str:
    metadata = read_json_object(path)
    if "corpus_id" not in metadata:
        raise InputError(f"{path} has no 'corpus_id'.")
    return str(metadata["corpus_id"])


def _read_corpus(folder: Path, wanted: set[str]) -> Corpus:
    """Read a corpus folder, keeping the texts that are wanted."""
    subset = (folder / CORPUS).is_file()
    metadata = read_json_object(folder / (SUBSET_METADATA if subset else CORPUS_METADATA))
    tables = [folder / CORPUS] if subset else sorted(folder.glob("*.parquet"))
    if not tables:
        raise InputError(f"{folder} has no Parquet file of documents.")
    texts = {
        str(row["id"]): row["text"]
        for table in tables
        for row in _documents(table)
        if str(row["id"]) in wanted
    }
    instruction, symmetric = _instruction(metadata, folder)
    return Corpus(folder, instruction, _task(metadata, symmetric), texts)


def _documents(table: Path) -> Iterator[dict[str, Any]]:
    for number, row in read_table(table):
        if not isinstance(row.get("text"), str) or "id" not in row:
            raise InputError(f"{table}, row {number}: a document needs an id and a text.")
        yield row


def _instruction(metadata: Mapping[str, Any], folder: Path) -> tuple[str | None, bool]:
    """Return the task sentence, and whether documents get it too."""
    query = str(metadata.get("query_instruction") or "").strip()
    passage = str(metadata.get("passage_instruction") or "").strip()
    if passage and passage != query:
        raise InputError(
            f"{folder} has the passage instruction {passage!r:.60}, another than the query's; "
            "polyvec's tasks write the same one before both, or none before passages."
        )
    sentence = query.removeprefix(_BEFORE).removesuffix(_AFTER).strip()
    return sentence or None, bool(passage)


def _task(metadata: Mapping[str, Any], symmetric: bool) -> Task:
    words = str(metadata.get("task_type") or "").lower()
    for part, task in _TASK_WORDS:
        if part in words:
            return task
    return "sts" if symmetric else "retrieval"


def _object(query: object) -> Mapping[str, Any]:
    if not isinstance(query, dict):
        raise InputError(f"a query is {query!r:.40}; an object is needed.")
    return query


def _ids(documents: object) -> Iterable[str]:
    if documents is None:
        return []
    items = documents if isinstance(documents, list) else [documents]
    bare = [item for item in items if isinstance(item, dict) and "id" not in item]
    if bare:
        raise InputError(f"a document is {bare[0]!r:.40}; an 'id' is needed.")
    return [str(item["id"] if isinstance(item, dict) else item) for item in items]


def _record(query: Mapping[str, Any], corpora: Mapping[str, Corpus], source: str) -> Record:
    corpus = corpora.get(str(query.get("corpus_id", "")))
    if corpus is None:
        raise InputError(
            f"corpus_id is {query.get('corpus_id')!r}; the file's corpora are {', '.join(corpora)}."
        )
    if not isinstance(query.get("question"), str):
        raise InputError(f"'question' is {query.get('question')!r:.40}; a string is needed.")
    positive_ids, negative_ids = (
        tuple(_ids(query.get("pos_doc"))),
        tuple(_ids(query.get("neg_doc"))),
    )
    question_id = query.get("question_id")
    return Record(
        query["question"],
        tuple(_document(corpus, i) for i in positive_ids),
        tuple(_document(corpus, i) for i in negative_ids),
        corpus.task,
        corpus.instruction,
        source,
        None if question_id is None else str(question_id),
        positive_ids,
        negative_ids,
    )


def _document(corpus: Corpus, document_id: str) -> str:
    try:
        return corpus.texts[document_id]
    except KeyError:
        raise InputError(f"{corpus.path} has no document {document_id!r}.") from None
