"""Retrieval on held-out records while a model is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from polyvec.errors import InputError
from polyvec.metrics import Vectors, nearest, parse_metric, query_metrics, unit
from polyvec.records.read import load_records
from polyvec.records.record import Record
from polyvec.train.batches import Reader, Text, document, pack, plan_chunks
from polyvec.train.network import Network
from polyvec.train.ranks import Ranks
from polyvec.train.recipe import EvaluationSettings


@dataclass(frozen=True)
class HeldOut:
    """One source's queries, the documents they search, and which are right."""

    name: str
    queries: list[Text]
    documents: list[Text]
    relevant: list[dict[str, int]]
    """For each query its documents' places, as strings, with grade 1."""


def read_held_out(settings: EvaluationSettings) -> list[HeldOut]:
    """Read the held-out records; documents are all positives and negatives of a source, once.

    Raises:
        InputError: A file cannot be used, or the metric is unknown.
    """
    parse_metric(settings.metric)
    paths = [Path(path) for path in settings.paths]
    by_source: dict[str, list[Record]] = {}
    for record in load_records(paths, settings.columns):
        by_source.setdefault(record.source, []).append(record)
    if settings.paths and not by_source:
        raise InputError(f"There are no records in {', '.join(settings.paths)}.")
    return [_held_out(name, records, settings.max_queries) for name, records in by_source.items()]


def _held_out(name: str, records: Sequence[Record], max_queries: int) -> HeldOut:
    places: dict[Text, int] = {}
    right: dict[Text, dict[str, int]] = {}
    for record in records:
        for text in (*record.positives, *record.negatives):
            places.setdefault(document(record, text), len(places))
        query = Text(record.query, "query", record.task_instruction)
        for text in record.positives:
            place = places[document(record, text)]
            right.setdefault(query, {})[str(place)] = 1
    chosen = dict(islice(right.items(), max_queries))
    return HeldOut(name, list(chosen), list(places), list(chosen.values()))


def evaluate(
    network: Network,
    reader: Reader,
    held_out: Sequence[HeldOut],
    metric: str,
    max_tokens: int,
    ranks: Ranks,
) -> dict[str, float]:
    """Return the metric of each source, and under ``mean`` the mean of them."""
    _, cutoff = parse_metric(metric)
    rows = _rows(held_out)
    vectors_ND = unit(embed(network, reader, list(rows), max_tokens, ranks))
    found = {}
    for part in held_out:
        queries_QD, documents_ND = (
            vectors_ND[[rows[text] for text in texts]] for texts in (part.queries, part.documents)
        )
        ranked, _ = nearest(queries_QD, documents_ND, cutoff)
        scores = [
            query_metrics([str(row) for row in ranking], relevance, (metric,))[metric]
            for ranking, relevance in zip(ranked.tolist(), part.relevant, strict=True)
        ]
        found[part.name] = float(np.mean(scores))
    return {**found, "mean": float(np.mean(list(found.values())))}


def _rows(held_out: Sequence[HeldOut]) -> dict[Text, int]:
    """Number every text once: sources may share their documents."""
    rows: dict[Text, int] = {}
    for part in held_out:
        for text in (*part.queries, *part.documents):
            rows.setdefault(text, len(rows))
    return rows


def embed(
    network: Network, reader: Reader, texts: Sequence[Text], max_tokens: int, ranks: Ranks
) -> Vectors:
    """Return the texts' vectors, ``float32 [n, D]``; ranks share the work."""
    own = list(range(ranks.rank, len(texts), ranks.world))
    ids = reader.ids([texts[i] for i in own])
    lengths = [len(x) for x in ids]
    least = ranks.highest(len(plan_chunks(lengths, max_tokens)))
    chunks = plan_chunks(lengths, max_tokens, least)
    counts = [len(range(r, len(texts), ranks.world)) for r in range(ranks.world)]
    with torch.no_grad():
        parts = [network(pack([ids[i] for i in chunk] or [[0]], ranks.device)) for chunk in chunks]
        rows = torch.cat([p[: len(c)] for p, c in zip(parts, chunks, strict=True)])
        places = [own[i] for chunk in chunks for i in chunk]
        gathered = ranks.gather_rows(rows, counts)
    order = _all_places(places, counts, ranks)
    vectors = np.empty((len(texts), gathered.shape[1]), np.float32)
    vectors[order] = gathered.cpu().numpy()
    return vectors


def _all_places(places: list[int], counts: list[int], ranks: Ranks) -> list[int]:
    column = torch.tensor(places, dtype=torch.int64, device=ranks.device)[:, None]
    return ranks.gather_rows(column, counts)[:, 0].tolist()
