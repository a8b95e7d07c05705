"""Runs the ``polyvec`` command in the test's own process, as a shell would."""

import io
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from polyvec.cli import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """Runs ``polyvec`` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, *arguments: str | Path, stdin: str = "") -> Result:
        self.monkeypatch.setattr(sys, "argv", ["polyvec", *map(str, arguments)])
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main.run()
        sys.stdout.flush()
        out, err = self.capfd.readouterr()
        return Result(exit_.value.code or 0, out, " ".join(err.split()))  # type: ignore[arg-type]
