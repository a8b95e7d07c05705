"""Classifiers: judged on texts they have not seen, saved without pickle, applied as trained."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from polyvec.errors import InputError, MissingExtraError
from polyvec.evaluate.classifier import (
    judge_classifier,
    load_classifier,
    save_classifier,
    train_classifier,
)
from tests.command import Command
from tests.tiny import shape, weights, write_model


def blobs(
    labels: int, each: int, noise: float, seed: int = 0
) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], list[str]]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(labels, 16))
    names = [f"l{n}" for n in range(labels) for _ in range(each)]
    vectors = np.repeat(centres, each, axis=0) + noise * random.normal(size=(labels * each, 16))
    return vectors.astype(np.float32), names


@pytest.mark.parametrize("labels", [2, 4])
def test_probabilities_are_scikit_learns(labels: int) -> None:
    vectors, names = blobs(labels, 20, 1.0)
    classifier = train_classifier(vectors, names, {})
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    tried = [LogisticRegression(C=c, max_iter=2_000).fit(unit, names) for c in (1, 10, 100)]
    ours = classifier.probabilities(vectors)
    assert min(np.abs(ours - model.predict_proba(unit)).max() for model in tried) < 1e-5
    assert ours.sum(axis=1) == pytest.approx(1)


def test_easy_texts_are_told_apart_and_noise_is_not() -> None:
    easy = judge_classifier(*blobs(3, 20, 0.3))
    assert easy.macro_f1.mean == easy.accuracy.mean == 1
    assert easy.experiments == 15
    vectors, names = blobs(2, 40, 1.0)
    shuffled = list(np.random.default_rng(1).permutation(names))
    chance = judge_classifier(vectors, shuffled)
    assert 0.3 < chance.accuracy.mean < 0.65
    assert chance.accuracy.deviation > 0
    assert chance.majority_accuracy == 0.5


def test_few_labels() -> None:
    few = judge_classifier(*blobs(3, 30, 1.2), shots=2, repeats=10)
    many = judge_classifier(*blobs(3, 30, 1.2), shots=20, repeats=10)
    assert (few.train_texts, many.train_texts, few.experiments) == (6, 60, 10)
    assert few.macro_f1.mean < many.macro_f1.mean


def test_f1_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    from polyvec.evaluate.classifier import _f1

    random = np.random.default_rng(2)
    names = np.array(["a", "b", "c"])
    truth, given = names[random.integers(0, 3, 50)], names[random.integers(0, 3, 50)]
    assert _f1(truth, given, names) == pytest.approx(f1_score(truth, given, average=None))
    assert np.isnan(_f1(truth[:0], given[:0], names)).all()


def test_a_classifier_is_read_as_it_was_written(tmp_path: Path) -> None:
    vectors, names = blobs(3, 6, 1.0)
    classifier = train_classifier(vectors, names, {"model": "m", "fingerprint": "f"})
    save_classifier(tmp_path / "c.npz", classifier, None)
    read = load_classifier(tmp_path / "c.npz")
    assert (read.labels, read.made_by) == (classifier.labels, classifier.made_by)
    assert np.array_equal(read.probabilities(vectors), classifier.probabilities(vectors))
    with pytest.raises(InputError, match=r"takes vectors of 16 numbers; given: \[3, 8\]"):
        read.probabilities(vectors[:3, :8])


def test_other_files_are_no_classifiers(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(b"PK no zip")
    with pytest.raises(InputError, match="is no classifier"):
        load_classifier(path)
    np.savez(path, facts=np.array([object()]))
    with pytest.raises(InputError, match="is no classifier; 'polyvec"):  # a pickle is never opened
        load_classifier(path)
    with pytest.raises(InputError, match="there is no such file"):
        load_classifier(tmp_path / "none.npz")
    np.savez(path, facts=np.frombuffer(b'{"format": "x"}', np.uint8), weights=[0], bias=[0])
    with pytest.raises(InputError, match="is a 'x'; this polyvec reads 'polyvec classifier 1'"):
        load_classifier(path)


def test_labels_that_cannot_be_learned() -> None:
    vectors, names = blobs(2, 4, 1.0)
    with pytest.raises(InputError, match="all 8 texts have 'x'"):
        judge_classifier(vectors, ["x"] * 8)
    with pytest.raises(InputError, match="The label 'l0' has 4 texts; --folds 5 needs at least 5"):
        judge_classifier(vectors, names)
    with pytest.raises(InputError, match="--shots 4 and one to answer needs at least 5"):
        judge_classifier(vectors, names, shots=4)
    with pytest.raises(InputError, match="8 texts have 7 labels"):
        judge_classifier(vectors, names[1:])


def test_without_scikit_learn_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'polyvec\[classify\]'"):
        train_classifier(*blobs(2, 4, 1.0), {})


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    for seed in (0, 1):
        config = shape(is_causal=False)
        write_model(tmp_path / f"m{seed}", config, tensors=weights(config, seed))
    fox, dog = "the quick brown fox jumps", "собаку ленивую лиса"
    rows = [(f"{fox} {n}", "fox") for n in range(8)] + [(f"{dog} {n}", "dog") for n in range(8)]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_from_labelled_texts_to_answers(run: Command, setup: Path) -> None:
    model = ("-m", setup / "m0")
    output = setup / "c.npz"
    result = run("classify", "train", setup / "t.jsonl", "-o", output, *model)
    assert result.code == 0, result.err
    assert "16 texts, 2 labels, 15 experiments with 13 texts to train on" in result.out
    assert "macro F1 1.000 ± 0.000" in result.out
    assert "always the most frequent label: accuracy 0.500" in result.out
    applied = run("classify", "apply", output, "-", stdin="the brown fox\nсобаку лиса\n")
    assert [line.split("\t")[:2] for line in applied.out.splitlines()] == [
        ["0", "fox"],
        ["1", "dog"],
    ]
    facts = json.loads(run("classify", "apply", output, "-", "--json", stdin="лиса\n").out)
    assert facts[0]["label"] == "dog"
    assert sum(facts[0]["probabilities"].values()) == pytest.approx(1)
    again = run("classify", "train", setup / "t.jsonl", "-o", output, *model)
    assert (again.code, "use --force" in again.err) == (2, True)


def test_another_model_is_refused(run: Command, setup: Path) -> None:
    output = setup / "c.npz"
    train = ("classify", "train", setup / "t.jsonl", "-m", setup / "m0", "-o", output, "--json")
    assert json.loads(run(*train, "--shots", "2").out)["judgement"]["train_texts"] == 4
    result = run("classify", "apply", output, "-", "-m", setup / "m1", stdin="x\n")
    assert result.code == 2
    assert "was trained on vectors of" in result.err
    result = run("classify", "apply", output, "-", "--max-tokens", "3", stdin="x\n")
    assert "Use the same model and --precision, or train again" in result.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--label-column", "team"), "has no column 'team'"),
        (("--output", "c.pkl"), "a classifier's name ends in .npz"),
        (("--folds", "9"), "--folds 9 needs at least 9"),
        (("--instruction", "x", "--role", "document"), "An instruction is for queries"),
    ],
)
def test_bad_options(run: Command, setup: Path, options: tuple[str, ...], words: str) -> None:
    result = run("classify", "train", setup / "t.jsonl", "-m", setup / "m0", *options)
    assert (result.code, words in result.err) == (2, True), result.err
    (setup / "t.jsonl").write_text('{"text": "x", "label": ""}')
    result = run("classify", "train", setup / "t.jsonl", "-m", setup / "m0")
    assert "line 1 has no label" in result.err
