"""The search bench: what it draws, and how it counts."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from polyvec.search.fuse import RANK_CONSTANT, fuse

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The bench's modules, importable as they are where they run."""
    monkeypatch.syspath_prepend(BENCH)
    names = ("search", "search_corpus", "search_engines", "search_quality")
    yield {name: __import__(name) for name in names}
    for name in names:
        sys.modules.pop(name)


def test_recall_is_the_share_of_the_right_ones(bench: dict[str, ModuleType]) -> None:
    right = np.array([[1, 2], [3, 4]])
    assert bench["search"].recall([[2, 1], [4, 9]], right) == 0.75


def test_the_warm_up_is_not_timed(bench: dict[str, ModuleType]) -> None:
    search = bench["search"]
    answers, milliseconds = search.timed(list(range(search.WARM_UP + 3)), lambda n: -n)
    assert answers == [-search.WARM_UP - n for n in range(3)]
    assert len(milliseconds) == 3


def test_passages_are_distinct_and_no_language_takes_all(bench: dict[str, ModuleType]) -> None:
    corpus = bench["search_corpus"]
    english = [corpus.Passage(f"debian/en/{n}", 0, "en", f"text {n}") for n in range(50)]
    others = [corpus.Passage(f"help/x{n}", 0, f"x{n}", f"text {n} of it") for n in range(100)]
    asked = [corpus.Question(f"debian/en/{n}", f"question {n}") for n in range(50)]
    drawn = corpus.draw(([*english, *english], asked), others, 100)
    assert len({passage.text for passage in drawn.passages}) == 100
    assert sum(passage.language == "en" for passage in drawn.passages) <= 12
    assert {question.path for question in drawn.questions} <= {p.path for p in drawn.passages}
    with pytest.raises(ValueError, match="there are"):
        corpus.draw((english, asked), [], 100)


def test_widening_keeps_who_is_near_whom(bench: dict[str, ModuleType]) -> None:
    corpus = bench["search_corpus"]
    narrow = np.random.default_rng(0).standard_normal((50, 16), dtype=np.float32)
    wide = corpus.widened(narrow, 2_048, seed=1)
    assert np.allclose(np.linalg.norm(wide, axis=1), 1, atol=1e-5)
    short = corpus.unit(narrow)
    assert np.abs(wide @ wide.T - short @ short.T)[~np.eye(50, dtype=bool)].max() < 0.15
    assert not np.array_equal(wide, corpus.widened(narrow, 2_048, seed=2))


def test_rows_are_read_without_mapping(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    array = np.arange(30, dtype=np.float32).reshape(10, 3)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(bench["search_corpus"].rows(tmp_path / "a.npy", slice(4, 7)), array[4:7])


@pytest.mark.parametrize("engine", ["polyvec", "sqlite FTS5", "bm25s"])
def test_each_engine_finds_words(bench: dict[str, ModuleType], engine: str, tmp_path: Path) -> None:
    passage = bench["search_corpus"].Passage
    passages = [passage(f"p{n}", 0, "en", f"some filling number{n}") for n in range(20)]
    passages.append(passage("right", 0, "en", 'a "quoted" zebra; it\'s here'))
    build = bench["search_engines"].TEXT_ENGINES[engine]
    build(tmp_path, passages, build=True)
    ask = build(tmp_path, [], build=False)
    assert ask('zebra "AND')[0] == "right"
    assert ask("nothing-of-this-kind") == []
    assert (tmp_path / bench["search_engines"].PLACES[engine]).is_dir()


def test_quality_fuses_as_the_search_does(bench: dict[str, ModuleType]) -> None:
    quality = bench["search_quality"]
    asked = quality.Asked("EN", "en", "q", "c", ["a", "b", "c"], ["c", "d"], [0.01, 0.4], 0)
    shares = dict(zip(asked.text, asked.shares, strict=True))
    ours = [item.key for item in fuse([asked.dense, asked.text], [{}, shares])]
    assert quality.fused(asked, RANK_CONSTANT, 1.0) == ours == ["a", "b", "c", "d"]
    plain = [item.key for item in fuse([asked.dense, asked.text])]
    assert quality.fused(asked.plain(), RANK_CONSTANT, 1.0) == plain == ["c", "a", "b", "d"]
    assert quality.fused(asked, RANK_CONSTANT, 0.0)[:3] == asked.dense
    assert quality.rank_of(asked.dense, "c") == 2


def test_scores_are_means_over_languages(bench: dict[str, ModuleType]) -> None:
    quality = bench["search_quality"]
    asked = [quality.Asked("XL", x, f"q{x}", "r", [], [], [], 0) for x in ("de", "de", "de", "ja")]
    found = quality.scores(asked, [0, 0, 0, 10**6])["XL"]
    assert found == {"ndcg": pytest.approx(50), "recall": pytest.approx(50)}
