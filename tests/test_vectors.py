import errno
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from polyvec.engine import vectors as module
from polyvec.engine.vectors import Vectors, check_writable, json_line, write_blocks
from polyvec.errors import DiskFullError, MissingExtraError, OutputError

VECTORS = np.random.default_rng(0).standard_normal((2500, 7)).astype(np.float32)


def ids() -> Iterator[str | int]:
    return iter([f"d{n}" for n in range(len(VECTORS))])


def write(path: Path, vectors: Vectors, ids: Iterator[str | int]) -> None:
    """Write them in parts that are no multiple of a block."""
    parts = iter([vectors[:700], vectors[700:]])
    write_blocks(path, parts, len(vectors), vectors.shape[1], ids)


def test_npy_is_what_numpy_reads(tmp_path: Path) -> None:
    write(tmp_path / "a.npy", VECTORS, ids())
    read = np.load(tmp_path / "a.npy")
    assert read.dtype == np.float32
    assert np.array_equal(read, VECTORS)


def test_jsonl_has_ids_and_exact_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", VECTORS, ids())
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(ids())
    assert np.array_equal(np.array([x["embedding"] for x in lines], np.float32), VECTORS)


def test_parquet_has_ids_and_exact_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", VECTORS, ids())
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["id"].to_pylist() == list(ids())
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), VECTORS)


@pytest.mark.parametrize("name", ["a.npy", "a.jsonl", "a.parquet"])
def test_no_rows_is_a_valid_file(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, VECTORS[:0], iter(()))
    assert (tmp_path / name).exists()
    if name == "a.npy":
        assert np.load(tmp_path / name).shape == (0, 7)


def test_a_line_has_no_more_digits_than_float32_holds() -> None:
    assert json_line(3, np.array([0.1, 1], np.float32)) == b'{"id":3,"embedding":[0.1,1.0]}\n'


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(_: Vectors) -> Iterator[Vectors]:
        yield VECTORS[:1]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_blocks", blocks)
    with pytest.raises(DiskFullError, match=r"No room left on the disk of .*a\.npy.*goes on where"):
        write(tmp_path / "a.npy", VECTORS, ids())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "a.npy").touch()
    with pytest.raises(OutputError, match=r"a\.npy exists already; use --force"):
        check_writable(tmp_path / "a.npy")
    check_writable(tmp_path / "a.npy", force=True)


def test_unwritable_outputs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"must end in one of \.npy, \.jsonl, \.parquet"):
        check_writable(tmp_path / "a.bin")
    with pytest.raises(OutputError, match=r"there is no folder .*none. Make it first"):
        check_writable(tmp_path / "none" / "a.npy")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match=r"is not writable"):
        check_writable(tmp_path / "a.npy")


def test_parquet_without_pyarrow_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"polyvec\[parquet\]"):
        check_writable(tmp_path / "a.parquet")
