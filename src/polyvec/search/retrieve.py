"""Questions to passages: dense, full-text and hybrid search of an index, each score explained."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from polyvec.errors import InputError
from polyvec.search.diversity import diverse_order
from polyvec.search.fuse import RANK_CONSTANT, Fused, fuse
from polyvec.search.loading import load_model
from polyvec.search.rows import Chunk, Hit, Vectors
from polyvec.search.shares import question_shares
from polyvec.search.snippets import snippet
from polyvec.search.store import Store
from polyvec.search.where import Where

Mode = Literal["hybrid", "dense", "text"]
EmbedQuery = Callable[[str], Vectors]
"""A question to its vector ``float32 [dimension]``."""


@dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    mode: Mode = "hybrid"
    limit: int = 10
    """Passages; documents where they are grouped."""
    candidates: int = 100
    """Passages of each ranking that are fused, at least."""
    diversity: float = 0.0
    """0 to 1: how much being unlike better results counts against relevance."""
    per_document: int = 0
    """Passages of a document at most, grouped under it; 0: passages, not grouped."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f"mode is {self.mode!r}; allowed: {', '.join(get_args(Mode))}.")
        for name, least in (("limit", 1), ("candidates", 1), ("per_document", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; {least} is the least.")
        if not 0 <= self.diversity <= 1:
            raise InputError(f"diversity is {self.diversity}; it goes from 0 to 1.")


@dataclass(frozen=True)
class Result:
    """A passage that was found, and why it is where it is."""

    chunk: Chunk
    score: float
    """What results are ordered by (before diversity): a cosine, BM25, or the sum of RRF shares."""
    cosine: float | None
    """Of query and passage, whether the dense ranking has it or not; None in text search."""
    bm25: float | None
    """None where the full-text ranking does not have it."""
    dense_rank: int | None
    text_rank: int | None
    query_share: float | None = None
    """The part of the query that it says in the query's own words, rare ones counting more: what
    its place by words counts in hybrid search. None in other modes, or where words do not find it.
    """
    also_in: tuple[str, ...] = ()
    """Other files with this very passage."""

    def facts(self, query: str) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        shown = snippet(self.chunk.text, query)
        why = {k: v for k, v in asdict(self).items() if k not in ("chunk", "also_in")}
        return {
            **asdict(self.chunk),
            "modified_at": self.chunk.modified_at.isoformat(),
            "also_in": list(self.also_in),
            "place": place(self.chunk),
            "snippet": {"text": shown.text, "marks": [list(mark) for mark in shown.marks]},
            **why,
            "explanation": explain(self),
        }


def place(chunk: Chunk) -> str:
    """Return where in its file a passage is, in words; empty where the format says nothing."""
    if chunk.page is not None:
        return f"page {chunk.page}"
    if chunk.line_start is None:
        return ""
    if chunk.line_end in (None, chunk.line_start):
        return f"line {chunk.line_start}"
    return f"lines {chunk.line_start}-{chunk.line_end}"


def explain(result: Result) -> str:
    """Say in words what a result's score is made of."""
    parts, fused = [], result.score != result.cosine and result.score != result.bm25
    if result.cosine is not None:
        parts.append(f"cosine {result.cosine:.3f}, " + _place_in(result.dense_rank, "meaning"))
    if result.bm25 is not None:
        parts.append(f"BM25 {result.bm25:.2f}, " + _place_in(result.text_rank, "words"))
    elif fused:
        parts.append(_place_in(None, "words"))
    if not fused:
        return "; ".join(parts)
    if result.query_share is not None:
        parts[-1] += f" with {result.query_share:.0%} of the query"
    places = ((result.dense_rank, 1.0), (result.text_rank, result.query_share or 0.0))
    terms = " + ".join(_term(rank, weight) for rank, weight in places if rank is not None)
    return f"{'; '.join(parts)}; score {terms} = {result.score:.4f}"


def _term(rank: int, weight: float) -> str:
    shown = f"{weight:.2f}"
    return f"{'1' if shown == '1.00' else shown}/({RANK_CONSTANT}+{rank})"


def _place_in(rank: int | None, what: str) -> str:
    return f"not found by {what}" if rank is None else f"number {rank} by {what}"


class Searcher:
    """Searches one index."""

    def __init__(self, store: Store, embed_query: EmbedQuery | None) -> None:
        """Make one.

        Args:
            store: The index.
            embed_query: None where only full-text search is wanted: no model is needed then.
        """
        self.store, self.embed_query = store, embed_query

    def search(
        self, query: str, settings: SearchSettings | None = None, where: Where | None = None
    ) -> list[Result]:
        """Return the best passages, best first; those of a document together if grouped.

        Raises:
            InputError: The query is empty.
        """
        settings = settings or SearchSettings()
        if not query.strip():
            raise InputError("The query is empty.")
        vector = self._vector(query) if settings.mode != "text" else None
        return Searcher(self.store.snapshot(), None)._ranked(query, vector, settings, where)

    def _ranked(
        self, query: str, vector: Vectors | None, settings: SearchSettings, where: Where | None
    ) -> list[Result]:
        """Search a store that no writer changes meanwhile."""
        wanted = max(settings.candidates, 2 * settings.limit)
        dense = [] if vector is None else self.store.search_dense(vector, wanted, where)
        text = [] if settings.mode == "dense" else self.store.search_text(query, wanted, where)
        shares = _shares(query, dense, text) if settings.mode == "hybrid" else {}
        fused = fuse([_distinct(dense), _distinct(text)], [{}, shares])
        if not settings.diversity and not settings.per_document:
            fused = fused[: settings.limit]  # no vector is read for what is not shown
        results = self._results(fused, dense, text, settings.mode, vector, shares)
        if settings.diversity:
            results = self._diverse(results, settings.diversity)
        return grouped(results, settings) if settings.per_document else results[: settings.limit]

    def _vector(self, query: str) -> Vectors:
        if self.embed_query is None:
            raise InputError("This search was opened for words only, without a model.")
        return self.embed_query(query)

    def _results(
        self,
        fused: Sequence[Fused[str]],
        dense: list[Hit],
        text: list[Hit],
        mode: Mode,
        vector: Vectors | None,
        shares: Mapping[str, float],
    ) -> list[Result]:
        chunks = {hit.chunk.chunk_id: hit.chunk for hit in (*text, *dense)}
        alike: defaultdict[str, dict[str, Chunk]] = defaultdict(dict)
        for chunk in chunks.values():
            alike[chunk.text_id].setdefault(chunk.path, chunk)
        shown = {item.key for item in fused}
        cosines = self._cosines(dense, [h for h in text if h.chunk.text_id in shown], vector)
        scores = {hit.chunk.text_id: hit.score for hit in reversed(text)}
        results = []
        for item in fused:
            first, *others = sorted(alike[item.key].values(), key=lambda c: (c.path, c.ordinal))
            cosine, bm25 = cosines.get(item.key), scores.get(item.key)
            whole = {"hybrid": item.score, "dense": cosine, "text": bm25}[mode]
            assert whole is not None, "a ranking's own hits have its score"
            also_in = tuple(chunk.path for chunk in others)
            by_meaning, by_words = item.ranks
            said = shares.get(item.key)
            results.append(Result(first, whole, cosine, bm25, by_meaning, by_words, said, also_in))
        return results

    def _cosines(
        self, dense: list[Hit], text: list[Hit], vector: Vectors | None
    ) -> dict[str, float]:
        """Return the cosine of every passage, of these too that only words have found."""
        if vector is None:
            return {}
        known = {hit.chunk.text_id: hit.score for hit in reversed(dense)}
        missing = {h.chunk.text_id: h.chunk.chunk_id for h in text if h.chunk.text_id not in known}
        if missing:
            rows_ND = self.store.vectors_of(list(missing.values()))
            lengths = np.linalg.norm(rows_ND, axis=1) * np.linalg.norm(vector)
            values = rows_ND @ vector / np.where(lengths > 0, lengths, 1)
            known |= dict(zip(missing, map(float, values), strict=True))
        return known

    def _diverse(self, results: list[Result], diversity: float) -> list[Result]:
        if not results:
            return []
        vectors_ND = self.store.vectors_of([result.chunk.chunk_id for result in results])
        relevance = np.array([result.score for result in results], dtype=np.float32)
        return [results[n] for n in diverse_order(relevance, vectors_ND, diversity)]


def _distinct(hits: Sequence[Hit]) -> list[str]:
    """Return the hits' texts, each once: copies of a file are one result."""
    return list(dict.fromkeys(hit.chunk.text_id for hit in hits))


def _shares(query: str, dense: Sequence[Hit], text: Sequence[Hit]) -> dict[str, float]:
    """Return the part of the query that each text found by words says, by the text's hash."""
    found = {hit.chunk.text_id: hit.chunk.text for hit in text}
    beside = {hit.chunk.text_id: hit.chunk.text for hit in dense if hit.chunk.text_id not in found}
    return question_shares(query, found, beside.values())


def grouped(results: Sequence[Result], settings: SearchSettings) -> list[Result]:
    """Return documents in the order of their best passage, each with its passages together."""
    documents: dict[str, list[Result]] = {}
    for result in results:
        documents.setdefault(result.chunk.path, []).append(result)
    shown = list(documents.values())[: settings.limit]
    return [result for each in shown for result in each[: settings.per_document]]


def open_searcher(
    uri: str,
    mode: Mode = "hybrid",
    precision: str = "auto",
    device: str = "auto",
    storage_options: Mapping[str, str] | None = None,
    model: str | None = None,
) -> Searcher:
    """Open an index, and the model that made it unless only words are searched.

    Args:
        uri: The index.
        mode: ``text`` needs no model.
        precision: As for :func:`polyvec.load`.
        device: As for :func:`polyvec.load`.
        storage_options: What LanceDB is told about an object store, beside what its file says.
        model: Where the index's model is on this machine; None is the name that the index has.

    Raises:
        IndexMissingError: There is none.
        IndexMismatchError: The model is another, or has changed since.
        ModelNotFoundError: The index names a model that this machine does not have.
        StorageError: An object store refused, or cannot be reached.
        PolyvecError: The model cannot be loaded.
    """
    store = Store.open(uri, storage_options=storage_options)
    if mode == "text":
        return Searcher(store, None)
    embedder = load_model(store, model, precision=precision, device=device)
    return Searcher(store, lambda query: embedder.embed([query], "query").vectors[0])
