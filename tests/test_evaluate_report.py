"""The report: its numbers are the results', texts stay texts, and it needs nothing else."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from polyvec.errors import InputError, MissingExtraError
from polyvec.evaluate.cache import VectorCache
from polyvec.evaluate.charts import Series, scatter, short
from polyvec.evaluate.collection import Collection
from polyvec.evaluate.gather import gather
from polyvec.evaluate.pictures import write_pictures
from polyvec.evaluate.question import Question, evaluate_model
from polyvec.evaluate.report import report_of
from polyvec.evaluate.results import ModelResult, result_file, write_result
from polyvec.evaluate.summary import groups_of, language_maps, rows_of
from polyvec.evaluate.task_results import TaskResults, read_task_results
from tests.command import Command
from tests.encoders import WordCounts

EVIL = "<script>alert('x')</script> & \"quoted\""
COLLECTION = Collection(
    {"q1": "red fox", "q2": f"none {EVIL}", "q3": "blau"},
    {"d1": "a red fox", "d2": f"other {EVIL}", "d3": "unlike", "d4": "blau blau"},
    {"q1": {"d1": 1}, "q2": {"d3": 1}, "q3": {"d4": 1}},
    {"q1": "en", "q2": "en", "q3": "de"},
)
QUESTION = Question(("ndcg@3", "accuracy@1"), dimensions=(8, 32), resamples=100)


def result(tmp_path: Path, name: str, dimension: int = 64, **about: Any) -> ModelResult:
    cache = VectorCache(tmp_path / "v", WordCounts(dimension, name))
    return evaluate_model(name, cache, COLLECTION, QUESTION, about)


def task(folder: Path, name: str, *subsets: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"task_name": name, "mteb_version": "2", "scores": {"test": list(subsets)}}
    (folder / f"{name}.json").write_text(json.dumps(facts))


def subset(score: float, *languages: str, **scores: Any) -> dict[str, Any]:
    return {"main_score": score, "hf_subset": "x", "languages": list(languages), **scores}


@pytest.fixture
def mteb_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mteb" / "results" / "org__m" / "rev1"
    task(folder, "Find", subset(0.5, "eng-Latn", ndcg_at_10=0.5), subset(0.7, "deu-Latn"))
    task(folder, "Sort", subset(0.4, "eng-Latn", scores_per_experiment=[], accuracy=0.4))
    task(folder, "Group", subset(0.2, "eng-Latn", v_measure=0.2))
    meta = {"name": "org/m", "n_parameters": 10**8, "embed_dim": 64, "memory_usage_mb": 200}
    (folder / "model_meta.json").write_text(json.dumps(meta))
    return tmp_path / "mteb"


class Well(HTMLParser):
    """Fails on tags that are closed in another order than they were opened."""

    VOID = ("meta", "path", "rect", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in self.VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def words_of(page: str) -> str:
    parser = Well()
    parser.feed(page)
    assert parser.open == []
    return "\n".join(parser.words)


def test_a_page_of_two_models(tmp_path: Path) -> None:
    first = result(tmp_path, "large", 64, precision="fp32", parameters=10**8)
    second = result(tmp_path, "small", 32, precision="int8", parameters=10**6)
    page = report_of([first, second])
    words = words_of(page)
    for name in ("Models", "Languages", "Dimension", "Precision", "Size", "Speed", "Made of"):
        assert name in words
    assert f"{100 * first.scores['ndcg@3']['mean']:.1f}" in words
    assert f"{100 * first.languages['en']['ndcg@3']['mean']:.1f}" in words
    assert "Against large" in words
    assert "Worst queries of small" in words
    assert EVIL in words  # as words ...
    assert "<script" not in page  # ... and not as markup
    assert not re.findall(r"(?:src|href)=|https?://|url\(", page)  # nothing is fetched


def test_the_worst_queries_say_what_was_found_instead(tmp_path: Path) -> None:
    words = words_of(report_of([result(tmp_path, "m")]))
    assert "wanted, at rank " in words
    assert re.search(r"found 1, cosine \d\.\d{3}: d2", words)


def test_mtebs_results_by_type_and_language(mteb_folder: Path) -> None:
    (found,) = read_task_results(mteb_folder)
    assert (found.model, found.revision) == ("org/m", "rev1")
    assert found.scores == pytest.approx({"Find": 0.6, "Sort": 0.4, "Group": 0.2})
    assert found.types == {"Find": "Retrieval", "Sort": "Classification", "Group": "Clustering"}
    assert found.languages == {"eng": [0.5, 0.2, 0.4], "deu": [0.7]}
    assert found.about == {
        "dimension": 64, "parameters": 10**8, "size_bytes": 200 * 2**20,
    }  # fmt: skip
    (named,) = read_task_results(mteb_folder, {"Find": "Reranking"})
    assert named.types["Find"] == "Reranking"
    words = words_of(report_of([], [found]))
    assert "Models by task type" in words
    assert "40.0" in words  # the mean of types: .6, .4, .2


def test_both_kinds_of_results_on_one_page(tmp_path: Path, mteb_folder: Path) -> None:
    tasks = read_task_results(mteb_folder)
    own = result(tmp_path, "org/m")
    (row,) = rows_of([own], tasks)
    assert set(row.by_type) == {
        "Your question (ndcg@3)", "Retrieval", "Classification", "Clustering",
    }  # fmt: skip
    other = TaskResults("b", "r", {"T": 0.1, "U": 0.3}, {"T": "STS", "U": "Retrieval"})
    rows = rows_of([own], [*tasks, other])
    question, types = groups_of(rows)
    assert (question.score(rows[0]), question.score(rows[1])) == (row.by_type[question.title], None)
    assert types.types == ("Retrieval",)  # what both were asked
    assert [types.score(row) for row in rows] == pytest.approx([0.6, 0.3])
    assert "mean of task types" not in words_of(report_of([own], [*tasks, other]))
    assert "mean of task types" in words_of(report_of([own], tasks))


def test_languages_of_different_questions_never_mix(tmp_path: Path, mteb_folder: Path) -> None:
    rows = rows_of([result(tmp_path, "org/m")], read_task_results(mteb_folder))
    question, tasks = language_maps(rows)
    assert (question.languages, tasks.languages) == (["de", "en"], ["deu", "eng"])
    assert tasks.title == "Tasks"
    assert tasks.scores == [[pytest.approx(0.7)], [pytest.approx(1.1 / 3)]]
    assert len(language_maps(rows_of([], [TaskResults("b", "r", {}, {}, {"eng": [1.0]})]))) == 0


def test_fewer_tasks_of_a_type_are_said() -> None:
    types = {"T": "STS", "U": "STS", "V": "Retrieval"}
    a = TaskResults("a", "r", {"T": 0.2, "U": 0.4, "V": 0.5}, types)
    b = TaskResults("b", "r", {"T": 0.1, "V": 0.6}, types)
    words = words_of(report_of([], [a, b]))
    assert "STS (2)" in words
    assert "10.0 (1)" in words
    assert "30.0\n" in words


def test_different_collections_are_kept_apart(tmp_path: Path) -> None:
    a = result(tmp_path, "m")
    b = replace(a, collection="abcdef0123")
    words = words_of(report_of([a, b]))
    assert "Collection abcdef (ndcg@3)" in words
    assert "Against" not in words


def test_broken_results_of_mteb(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "r"
    task(folder, "T", {"no": 1})
    with pytest.raises(InputError, match="no result of mteb's"):
        read_task_results(tmp_path)
    task(folder, "T")
    with pytest.raises(InputError, match="has no score"):
        read_task_results(tmp_path)
    (folder / "T.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_task_results(tmp_path)


def test_charts_place_points_where_their_numbers_are() -> None:
    chart = scatter([Series("a", [(10.0, 0.2), (100.0, 0.4)])], "size", "quality")
    (x0, y0), (x1, y1) = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert float(x0) < float(x1)
    assert float(y0) > float(y1)  # up is better
    assert "a 20.0 at 10; a 40.0 at 100" in chart  # for those who cannot see it
    one = scatter([Series("a", [(0.0, 0.5)])], "precision", "quality", ["fp32"])
    assert "a: 50.0 at fp32" in one


@pytest.mark.parametrize(("low", "high"), [(384, 384), (1, 10**9), (90e6, 110e6), (0.5, 3)])
def test_every_chart_has_readable_ticks(low: float, high: float) -> None:
    chart = scatter([Series("a", [(low, 0.1), (high, 0.100001)])], "x", "y")
    ticks = re.findall(r'text-anchor="middle">([^<]+)<', chart)[:-1]
    assert 1 <= len(ticks) <= 11
    assert len(set(ticks)) == len(ticks)


def test_short_numbers() -> None:
    assert [short(x) for x in (0.5, 384, 1536, 22_700_000, 8e9)] == [
        "0.5", "384", "1.54k", "22.7M", "8B",
    ]  # fmt: skip


def test_pictures(tmp_path: Path, mteb_folder: Path) -> None:
    results = [
        result(tmp_path, "large", 64, precision="fp32", parameters=10**8, size_bytes=4 * 10**8),
        result(tmp_path, "small", 32, precision="int8", parameters=10**6, size_bytes=10**6),
    ]
    rows = rows_of(results, read_task_results(mteb_folder))
    files = write_pictures(tmp_path / "png", rows)
    names = [
        "types",
        "languages",
        "languages-2",
        "dimension",
        "precision",
        "size",
        "bytes",
        "speed",
    ]
    assert [file.stem for file in files] == names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert sorted(tmp_path.glob("png/*")) == sorted(files)
    few = write_pictures(tmp_path / "few", rows_of([], read_task_results(mteb_folder)))
    assert [file.stem for file in few] == ["types", "languages"]


def test_pictures_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'polyvec\[evaluate\]'"):
        write_pictures(tmp_path, rows_of([result(tmp_path, "m")]))


def test_results_are_gathered_from_everywhere(tmp_path: Path, mteb_folder: Path) -> None:
    for name in ("b", "a"):
        write_result(result_file(tmp_path / "own", name), result(tmp_path, name))
    found = gather([tmp_path / "own", mteb_folder], baseline="b")
    assert [one.model for one in found.results] == ["b", "a"]
    assert [one.model for one in found.tasks] == ["org/m"]
    with pytest.raises(InputError, match=r"no result of 'c'\. There are: a, b"):
        gather([tmp_path / "own"], baseline="c")
    with pytest.raises(InputError, match="Two results go by the name a"):
        gather([tmp_path / "own", tmp_path / "own"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no results"):
        gather([tmp_path / "empty"])


def test_two_revisions_of_a_model_are_two_rows(mteb_folder: Path) -> None:
    """As fp32 and int8 of one model are, whose fingerprints are mteb's revisions."""
    first = next(mteb_folder.rglob("rev1"))
    shutil.copytree(first, first.with_name("rev2"))
    rows = rows_of([], gather([mteb_folder]).tasks)
    assert sorted(row.model for row in rows) == ["org/m (rev1)", "org/m (rev2)"]


def test_the_command(run: Command, tmp_path: Path) -> None:
    write_result(result_file(tmp_path / "own", "m"), result(tmp_path, "m"))
    page, pictures = tmp_path / "r.html", tmp_path / "png"
    done = run("report", tmp_path / "own", "-o", page, "--png", pictures)
    assert done.code == 0, done.err
    assert "Models" in words_of(page.read_text())
    assert (pictures / "types.png").exists()
    again = run("report", tmp_path / "own", "-o", page)
    assert (again.code, "use --force" in again.err) == (2, True)
    assert run("report", tmp_path / "nothing", "-o", page, "--force").code == 2
