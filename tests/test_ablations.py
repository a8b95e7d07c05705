"""The small replica of the paper's tables: every row is a recipe that can be read, run once."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from polyvec.records.read import read_records
from polyvec.records.record import Record
from polyvec.records.write import write_records
from polyvec.train.recipe import read_recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture
def ablations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablations", ROOT / "bench" / "ablations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    kinds = ("paragraph-de", "short-fr", "paragraph-ja")
    records = [
        Record(f"q{i}", (f"p{i}",), (f"n{i}",), source=kinds[i % len(kinds)]) for i in range(12)
    ]
    write_records(tmp_path / "mined.jsonl", records)
    return tmp_path


def _run(module: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch, *given: str) -> list[Any]:
    """Run the script with a trainer that finds something without training; return its recipes."""
    trained: list[Any] = []

    def train(command: list[Any], check: bool) -> None:
        assert check
        recipe = read_recipe(Path(command[-1]), {})
        trained.append(recipe)
        folder = Path(recipe.output)
        folder.mkdir()
        value = 0.1 * len(trained)
        last = {"xl-de": value, "help-de": value + 0.2, "mean": value + 0.1}
        (folder / "result.json").write_text(json.dumps({"evaluation": {"last": last}}))

    def merged(*_: object) -> dict[str, float]:
        return {"xl-de": 0.9, "help-de": 0.9, "mean": 0.9}

    monkeypatch.setattr(module.subprocess, "run", train)
    monkeypatch.setattr(module, "_merged", merged)
    monkeypatch.setattr(sys, "argv", ["ablations", str(data), str(data / "runs"), *given])
    module.main()
    return trained


def test_runs_that_tables_share_are_made_once_and_a_second_time_none(
    ablations: ModuleType,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipes = _run(ablations, data, monkeypatch, "--seeds", "2", "--steps", "40")
    # four losses, two of random negatives and two of sources, each twice; two more rates
    assert len(recipes) == len({recipe.output for recipe in recipes}) == 8 * 2 + 2
    assert {recipe.optimizer.steps for recipe in recipes} == {40}
    tables = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(tables) == {"losses", "negatives", "sources", "merged"}
    assert next(iter(tables["merged"])).startswith("best single: ")
    assert _run(ablations, data, monkeypatch, "--seeds", "2", "--steps", "40") == []


def test_a_table_is_means_of_kinds_and_paired_differences(ablations: ModuleType) -> None:
    found = {
        "a": [{"xl-de": 0.1, "xl-fr": 0.3, "help-de": 0.5, "mean": 0.3}],
        "b": [{"xl-de": 0.2, "xl-fr": 0.4, "help-de": 0.9, "mean": 0.5}],
    }
    assert ablations.markdown(found) == [
        "| | xl | help | mean of 3 | to the first |",
        "|---|---|---|---|---|",
        "| a | 0.200 | 0.500 | 0.300 |  |",
        "| b | 0.300 | 0.900 | 0.500 | +0.200 ± 0.100 |",  # .1, .1, .4: deviation .173 over 3
    ]
    twice = {
        "a": [{"xl-de": 0.1, "mean": 0.1}, {"xl-de": 0.2, "mean": 0.2}],
        "b": [{"xl-de": 0.2, "mean": 0.2}, {"xl-de": 0.5, "mean": 0.5}],
    }
    assert ablations.markdown(twice)[-1] == "| b | 0.350 | 0.350 | +0.200 ± 0.100 |"


def test_random_negatives_are_no_positives_and_kinds_are_as_many(
    ablations: ModuleType, data: Path
) -> None:
    ablations._prepare(data, 99)
    mined, other = (list(read_records(data / f"{x}.jsonl")) for x in ("mined", "random"))
    assert [record.query for record in mined] == [record.query for record in other]
    for record in other:
        assert not set(record.negatives) & {*record.positives}
        assert record.negatives[0].startswith("p")
    one, every = (list(read_records(data / f"{x}.jsonl")) for x in ("one_kind", "all_kinds"))
    assert len(one) == len(every) == 8
    assert {record.source for record in one} == {"paragraph-de", "paragraph-ja"}
