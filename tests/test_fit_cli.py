"""``polyvec fit`` as it is typed."""

import json
from pathlib import Path

import pytest

from polyvec.fit import rates
from tests.command import Command

NEMOTRON = "llama-embed-nemotron-8b"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rates, "_measure", lambda *_: 1e-3)
    monkeypatch.setenv("COLUMNS", "200")


def test_a_table_without_any_file_of_the_model(run: Command) -> None:
    done = run("fit", NEMOTRON, "--texts", "200000", "--tokens", "300")
    assert done.code == 0
    assert "7.50 billion weights" in done.out
    assert "60.0 million tokens" in done.out
    assert "RTX 4090" in done.out
    assert "of all-MiniLM-L6-v2" in done.out
    assert "no prices yet" in done.err


def test_json_has_every_part(run: Command) -> None:
    found = json.loads(run("fit", NEMOTRON, "--device", "h100", "--json").out)
    (device,) = found["devices"]
    assert device["device"]["name"] == "H100 SXM"
    assert device["memory_bytes"] == sum(
        bytes_ for part, bytes_ in device["memory_parts"].items() if part != "host"
    )
    assert device["color"] == "green"
    assert device["hours"] == pytest.approx(128e6 / device["tokens_per_s"] / 3600)
    assert {a["precision"] for a in found["this_machine"]} >= {"fp32", "bf16", "int8"}


def test_less_memory_turns_it_red(run: Command) -> None:
    found = json.loads(
        run("fit", NEMOTRON, "--memory", "8GB", "--json", "--weights", "resident").out
    )
    here = {a["precision"]: a["color"] for a in found["this_machine"]}
    assert here["fp32"] == "red"
    assert here["bf16"] == "red"


def test_a_corpus_of_rows_is_counted(run: Command, tiny_folder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("the quick fox\nthe lazy dog\n")
    found = json.loads(run("fit", str(tiny_folder), "--corpus", str(rows), "--json").out)
    assert found["counted"]["texts"] == 2
    assert found["work"]["tokens"] == found["counted"]["tokens"]


def test_a_folder_is_counted_as_it_would_be_indexed(
    run: Command, tiny_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("semantic_text_splitter")
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text("# Foxes\n\nThe quick brown fox jumps over the lazy dog.\n")
    (folder / "b.txt").write_text("fox " * 2_000)
    found = json.loads(run("fit", str(tiny_folder), "--corpus", str(folder), "--json").out)
    assert found["counted"]["texts"] > 2  # the long one is cut
    assert found["counted"]["longest"] <= 400


def test_a_corpus_without_its_tokenizer_is_refused(run: Command, tmp_path: Path) -> None:
    done = run("fit", NEMOTRON, "--corpus", str(tmp_path))
    assert done.code == 2
    assert "not on this machine" in done.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("fit", "nosuch"), "nosuch"),
        (("fit", NEMOTRON, "--precision", "int3"), "int3"),
        (("fit", NEMOTRON, "--device", "GTX 1"), "GTX 1"),
        (("fit", NEMOTRON, "--tokens", "0"), "tokens"),
        (("fit", NEMOTRON, "--memory", "many"), "many"),
        (("fit", NEMOTRON, "--corpus", "/nosuch"), "/nosuch"),
    ],
)
def test_bad_input_is_an_error(run: Command, given: tuple[str, ...], said: str) -> None:
    done = run(*given)
    assert done.code != 0
    assert said in done.err
    assert "Traceback" not in done.err
