"""What a run tells TensorBoard and Weights & Biases, through their own libraries."""

import shutil
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from polyvec.train.checkpoint import checkpoints
from tests import tiny_train

IN_BATCH = '[loss]\nin_batch = "all"\n'
HELD_OUT = '[evaluation]\npaths = ["train.jsonl"]\nevery_steps = 3\n'


def _entries(folder: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]


def _losses(folder: Path) -> dict[int, float]:
    return {e["step"]: e["loss"] for e in _entries(folder) if "loss" in e}


class StandIn(types.ModuleType):
    """A library that writes down what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.told: list[tuple[int, dict[str, float]]] = []
        self.is_finished = False

    def init(self, **given: Any) -> "StandIn":
        self.begun.append(given)
        return self

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.told.append((step, dict(numbers)))

    def finish(self) -> None:
        self.is_finished = True


def test_wandb_is_told_every_number_and_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", library)
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH + HELD_OUT)
    tiny_train.run(recipe, log__trackers='["wandb"]')
    assert library.begun == [{"dir": str(tmp_path / "run"), "name": "run"}]
    told = {step: numbers["loss"] for step, numbers in library.told if "loss" in numbers}
    assert told == _losses(tmp_path / "run")
    scores = {step: n["evaluation/made"] for step, n in library.told if "evaluation/made" in n}
    entries = [e for e in _entries(tmp_path / "run") if "evaluation" in e]
    assert scores == {e["step"]: e["evaluation"]["made"] for e in entries}
    assert scores.keys() == {0, 3, 6}
    assert all(isinstance(x, int | float) for _, numbers in library.told for x in numbers.values())
    assert library.is_finished


def test_wandb_itself_keeps_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not among the tests' requirements")
    monkeypatch.setenv("WANDB_MODE", "offline")
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    tiny_train.run(recipe, log__trackers='["wandb"]', optimizer__steps="2")
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert written.stat().st_size > 0


def test_tensorboard_shows_the_losses_of_a_run_that_was_killed_and_gone_on_with(
    tmp_path: Path,
) -> None:
    reason = "tensorboard is not among the tests' requirements"
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=reason
    )
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    tiny_train.run(recipe, log__trackers='["tensorboard"]')
    run = tmp_path / "run"
    shutil.rmtree(run / "model")
    for checkpoint in checkpoints(run / "checkpoints")[1:]:  # as if it had been killed then
        shutil.rmtree(checkpoint)
    tiny_train.run(recipe, log__trackers='["tensorboard"]')
    shown = events.EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    found = {event.step: event.value for event in shown.Scalars("loss")}
    assert len(shown.Scalars("loss")) == len(found) == 6
    assert found == pytest.approx(_losses(run))
