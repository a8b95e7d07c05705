"""A classifier on vectors: logistic regression, trained on few labels, judged and saved.

Training needs scikit-learn; a saved classifier is two arrays and some words in an ``.npz``, no
pickle, and is applied with numpy alone.
"""

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from polyvec.errors import InputError
from polyvec.evaluate.learning import sklearn_module
from polyvec.evaluate.results import write_file
from polyvec.metrics import unit

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]

FORMAT = "polyvec classifier 1"
_STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse strengths of regularization tried: unit vectors want weaker than scikit-learn's 1."""
_FEW = 10.0
"""The one taken where there are too few labels to try several."""


@dataclass(frozen=True)
class Spread:
    """A mean over experiments, and their standard deviation."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Judgement:
    """How good a classifier is on texts it was not trained on."""

    macro_f1: Spread
    accuracy: Spread
    majority_accuracy: float
    """What always answering the most frequent label would give."""
    experiments: int
    train_texts: int
    """Texts that each experiment was trained on, in the mean."""
    f1: dict[str, float]
    """F1 of each label, the mean over experiments."""


@dataclass(frozen=True)
class Classifier:
    """A linear classifier on unit vectors."""

    labels: list[str]
    weights_CD: Floats
    """One row a label; a single row for two labels, of which it is the second."""
    bias_C: Floats
    made_by: dict[str, Any] = field(default_factory=dict)
    """What decides the vectors: model, fingerprint, role, instruction."""

    def probabilities(self, vectors_ND: Vectors) -> Floats:
        """Return ``float64 [texts, labels]``, rows that sum to 1.

        Raises:
            InputError: The vectors have another length than those it was trained on.
        """
        if vectors_ND.ndim != 2 or vectors_ND.shape[1] != self.weights_CD.shape[1]:
            raise InputError(
                f"The classifier takes vectors of {self.weights_CD.shape[1]} numbers; given: "
                f"{list(vectors_ND.shape)}."
            )
        scores_NC = unit(vectors_ND).astype(np.float64) @ self.weights_CD.T + self.bias_C
        if len(self.labels) == 2:
            scores_NC = np.hstack([np.zeros_like(scores_NC), scores_NC])
        shifted = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
        shares: Floats = shifted / shifted.sum(axis=1, keepdims=True)
        return shares


def train_classifier(
    vectors_ND: Vectors, labels: Sequence[str], made_by: dict[str, Any], seed: int = 0
) -> Classifier:
    """Train on all texts.

    Raises:
        InputError: There is one label only, or not one a text.
        MissingExtraError: scikit-learn is not installed.
    """
    answers = _checked(vectors_ND, labels)
    model = _fitted(unit(vectors_ND), answers, seed)
    return Classifier([str(c) for c in model.classes_], model.coef_, model.intercept_, made_by)


def judge_classifier(
    vectors_ND: Vectors,
    labels: Sequence[str],
    *,
    folds: int = 5,
    repeats: int = 3,
    shots: int | None = None,
    seed: int = 0,
) -> Judgement:
    """Judge by cross-validation, or with a few texts a label.

    Args:
        vectors_ND: One a text.
        labels: One a text.
        folds: Parts; each is answered by a classifier trained on the others.
        repeats: How often the texts are divided anew; with ``shots``, how many draws.
        shots: Train on so many texts a label, drawn at random, and answer all others.
        seed: Of the draws.

    Raises:
        InputError: A label has too few texts for that.
        MissingExtraError: scikit-learn is not installed.
    """
    answers = _checked(vectors_ND, labels)
    scaled = unit(vectors_ND)
    splits = list(_splits(answers, folds, repeats, shots, seed))
    names, counts = np.unique(answers, return_counts=True)
    f1s, accuracies = [], []
    for train, test in splits:
        given = _fitted(scaled[train], answers[train], seed).predict(scaled[test])
        f1s.append(_f1(answers[test], given, names))
        accuracies.append(float(np.mean(given == answers[test])))
    by_label = np.nanmean(np.array(f1s), axis=0)
    return Judgement(
        _spread([float(np.nanmean(f1)) for f1 in f1s]),
        _spread(accuracies),
        float(counts.max() / counts.sum()),
        len(splits),
        round(float(np.mean([len(train) for train, _ in splits]))),
        {str(name): float(f1) for name, f1 in zip(names, by_label, strict=True)},
    )


def save_classifier(path: Path, classifier: Classifier, judgement: Judgement | None) -> None:
    """Write a classifier as ``.npz``, under a temporary name, then rename."""
    facts = {
        "format": FORMAT,
        "labels": classifier.labels,
        "made_by": classifier.made_by,
        "judgement": None if judgement is None else asdict(judgement),
    }
    buffer = io.BytesIO()
    np.savez(
        buffer,
        facts=np.frombuffer(orjson.dumps(facts), np.uint8),
        weights=classifier.weights_CD,
        bias=classifier.bias_C,
    )
    write_file(path, buffer.getvalue())


def load_classifier(path: Path) -> Classifier:
    """Read what :func:`save_classifier` wrote; never a pickle.

    Raises:
        InputError: It cannot be read, or is something else.
    """
    if not path.is_file():
        raise InputError(f"{path} cannot be read: there is no such file.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            facts = orjson.loads(arrays["facts"].tobytes())
            weights, bias = arrays["weights"], arrays["bias"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is no classifier; 'polyvec classify train' writes one."
        ) from error
    if facts.get("format") != FORMAT:
        raise InputError(f"{path} is a {facts.get('format')!r}; this polyvec reads {FORMAT!r}.")
    return Classifier(facts["labels"], weights, bias, facts["made_by"])


def _checked(vectors_ND: Vectors, labels: Sequence[str]) -> Labels:
    if len(labels) != len(vectors_ND):
        raise InputError(f"{len(vectors_ND)} texts have {len(labels)} labels; one each is needed.")
    if len(set(labels)) < 2:
        raise InputError(
            f"A classifier tells labels apart; all {len(labels)} texts have "
            f"{', '.join(map(repr, set(labels))) or 'none'}."
        )
    return np.array(labels, dtype=np.str_)


def _fitted(scaled_ND: Vectors, answers: Labels, seed: int) -> Any:  # noqa: ANN401 (untyped)
    """Fit, with the regularization that inner cross-validation finds best on these texts alone."""
    linear, selection = sklearn_module("linear_model"), sklearn_module("model_selection")
    model = linear.LogisticRegression(C=_FEW, max_iter=2_000)
    fewest = int(np.unique(answers, return_counts=True)[1].min())
    if fewest < 3:
        return model.fit(scaled_ND, answers)
    inner = selection.StratifiedKFold(3, shuffle=True, random_state=seed)
    search = selection.GridSearchCV(model, {"C": list(_STRENGTHS)}, scoring="f1_macro", cv=inner)
    return search.fit(scaled_ND, answers).best_estimator_


def _splits(
    answers: Labels, folds: int, repeats: int, shots: int | None, seed: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    names, counts = np.unique(answers, return_counts=True)
    needed = folds if shots is None else shots + 1
    if counts.min() < needed or needed < 2:
        wanted = f"--folds {folds}" if shots is None else f"--shots {shots} and one to answer"
        few = names[counts.argmin()]
        raise InputError(
            f"The label {str(few)!r} has {counts.min()} texts; {wanted} needs at least "
            f"{max(needed, 2)}. Give more texts of it, or ask for less."
        )
    if shots is None:
        kind = sklearn_module("model_selection").RepeatedStratifiedKFold
        divided = kind(n_splits=folds, n_repeats=repeats, random_state=seed)
        yield from divided.split(answers, answers)
        return
    draw = np.random.default_rng(seed)
    places = [np.flatnonzero(answers == name) for name in names]
    for _ in range(repeats):
        train = np.concatenate([draw.choice(p, shots, replace=False) for p in places])
        yield train, np.setdiff1d(np.arange(len(answers)), train)


def _f1(truth: Labels, given: Labels, names: Labels) -> list[float]:
    """Return F1 a label; NaN for one that is neither there nor answered, which says nothing."""
    right = np.array([np.sum((truth == name) & (given == name)) for name in names])
    both = np.array([np.sum(truth == name) + np.sum(given == name) for name in names])
    return [float(2 * r / b) if b else float("nan") for r, b in zip(right, both, strict=True)]


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values)))
