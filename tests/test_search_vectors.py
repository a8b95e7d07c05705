"""The index of the vectors: made from a number of them on, and what it finds is what is nearest."""

from collections.abc import Sequence

import numpy as np
import pytest

from polyvec.search import quantized
from polyvec.search.quantized import is_quantized, refine_factor
from polyvec.search.retrieve import Searcher, SearchSettings
from polyvec.search.rows import IndexInfo, Vectors
from polyvec.search.store import Store
from polyvec.search.where import Where
from tests.test_index_store import chunk

ROWS, DIMENSION = 2_000, 256


def _vectors() -> np.ndarray:
    """Vectors around 40 centres, so that near ones are really near."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, DIMENSION))
    spread = 0.5 * rng.standard_normal((ROWS, DIMENSION))
    return (centres[np.arange(ROWS) % 40] + spread).astype(np.float32)


@pytest.fixture(scope="module")
def vectors_ND() -> np.ndarray:
    return _vectors()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, vectors_ND: np.ndarray) -> Store:
    made = Store.create(
        str(tmp_path_factory.mktemp("index")), IndexInfo("m", "f" * 16, DIMENSION, "/")
    )
    rows = [chunk(n, f"text {n}", f"f{n % 100}.md", language=f"l{n % 40}") for n in range(ROWS)]
    made.put_chunks(rows, vectors_ND)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantized, "QUANTIZE_FROM_NUMBERS", ROWS * DIMENSION)
        made.refresh()
    return made


def _nearest(vectors_ND: np.ndarray, asked: np.ndarray, among: np.ndarray) -> set[int]:
    rows = vectors_ND[among]
    cosines = rows @ asked / np.linalg.norm(rows, axis=1)
    return {int(among[n]) for n in np.argsort(-cosines)[:10]}


@pytest.mark.parametrize("filtered", [False, True])
def test_the_index_finds_what_is_nearest(
    store: Store, vectors_ND: np.ndarray, *, filtered: bool
) -> None:
    table = store._chunks
    assert "vector" in [column for index in table.list_indices() for column in index.columns]
    found = 0
    for number in range(0, ROWS, 50):
        asked = vectors_ND[number] + 0.1
        among = np.arange(ROWS)
        among = among[among % 40 == 7] if filtered else among
        hits = store.search_dense(asked, 10, Where(languages=["l7"]) if filtered else None)
        ids = {hit.chunk.ordinal for hit in hits}
        assert len(ids) == 10
        found += len(ids & _nearest(vectors_ND, asked, among))
    assert found >= 0.99 * 10 * (ROWS / 50)


def test_small_tables_have_no_index() -> None:
    assert not is_quantized(1_000, 4_096)
    assert is_quantized(2_000, 4_096)
    assert not is_quantized(2_000, 576)
    assert is_quantized(10_000, 576)


def test_long_vectors_are_compared_again_less_often() -> None:
    assert refine_factor(10, 4_096) == 10
    assert refine_factor(100, 4_096) == 3
    assert refine_factor(100, 576) == 10
    assert refine_factor(1, 4_096) == 100
    assert refine_factor(1_000, 4_096) == 3


def test_whole_vectors_are_read_for_what_is_shown_alone(
    store: Store, vectors_ND: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    vectors_of = Store.vectors_of

    def noting(self: Store, chunk_ids: Sequence[str]) -> Vectors:
        read.extend(chunk_ids)
        return vectors_of(self, chunk_ids)

    monkeypatch.setattr(Store, "vectors_of", noting)
    results = Searcher(store, lambda _: vectors_ND[0]).search("text", SearchSettings(limit=6))
    only_by_words = [result for result in results if result.dense_rank is None]
    assert only_by_words
    assert read == [result.chunk.chunk_id for result in only_by_words]
    expected = [float(_cosine(vectors_ND[r.chunk.ordinal], vectors_ND[0])) for r in results]
    assert [result.cosine for result in results] == pytest.approx(expected, abs=1e-4)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
