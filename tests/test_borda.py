"""Borda counts, means, and the published scores that a result is ranked beside."""

from pathlib import Path

import numpy as np
import pytest

from polyvec.errors import InputError
from polyvec.evaluate.borda import borda_points, rank
from polyvec.evaluate.leaderboard import board, published_scores, read_results
from polyvec.evaluate.mmteb_instructions import published, published_types
from polyvec.evaluate.task_results import TaskResults
from tests.command import Command


def test_points_count_beaten_models_and_ties_share() -> None:
    table = np.array([[3.0, 1.0, 5.0], [2.0, 1.0, np.nan], [1.0, 0.0, 4.0]])
    assert borda_points(table).tolist() == [2 + 1.5 + 2, 1 + 1.5, 0 + 0 + 1]


def test_a_rank_has_means_only_where_every_task_was_run() -> None:
    scores = {"a": {"x": 1.0, "y": 3.0, "z": 5.0}, "b": {"x": 2.0, "y": 1.0}}
    first, second = rank(scores, {"x": "STS", "y": "STS", "z": "Retrieval"})
    assert (first.model, first.place, first.mean_task, first.mean_type) == ("a", 1, 3.0, 3.5)
    assert (second.mean_task, second.mean_type, second.tasks) == (None, None, 2)
    assert dict(second.by_type) == {"STS": 1.5}


def test_a_borda_rank_depends_on_the_field() -> None:
    tasks = dict.fromkeys("vwxyz", "STS")
    a = dict(zip("vwxyz", (9.0, 9.0, 9.0, 1.0, 1.0), strict=True))
    b = dict(zip("vwxyz", (8.0, 8.0, 8.0, 8.0, 8.0), strict=True))
    c = dict.fromkeys("vwxyz", 5.0)
    d = dict.fromkeys("vwxyz", 4.0)
    assert [x.model for x in rank({"a": a, "b": b}, tasks)] == ["a", "b"]
    assert [x.model for x in rank({"a": a, "b": b, "c": c, "d": d}, tasks)][:2] == ["b", "a"]


def test_nothing_to_rank_and_unknown_types_are_errors() -> None:
    with pytest.raises(InputError, match="nothing to rank"):
        rank({"a": {}}, {})
    with pytest.raises(InputError, match="type of Mine is not known"):
        rank({"a": {"Mine": 1.0}}, {})


def test_ranks_are_mtebs_own() -> None:
    pytest.importorskip("mteb", reason="mteb's own count is the reference")
    import polars
    from mteb.benchmarks._create_table import _get_borda_rank

    draw = np.random.default_rng(0)
    for gaps in (0.0, 0.3):
        table = draw.integers(0, 6, (9, 12)).astype(float)  # with ties
        table[draw.random(table.shape) < gaps] = np.nan
        tasks = [f"t{i}" for i in range(12)]
        rows = [[None if np.isnan(x) else x for x in row] for row in table.tolist()]
        frame = polars.DataFrame(rows, schema=dict.fromkeys(tasks, polars.Float64), orient="row")
        theirs = frame.select(_get_borda_rank(tasks)).to_series().to_list()
        scores = {
            str(m): {t: x for t, x in zip(tasks, row, strict=True) if x is not None}
            for m, row in enumerate(rows)
        }
        ours = {x.model: x.place for x in rank(scores, dict.fromkeys(tasks, "STS"))}
        assert [ours[str(m)] for m in range(9)] == theirs


def test_published_means_are_those_of_the_papers_table_to_its_rounding() -> None:
    means = {name: np.mean(list(scores.values())) for name, scores in published_scores().items()}
    assert {len(scores) for scores in published_scores().values()} == {130}  # Flores is nowhere
    assert means["nvidia/llama-embed-nemotron-8b"] == pytest.approx(69.46, abs=0.05)
    assert means["intfloat/multilingual-e5-large-instruct"] == pytest.approx(63.22, abs=0.05)
    assert set(published_types()) == set(published())
    assert len(published()) == 131


def _result(model: str, revision: str = "r", **scores: float) -> TaskResults:
    return TaskResults(model, revision, scores, dict.fromkeys(scores, "STS"))


def test_a_result_is_ranked_beside_the_published_ones_on_its_own_tasks() -> None:
    found = board([_result("org/mine", STS12=0.99, STSES=0.1)])
    assert found.tasks == ["STS12", "STSES"]
    places = {row.model: row for row in found.ranks}
    assert len(places) == 8
    assert places["org/mine"].points == 7.0  # best of 8 in one, last in the other
    assert "org/mine" not in found.published
    assert "depends on the field" in found.field


def test_tasks_outside_mmteb_bring_no_published_models() -> None:
    assert [row.model for row in board([_result("a", Own=0.5), _result("b", Own=0.6)]).ranks] == [
        "b",
        "a",
    ]


def test_tasks_that_not_all_have_run_are_left_out_unless_asked_for() -> None:
    results = [_result("a", x=0.5, y=0.5), _result("b", x=0.6)]
    common, everything = board(results), board(results, all_tasks=True)
    assert (common.tasks, common.missing) == (["x"], {"b": ["y"]})
    assert {row.model: row.points for row in everything.ranks} == {"a": 1.0, "b": 1.0}


def test_revisions_of_one_model_stay_apart() -> None:
    found = board([_result("m", "aaaaaaaaa1", x=0.5), _result("m", "bbbbbbbbb2", x=0.6)])
    assert [row.model for row in found.ranks] == ["m@bbbbbbbb", "m@aaaaaaaa"]


def test_a_folder_without_results_says_what_one_looks_like(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MODEL/REVISION/TASK\.json"):
        read_results([tmp_path])
    with pytest.raises(InputError, match="no folder"):
        read_results([tmp_path / "nowhere"])


def test_the_command_ranks_the_published_models_and_says_what_borda_is(run: Command) -> None:
    done = run("leaderboard")
    assert done.code == 0
    assert "KaLM-Embedding-Gemma3-12B-2511  610.0     72.23     62.56" in done.out
    assert "depends on the field" in done.err.replace("\n", " ")
    assert "…" not in done.out.partition("mean by type")[2].partition("\n")[2]  # no number is cut
