"""The index's tables: what is written comes back, ids are unique, another model is refused."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from polyvec.errors import IndexMismatchError, IndexMissingError, InputError, StorageError
from polyvec.search.rows import Chunk, ChunkSettings, Document, IndexInfo
from polyvec.search.storage import reaching
from polyvec.search.store import Store
from polyvec.search.where import Where

WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
INFO = IndexInfo("some-model", "0123456789abcdef", 8, "/somewhere")


def chunk(number: int, text: str, path: str = "a.txt", **facts: object) -> Chunk:
    known = Chunk(
        chunk_id=f"{path}-{number}",
        source_id=f"{path}@1",
        document_id=f"hash of {path}",
        text_id=f"text {text}",
        path=path,
        title="A",
        heading="",
        page=None,
        line_start=number + 1,
        line_end=number + 1,
        language="en",
        file_type="text",
        modified_at=WHEN,
        ordinal=number,
        text=text,
    )
    return replace(known, **facts)  # type: ignore[arg-type]


def vectors(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(str(tmp_path / "index"), INFO)


def test_chunks_come_back_as_they_were_written(store: Store) -> None:
    first = chunk(0, 'it\'s a "text" with quotes', page=3, heading="A > B")
    given = vectors(2)
    store.put_chunks([first, chunk(1, "another")], given)
    found = store.search_dense(given[0], 1)
    assert found[0].chunk == first
    assert found[0].score == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_array_equal(store.vectors_of(["a.txt-1", "a.txt-0"]), given[::-1])


def test_dense_search_is_numpy_by_cosine(store: Store) -> None:
    given = vectors(300)
    store.put_chunks([chunk(n, f"text {n}") for n in range(300)], given)
    asked = vectors(1, seed=9)[0]
    order = np.argsort(-(given @ asked))[:10]
    hits = store.search_dense(asked, 10)
    assert [hit.chunk.ordinal for hit in hits] == list(order)
    assert [hit.score for hit in hits] == pytest.approx((given @ asked)[order], abs=1e-5)


def test_writing_twice_keeps_one_row_an_id(store: Store) -> None:
    store.put_chunks([chunk(0, "old")], vectors(1))
    store.put_chunks([chunk(0, "new"), chunk(1, "more")], vectors(2))
    assert store.count() == 2
    assert [c.text for c in store.chunks_of("a.txt")] == ["new", "more"]


TEXTS = ["the quick brown fox", "敏捷的棕色狐狸跳过懒狗", "สุนัขจิ้งจอกกระโดดข้ามสุนัข", "собака ленивая"]


@pytest.mark.parametrize(
    ("query", "number"), [("FOX", 0), ("狐狸", 1), ("กระโดด", 2), ("ленивая", 3), ('"fox" OR (', 0)]
)
def test_full_text_finds_words_of_languages_without_spaces(
    store: Store, query: str, number: int
) -> None:
    store.put_chunks([chunk(n, text) for n, text in enumerate(TEXTS)], vectors(4))
    store.refresh()
    assert [hit.chunk.ordinal for hit in store.search_text(query)] == [number]


def test_full_text_finds_what_was_written_after_the_index(store: Store) -> None:
    store.put_chunks([chunk(0, "early bird")], vectors(1))
    store.refresh()
    store.put_chunks([chunk(1, "late worm")], vectors(1))
    assert [hit.chunk.ordinal for hit in store.search_text("worm")] == [1]


PLACES = ["reports/2025/a.pdf", "reports/b.pdf", "reports.old/c.md", "100%_[x]/d.md", "it's/e.md"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), [0, 1, 2, 3, 4]),
        (Where(paths=["reports"]), [0, 1]),
        (Where(paths=["reports/"]), [0, 1]),
        (Where(paths=["reports/b.pdf"]), [1]),
        (Where(paths=["*.md"]), [2, 3, 4]),
        (Where(paths=["reports*/?.*"]), [0, 1, 2]),
        (Where(paths=["100%_[[]x]"]), []),
        (Where(paths=["it's", "reports/2025"]), [0, 4]),
        (Where(file_types=["pdf"]), [0, 1]),
        (Where(file_types=["pdf"], languages=["de"]), [1]),
        (Where(languages=["x' OR '1'='1"]), []),
        (Where(modified_from=datetime(2026, 3, 3, tzinfo=UTC)), [2, 3, 4]),
        (Where(modified_before=datetime(2026, 3, 2, 12, tzinfo=UTC)), [0]),
    ],
)
def test_filters(store: Store, where: Where, expected: list[int]) -> None:
    rows = [
        chunk(
            n,
            "word",
            path=path,
            file_type="pdf" if path.endswith("pdf") else "markdown",
            language="de" if n == 1 else "en",
            modified_at=datetime(2026, 3, n + 1, 12, tzinfo=UTC),
        )
        for n, path in enumerate(PLACES)
    ]
    store.put_chunks(rows, vectors(5))
    store.refresh()
    dense = store.search_dense(vectors(1)[0], 10, where)
    assert sorted(hit.chunk.ordinal for hit in dense) == expected
    assert sorted(hit.chunk.ordinal for hit in store.search_text("word", 10, where)) == expected


def test_a_moment_needs_a_time_zone() -> None:
    with pytest.raises(InputError, match="no time zone"):
        Where(modified_from=datetime(2026, 1, 1)).sql()


def test_only_stale_versions_are_deleted(store: Store) -> None:
    rows = [chunk(0, "old"), chunk(1, "new", source_id="a.txt@2"), chunk(2, "other", path="b.txt")]
    store.put_chunks(rows, vectors(3))
    store.delete_stale({"a.txt": "a.txt@2"})
    assert store.chunk_counts() == {"a.txt": 1, "b.txt": 1}
    store.delete_documents(["a.txt"])
    assert store.chunk_counts() == {"b.txt": 1}


def test_known_vectors_are_found_by_text(store: Store) -> None:
    given = vectors(2)
    store.put_chunks([chunk(0, "x"), chunk(1, "y")], given)
    known = store.known_vectors(["text y", "text z"])
    assert list(known) == ["text y"]
    np.testing.assert_array_equal(known["text y"], given[1])


def test_documents_come_back_by_path(store: Store) -> None:
    second = Document("b", "h", 10, 12345678901234567, "text", "B", "failed", "why", 0, 0, WHEN)
    first = replace(second, path="a")
    store.put_documents([second, first])
    store.put_documents([second])
    assert store.documents() == [first, second]


def test_another_process_sees_what_is_written(tmp_path: Path, store: Store) -> None:
    reader = Store.open(str(tmp_path / "index"))
    store.put_chunks([chunk(0, "x")], vectors(1))
    assert reader.count() == 1
    assert reader.info == INFO


def test_another_model_is_refused_with_the_command_that_migrates(store: Store) -> None:
    with pytest.raises(IndexMismatchError, match=r"polyvec index /somewhere --index .* --migrate"):
        Store.open(store.uri, "another")
    with pytest.raises(IndexMismatchError, match="--chunk-tokens 99 --overlap-tokens 9 --migrate"):
        Store.create(store.uri, replace(INFO, chunking=ChunkSettings(99, 9)))


def test_a_missing_index_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(IndexMissingError, match="Make it: polyvec index FOLDER"):
        Store.open(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(IndexMissingError):
        Store.open(str(tmp_path / "empty"))


def test_an_index_that_cannot_be_used_is_said(store: Store, tmp_path: Path) -> None:
    store.put_chunks([chunk(0, "word")], vectors(1))
    for file in tmp_path.glob("index/chunks_*/data/*"):
        file.unlink()
    with pytest.raises(StorageError, match=r"files of it are missing.*polyvec index FOLDER"):
        Store.open(store.uri).search_dense(vectors(1)[0])
    for table in tmp_path.glob("index/chunks_*"):
        shutil.rmtree(table)
    with pytest.raises(StorageError, match="files of it are missing"):
        Store.open(store.uri)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="the folder cannot be used"):
        Store.create(str(tmp_path / "file" / "index"), INFO)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "no room on its disk"),
        (RuntimeError("lance error: LanceError(IO): (os error 28), /rustc/x"), "no room on its"),
        (PermissionError(13, "Permission denied"), "may write to index"),
        (RuntimeError("lance error: odd, /rustc/x"), "lance error: odd. If files in it were"),
    ],
)
def test_what_a_folder_refuses_is_said(error: Exception, words: str) -> None:
    with pytest.raises(StorageError, match=words), reaching("/index"):
        raise error
    with pytest.raises(ValueError, match="a bug"), reaching("/index"):
        raise ValueError("a bug")


@pytest.mark.parametrize(("tokens", "overlap"), [(15, 0), (100, 51), (100, -1)])
def test_chunk_settings_are_checked(tokens: int, overlap: int) -> None:
    with pytest.raises(InputError):
        ChunkSettings(tokens, overlap)


def test_wrong_shapes_are_refused(store: Store) -> None:
    with pytest.raises(InputError, match=r"vectors \[1, 8\]; given: \[2, 8\]"):
        store.put_chunks([chunk(0, "x")], vectors(2))
    with pytest.raises(InputError, match=r"A vector \[8\]"):
        store.search_dense(np.zeros(4, dtype=np.float32))
    with pytest.raises(InputError, match="limit is 0"):
        store.search_dense(vectors(1)[0], 0)
    with pytest.raises(InputError, match="no chunk 'x'"):
        store.vectors_of(["x"])
