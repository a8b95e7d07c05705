"""Soups: choices on known landscapes, held-out scores by hand, resuming, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from polyvec.engine.embedder import Embedder
from polyvec.errors import InputError
from polyvec.model.files import ModelFiles, open_model
from polyvec.publish import soup as module
from polyvec.publish.held_out import read_held_out
from polyvec.publish.soup import Kitchen, Score, Shares, cook
from polyvec.spec import Role
from tests.command import Command
from tests.tiny import WORDS, shape, weights, write_model

SHAPE = shape(is_causal=False)


def _peak(*place: float) -> Score:
    """Return a score that is highest at some shares."""
    return lambda shares: -float(np.abs(np.array(shares) - np.array(place)).sum())


def test_greedy_keeps_what_does_not_hurt() -> None:
    """Model 2 is best alone, 0 helps it, 1 does not."""
    tried: list[Shares] = []

    def score(shares: Shares) -> float:
        tried.append(shares)
        own: dict[Shares, float] = {(0, 0, 1): 3.0, (1, 0, 0): 2.0, (0, 1, 0): 1.0}
        own[0.5, 0, 0.5] = 4.0
        return own.get(shares, 0.5)

    found = cook(score, 3, "greedy")
    assert list(found.shares) == [0.5, 0, 0.5]
    assert (found.score, found.singles, found.equal) == (4.0, (2.0, 1.0, 3.0), 0.5)
    assert len(tried) == len(set(tried)) == found.evaluations  # nothing is scored twice


def test_greedy_takes_one_model_where_every_soup_is_worse() -> None:
    found = cook(lambda s: 1.0 if s == (0, 1) else 0.0, 2, "greedy")
    assert list(found.shares) == [0, 1]


@pytest.mark.parametrize("place", [(0.6, 0.3, 0.1), (0.0, 0.25, 0.75), (1.0, 0.0, 0.0)])
def test_search_finds_a_peak(place: tuple[float, ...]) -> None:
    found = cook(_peak(*place), 3, "search", 300)
    assert found.score > -0.12
    assert found.score >= max(*found.singles, found.equal)


def test_search_stops_when_told() -> None:
    found = cook(_peak(0.61, 0.28, 0.11), 3, "search", 9)
    assert found.evaluations <= 9


# --- Held-out scores --------------------------------------------------------------------------


def _records(path: Path, task: str = "retrieval") -> Path:
    rows = [
        {"query": WORDS[i], "positives": [WORDS[i + 1]], "negatives": [WORDS[(i + 3) % 7]],
         "task": task, "source": "a"}
        for i in range(4)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def _model(folder: Path, seed: int = 0) -> ModelFiles:
    prompts = {"query": "Instruct: Find it\nQuery: "}
    return open_model(write_model(folder, SHAPE, prompts=prompts, tensors=weights(SHAPE, seed)))


@pytest.mark.parametrize(("task", "role"), [("retrieval", "document"), ("sts", "query")])
def test_a_held_out_score_is_ndcg_by_hand(tmp_path: Path, task: str, role: Role) -> None:
    embedder = Embedder(_model(tmp_path / "m"), "fp32")
    held_out = read_held_out([_records(tmp_path / "dev.jsonl", task)])
    texts = list(dict.fromkeys(WORDS[j] for i in range(4) for j in (i + 1, (i + 3) % 7)))
    told = "Retrieve semantically similar text" if task == "sts" else None
    queries = embedder.encode_query(list(WORDS[:4]), told)
    texts_ND = embedder.embed(texts, role, told if role == "query" else None).vectors
    ranks = [
        1 + int((row > row[texts.index(WORDS[i + 1])]).sum())
        for i, row in enumerate(queries @ texts_ND.T)
    ]
    assert len(set(ranks)) > 1
    expected = np.mean([1 / np.log2(rank + 1) for rank in ranks])
    assert held_out.score(embedder) == pytest.approx(expected)


def test_sources_are_collections_of_their_own(tmp_path: Path) -> None:
    path = _records(tmp_path / "dev.jsonl")
    other = path.read_text().replace('"source": "a"', '"source": "b"').splitlines()[:2]
    (tmp_path / "b.jsonl").write_text("\n".join(other))
    embedder = Embedder(_model(tmp_path / "m"), "fp32")
    names = [path, tmp_path / "b.jsonl"]
    alone = [read_held_out([name]).score(embedder) for name in names]
    assert read_held_out(names).score(embedder) == pytest.approx(np.mean(alone))


def test_records_that_leave_no_choice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"query": "a", "positives": ["b"]}\n')
    with pytest.raises(InputError, match="two different texts"):
        read_held_out([tmp_path / "one.jsonl"])


def test_scores_are_remembered_for_the_same_models_and_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [_model(tmp_path / f"m{seed}", seed) for seed in range(2)]
    held_out = read_held_out([_records(tmp_path / "dev.jsonl")])
    memory = tmp_path / "scores.jsonl"
    first = Kitchen(sources, held_out, torch.float32, "fp32", memory).score((0.5, 0.5))
    memory.write_bytes(memory.read_bytes() + b'\n{"key": "torn')
    tasted: list[Shares] = []

    def taste(_: Kitchen, shares: Shares) -> float:
        tasted.append(shares)
        return 0.0

    monkeypatch.setattr(module.Kitchen, "_taste", taste)
    again = Kitchen(sources, held_out, torch.float32, "fp32", memory)
    assert again.score((0.5, 0.5)) == first
    assert not tasted
    again.score((1.0, 0.0))
    third = Kitchen(sources, held_out, torch.float32, "fp32", memory)
    assert third.score((1.0, 0.0)) == 0.0  # the torn line spoiled nothing after it
    Kitchen(sources, held_out, torch.bfloat16, "fp32", memory).score((0.5, 0.5))
    assert tasted == [(1.0, 0.0), (0.5, 0.5)]


# --- The command ------------------------------------------------------------------------------


def test_the_command_cooks(run: Command, tmp_path: Path) -> None:
    for seed in range(3):
        _model(tmp_path / f"m{seed}", seed)
    names = [tmp_path / f"m{seed}" for seed in range(3)]
    dev = _records(tmp_path / "dev.jsonl")
    options: list[str | Path] = [
        "--held-out",
        dev,
        "--test",
        dev,
        "-o",
        tmp_path / "out",
        "--no-compare",
    ]
    done = run("merge", *names, "--method", "search", *options, "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert [p["weight"] for p in said["parts"]] == pytest.approx(said["soup"]["shares"], abs=1e-5)
    assert said["soup"]["score"] >= max(*said["soup"]["singles"], said["soup"]["equal"])
    assert said["test"]["score"] == said["soup"]["score"]  # the same records here
    held_out = read_held_out([dev])
    written = held_out.score(Embedder(open_model(tmp_path / "out")))
    assert written == pytest.approx(said["soup"]["score"])
    kept = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert kept["soup"] == said["soup"]
    done = run("merge", *names, "--method", "greedy", *options, "--force")
    assert "single models" in done.out


def test_the_command_says_what_is_missing(run: Command, tmp_path: Path) -> None:
    names = [_model(tmp_path / f"m{seed}", seed).path for seed in range(2)]
    done = run("merge", *names, "--method", "greedy", "-o", tmp_path / "out")
    assert (done.code, "needs --held-out" in done.err) == (2, True)
    dev = _records(tmp_path / "dev.jsonl")
    done = run("merge", *names, "--held-out", dev, "-o", tmp_path / "out")
    assert (done.code, "--method greedy" in done.err) == (2, True)
