"""What a run says of itself: lines of JSON, a progress line, curves, and others' trackers."""

import importlib
import importlib.util
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from rich.console import Console

from polyvec.errors import MissingExtraError
from polyvec.train.recipe import LogSettings

METRICS_FILE, CURVES_FILE = "metrics.jsonl", "curves.png"
_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
Entry = Mapping[str, Any]


class Journal:
    """Writes ``metrics.jsonl`` and shows progress; only the first rank has a real one."""

    def __init__(
        self, folder: Path, settings: LogSettings, steps: int, start: int, console: Console
    ) -> None:
        self.path, self.settings, self.console = folder / METRICS_FILE, settings, console
        self.steps, self.start = steps, start
        self._began = time.monotonic()
        self._trackers = [_tracker(name, folder, start) for name in settings.trackers]
        _keep_until(self.path, start)
        self._file = self.path.open("ab")

    def write(self, entry: Entry) -> None:
        """Write a line and tell the trackers."""
        self._file.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()
        for tracker in self._trackers:
            tracker.add(int(entry["step"]), _numbers(entry))

    def progress(self, step: int, entry: Entry) -> None:
        """Show a line: the step, its loss, speed, memory, and the time that is left."""
        done = step - self.start
        left = (time.monotonic() - self._began) / max(1, done) * (self.steps - step)
        self.console.print(
            f"step {step:,}/{self.steps:,}  loss {entry['loss']:.4f}  "
            f"lr {entry['learning_rate']:.2e}  {entry['tokens_per_s']:,.0f} tokens/s  "
            f"{entry['memory_gb']:.1f} GB  {duration(left)} left"
        )

    def close(self) -> None:
        """Close the file and the trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _numbers(entry: Entry) -> dict[str, float]:
    """Return an entry's numbers by name; held-out scores are ``evaluation/SOURCE``."""
    scores = entry.get("evaluation", {})
    named = {k: v for k, v in entry.items() if isinstance(v, int | float) and k != "step"}
    return named | {f"evaluation/{source}": score for source, score in scores.items()}


def _keep_until(path: Path, step: int) -> None:
    """Drop lines of steps that are done again after a resume."""
    if not path.is_file():
        return
    lines = [line for line in path.read_bytes().splitlines() if line.startswith(b"{")]
    kept = [line for line in lines if line.endswith(b"}") and orjson.loads(line)["step"] <= step]
    path.write_bytes(b"".join(line + b"\n" for line in kept))


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h"


def memory_gb(device: torch.device) -> float:
    """Return the most memory this process has had: the GPU's, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class _TensorBoard:
    def __init__(self, folder: Path, start: int) -> None:
        summary = _library("tensorboard")
        # What a killed run wrote after its last checkpoint is written again.
        again = start + 1 if start else None
        self._writer = summary.SummaryWriter(str(folder / "tensorboard"), purge_step=again)

    def add(self, step: int, numbers: Entry) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: Path) -> None:
        self._run = _library("wandb").init(dir=str(folder), name=folder.name)

    def add(self, step: int, numbers: Entry) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def check_trackers(settings: LogSettings) -> None:
    """Refuse trackers whose libraries are not there, before any work is done.

    Raises:
        MissingExtraError: One is not installed.
    """
    for name in settings.trackers:
        _library(name)


def _tracker(name: str, folder: Path, start: int) -> "_TensorBoard | _Wandb":
    return _TensorBoard(folder, start) if name == "tensorboard" else _Wandb(folder)


def _library(tracker: str) -> Any:  # noqa: ANN401 (an optional library)
    try:
        return importlib.import_module(_MODULES[tracker])
    except ImportError as error:
        raise MissingExtraError(
            f"log.trackers names {tracker}, which is not installed: pip install {tracker}. Or "
            "take it out of the recipe; metrics.jsonl has every number."
        ) from error


def draw_curves(folder: Path) -> Path | None:
    """Draw loss and evaluation by step from ``metrics.jsonl``; None without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = [orjson.loads(line) for line in (folder / METRICS_FILE).read_bytes().splitlines()]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = [e for e in entries if "loss" in e]
    left.plot([e["step"] for e in steps], [e["loss"] for e in steps], linewidth=0.8)
    left.set(xlabel="step", ylabel="loss", title="training loss")
    measured = [e for e in entries if "evaluation" in e]
    for name in measured[-1]["evaluation"] if measured else ():
        points = [(e["step"], e["evaluation"].get(name)) for e in measured]
        right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    right.set(xlabel="step", title="held-out retrieval")
    if measured:
        right.legend(fontsize=7)
    path = folder / CURVES_FILE
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(path)
    return path
