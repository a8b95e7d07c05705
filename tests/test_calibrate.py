"""Tokens in a batch: measured once for a machine, kept, and taken where there is much to do."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from polyvec.engine import calibrate, embedder
from polyvec.engine.embedder import Embedder, load
from tests.tiny import write_model


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embedder:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedder, "_CALIBRATED_FROM_TOKENS", 100)
    return load(str(write_model(tmp_path / "m")), precision="fp32")


def _count_measurements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    measured = calibrate._measured

    def counted(*given: object) -> int:
        calls.append(1)
        return measured(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(calibrate, "_measured", counted)
    return calls


def test_it_is_measured_once_for_a_machine(
    model: Embedder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = _count_measurements(monkeypatch)
    few, many = ["a few words"], ["some more words than that"] * 50
    before = model.max_batch_tokens
    expected = model.encode_document(few)
    assert calls == []
    assert model.max_batch_tokens == before
    model.encode_document(many)
    model.encode_document(many)
    assert calls == [1]
    assert model.max_batch_tokens in calibrate.CANDIDATES
    assert np.abs(model.encode_document(few) - expected).max() < 1e-6
    again = load(str(tmp_path / "m"), precision="fp32")
    again.encode_document(many)
    assert calls == [1]
    assert again.max_batch_tokens == model.max_batch_tokens


def test_a_stated_number_is_kept(
    tmp_path: Path, model: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _count_measurements(monkeypatch)
    stated = load(str(tmp_path / "m"), precision="fp32", max_batch_tokens=77)
    stated.encode_document(["some words"] * 100)
    assert (stated.max_batch_tokens, calls) == (77, [])
    assert model.max_batch_tokens != 77


@pytest.mark.parametrize("junk", [b"not json", b"[]", b'{"key": 5}'])
def test_a_spoilt_file_is_measured_again(model: Embedder, tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "cache").mkdir()
    file = tmp_path / "cache" / calibrate.FILE
    file.write_bytes(junk)
    model.encode_document(["some words"] * 100)
    assert model.max_batch_tokens in orjson.loads(file.read_bytes()).values()


def test_a_folder_that_cannot_be_written_stops_nothing(
    model: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "file" / "below"))
    assert len(model.encode_document(["some words"] * 100)) == 100
