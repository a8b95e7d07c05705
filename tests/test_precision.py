"""Which precision `auto` takes: by what was measured on the model's own weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import polyvec
from polyvec.engine import quality
from polyvec.engine.cpu import has_int8
from polyvec.engine.quality import Measured, measured, of_weights, pick_for, remember
from polyvec.errors import InputError
from polyvec.kernels.library import library
from polyvec.metrics import Fidelity
from polyvec.model.files import ModelFiles, open_model
from tests.command import Command
from tests.tiny import write_model

CPU = torch.device("cpu")
GOOD = Fidelity(0.999, 0.995, 0.98)

needs_int8 = pytest.mark.skipif(library() is None or not has_int8(), reason="no int8 products here")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return open_model(write_model(tmp_path / "tiny"))


def _row(files: ModelFiles, found: Fidelity = GOOD, texts: int = 400) -> Measured:
    return measured(files, "tiny", "int8", found, texts, "here")


@needs_int8
def test_auto_is_int8_only_after_it_was_measured_to_hold(files: ModelFiles) -> None:
    before = pick_for(files, "auto", CPU)
    assert before in ("bf16", "fp32")
    remember(_row(files))
    assert pick_for(files, "auto", CPU) == "int8"
    assert pick_for(files, "fp32", CPU) == "fp32"
    assert polyvec.load(str(files.path)).is_faithful
    assert not polyvec.load(str(files.path), precision="int8").is_faithful
    remember(_row(files, Fidelity(0.999, 0.995, 0.96)))  # measured again, in the first one's place
    assert pick_for(files, "auto", CPU) == before
    assert len(quality.remembered()) == 1


@pytest.mark.parametrize(
    ("found", "texts"),
    [
        (Fidelity(0.9979, 0.995, 0.98), 400),
        (Fidelity(0.999, 0.9899, 0.98), 400),
        (Fidelity(0.999, 0.995, 0.9699), 400),
        (GOOD, 399),
    ],
)
def test_every_bar_counts(files: ModelFiles, found: Fidelity, texts: int) -> None:
    assert not _row(files, found, texts).holds
    assert _row(files).holds


def test_other_weights_are_another_model(files: ModelFiles, tmp_path: Path) -> None:
    remember(_row(files))
    assert of_weights(files, "int8") is not None
    assert of_weights(files, "bf16") is None
    weights = files.weights.files[0]
    raw = bytearray(weights.read_bytes())
    raw[-3] ^= 1
    weights.write_bytes(raw)
    assert of_weights(open_model(files.path), "int8") is None


def test_another_attention_is_another_model(files: ModelFiles) -> None:
    remember(_row(files))
    causal = replace(files, spec=replace(files.spec, attention="causal"))
    assert of_weights(causal, "int8") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[{}]", b"3"])
def test_a_broken_file_is_as_none(files: ModelFiles, content: bytes) -> None:
    path = remember(_row(files))
    path.write_bytes(content)
    assert quality.remembered() == ()
    remember(_row(files))
    assert len(quality.remembered()) == 1


def test_the_table_of_the_package_can_be_read() -> None:
    for row in quality.shipped():
        assert 0.9 < row.cosine_mean <= 1
        assert row.weights is None or len(row.weights) == 16


@needs_int8
def test_the_command_measures_and_remembers(
    run: Command, files: ModelFiles, tmp_path: Path
) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("\n".join(f"text {n} of fox {n * n}" for n in range(450)))
    said = json.loads(run("precision", files.path, texts, "--json").out)
    assert [row["precision"] for row in said["precisions"]][-1] == "int8"
    assert all(row["texts"] == 450 for row in said["precisions"])
    known = of_weights(files, "int8")
    assert known is not None
    assert said["auto"] == ("int8" if known.holds else pick_for(files, "auto", CPU))
    assert f"is {said['auto']} for this model" in run("precision", files.path, texts).out


def test_too_few_texts_are_refused(run: Command, files: ModelFiles, tmp_path: Path) -> None:
    texts = tmp_path / "t.txt"
    texts.write_text("\n".join(["one", "two"] * 300))
    refused = run("precision", files.path, texts)
    assert refused.code == InputError.exit_code
    assert "2 different texts; 400 are the least" in refused.err
