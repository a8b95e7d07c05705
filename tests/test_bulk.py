import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polyvec.engine import bulk
from polyvec.engine.bulk import BulkSettings, checked, embed_rows
from polyvec.engine.embedder import Embedder
from polyvec.engine.rows import Row
from polyvec.errors import InputError, ResumeError
from polyvec.model.files import open_model
from polyvec.model.tokens import OnEmpty
from tests.tiny import WORDS, write_model

TEXTS = [f"{word} {number}" for number in range(9) for word in WORDS]
DONE = BulkSettings()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bulk") / "model")


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    return Embedder(open_model(folder), "fp32", "cpu")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MIN_CHUNK_ROWS", 5)
    monkeypatch.setattr(bulk, "MAX_CHUNK_ROWS", 10)


def rows(texts: list[str] = TEXTS, on_empty: OnEmpty = "error") -> Iterator[Row]:
    lines = (Row(text, f"id{n}", f"in.txt, line {n + 1}") for n, text in enumerate(texts))
    return checked(lines, on_empty)


def broken_after(count: int) -> Iterator[Row]:
    yield from list(rows())[:count]
    raise KeyboardInterrupt


def test_vectors_are_the_embedders_own_in_order(embedder: Embedder, tmp_path: Path) -> None:
    report = embed_rows(embedder, rows(), tmp_path / "a.npy", DONE)
    expected = embedder.encode_document(TEXTS)
    assert np.allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-5)
    assert (report.rows, report.dimension, report.cut) == (len(TEXTS), embedder.dimension, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "a.npy.json"]


def test_what_made_the_vectors_is_beside_them(embedder: Embedder, tmp_path: Path) -> None:
    settings = BulkSettings(role="query", instruction="Find it")
    embed_rows(embedder, rows(), tmp_path / "a.npy", settings)
    facts = json.loads((tmp_path / "a.npy.json").read_text())
    assert facts["fingerprint"] == embedder.files.fingerprint()
    assert facts["settings"]["instruction"] == "Find it"
    assert facts["rows"] == len(TEXTS)


@pytest.mark.parametrize("ending", ["npy", "jsonl", "parquet"])
def test_an_interrupted_run_goes_on_and_ends_the_same(
    embedder: Embedder, tmp_path: Path, ending: str
) -> None:
    whole, output = tmp_path / f"whole.{ending}", tmp_path / f"a.{ending}"
    embed_rows(embedder, rows(), whole, DONE)
    with pytest.raises(KeyboardInterrupt):
        embed_rows(embedder, broken_after(32), output, DONE)
    assert not output.exists()
    report = embed_rows(embedder, rows(), output, DONE)
    assert 0 < report.resumed_rows <= 32
    assert report.rows == len(TEXTS)
    if ending == "npy":
        assert np.allclose(np.load(output), np.load(whole), atol=1e-6)


def test_finished_rows_are_not_embedded_again(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_rows(embedder, broken_after(32), tmp_path / "a.npy", DONE)
    seen: list[int] = []
    report = embed_rows(
        embedder, rows(), tmp_path / "a.npy", DONE, progress=lambda n, tokens: seen.append(tokens)
    )
    assert seen[0] == 0
    assert sum(seen) < report.tokens


def test_a_torn_write_after_the_last_whole_chunk_is_dropped(
    embedder: Embedder, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_rows(embedder, broken_after(32), tmp_path / "a.npy", DONE)
    for name in ("vectors.f32", "ids.jsonl"):
        with (tmp_path / "a.npy.partial" / name).open("ab") as file:
            file.write(b"torn")
    embed_rows(embedder, rows(), tmp_path / "a.npy", DONE)
    expected = embedder.encode_document(TEXTS)
    assert np.allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-5)


def test_another_input_is_refused(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_rows(embedder, broken_after(32), tmp_path / "a.npy", DONE)
    with pytest.raises(ResumeError, match=r"rows of the input are not those .* --restart"):
        embed_rows(embedder, rows(TEXTS[::-1]), tmp_path / "a.npy", DONE)
    report = embed_rows(embedder, rows(TEXTS[::-1]), tmp_path / "a.npy", DONE, restart=True)
    assert report.resumed_rows == 0


def test_other_settings_are_refused_by_name(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_rows(embedder, broken_after(32), tmp_path / "a.npy", DONE)
    with pytest.raises(ResumeError, match=r"with another settings\. Run it again as it was"):
        embed_rows(embedder, rows(), tmp_path / "a.npy", replace(DONE, role="query"))


def test_another_model_is_refused_by_name(embedder: Embedder, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed_rows(embedder, broken_after(32), tmp_path / "a.npy", DONE)
    other = Embedder(open_model(folder, {"pooling": "last"}), "fp32", "cpu")
    with pytest.raises(ResumeError, match=r"with another fingerprint and spec"):
        embed_rows(other, rows(), tmp_path / "a.npy", DONE)


def test_a_bad_row_is_named_and_the_rest_is_kept(embedder: Embedder, tmp_path: Path) -> None:
    texts = [*TEXTS[:20], "  ", *TEXTS[20:]]
    with pytest.raises(InputError, match=r"in\.txt, line 21: the text is only white space"):
        embed_rows(embedder, rows(texts), tmp_path / "a.npy", DONE)
    fixed = [*TEXTS[:20], "mended", *TEXTS[20:]]
    report = embed_rows(embedder, rows(fixed), tmp_path / "a.npy", DONE)
    assert report.resumed_rows > 0
    assert report.rows == len(fixed)


def test_empty_rows_can_be_zeros(embedder: Embedder, tmp_path: Path) -> None:
    settings = replace(DONE, on_empty="zero")
    embed_rows(embedder, rows(["one", "", "two"], "zero"), tmp_path / "a.npy", settings)
    assert not np.load(tmp_path / "a.npy")[1].any()


def test_a_bad_first_row_leaves_nothing(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1"):
        embed_rows(embedder, rows([""]), tmp_path / "a.npy", DONE)
    assert list(tmp_path.iterdir()) == []


def test_no_rows_give_an_empty_matrix(embedder: Embedder, tmp_path: Path) -> None:
    report = embed_rows(embedder, rows([]), tmp_path / "a.npy", DONE)
    assert report.rows == 0
    assert np.load(tmp_path / "a.npy").shape == (0, embedder.dimension)


def test_cut_texts_are_counted(folder: Path, tmp_path: Path) -> None:
    short = Embedder(open_model(folder, {"max_tokens": 4}), "fp32", "cpu")
    assert embed_rows(short, rows(TEXTS[:3]), tmp_path / "a.npy", DONE).cut == 3


def test_a_killed_process_can_go_on(folder: Path, embedder: Embedder, tmp_path: Path) -> None:
    """``kill -9`` in the middle of a run, then the same run again."""
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from polyvec.engine import bulk
        from polyvec.engine.embedder import Embedder
        from polyvec.model.files import open_model
        from tests.test_bulk import rows, TEXTS, DONE
        bulk.MIN_CHUNK_ROWS, bulk.MAX_CHUNK_ROWS = 5, 10
        def until_killed():
            for n, row in enumerate(rows()):
                if n == 40:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield row
        embedder = Embedder(open_model(Path({str(folder)!r})), "fp32", "cpu")
        bulk.embed_rows(embedder, until_killed(), Path("a.npy"), DONE)
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    report = embed_rows(embedder, rows(), tmp_path / "a.npy", DONE)
    assert report.resumed_rows > 0
    expected = embedder.encode_document(TEXTS)
    assert np.allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-5)
    shutil.rmtree(tmp_path)
