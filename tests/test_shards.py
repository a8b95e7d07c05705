"""Shards: the bytes do not depend on who computes them, nor on how often."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from polyvec.engine import bulk, shards
from polyvec.engine.bulk import BulkSettings, embed_rows
from polyvec.engine.embedder import Embedder
from polyvec.engine.rows import Row
from polyvec.engine.shards import ShardJob, Shards, embed_shard, job_of
from polyvec.errors import InputError, ResumeError
from polyvec.model.files import open_model
from tests.command import Command
from tests.tiny import WORDS, write_json, write_model

TEXTS = [" ".join([word] * (1 + number % 4)) for number in range(40) for word in WORDS]
SETTINGS = BulkSettings()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("shards") / "model")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MIN_CHUNK_ROWS", 16)
    monkeypatch.setattr(bulk, "MAX_CHUNK_ROWS", 32)
    shards._embedder.cache_clear()


def rows(texts: list[str] = TEXTS) -> Iterator[Row]:
    return (Row(text, f"id{n}", f"in.txt, line {n + 1}") for n, text in enumerate(texts))


def job(folder: Path, precision: str = "fp32") -> ShardJob:
    return job_of(SETTINGS, model=str(folder), precision=precision, device="cpu")


def run_all(plan: Shards, texts: list[str] = TEXTS) -> list[bool]:
    """Embed every shard; say which were done before."""
    parts = plan.plan(rows(texts))
    return [embed_shard(str(s.source), str(s.target), plan.job)["was_done"] for s in parts]


def precisions() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    return ["fp32", "bf16", "int8"] if "AVX512" in capability else ["fp32"]


@pytest.mark.parametrize("precision", precisions())
@pytest.mark.parametrize("ending", ["npy", "jsonl", "parquet"])
def test_shards_have_the_bytes_of_one_run(
    folder: Path, tmp_path: Path, precision: str, ending: str
) -> None:
    whole, output = tmp_path / f"whole.{ending}", tmp_path / f"a.{ending}"
    embed_rows(Embedder(open_model(folder), precision, "cpu"), rows(), whole, SETTINGS)
    plan = Shards(output, job(folder, precision), 64, restart=False)
    run_all(plan)
    report, is_uniform = plan.gather(0, 1.0)
    assert output.read_bytes() == whole.read_bytes()
    assert (report.rows, is_uniform) == (len(TEXTS), True)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [output.name, f"{output.name}.json", whole.name, f"{whole.name}.json"]
    )


@pytest.mark.parametrize("precision", precisions())
def test_threads_change_no_byte(folder: Path, tmp_path: Path, precision: str) -> None:
    written = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            embedder = Embedder(open_model(folder), precision, "cpu")
            output = tmp_path / f"{threads}.npy"
            embed_rows(embedder, rows(), output, SETTINGS)
        finally:
            torch.set_num_threads(1)
        written.append(output.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("precision", precisions())
def test_an_interruption_changes_no_byte(folder: Path, tmp_path: Path, precision: str) -> None:
    def until_interrupted() -> Iterator[Row]:
        yield from list(rows())[:150]
        raise KeyboardInterrupt

    embedder = Embedder(open_model(folder), precision, "cpu")
    embed_rows(embedder, rows(), tmp_path / "whole.npy", SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        embed_rows(embedder, until_interrupted(), tmp_path / "a.npy", SETTINGS)
    assert embed_rows(embedder, rows(), tmp_path / "a.npy", SETTINGS).resumed_rows == 128
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_what_is_done_is_not_made_again(folder: Path, tmp_path: Path) -> None:
    assert not any(run_all(Shards(tmp_path / "a.npy", job(folder), 64, restart=False)))
    again = Shards(tmp_path / "a.npy", job(folder), 64, restart=False)
    before = {p: p.stat().st_mtime_ns for p in again.folder.glob("*.npy")}
    assert all(shard.is_done for shard in again.plan(rows()))
    assert all(run_all(Shards(tmp_path / "a.npy", job(folder), 64, restart=False)))
    assert {p: p.stat().st_mtime_ns for p in again.folder.glob("*.npy")} == before
    assert again.redone == 0


def test_shards_whose_texts_changed_are_made_again(folder: Path, tmp_path: Path) -> None:
    run_all(Shards(tmp_path / "a.npy", job(folder), 64, restart=False))
    changed = [*TEXTS[:70], "another text", *TEXTS[71:]]
    plan = Shards(tmp_path / "a.npy", job(folder), 64, restart=False)
    assert run_all(plan, changed) == [True, False, *[True] * 3]
    assert plan.redone == 1
    plan.gather(0, 1.0)
    embedder = Embedder(open_model(folder), "fp32", "cpu")
    embed_rows(embedder, rows(changed), tmp_path / "whole.npy", SETTINGS)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_shorter_input_leaves_no_rows_of_the_longer_one(folder: Path, tmp_path: Path) -> None:
    run_all(Shards(tmp_path / "a.npy", job(folder), 64, restart=False))
    plan = Shards(tmp_path / "a.npy", job(folder), 64, restart=False)
    run_all(plan, TEXTS[:128])
    assert plan.gather(0, 1.0)[0].rows == 128
    assert len(np.load(tmp_path / "a.npy")) == 128


def test_other_settings_and_other_shards_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    run_all(Shards(tmp_path / "a.npy", job(folder), 64, restart=False))
    query = job_of(BulkSettings(role="query"), model=str(folder), precision="fp32", device="cpu")
    with pytest.raises(ResumeError, match=r"another settings\. Run it again as it was, or use --r"):
        Shards(tmp_path / "a.npy", query, 64, restart=False)
    with pytest.raises(ResumeError, match="another shard_rows"):
        Shards(tmp_path / "a.npy", job(folder), 96, restart=False)
    assert list(Shards(tmp_path / "a.npy", query, 64, restart=True).plan(iter(()))) == []


def test_a_machine_with_another_model_says_so(folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    plan = Shards(tmp_path / "a.npy", job(folder), 64, restart=False)
    shard = next(plan.plan(rows()))
    other = replace(plan.job, fingerprint="0" * 16)
    with pytest.raises(ResumeError, match="another model here than where the run was started"):
        embed_shard(str(shard.source), str(shard.target), other)


def test_rows_of_a_shard_are_a_multiple_of_what_is_computed_together(
    folder: Path, tmp_path: Path
) -> None:
    assert Shards(tmp_path / "a.npy", job(folder), 33, restart=False).shard_rows == 64


def test_no_rows_give_an_empty_matrix(folder: Path, tmp_path: Path) -> None:
    plan = Shards(tmp_path / "a.npy", job(folder), 64, restart=False)
    assert run_all(plan, []) == []
    plan.gather(0, 0.0)
    assert np.load(tmp_path / "a.npy").shape == (0, 48)


def test_shards_of_several_processors_are_told(folder: Path, tmp_path: Path) -> None:
    plan = Shards(tmp_path / "a.npy", job(folder), 64, restart=False)
    run_all(plan)
    manifest = next(plan.folder.glob("*.npy.json"))
    facts = json.loads(manifest.read_text())
    write_json(manifest, facts | {"made_on": facts["made_on"] | {"processor": "another"}})
    assert plan.gather(0, 1.0)[1] is False
    assert len(json.loads((tmp_path / "a.npy.json").read_text())["made_on"]) == 2


# With Dask


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": t, "n": n}) + "\n" for n, t in enumerate(LINES)))
    return path


LINES = [f"{WORDS[n % len(WORDS)][: 8 + n % 17]} {n}" for n in range(9_000)]
"""Five shards of the real sizes, which the processes have."""


def command(folder: Path, lines: Path, output: str, *more: str) -> list[str]:
    inputs = ["--input", str(lines), "--output", str(lines.with_name(output))]
    return ["embed", *inputs, "--model", str(folder), "--precision", "fp32", *more]


def test_workers_write_the_bytes_of_the_plain_command(
    folder: Path, lines: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the workers have the real sizes
    assert run(*command(folder, lines, "whole.npy")).code == 0
    done = run(*command(folder, lines, "a.npy", "--workers", "2", "--shard-rows", "1000", "--json"))
    assert done.code == 0, done.err
    assert json.loads(done.out)["rows"] == len(LINES)
    assert lines.with_name("a.npy").read_bytes() == lines.with_name("whole.npy").read_bytes()
    assert not lines.with_name("a.npy.shards").exists()


def test_a_killed_worker_loses_its_shard_and_no_more(
    folder: Path, lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``kill -9`` of a worker with shards in its hands: another does them again."""
    pytest.importorskip("distributed")
    from polyvec.engine.cluster import embed_over, local_cluster

    monkeypatch.undo()
    plan = Shards(tmp_path / "a.npy", job(folder), 2_048, restart=False)
    victims: list[int] = []
    with local_cluster(2) as client:

        def kill_one(_texts: int, _tokens: int) -> None:
            if not victims:
                victims.extend(client.run(os.getpid).values())
                os.kill(victims[0], signal.SIGKILL)

        report, _ = embed_over(client, rows(LINES), plan, kill_one)
    assert len(victims) == 2
    embedder = Embedder(open_model(folder), "fp32", "cpu")
    embed_rows(embedder, rows(LINES), tmp_path / "whole.npy", SETTINGS)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert report.rows == len(LINES)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_a_run_that_was_killed_whole_goes_on_with_a_scheduler(
    folder: Path, lines: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some shards are done; a scheduler's workers make the rest."""
    pytest.importorskip("distributed")
    monkeypatch.undo()
    output = lines.with_name("a.npy")
    plan = Shards(output, job(folder), 2_048, restart=False)
    plain = (Row(text, n, "") for n, text in enumerate(LINES))
    for shard in list(plan.plan(plain))[:2]:
        embed_shard(str(shard.source), str(shard.target), plan.job)
    address = f"127.0.0.1:{free_port()}"
    with running("scheduler", "--host", address, "--no-dashboard", "--no-show"):
        worker = ("worker", address, "--nthreads", "1", "--no-dashboard")
        with running(*worker, "--local-directory", str(lines.parent / "w")):
            more = ("--scheduler", address, "--shard-rows", "2048", "--json")
            done = run(*command(folder, lines, "a.npy", *more))
    assert done.code == 0, done.err
    assert json.loads(done.out)["resumed_rows"] == 4_096
    run(*command(folder, lines, "whole.npy"))
    assert output.read_bytes() == lines.with_name("whole.npy").read_bytes()


class running:  # noqa: N801 (reads as a word)
    """A ``dask`` command in the background."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments

    def __enter__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dask", *self.arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def test_a_bad_row_is_named_by_its_line_in_the_input(
    folder: Path, lines: Path, run: Command
) -> None:
    with lines.open("a") as file:
        file.write('{"text": " "}\n')
    failed = run(*command(folder, lines, "a.npy", "--workers", "1", "--shard-rows", "2048"))
    assert failed.code == 2
    assert "line 9001: the text is only white space" in failed.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--workers", "0"), "--workers is 0; it must be at least 1"),
        (("--workers", "1", "--scheduler", "a:1"), "not both"),
        (("--workers", "1", "--memory", "2GB"), "--memory is of one process"),
        (("--scheduler", "127.0.0.1:9"), "no Dask scheduler at 127.0.0.1:9"),
    ],
)
def test_what_cannot_be_is_said(
    folder: Path,
    lines: Path,
    run: Command,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    words: str,
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("polyvec.engine.cluster._CONNECT_TIMEOUT_S", 1)
    failed = run(*command(folder, lines, "a.npy", *more))
    assert failed.code != 0
    assert words in " ".join(failed.err.split())


def test_workers_need_files(folder: Path, run: Command) -> None:
    failed = run("embed", "a text", "--workers", "2", "--model", str(folder))
    assert failed.code == 2
    assert "need --input FILE and --output FILE" in failed.err


def test_dimensions_that_the_model_lacks_are_refused_before_any_work(
    folder: Path, tmp_path: Path
) -> None:
    wrong = job_of(BulkSettings(dimensions=7), model=str(folder), precision="fp32", device="cpu")
    with pytest.raises(InputError, match="dimensions"):
        Shards(tmp_path / "a.npy", wrong, 64, restart=False)
