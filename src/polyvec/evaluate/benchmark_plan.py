"""What a benchmark asks of a model, before it starts: texts, tokens, and the hours here."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polyvec.engine.peers import EmbedderPeer, Peer
from polyvec.evaluate.mmteb_instructions import Instructions
from polyvec.spec import Architecture

CHARACTERS_A_TOKEN = 3.5
"""Of a model whose tokenizer is not here, such as a server's."""
_PREFIX_CHARACTERS = len("Instruct: \nQuery: ")
_MIN_PROBE_S = 1.0
_MAX_PROBE_TEXTS = 64
_PROBE = (
    "The harbour was closed for three days while divers searched the wreck of the old ferry.",
    "Die Bibliothek verleiht neuerdings auch Werkzeuge, Nähmaschinen und Musikinstrumente.",
    "La comisión aprobó el informe sobre la calidad del agua después de un largo debate.",
    "Учёные обнаружили в пещере следы древнего поселения и остатки глиняной посуды.",
    "この町では毎年秋に、収穫を祝う祭りが三日間にわたって開かれています。",
    "كان السوق القديم يعج بالتجار القادمين من كل أنحاء البلاد لبيع التوابل والأقمشة.",
    "इस किताब में हिमालय के छोटे गाँवों की कहानियाँ और लोकगीत इकट्ठा किए गए हैं।",
    "Mùa mưa năm nay đến sớm hơn, khiến nhiều con đường ven sông bị ngập nước.",
)
"""Sentences in as many scripts as a multilingual benchmark has, for speed and token length."""


@dataclass(frozen=True)
class Texts:
    """Texts of one kind in a task."""

    count: int
    mean_characters: float
    side: str | None = None


@dataclass(frozen=True)
class Planned:
    """What one task asks of the model."""

    task: str
    kind: str
    texts: int | None
    """None where mteb does not say."""
    tokens: float | None
    done: bool


@dataclass(frozen=True)
class Speed:
    """What the model does here."""

    characters_per_s: float
    characters_a_token: float
    is_exact: bool
    """Whether tokens were counted, and not taken as 3.5 characters."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens in a second."""
        return self.characters_per_s / self.characters_a_token


@dataclass(frozen=True)
class Plan:
    """All tasks, the cheapest first, and what is left of them."""

    tasks: list[Planned]
    speed: Speed
    architecture: Architecture | None
    """The model's shape, where it is known: what other devices take hangs on it."""

    @property
    def tokens(self) -> float:
        """Tokens of the tasks that are not done, where the texts are known."""
        return sum(task.tokens or 0.0 for task in self.tasks if not task.done)

    @property
    def tokens_per_text(self) -> float:
        """The mean of these."""
        texts = sum(task.texts or 0 for task in self.tasks if not task.done)
        return self.tokens / texts if texts else 0.0

    @property
    def hours(self) -> float:
        """Hours they take on this machine."""
        return self.tokens / self.speed.tokens_per_s / 3600


def measure_speed(peer: Peer) -> Speed:
    """Embed sentences in eight scripts for at least a second, unless there are 64 by then."""
    peer.encode_document(_PROBE[:1])  # whatever is prepared on first use
    count, elapsed_s, texts = 1, 0.0, list(_PROBE)
    while elapsed_s < _MIN_PROBE_S and count < _MAX_PROBE_TEXTS:
        count *= 2
        texts = [" ".join(_PROBE[(i + j) % len(_PROBE)] for j in range(4)) for i in range(count)]
        begun = time.perf_counter()
        peer.encode_document(texts)
        elapsed_s = time.perf_counter() - begun
    characters = sum(map(len, texts))
    tokens = _count_tokens(peer, texts)
    ratio = characters / tokens if tokens else CHARACTERS_A_TOKEN
    return Speed(characters / elapsed_s, ratio, tokens is not None)


def _count_tokens(peer: Peer, texts: Sequence[str]) -> int | None:
    if not isinstance(peer, EmbedderPeer):
        return None
    tokens = peer.embedder.tokenizer.encode(texts, peer.embedder.spec, "document")
    return sum(tokens.counts)


