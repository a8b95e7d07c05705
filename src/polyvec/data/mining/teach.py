"""What a teacher is asked to embed; its vectors are on disk when it is let go."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from polyvec.data.mining.approximate import neighbour_index
from polyvec.data.mining.plan import Group, Plan
from polyvec.data.mining.vectors import Reading, VectorStore
from polyvec.engine.peers import Peer

Progress = Callable[[str, int, int], None]
"""Called with (stage, how many more are done, of how many)."""


@dataclass
class Teacher:
    """A teacher's vectors, on disk."""

    facts: dict[str, Any]
    corpus: dict[Reading, list[Path]]
    texts: dict[tuple[int, Reading, Reading | None], list[Path]]
    """(part, the group's reading, the queries' reading; None for positives that are not in the
    corpus) -> shards."""
    indexes: dict[Reading, Any] = field(default_factory=dict)
    """For approximate search: the corpus's graph of neighbours."""


def embed(plan: Plan, peer: Peer, store: VectorStore, progress: Progress) -> Teacher:
    """Embed the corpus, the queries and their positives with a teacher."""
    teacher = Teacher({}, {}, {})
    for part, groups in enumerate(plan.parts):
        for group in groups:
            _embed_group(plan, _Shards(peer, store, progress), part, group, teacher)
    teacher.facts = {
        "name": peer.name,
        "fingerprint": peer.fingerprint,
        "dimension": peer.dimension,
        "takes_instructions": peer.takes_instructions,
        "cut_texts": peer.cut,
    }
    return teacher


def _report(progress: Progress, stage: str, total: int, count: int) -> None:
    progress(stage, count, total)


@dataclass(frozen=True)
class _Shards:
    """Texts to shards, with progress."""

    peer: Peer
    store: VectorStore
    progress: Progress

    def of(self, stage: str, texts: Iterable[str], total: int, reading: Reading) -> list[Path]:
        def done(count: int) -> None:
            self.progress(f"{stage} ({self.peer.name})", count, total)

        return self.store.shards(self.peer, texts, reading, done)


def _embed_group(plan: Plan, shards: _Shards, part: int, group: Group, teacher: Teacher) -> None:
    own = group.reading
    if own not in teacher.corpus:
        texts = (document.text for document in plan.corpus.documents(plan.index))
        teacher.corpus[own] = shards.of("corpus", texts, plan.index.rows, own)
        if plan.settings.search == "approximate":
            paths, total = teacher.corpus[own], plan.index.rows
            stage = f"index ({shards.peer.name})"
            done = partial(_report, shards.progress, stage, total)
            teacher.indexes[own] = neighbour_index(paths, done)
    _, positives = plan.positives(group)  # the others are in the corpus
    teacher.texts[part, own, None] = shards.of("positives", positives, plan.mined, own)
    for reading, numbers in plan.by_query_reading(group).items():
        queries = [plan.records[number].query for number in numbers]
        teacher.texts[part, own, reading] = shards.of("queries", queries, plan.mined, reading)
