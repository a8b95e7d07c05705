"""Several models on one collection, one after another; what is finished is kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from polyvec.engine.peers import SENTENCE_TRANSFORMERS, open_peer
from polyvec.errors import InputError, PolyvecError
from polyvec.evaluate.cache import VectorCache
from polyvec.evaluate.collection import Collection
from polyvec.evaluate.models import describe
from polyvec.evaluate.question import Progress, Question, evaluate_model
from polyvec.evaluate.results import ModelResult, earlier_result, result_file, write_result


@dataclass(frozen=True)
class Candidate:
    """A model to judge, and how it is opened."""

    model: str
    precision: str = "auto"
    label: str = ""
    """What its result goes by; empty: the model's name."""

    @property
    def name(self) -> str:
        """Return the name of its result."""
        return self.label or self.model


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate: a result, or why there is none."""

    candidate: Candidate
    result: ModelResult | None = None
    error: PolyvecError | None = None
    kept: bool = False
    """The result is of an earlier run."""
    cut: int = 0
    """Texts that were longer than the model reads."""


@dataclass(frozen=True)
class Places:
    """Where results and vectors are kept."""

    output: Path
    cache: Path
    restart: bool = False
    """Replace results of earlier runs instead of keeping or refusing them."""


def candidates(models: Sequence[str], precisions: Sequence[str]) -> list[Candidate]:
    """Return every model at every precision; models that others run have only their own.

    Raises:
        InputError: A model is given twice.
    """
    twice = [model for n, model in enumerate(models) if model in models[:n]]
    if twice:
        raise InputError(f"The model {twice[0]} is given twice.")
    several = len(set(precisions)) > 1
    chosen = []
    for model, precision in product(models, dict.fromkeys(precisions)):
        if "://" in model or model.startswith(SENTENCE_TRANSFORMERS):
            candidate = Candidate(model)
        else:
            candidate = Candidate(model, precision, f"{model} {precision}" if several else "")
        if candidate not in chosen:
            chosen.append(candidate)
    return chosen


def evaluate_models(
    wanted: Sequence[Candidate],
    collection: Collection,
    question: Question,
    places: Places,
    options: dict[str, Any],
    watch: Callable[[str, int], Progress | None] | None = None,
) -> Iterator[Outcome]:
    """Judge models one after another; one that fails does not lose the others.

    Args:
        wanted: The models.
        collection: What is searched.
        question: How it is searched and judged.
        places: Where results and vectors are kept.
        options: Passed to :func:`polyvec.engine.peers.open_peer`.
        watch: Given a name and the number of texts, returns a progress callback.
    """
    texts = len(collection.queries) + len(collection.documents)
    for candidate in wanted:
        progress = None if watch is None else watch(candidate.name, texts)
        try:
            yield _judge(candidate, collection, question, places, options, progress)
        except PolyvecError as error:
            yield Outcome(candidate, error=error)


def _judge(
    candidate: Candidate,
    collection: Collection,
    question: Question,
    places: Places,
    options: dict[str, Any],
    progress: Progress | None,
) -> Outcome:
    peer = open_peer(candidate.model, precision=candidate.precision, **options)
    path = result_file(places.output, candidate.name)
    if not places.restart:
        asked = (peer.fingerprint, collection.fingerprint(), question.facts())
        earlier = earlier_result(path, *asked)
        if earlier is not None:
            return Outcome(candidate, earlier, kept=True)
    cache = VectorCache(places.cache, peer)
    about = describe(peer)
    result = evaluate_model(candidate.name, cache, collection, question, about, progress)
    write_result(path, result)
    return Outcome(candidate, result, cut=peer.cut)
