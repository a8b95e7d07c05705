"""Served indexes brought up to date: ``polyvec index`` in a process of its own.

Reading files may take any memory and time, and the processes of served models are for queries. The
index is read as before meanwhile, and what is new is found as it comes.
"""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("polyvec.serve")
_COUNTS = ("added", "changed", "moved", "deleted", "unchanged")
_SHOWN_CHARACTERS = 300
_END_S = 10.0
"""A process that is told to end finishes writing what it has."""


class Updates:
    """One update an index at a time, and how the last one ended."""

    def __init__(self, is_allowed: bool) -> None:
        self.is_allowed = is_allowed
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def can(self, root: str) -> bool:
        """Return whether an index's folder may be read anew, and is on this machine."""
        return self.is_allowed and root != "" and Path(root).is_dir()

    def start(self, name: str, root: str, uri: str) -> None:
        """Begin to bring an index up to date, unless that is being done already."""
        command = [sys.executable, "-m", "polyvec", "index", root, "--index", uri, "--json"]
        with self._lock:
            if name in self._running:
                return
            process = self._running[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
        threading.Thread(target=self._wait, args=(name, process), daemon=True).start()

    def facts(self, name: str) -> dict[str, Any]:
        """Return whether one runs, and the counts or the problem of the last that ended."""
        with self._lock:
            return {"is_running": name in self._running, "last": self._last.get(name)}

    def close(self) -> None:
        """End what runs; the same command goes on where it was."""
        with self._lock:
            running = list(self._running.values())
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _wait(self, name: str, process: "subprocess.Popen[str]") -> None:
        printed, said = process.communicate()
        ended = _outcome(process.returncode, printed, said)
        if ended["problem"] is not None:
            _LOG.warning("The index %s was not brought up to date: %s", name, said.strip())
        with self._lock:
            self._last[name] = ended
            del self._running[name]


def _outcome(code: int, printed: str, said: str) -> dict[str, Any]:
    if code == 0:
        report = json.loads(printed)
        counts = {count: report[count] for count in _COUNTS}
        return {"problem": None, **counts, "failed": len(report["failed"])}
    problem = " ".join(said.split())[-_SHOWN_CHARACTERS:]
    return {"problem": problem or f"polyvec index ended with {code}."}
