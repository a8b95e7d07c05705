"""Whether an embedder agrees that a record's positive belongs to its query."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from polyvec.engine.peers import Peer, Vectors
from polyvec.metrics import unit
from polyvec.records.record import Record


class Verdict(NamedTuple):
    """Whether a record is kept, and the cosine of its query and positive."""

    kept: bool
    score: float


def confirm(records: Sequence[Record], peer: Peer, rank: int, min_score: float) -> list[Verdict]:
    """Keep records whose positive the embedder would find (Dai et al. 2022, Promptagator, 3.2).

    The positive must be nearer to the query than every negative of its own, have a cosine of at
    least ``min_score``, and be among the ``rank`` nearest of all records' positives; labels of a
    classification compete with those of their own record only.
    """
    verdicts: list[Verdict | None] = [None] * len(records)
    groups: dict[tuple[str, str | None], list[int]] = {}
    for number, record in enumerate(records):
        groups.setdefault((record.task, record.task_instruction), []).append(number)
    for numbers in groups.values():
        group = [records[number] for number in numbers]
        for number, verdict in zip(numbers, _judged(group, peer, rank, min_score), strict=True):
            verdicts[number] = verdict
    return [verdict for verdict in verdicts if verdict is not None]


def _judged(records: Sequence[Record], peer: Peer, rank: int, min_score: float) -> list[Verdict]:
    told = records[0].task_instruction if peer.takes_instructions else None
    queries_QD = unit(peer.encode_query([record.query for record in records], told))
    positives_QD = _sides(records, peer, [record.positives[0] for record in records], told)
    negatives_ND = _sides(records, peer, [x for record in records for x in record.negatives], told)
    own_Q = (queries_QD * positives_QD).sum(axis=1)
    ranks_Q = np.ones(len(records), int)
    if records[0].task != "classification":
        ranks_Q += (queries_QD @ positives_QD.T > own_Q[:, None] + 1e-6).sum(axis=1)
    verdicts, start = [], 0
    for number, record in enumerate(records):
        stop = start + len(record.negatives)
        worst = (negatives_ND[start:stop] @ queries_QD[number]).max(initial=-np.inf)
        score, start = float(own_Q[number]), stop
        kept = score > worst and score >= min_score and ranks_Q[number] <= rank
        verdicts.append(Verdict(bool(kept), score))
    return verdicts


def _sides(
    records: Sequence[Record], peer: Peer, texts: Sequence[str], told: str | None
) -> Vectors:
    if not texts:
        return np.zeros((0, peer.dimension), np.float32)
    if records[0].symmetric:
        return unit(peer.encode_query(texts, told))
    return unit(peer.encode_document(texts))
