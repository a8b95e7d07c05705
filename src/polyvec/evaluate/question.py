"""A person's own question: how well does a model find the documents of a collection?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polyvec.errors import InputError
from polyvec.evaluate.cache import VectorCache
from polyvec.evaluate.collection import Collection
from polyvec.evaluate.results import ModelResult, QueryResult, Scores
from polyvec.metrics import bootstrap_interval, nearest, parse_metric, run_metrics, unit

Vectors = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]

DEFAULT_METRICS = (
    "ndcg@10", "recall@10", "recall@100", "mrr@10", "map@100", "accuracy@1", "precision@10",
)  # fmt: skip
_KEPT_DOCUMENTS = 10
_WORST_QUERIES = 10
_SHOWN_DOCUMENTS = 3
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Question:
    """How a collection is searched and judged."""

    metrics: tuple[str, ...] = DEFAULT_METRICS
    """Names like ``ndcg@10``; the first is the one models are compared by."""
    instruction: str | None = None
    """The queries' task; None: the model's own."""
    dimensions: tuple[int, ...] = ()
    """Also judge vectors cut to these lengths."""
    skip_same_id: bool = False
    """Leave out a document with the query's own id, as BEIR does (ArguAna, Quora)."""
    seed: int = 0
    resamples: int = 10_000

    def __post_init__(self) -> None:
        if not self.metrics:
            raise InputError("At least one measure is needed, e.g. ndcg@10.")
        for name in self.metrics:
            parse_metric(name)

    @property
    def depth(self) -> int:
        """How many documents a query must find for its measures."""
        return max(_KEPT_DOCUMENTS, *(parse_metric(name)[1] for name in self.metrics))

    def facts(self) -> dict[str, Any]:
        """Return what decides the scores, as JSON gives it back."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class _Found:
    rankings: dict[str, list[str]]
    cosines: dict[str, list[float]]


def evaluate_model(
    model: str,
    cache: VectorCache,
    collection: Collection,
    question: Question,
    about: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> ModelResult:
    """Embed a collection, search it exactly by cosine, and judge what is found.

    Args:
        model: The name the result goes by.
        cache: The model and the vectors it has made already.
        collection: What to search.
        question: How.
        about: Facts about the model that the report shows.
        progress: Called with (texts, characters) embedded since the last call.

    Raises:
        InputError: A dimension is longer than the model's.
    """
    _check_dimensions(question.dimensions, cache.encoder.dimension)
    started, before = time.monotonic(), cache.embedded
    documents_ND = cache.encode(list(collection.documents.values()), "document", None, progress)
    asked = list(collection.queries.values())
    queries_QD = cache.encode(asked, "query", question.instruction, progress)
    embedded, seconds = cache.embedded - before, time.monotonic() - started
    found = _search(collection, queries_QD, documents_ND, question)
    values = run_metrics(found.rankings, collection.qrels, question.metrics)
    costs: dict[str, Any] = {
        "dimension": cache.encoder.dimension,
        "embedded_texts": embedded,
    }
    if embedded:
        costs |= {"seconds": round(seconds, 2), "texts_per_s": round(embedded / seconds, 2)}
    return ModelResult(
        model=model,
        fingerprint=cache.encoder.fingerprint,
        collection=collection.fingerprint(),
        settings=question.facts(),
        about=costs | (about or {}),
        counts=_counts(collection),
        metrics=list(question.metrics),
        scores=_scores(values, question),
        queries=_queries(collection, found, values),
        languages=_by_language(collection, values, question),
        dimensions=_by_dimension(collection, queries_QD, documents_ND, question),
        worst=_worst(collection, found, values[question.metrics[0]]),
    )


def _check_dimensions(asked: Sequence[int], there: int) -> None:
    wrong = [d for d in asked if not 1 <= d <= there]
    if wrong:
        raise InputError(f"The model's vectors have {there} numbers; {wrong[0]} cannot be kept.")


def _search(
    collection: Collection, queries_QD: Vectors, documents_ND: Vectors, question: Question
) -> _Found:
    extra = int(question.skip_same_id)
    rows_QK, cosines_QK = nearest(unit(queries_QD), unit(documents_ND), question.depth + extra)
    ids, rankings, cosines = list(collection.documents), {}, {}
    for query, rows, scores in zip(collection.queries, rows_QK, cosines_QK, strict=True):
        pairs = [(ids[row], float(score)) for row, score in zip(rows, scores, strict=True)]
        if question.skip_same_id:
            pairs = [pair for pair in pairs if pair[0] != query]
        pairs = pairs[: question.depth]
        rankings[query], cosines[query] = [d for d, _ in pairs], [s for _, s in pairs]
    return _Found(rankings, cosines)


def _counts(collection: Collection) -> dict[str, int]:
    return {
        "queries": len(collection.queries),
        "documents": len(collection.documents),
        "judgements": sum(map(len, collection.qrels.values())),
    }


def _scores(values: dict[str, npt.NDArray[np.float64]], question: Question) -> Scores:
    intervals = {
        name: bootstrap_interval(scores, resamples=question.resamples, seed=question.seed)
        for name, scores in values.items()
    }
    return {name: dict(interval._asdict()) for name, interval in intervals.items()}


def _by_language(
    collection: Collection, values: dict[str, npt.NDArray[np.float64]], question: Question
) -> dict[str, Scores]:
    if not collection.languages:
        return {}
    spoken = np.array([collection.languages.get(query, "?") for query in collection.qrels])
    return {
        str(language): {
            "queries": {"count": float(np.sum(spoken == language))},
            **_scores({name: v[spoken == language] for name, v in values.items()}, question),
        }
        for language in np.unique(spoken)
    }


def _by_dimension(
    collection: Collection, queries_QD: Vectors, documents_ND: Vectors, question: Question
) -> dict[str, dict[str, float]]:
    curves = {}
    for size in question.dimensions:
        found = _search(collection, queries_QD[:, :size], documents_ND[:, :size], question)
        values = run_metrics(found.rankings, collection.qrels, question.metrics)
        curves[str(size)] = {name: float(scores.mean()) for name, scores in values.items()}
    return curves


def _queries(
    collection: Collection, found: _Found, values: dict[str, npt.NDArray[np.float64]]
) -> dict[str, QueryResult]:
    return {
        query: QueryResult(
            [round(float(scores[row]), 6) for scores in values.values()],
            [
                (d, round(s, 6))
                for d, s in zip(found.rankings[query], found.cosines[query], strict=True)
            ][:_KEPT_DOCUMENTS],
            collection.languages.get(query),
        )
        for row, query in enumerate(collection.qrels)
    }


def _worst(
    collection: Collection, found: _Found, scores: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Return the queries of lowest score; of equal ones, those most certain of a wrong document."""
    ids = list(collection.qrels)
    order = sorted(range(len(ids)), key=lambda n: (scores[n], -_certainty(found, ids[n])))
    return [
        _failure(collection, found, ids[n], float(scores[n]))
        for n in order[:_WORST_QUERIES]
        if scores[n] < 1
    ]


def _certainty(found: _Found, query: str) -> float:
    return found.cosines[query][0] if found.cosines[query] else 0.0


def _failure(collection: Collection, found: _Found, query: str, score: float) -> dict[str, Any]:
    relevant = [d for d, grade in collection.qrels[query].items() if grade > 0]
    ranking, cosines = found.rankings[query], found.cosines[query]
    return {
        "query": query,
        "text": _shown(collection.queries[query]),
        "language": collection.languages.get(query),
        "score": score,
        "wanted": [
            {
                "id": d,
                "text": _shown(collection.documents[d]),
                "rank": ranking.index(d) + 1 if d in ranking else None,
            }
            for d in relevant[:_SHOWN_DOCUMENTS]
        ],
        "found": [
            {
                "id": d,
                "text": _shown(collection.documents[d]),
                "cosine": round(s, 4),
                "relevant": d in relevant,
            }
            for d, s in list(zip(ranking, cosines, strict=True))[:_SHOWN_DOCUMENTS]
        ],
    }


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
