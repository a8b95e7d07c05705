"""``polyvec serve`` as a command: start, check, errors, and a real process that is stopped."""

import errno
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from polyvec.cli import serve as serve_command
from polyvec.serve.settings import ServeSettings
from tests.command import Command


def test_check_loads_and_tries_every_model(run: Command, tiny_folder: Path) -> None:
    arguments = ("serve", f"tiny={tiny_folder}", "--check", "--port", "0", "--precision", "fp32")
    result = run(*arguments)
    assert result.code == 0
    assert "tiny: fp32 on" in result.out
    assert "48 numbers" in result.out
    assert "Everything is ready to serve." in result.out
    result = run(*arguments, "--json")
    (model,) = json.loads(result.out)["models"]
    assert (model["name"], model["precision"], model["dimension"]) == ("tiny", "fp32", 48)
    assert model["memory_bytes"] > 10**7


def test_check_says_what_would_fail(run: Command, tiny_folder: Path, tmp_path: Path) -> None:
    result = run("serve", str(tmp_path / "none"), "--check", "--port", "0")
    assert result.code == 1
    assert "No model" in result.err
    (tmp_path / "keys").write_text("short")
    result = run("serve", str(tiny_folder), "--check", "--api-key-file", str(tmp_path / "keys"))
    assert result.code == 2
    assert "16 are the least" in result.err


def test_a_taken_port_is_said_before_anything_is_loaded(run: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        result = run("serve", "no-such-model", "--port", port)
    assert result.code == 2
    assert f"Cannot listen on 127.0.0.1 port {port}" in result.err
    assert "--port 0 for a free one" in result.err


def test_settings_come_from_a_file_and_flags_win(run: Command, tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('models = ["no-such-model"]\nport = 0\nmax_texts = 5\n')
    result = run("serve", "--check", "--config", str(file))
    assert result.code == 1
    assert "no-such-model" in result.err
    result = run("serve", "other-model", "--check", "--config", str(file))
    assert "other-model" in result.err
    file.write_text("max_text = 5\n")
    result = run("serve", "--config", str(file))
    assert result.code == 2
    assert "did you mean 'max_texts'" in result.err


def test_without_the_extra_it_names_the_command(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run("serve")
    assert result.code == 1
    assert "pip install 'polyvec[serve]'" in result.err


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_real_server_starts_serves_and_stops(tiny_folder: Path, number: int) -> None:
    code = "from polyvec.cli.main import run; run()"
    command = [sys.executable, "-c", code, "serve", f"tiny={tiny_folder}", "--port", "0", "--json"]
    with subprocess.Popen(
        [*command, "--log-format", "json", "--host", "0.0.0.0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            port = ready["url"].rsplit(":", 1)[1]
            url = f"http://127.0.0.1:{port}/api/embed"
            answer = httpx.post(url, json={"model": "tiny", "input": "fox"}, trust_env=False)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()  # or a failure above would wait for it for ever
    assert ready["models"] == ["tiny"]
    assert answer.status_code == 200
    assert process.returncode == 0
    lines = err.splitlines()
    assert "can be reached from other machines and no API key is asked for" in lines[0]
    events = [json.loads(line)["event"] for line in lines[1:] if line.startswith("{")]
    assert events == ["model loaded", "request", "model unloaded"]
    assert "Traceback" not in err


def test_every_flag_is_a_setting_by_the_same_name() -> None:
    """Flags reach the settings by name: one that is called otherwise would be ignored."""
    flags = set(inspect.signature(serve_command.serve).parameters)
    settings = {field.name for field in fields(ServeSettings)}
    assert flags - settings == {"context", "config", "check", "as_json"}
    assert settings <= flags, "every setting has a flag"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to a full disk")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_server_whose_log_is_on_a_full_disk_serves_on(tiny_folder: Path, log_format: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
    code = "from polyvec.cli.main import run; run()"
    command = [sys.executable, "-c", code, "serve", f"tiny={tiny_folder}", "--port", port]
    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(
            [*command, "--log-format", log_format, "--host", "0.0.0.0"], stderr=full
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
                while not _answers(client):
                    assert process.poll() is None, "it ended"
                    time.sleep(0.1)
                body = {"model": "tiny", "input": "fox"}
                for _ in range(200):  # more lines than its buffer holds
                    assert client.post("/api/embed", json=body).status_code == 200
                assert client.post("/api/embed", json={}).status_code == 400
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_no_room_for_a_model_is_said_and_ends_the_start(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path))
    monkeypatch.setattr("polyvec.hub.tempfile.mkdtemp", full)
    monkeypatch.setattr("polyvec.hub.tempfile.TemporaryDirectory", full)
    result = run("serve", "default", "--check", "--port", "0")
    assert result.code == 1
    assert f"No room in {tmp_path}" in result.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
