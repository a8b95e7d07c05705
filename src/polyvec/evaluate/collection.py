"""A collection to search: queries, documents, and which documents answer which query.

BEIR's layout: JSONL with ``_id``, ``text`` and for documents ``title``; judgements as BEIR's TSV
(query-id, corpus-id, score) or as TREC qrels (query, iteration, document, grade).
"""

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

import orjson

from polyvec.errors import InputError

Missing = Literal["error", "drop"]

_HEADERS = ({"query-id", "corpus-id", "score"}, {"query_id", "corpus_id", "score"})
_LANGUAGE_FIELDS = ("language", "lang")


@dataclass(frozen=True)
class Collection:
    """Queries that have at least one relevant document, documents, and judgements."""

    queries: dict[str, str]
    documents: dict[str, str]
    qrels: dict[str, dict[str, int]]
    languages: dict[str, str] = field(default_factory=dict)
    """Language of each query that states one."""
    notes: tuple[str, ...] = ()
    """What was left out and why, in sentences."""

    def fingerprint(self) -> str:
        """Return a hash of every id, text and judgement."""
        parts = (self.queries, self.documents, self.qrels)
        digest = hashlib.sha256()
        for part in parts:
            digest.update(orjson.dumps(part, option=orjson.OPT_SORT_KEYS))
        return digest.hexdigest()[:16]


def read_collection(
    queries: Path, corpus: Path, qrels: Path, missing: Missing = "error"
) -> Collection:
    """Read a collection; any of the files may be ``.gz``.

    Args:
        queries: JSONL: ``_id`` (or ``id``), ``text``, and ``language`` where it is known.
        corpus: JSONL: ``_id`` (or ``id``), ``text`` and ``title``, which is put before the text.
        qrels: Judgements.
        missing: What becomes of judgements that name a query or document that is not there.

    Raises:
        InputError: A file cannot be read, is empty, has an id twice, contradicts itself, or names
            what is missing; the message has the line.
    """
    documents = {key: _document(record) for key, record in _records(corpus, "document")}
    asked, languages = {}, {}
    for key, record in _records(queries, "query"):
        asked[key] = record["text"]
        for name in _LANGUAGE_FIELDS:
            if isinstance(record.get(name), str):
                languages[key] = record[name]
    judged, notes = read_qrels(qrels)
    notes += _drop_missing(judged, asked, documents, qrels, missing)
    kept = {q: grades for q, grades in judged.items() if any(g > 0 for g in grades.values())}
    if not kept:
        raise InputError(f"{qrels} names no relevant document (a grade above 0) for any query.")
    notes += _left_out(judged, kept, asked)
    return Collection(
        {query: asked[query] for query in kept},
        documents,
        kept,
        {query: language for query, language in languages.items() if query in kept},
        tuple(notes),
    )


def read_qrels(path: Path) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Read judgements: grades by query and document, and notes about repeated lines.

    Raises:
        InputError: A line is no judgement, or two of them contradict each other.
    """
    qrels: dict[str, dict[str, int]] = {}
    repeated = 0
    for number, line in _lines(path):
        cells = line.split("\t") if "\t" in line else line.split()
        cells = [cell.strip() for cell in cells]
        if number == 1 and {cell.lower() for cell in cells} in _HEADERS:
            continue
        query, document, grade = _judgement(cells, path, number)
        known = qrels.setdefault(query, {})
        if known.get(document, grade) != grade:
            raise InputError(
                f"{path}, line {number}: query {query!r} and document {document!r} have grade "
                f"{grade}, and {known[document]} further up. Keep one of them."
            )
        repeated += document in known
        known[document] = grade
    if not qrels:
        raise InputError(f"{path} has no judgement.")
    return qrels, [f"{repeated:,} judgements are there twice, with one grade"] * bool(repeated)


def _judgement(cells: list[str], path: Path, number: int) -> tuple[str, str, int]:
    wanted = [cells[0], *cells[2:]] if len(cells) == 4 else cells
    try:
        query, document, grade = wanted
        return query, document, int(grade)
    except ValueError:
        raise InputError(
            f"{path}, line {number} is {' '.join(cells)!r:.80}; a judgement is 'query document "
            "grade' (BEIR) or 'query iteration document grade' (TREC), the grade a whole number."
        ) from None


def _drop_missing(
    judged: dict[str, dict[str, int]],
    queries: dict[str, str],
    documents: dict[str, str],
    path: Path,
    missing: Missing,
) -> list[str]:
    unknown_queries = [query for query in judged if query not in queries]
    unknown = [d for grades in judged.values() for d in grades if d not in documents]
    if not unknown_queries and not unknown:
        return []
    words = (
        f"{path} names {_some(unknown_queries, 'queries')} and {_some(unknown, 'documents')} that "
        "are not in the files"
    )
    if missing == "error":
        raise InputError(f"{words}. Give the files they belong to, or --missing drop.")
    for query in unknown_queries:
        del judged[query]
    for query, grades in judged.items():
        judged[query] = {d: grade for d, grade in grades.items() if d in documents}
    return [f"{words}; these judgements were dropped, so scores are not comparable with others'"]


def _left_out(
    judged: dict[str, dict[str, int]], kept: dict[str, dict[str, int]], queries: dict[str, str]
) -> list[str]:
    without, unjudged = len(judged) - len(kept), sum(query not in judged for query in queries)
    notes = []
    if without:
        notes.append(f"{without:,} queries have no relevant document and are left out")
    if unjudged:
        notes.append(f"{unjudged:,} queries have no judgement and are left out")
    return notes


def _some(ids: list[str], what: str) -> str:
    shown = f" ({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''})" if ids else ""
    return f"{len(ids):,} {what}{shown}"


def _document(record: dict[str, Any]) -> str:
    title = record.get("title")
    return f"{title} {record['text']}".strip() if isinstance(title, str) else record["text"]


def _records(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    first_seen: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(
                f"{where} is no JSON ({error}); a {what} is a JSON object a line, with '_id' and "
                "'text'."
            ) from None
        key = _id(record, where)
        if key in first_seen:
            raise InputError(
                f"{where}: the id {key!r} is there already, in line {first_seen[key]}. Ids name "
                f"one {what} each."
            )
        first_seen[key] = number
        yield key, record
    if not first_seen:
        raise InputError(f"{path} is empty: there is no {what} in it.")


def _id(record: Any, where: str) -> str:  # noqa: ANN401 (any JSON)
    if not isinstance(record, dict):
        raise InputError(f"{where} is a JSON {type(record).__name__}; an object is needed.")
    if not isinstance(record.get("text"), str):
        raise InputError(
            f"{where} has no string 'text'; it has: {', '.join(map(str, record)) or 'nothing'}."
        )
    key = record.get("_id", record.get("id"))
    if not isinstance(key, str | int) or key == "":
        raise InputError(f"{where} has no '_id' (or 'id'), a string or a number; given: {key!r}.")
    return str(key)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Give (number, line) of lines that are not white."""
    try:
        with _open(path) as file:
            for number, raw in enumerate(file, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    yield number, line
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {number} is no UTF-8: {error}.") from error


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
