"""What is in ``deploy/``: it names files, flags and settings that there are."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from polyvec.cli import serve as serve_command
from polyvec.serve.settings import ServeSettings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "polyvec.service").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


def test_the_dockerfile_copies_what_the_build_needs(tmp_path: Path) -> None:
    """The wheel is built from exactly what the first stage copies."""
    stage = DOCKERFILE.split("AS build", 1)[1].split("\nFROM ", 1)[0]
    for line in re.findall(r"^COPY (.+)$", stage, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("*.so")
                )
            else:
                shutil.copy(ROOT / source, tmp_path / target / source)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"]
    # No compiler: what is looked at is whether the build finds its files.
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"CXX": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("polyvec-*.whl"))) == 1


def _options(words: list[str]) -> set[str]:
    return {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}


def test_flags_are_those_of_the_command() -> None:
    known = set(inspect.signature(serve_command.serve).parameters)
    docker = re.findall(r"^(?:ENTRYPOINT|CMD) (\[.+\])$", DOCKERFILE, re.MULTILINE)
    unit = [line.partition("=")[2] for line in UNIT.splitlines() if line.startswith("ExecStart")]
    assert (len(docker), len(unit)) == (2, 2)
    for words in [*map(json.loads, docker), *map(shlex.split, unit)]:
        assert _options(words) <= known


def test_settings_are_those_of_the_server() -> None:
    text = (DEPLOY / "serve.toml").read_text()
    assert ServeSettings(**tomllib.loads(text)) == ServeSettings()
    # Those that wait behind a # are settings too.
    offered = tomllib.loads(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    assert set(offered) <= set(inspect.signature(ServeSettings).parameters)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "polyvec.service"
    unit.write_text(UNIT.replace("/opt/polyvec/bin/polyvec", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert "polyvec.service" not in done.stderr, done.stderr
