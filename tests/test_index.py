"""A folder's index: follows every change, embeds a text once, and survives being killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from polyvec.engine.embedder import Embedder, load
from polyvec.errors import IndexMismatchError, InputError, OutputError
from polyvec.search.index import Report, open_index, update
from polyvec.search.migrate import migrated
from polyvec.search.place import VARIABLE, find_index, index_of
from polyvec.search.rows import ChunkSettings
from polyvec.search.settings import ReadSettings
from polyvec.search.store import Store
from polyvec.search.watch import changes
from tests import office
from tests.command import Command
from tests.live import write_tiny

CUT = ChunkSettings(40, 0)


@pytest.fixture(autouse=True)
def indexes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "indexes"))
    return tmp_path / "indexes"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "one.md").write_text(
        "# One\n\nThe quick brown fox.\n\n" + " ".join(f"word{n}" for n in range(30))
    )
    (root / "two.txt").write_text("A lazy dog sleeps.")
    (root / "sub" / "copy.txt").write_text("A lazy dog sleeps.")
    (root / "sub" / "report.pdf").write_bytes(office.pdf([["Revenue rose."], ["Costs fell."]]))
    return root


class Counting:
    """Counts the texts that an embedder is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, embedder: Embedder) -> None:
        self.texts: list[str] = []
        inner = embedder.embed

        def embed(texts: list[str], *rest: object, **named: object) -> object:
            self.texts += texts
            return inner(texts, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(embedder, "embed", embed)


Again = Callable[[], Report]


@pytest.fixture
def again(tiny: Embedder, folder: Path) -> Again:
    def run() -> Report:
        store = open_index(folder, tiny, "tiny", chunking=CUT)
        return update(store, tiny, ReadSettings())

    return run


def contents(store: Store) -> dict[str, list[float]]:
    ids = sorted(store.chunk_ids())
    return dict(zip(ids, store.vectors_of(ids).tolist(), strict=True))


def test_a_folder_is_indexed_and_each_text_embedded_once(
    again: Again, tiny: Embedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch, tiny)
    report = again()
    assert (report.added, report.failed) == (4, {})
    assert len(counting.texts) == len(set(counting.texts)) == report.embedded_chunks
    assert report.reused_chunks == 1
    store = Store.open(index_of(folder))
    assert sorted(store.chunk_counts()) == ["one.md", "sub/copy.txt", "sub/report.pdf", "two.txt"]
    for chunk in store.chunks_of("one.md"):
        expected = tiny.embed([chunk.embedded_text], "document").vectors[0]
        np.testing.assert_allclose(store.vectors_of([chunk.chunk_id])[0], expected, atol=1e-5)
    assert [hit.chunk.path for hit in store.search_text("revenue")] == ["sub/report.pdf"]
    copies = {d.document_id for d in store.documents() if d.path.endswith(("two.txt", "copy.txt"))}
    assert len(copies) == 1


def test_a_second_run_reads_and_embeds_nothing(
    again: Again, tiny: Embedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again()
    os.utime(folder / "two.txt", (1, 1))  # touched: looked at again, and the same
    counting = Counting(monkeypatch, tiny)
    report = again()
    assert (report.unchanged, report.files_read, counting.texts) == (4, 0, [])
    assert again().unchanged == 4


def test_changes_moves_and_deletions(
    again: Again, tiny: Embedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again()
    (folder / "one.md").write_text((folder / "one.md").read_text() + "\n\nA new last paragraph.")
    (folder / "sub" / "report.pdf").rename(folder / "moved.pdf")
    (folder / "sub" / "copy.txt").unlink()
    counting = Counting(monkeypatch, tiny)
    report = again()
    assert (report.changed, report.moved, report.deleted, report.added) == (1, 1, 1, 0)
    assert len(counting.texts) == 1
    assert "A new last paragraph." in counting.texts[0]
    store = Store.open(index_of(folder))
    assert sorted(store.chunk_counts()) == ["moved.pdf", "one.md", "two.txt"]
    assert sorted(d.path for d in store.documents()) == ["moved.pdf", "one.md", "two.txt"]
    texts = "\n".join(c.text for c in store.chunks_of("one.md"))
    assert texts.count("quick brown") == 1


def test_of_two_copies_of_a_file_that_is_gone_one_was_moved(again: Again, folder: Path) -> None:
    again()
    content = (folder / "sub" / "report.pdf").read_bytes()
    (folder / "sub" / "report.pdf").unlink()
    for name in ("first.pdf", "second.pdf"):
        (folder / name).write_bytes(content)
    report = again()
    assert (report.moved, report.added, report.deleted) == (1, 1, 0)


def test_files_that_fail_are_listed_and_forgotten_when_they_work(
    again: Again, tiny: Embedder, folder: Path
) -> None:
    (folder / "locked.pdf").write_bytes(office.pdf([["x"]], office.encryption()))
    (folder / "two.txt").unlink()
    (folder / "big.txt").touch()
    os.truncate(folder / "big.txt", 2 * 10**9)
    (folder / "data").write_bytes(bytes(100))
    report = again()
    assert sorted(report.failed) == ["big.txt", "locked.pdf"]
    assert "2,000 MB, and 100 MB are allowed (--max-file-mb)" in report.failed["big.txt"]
    assert "password" in report.failed["locked.pdf"]
    assert (report.added, report.without_text) == (3, 1)
    assert again().failed == report.failed
    (folder / "locked.pdf").write_bytes(office.pdf([["open now"]]))
    assert list(again().failed) == ["big.txt"]


def test_a_file_that_can_no_longer_be_read_is_no_longer_found(again: Again, folder: Path) -> None:
    again()
    (folder / "sub" / "report.pdf").write_bytes(office.pdf([["x"]], office.encryption()))
    report = again()
    assert list(report.failed) == ["sub/report.pdf"]
    assert Store.open(index_of(folder)).search_text("revenue") == []


def test_an_empty_folder_does_not_empty_its_index(again: Again, folder: Path) -> None:
    again()
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()
    with pytest.raises(InputError, match="not mounted"):
        again()
    assert Store.open(index_of(folder)).count() > 0


def test_chunks_without_a_document_and_documents_without_chunks_are_mended(
    again: Again, folder: Path
) -> None:
    again()
    store = Store.open(index_of(folder))
    whole = contents(store)
    orphan = replace(store.chunks_of("two.txt")[0], chunk_id="x", path="never.txt")
    store.put_chunks([orphan], store.vectors_of([store.chunks_of("two.txt")[0].chunk_id]))
    store.delete_stale({"one.md": ""})
    again()
    assert contents(store) == whole


KILLED = """
import sys
from pathlib import Path
import polyvec.search.batch as batch
batch._FIRST_TOKENS = batch._LEAST_TOKENS = batch._MOST_TOKENS = 60
batch._COMPACT_EVERY = 3
import torch
torch.set_num_threads(1)
from polyvec.engine.embedder import load
from polyvec.search.index import open_index, update
from polyvec.search.rows import ChunkSettings
from polyvec.search.settings import ReadSettings
embedder = load(sys.argv[2], precision="fp32")
store = open_index(Path(sys.argv[1]), embedder, "tiny", chunking=ChunkSettings(40, 0))
update(store, embedder, ReadSettings(), lambda p: print(p.files_done, p.tokens, flush=True))
"""


def test_killed_again_and_again_it_ends_as_if_it_never_was(
    tmp_path: Path, tiny_folder: Path, tiny: Embedder
) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for n in range(40):
        (root / f"{n:02}.txt").write_text(
            f"Document number {n} about topic {n % 7}. " * (n % 5 + 1)
        )
    command = [sys.executable, "-c", KILLED, str(root), str(tiny_folder)]
    for lines in (2, 25, 60):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(lines):
            if not process.stdout.readline():
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
    killed = Store.open(index_of(root))
    fresh = open_index(root, tiny, "tiny", str(tmp_path / "fresh"), CUT)
    update(fresh, tiny, ReadSettings())
    assert killed.count() == len(killed.chunk_ids()) == fresh.count()
    assert contents(killed).keys() == contents(fresh).keys()
    for chunk_id, vector in contents(fresh).items():
        np.testing.assert_allclose(contents(killed)[chunk_id], vector, atol=1e-5)
    assert [d.chunks for d in killed.documents()] == [d.chunks for d in fresh.documents()]


def test_two_runs_at_once_leave_one_index(tmp_path: Path, tiny_folder: Path, folder: Path) -> None:
    for n in range(30):
        (folder / f"{n}.txt").write_text(f"Text number {n} is about {n * n}.")
    command = [sys.executable, "-c", KILLED, str(folder), str(tiny_folder)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    store = Store.open(index_of(folder))
    assert store.count() == len(store.chunk_ids()) == sum(d.chunks for d in store.documents())
    assert len(store.documents()) == 34


def test_a_system_without_the_lock_is_told(
    again: Again, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(OutputError, match="WSL"):
        again()


def test_another_model_is_refused_and_migrated_to(
    again: Again, tiny: Embedder, folder: Path, tmp_path: Path
) -> None:
    again()
    place = index_of(folder)
    other = load(str(write_tiny(tmp_path / "other", seed=5)), precision="fp32")
    with pytest.raises(IndexMismatchError, match="--migrate"):
        open_index(folder, other, "other")
    store = migrated(folder, other, "other", place)
    assert (store.info.model, store.info.chunking) == ("other", CUT)
    assert update(store, other, ReadSettings()).unchanged == 4
    chunk = store.chunks_of("two.txt")[0]
    expected = other.embed([chunk.embedded_text], "document").vectors[0]
    np.testing.assert_allclose(store.vectors_of([chunk.chunk_id])[0], expected, atol=1e-5)
    with pytest.raises(IndexMismatchError):
        Store.open(place, tiny.files.fingerprint())


def test_other_chunks_and_another_folder_are_migrated_to(
    again: Again, tiny: Embedder, folder: Path
) -> None:
    first = again()
    place = index_of(folder)
    with pytest.raises(IndexMismatchError, match="--chunk-tokens 20"):
        open_index(folder, tiny, "tiny", place, ChunkSettings(20, 0))
    store = migrated(folder, tiny, "tiny", place, ChunkSettings(20, 0))
    report = update(store, tiny, ReadSettings())
    assert report.chunks > first.chunks
    assert all(c.text for c in store.chunks_of("one.md"))
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(IndexMismatchError, match="has moved"):
        open_index(moved, tiny, "tiny", place)
    store = migrated(moved, tiny, "tiny", place)
    assert update(store, tiny, ReadSettings()).unchanged == 4


def test_chunks_larger_than_the_model_reads_are_refused(tiny: Embedder, folder: Path) -> None:
    with pytest.raises(InputError, match="this model reads"):
        open_index(folder, tiny, "tiny", chunking=ChunkSettings(400, 50))
    assert open_index(folder, tiny, "tiny").info.chunking.max_tokens < 64


def test_a_folder_is_watched(folder: Path) -> None:
    stop = threading.Event()
    seen = changes(folder, folder / "none", stop, look_every_s=60)
    timer = threading.Timer(0.5, (folder / "new.txt").write_text, ["new"])
    timer.start()
    next(seen)
    stop.set()
    assert list(seen) == []
    timer.join()


def test_an_index_does_not_come_among_other_files(
    tiny: Embedder, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("x")
    for place, words in (
        (folder, "has 'one.md' in it"),
        (tmp_path / "other", "has 'letter.txt' in it"),
        (folder / "two.txt", "a file"),
    ):
        with pytest.raises(InputError, match=words):
            open_index(folder, tiny, "tiny", str(place), CUT)
    with pytest.raises(InputError, match="is the folder that is to be indexed"):
        open_index(tmp_path / "empty", tiny, "tiny", str(tmp_path / "empty"), CUT)
    for _ in range(2):
        assert open_index(folder, tiny, "tiny", str(tmp_path / "empty"), CUT).count() == 0


def test_an_index_is_found_from_inside_its_folder(
    again: Again, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    again()
    monkeypatch.chdir(folder / "sub")
    assert find_index() == index_of(folder)
    monkeypatch.chdir(tmp_path)
    assert find_index() == index_of(folder)  # the only one
    assert find_index("s3://bucket/x") == "s3://bucket/x"
    for stated in (str(folder), "docs", index_of(folder)):
        assert find_index(stated) == index_of(folder)


def test_the_command(run: Command, folder: Path, tiny_folder: Path) -> None:
    (folder / "bad.pdf").write_bytes(b"%PDF-1.4")
    first = run("index", folder, "--model", tiny_folder, "--chunk-tokens", "40")
    assert first.code == 0
    assert "4 added" in first.out
    assert "1 could not be read: bad.pdf:" in first.err
    second = orjson.loads(run("index", folder, "--json").out)
    assert (second["unchanged"], second["added"], list(second["failed"])) == (5, 0, ["bad.pdf"])
    status = orjson.loads(run("index", folder, "--status", "--json").out)
    assert status["documents"] == {"indexed": 4, "failed": 1}
    assert status["file_types"] == {"text": 2, "markdown": 1, "pdf": 1}
    assert status["chunking"] == {"max_tokens": 40, "overlap_tokens": 5}
    shown = run("index", folder, "--status").out
    assert f"Folder    {folder}" in shown
    refused = run("index", folder, "--chunk-tokens", "30")
    assert refused.code == 1
    assert "--chunk-tokens 30 --overlap-tokens 3 --migrate" in refused.err
    assert run("index", folder, "--chunk-tokens", "30", "--migrate").code == 0


def test_the_command_names_what_is_wrong(run: Command, tmp_path: Path) -> None:
    missing = run("index", tmp_path / "none")
    assert (missing.code, "is no folder" in missing.err) == (2, True)
    (tmp_path / "new").mkdir()
    status = run("index", tmp_path / "new", "--status")
    assert (status.code, "Make it: polyvec index FOLDER" in status.err) == (1, True)
    mixed = run("index", tmp_path / "new", "--status", "--watch", "--forget")
    assert (mixed.code, "without --watch and --forget" in mixed.err) == (2, True)