def plan(
    tasks: Sequence[Any],
    asked: Mapping[str, Instructions],
    done: Sequence[str],
    peer: Peer,
    speed: Speed,
) -> Plan:
    """Put tasks in order, the cheapest first, so that results come early.

    Texts that tasks share are counted in each, though they are embedded once.

    Args:
        tasks: mteb's tasks.
        asked: Each task's instructions by its name.
        done: Names of tasks with results.
        peer: The model: its limit of tokens cuts long texts.
        speed: What it does here.
    """
    planned = []
    for task in tasks:
        name = task.metadata.name
        texts = list(task_texts(task))
        tokens = _tokens(texts, asked[name], peer, speed) if texts else None
        count = sum(x.count for x in texts) if texts else None
        planned.append(Planned(name, task.metadata.type, count, tokens, name in done))
    planned.sort(key=lambda x: (x.tokens is None, x.tokens or 0.0, x.task))
    if isinstance(peer, EmbedderPeer):
        return Plan(planned, speed, peer.embedder.files.architecture)
    return Plan(planned, speed, None)


def _tokens(texts: Sequence[Texts], asked: Instructions, peer: Peer, speed: Speed) -> float:
    limit = float("inf")
    if isinstance(peer, EmbedderPeer):
        limit = peer.embedder.spec.max_tokens
    total = 0.0
    for part in texts:
        told = asked.of(part.side) if peer.takes_instructions else ""
        written = part.mean_characters + (len(told) + _PREFIX_CHARACTERS if told else 0)
        total += part.count * min(written / speed.characters_a_token, limit)
    return total


def task_texts(task: Any) -> Iterator[Texts]:  # noqa: ANN401 (mteb's AbsTask)
    """Yield what a task embeds, from mteb's statistics or, without any, from its loaded data."""
    stats = task.metadata.descriptive_stats
    if stats:
        yield from _from_statistics(task, stats)
    elif task.data_loaded:
        yield from _from_data(task.dataset)


def _from_statistics(task: Any, stats: Mapping[str, Any]) -> Iterator[Texts]:  # noqa: ANN401
    for split, facts in stats.items():
        is_evaluated = split in task.eval_splits
        for key, found in facts.items():
            if not isinstance(found, dict) or not found.get("total_text_length"):
                continue
            count = int(found.get("unique_texts") or facts["num_samples"])
            if is_evaluated:
                count = _sampled(task, count)
            elif split == getattr(task, "train_split", None):
                count = min(count, _examples(task, facts))
            else:
                continue
            yield Texts(count, float(found["average_text_length"]), _side(key))


def _side(key: str) -> str | None:
    if key.startswith("queries"):
        return "query"
    return "document" if key.startswith("documents") else None


def _sampled(task: Any, count: int) -> int:  # noqa: ANN401 (mteb's AbsTask)
    """Return how many texts a clustering task draws; others take all."""
    share = getattr(task, "max_fraction_of_documents_to_embed", None)
    most = getattr(task, "max_document_to_embed", None)
    return min(count, int(count * share) if share else count, most or count)


def _examples(task: Any, facts: Mapping[str, Any]) -> int:  # noqa: ANN401 (mteb's AbsTask)
    """Return how many training texts a classification task draws at most."""
    labels = (facts.get("label_statistics") or {}).get("unique_labels") or 2
    return int(labels) * int(task.samples_per_label) * int(task.n_experiments)


def _from_data(dataset: Mapping[str, Any]) -> Iterator[Texts]:
    """Yield every column of texts, each distinct text once."""
    found: dict[str | None, set[str]] = {}
    for splits in dataset.values():
        for split in splits.values():
            for side, texts in _columns(split):
                found.setdefault(side, set()).update(texts)
    for side, distinct in found.items():
        mean = sum(map(len, distinct)) / max(1, len(distinct))
        yield Texts(len(distinct), mean, side)


def _columns(split: Any) -> Iterator[tuple[str | None, Sequence[str]]]:  # noqa: ANN401
    if "corpus" in split:
        yield "query", split["queries"]["text"]
        yield "document", split["corpus"]["text"]
        return
    for name in ("sentence1", "sentence2", "text", "sentences"):
        if name in split.column_names:
            yield None, split[name]
