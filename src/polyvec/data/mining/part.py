"""One part of the records: searched, chosen, counted, and kept in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from polyvec.data.mining.approximate import search_index
from polyvec.data.mining.choose import Choice, Opinion, choose
from polyvec.data.mining.margin import thresholds
from polyvec.data.mining.plan import Group, Plan
from polyvec.data.mining.search import Found, Ints, search
from polyvec.data.mining.tally import Tally
from polyvec.data.mining.teach import Teacher
from polyvec.data.mining.vectors import Vectors, gather, open_shard, read_shards

_CHECKED_QUERIES = 16
"""Of each part so many are searched exactly too, when search is approximate, and compared."""


@dataclass(frozen=True)
class Done:
    """A part's result, as it is kept in the partial folder."""

    numbers: Ints
    rows: Ints
    """``[records, negatives]``, -1 where there are fewer."""
    facts: dict[str, Any]

    @classmethod
    def of(
        cls,
        numbers: Sequence[int],
        choices: Sequence[Choice],
        tally: Tally,
        samples: list[dict[str, Any]],
        count: int,
    ) -> "Done":
        """Pack what was found."""
        rows = np.full((len(numbers), count), -1, dtype=np.int64)
        for place, choice in enumerate(choices):
            rows[place, : len(choice.rows)] = choice.rows
        facts = {"tally": tally.facts(), "samples": samples}
        return cls(np.array(numbers, dtype=np.int64), rows, facts)

    def write(self, path: Path) -> None:
        """Write it under a temporary name, then rename."""
        partial = path.with_name(f".{path.name}.writing")
        with partial.open("wb") as file:
            facts = np.frombuffer(orjson.dumps(self.facts), dtype=np.uint8)
            np.savez(file, numbers=self.numbers, rows=self.rows, facts=facts)
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Done":
        """Read what :meth:`write` wrote."""
        with np.load(path) as arrays:
            facts = orjson.loads(arrays["facts"].tobytes())
            return cls(arrays["numbers"], arrays["rows"], facts)


def search_part(plan: Plan, part: int, teachers: Sequence[Teacher], device: str) -> Done:
    """Find and choose the negatives of a part's records."""
    settings = plan.settings
    tally = Tally.empty(len(teachers), settings.negatives)
    numbers: list[int] = []
    choices: list[Choice] = []
    samples: list[dict[str, Any]] = []
    for group in plan.parts[part]:
        pairs = plan.excluded(group)
        opinions = [_opinion(plan, part, group, teacher, pairs, device) for teacher in teachers]
        generators = [np.random.default_rng([settings.seed, n]) for n in group.numbers]
        found = choose(opinions, settings.negatives, settings.skip, settings.sampling, generators)
        tally.add(opinions, found, len(pairs[0]))
        samples += _samples(plan, group, opinions, found)
        numbers += group.numbers
        choices += found
    return Done.of(numbers, choices, tally, samples, settings.negatives)


def _opinion(
    plan: Plan, part: int, group: Group, teacher: Teacher, pairs: tuple[Ints, Ints], device: str
) -> Opinion:
    queries_QD = _queries(plan, part, group, teacher)
    positive_scores = _positive_scores(plan, part, group, teacher, queries_QD)
    limits = thresholds(positive_scores, plan.settings.margin, plan.settings.margin_value)
    shards = teacher.corpus[group.reading]
    depth = min(plan.settings.depth, plan.index.rows)

    def exactly(queries: slice) -> Found:
        wanted = np.flatnonzero((pairs[0] >= queries.start) & (pairs[0] < queries.stop))
        own = (pairs[0][wanted] - queries.start, pairs[1][wanted])
        asked, scores = queries_QD[queries], positive_scores[queries]
        return search(asked, read_shards(shards), scores, limits[queries], own, depth, device)

    if plan.settings.search == "exact":
        found = exactly(slice(0, len(queries_QD)))
        return Opinion(found, queries_QD, positive_scores, limits, shards)
    index = teacher.indexes[group.reading]
    found = search_index(queries_QD, index, shards, positive_scores, limits, pairs, depth)
    checked = exactly(slice(0, _CHECKED_QUERIES)).rows_QK
    shared = [
        len(np.intersect1d(exact[exact >= 0], rows))
        for exact, rows in zip(checked, found.rows_QK, strict=False)
    ]
    counts = int((checked >= 0).sum()), sum(shared)
    return Opinion(found, queries_QD, positive_scores, limits, shards, *counts)


def _queries(plan: Plan, part: int, group: Group, teacher: Teacher) -> Vectors:
    place = {number: i for i, number in enumerate(group.numbers)}
    vectors = np.zeros((len(place), teacher.facts["dimension"]), np.float32)
    for reading, numbers in plan.by_query_reading(group).items():
        read = _read(teacher.texts[part, group.reading, reading], vectors.shape[1])
        vectors[[place[number] for number in numbers]] = read
    return vectors


def _positive_scores(
    plan: Plan, part: int, group: Group, teacher: Teacher, queries_QD: Vectors
) -> Vectors:
    """Return each query's cosine with its positive, the lowest where it has several."""
    row_of, others = plan.positives(group)
    rows = np.unique(np.array(list(row_of.values()), dtype=np.int64))
    known = gather(teacher.corpus[group.reading], rows)
    new = _read(teacher.texts[part, group.reading, None], known.shape[1])
    vectors = np.concatenate([known, new])
    place = {text: int(np.searchsorted(rows, row)) for text, row in row_of.items()}
    place |= {text: len(rows) + i for i, text in enumerate(others)}
    lowest = [
        min(float(vectors[place[text]] @ query) for text in plan.records[number].positives)
        for number, query in zip(group.numbers, queries_QD, strict=True)
    ]
    return np.array(lowest, np.float32)


def _samples(
    plan: Plan, group: Group, opinions: Sequence[Opinion], choices: Sequence[Choice]
) -> list[dict[str, Any]]:
    """Return the records to show, with rows in place of texts."""
    samples = []
    for place, number in enumerate(group.numbers):
        if number not in plan.shown:
            continue
        choice = choices[place]
        negatives = [
            {"row": int(row), "scores": scores.tolist()}
            for row, scores in zip(choice.rows, choice.scores_TC.T, strict=True)
        ]
        rejected = [x for t, opinion in enumerate(opinions) for x in _rejected(t, opinion, place)]
        positives = [float(opinion.positive_scores_Q[place]) for opinion in opinions]
        sample = {"record": number, "positive_scores": positives}
        samples.append({**sample, "negatives": negatives, "rejected": rejected})
    return samples


def _rejected(teacher: int, opinion: Opinion, place: int) -> list[dict[str, Any]]:
    rows = opinion.found.rejected_rows_QK[place]
    scores = opinion.found.rejected_scores_QK[place]
    return [
        {"teacher": teacher, "row": int(row), "score": float(score)}
        for row, score in zip(rows, scores, strict=True)
        if row >= 0
    ]


def _read(paths: Sequence[Path], dimension: int) -> Vectors:
    empty = np.zeros((0, dimension), np.float32)
    return np.concatenate([empty, *(open_shard(path) for path in paths)], dtype=np.float32)
