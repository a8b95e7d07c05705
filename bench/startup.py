"""Start-up: wall time of fresh processes, on a warm disk cache."""

import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "python": "pass",
    "import polyvec": "import polyvec",
    "load + first query": (
        "import polyvec; polyvec.load('default').encode_query(['What is a black hole?'])"
    ),
}


def measure(rounds: int) -> dict[str, float]:
    """Return each program's median seconds; the first run of each only warms up."""
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds + 1):
        for name, program in PROGRAMS.items():
            times[name].append(_seconds(program))
    return {name: round(statistics.median(spent[1:]), 3) for name, spent in times.items()}


def _seconds(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - started
