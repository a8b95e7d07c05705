"""What a trained model finds on held-out records, and where BM25 finds nothing.

    python bench/debian_records.py data/debian
    python bench/held_out.py data/debian/held_out.jsonl runs/smol-cpu/model

A source's queries search all documents of the source, as `polyvec train` evaluates them, nDCG@10.
`hard` are the queries whose document is not among the ten that BM25 finds; it has 0 there.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import polyvec
from polyvec.evaluate.offline_sets import bm25_scores
from polyvec.metrics import nearest, query_metrics, unit
from polyvec.train.evaluation import HeldOut, read_held_out
from polyvec.train.recipe import EvaluationSettings

METRIC = "ndcg@10"
Scores = dict[str, list[float]]
"""A model -> the score of each query."""


def main() -> None:
    """Score models and BM25, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("held_out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--max-tokens", type=int, default=48, help="read of a text (%(default)s)")
    parser.add_argument("--max-queries", type=int, default=150, help="a source (%(default)s)")
    stated = parser.parse_args()
    parts = read_held_out(
        EvaluationSettings(paths=(str(stated.held_out),), max_queries=stated.max_queries)
    )
    found = {part.name: {"BM25": _bm25(part)} for part in parts}
    for name in stated.models:
        embedder = polyvec.load(name, max_tokens=stated.max_tokens)
        for part in parts:
            found[part.name][name] = _model(embedder, part)
    print("\n".join(_table(found)))
    print(
        json.dumps(
            {part: {m: float(np.mean(s)) for m, s in x.items()} for part, x in found.items()}
        )
    )


def _model(embedder: polyvec.Embedder, part: HeldOut) -> list[float]:
    queries_QD = unit(embedder.encode_query([text.text for text in part.queries]))
    documents_ND = unit(embedder.encode_document([text.text for text in part.documents]))
    return _scores(nearest(queries_QD, documents_ND, 10)[0], part)


def _bm25(part: HeldOut) -> list[float]:
    texts = (tuple(text.text for text in side) for side in (part.queries, part.documents))
    scores_QN = bm25_scores(*texts)
    # A document without a word of the query is not found.
    ranked_QK = np.argsort(-scores_QN, axis=1, kind="stable")[:, :10]
    ranked_QK[np.take_along_axis(scores_QN, ranked_QK, axis=1) <= 0] = -1
    return _scores(ranked_QK, part)


def _scores(ranked_QK: np.ndarray, part: HeldOut) -> list[float]:
    return [
        query_metrics([str(row) for row in rows if row >= 0], relevance, (METRIC,))[METRIC]
        for rows, relevance in zip(ranked_QK.tolist(), part.relevant, strict=True)
    ]


def _table(found: dict[str, Scores]) -> list[str]:
    models = list(next(iter(found.values())))
    lines = [
        "| source | queries | " + " | ".join(models) + " | hard | " + " | ".join(models) + " |"
    ]
    lines.append("|---" * (3 + 2 * len(models)) + "|")
    for kind in sorted({name.split("-")[0] for name in found}):
        rows = {name: scores for name, scores in found.items() if name.split("-")[0] == kind}
        lines += [_row(name, scores, models) for name, scores in rows.items()]
        lines.append(_means(f"**{kind}**", list(rows.values()), models))
    return lines


def _means(name: str, rows: Sequence[Scores], models: Sequence[str]) -> str:
    """Return a row of the means over sources, and over all their hard queries."""
    joined = {model: [x for scores in rows for x in scores[model]] for model in models}
    cells = _row(name, joined, models).split(" | ")
    cells[2 : 2 + len(models)] = [f"{np.mean([np.mean(x[m]) for x in rows]):.3f}" for m in models]
    return " | ".join(cells)


def _row(name: str, scores: Scores, models: Sequence[str]) -> str:
    hard = [place for place, score in enumerate(scores["BM25"]) if score == 0]
    cells = [name, str(len(scores["BM25"])), *(f"{np.mean(scores[m]):.3f}" for m in models)]
    cells += [
        str(len(hard)),
        *(f"{np.mean([scores[m][i] for i in hard] or [0]):.3f}" for m in models),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
