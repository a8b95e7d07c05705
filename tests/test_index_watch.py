"""``polyvec index --watch`` in a terminal: it shows how far it is, follows changes, and ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from polyvec.search.place import VARIABLE

pty = pytest.importorskip("pty", reason="terminals of POSIX")


class Terminal:
    """Collects what a program writes to a terminal."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.shown = ""
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        while True:
            try:
                self.shown += os.read(self.ours, 4096).decode(errors="replace")
            except OSError:  # the program has ended
                return

    def until(self, is_so: Callable[[], bool], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, self.shown
            time.sleep(0.05)


def test_it_shows_progress_follows_changes_and_ends(tmp_path: Path, tiny_folder: Path) -> None:
    root = tmp_path / "docs"
    root.mkdir()
    for n in range(3):
        (root / f"{n}.txt").write_text(f"Text number {n} is about {n * n}.")
    command = [sys.executable, "-m", "polyvec", "index", str(root), "--watch", "--model"]
    settings = {VARIABLE: str(tmp_path / "indexes"), "TERM": "xterm", "COLUMNS": "160"}
    screen, said = Terminal(), tmp_path / "said"
    with said.open("w") as out:
        running = subprocess.Popen(
            [*command, str(tiny_folder), "--chunk-tokens", "40"],
            stdout=out,
            stderr=screen.theirs,
            env=os.environ | settings,
        )
    screen.until(lambda: "Watching" in screen.shown)
    assert "3/3 files" in screen.shown
    assert "tokens/s" in screen.shown
    assert "0:00:0" in screen.shown, "the time that is left"
    time.sleep(1)  # until it does watch
    (root / "new.txt").write_text("A new text.")
    screen.until(lambda: "1 added" in said.read_text())
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    screen.until(lambda: "the same command goes on from there" in screen.shown, 10)
    assert said.read_text().splitlines()[0].startswith("3 added; 3 chunks in ")
