"""Contenders that need a Python of their own: other engines, which must not change our torch.

Each is a script beside this one, ``peer_<name>.py``, run by the Python that an environment
variable names (else this one), in the same interleaved rounds as the contenders in this Python.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contenders import Timing, UnavailableError, Vectors
from texts import Workloads


@dataclass(frozen=True)
class Engine:
    """An engine of others."""

    script: str
    modules: tuple[str, ...]
    """What it imports."""
    variable: str
    """Names the Python that has them."""
    install: str
    model: str
    """The file it reads, inside the bench's folder."""


ENGINES = {
    "onnxruntime int8": Engine(
        "peer_onnx.py",
        ("onnx", "onnxruntime", "tokenizers"),
        "ONNXRUNTIME_PYTHON",
        "pip install onnx onnxruntime tokenizers",
        "model",
    ),
    "openvino int8": Engine(
        "peer_openvino.py",
        ("onnx", "openvino", "nncf", "tokenizers"),
        "OPENVINO_PYTHON",
        "pip install onnx openvino nncf tokenizers",
        "model",
    ),
    "llama.cpp Q8_0": Engine(
        "peer_llama.py",
        ("llama_cpp",),
        "LLAMA_PYTHON",
        "pip install --no-binary llama-cpp-python llama-cpp-python",
        "model-Q8_0.gguf",
    ),
}


class Foreign:
    """An engine at work in a process of its own; called as a :class:`contenders.Worker` is.

    Raises:
        UnavailableError: It is not installed.
    """

    def __init__(self, engine: Engine, folder: Path, threads: int, query_prefix: str) -> None:
        python = os.environ.get(engine.variable, sys.executable)
        check_installed(engine, python)
        self.prefix = query_prefix
        self.script = Path(__file__).with_name(engine.script)
        command = [python, str(self.script), str(folder / engine.model), str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._receive()

    def prepare(self, workloads: Workloads) -> None:
        """Hand over the texts that are timed."""
        texts = {"mixed": workloads.mixed, "uniform": workloads.uniform}
        self._call("prepare", texts | {"query": [self.prefix + workloads.query]})

    def __call__(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401 (as the method)
        """Call a method there and wait for its result."""
        if method == "timings":
            return [Timing(*spent) for spent in self._call(method, *arguments)]
        if method == "vectors":
            return self._embed(arguments[0])
        if method == "query_vectors":
            return self._embed([self.prefix + text for text in arguments[0]])
        return self._call(method, *arguments)

    def _embed(self, texts: list[str]) -> Vectors:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "vectors.npy"
            self._call("embed", texts, str(output))
            vectors: Vectors = np.load(output)
        return vectors

    def _call(self, method: str, *arguments: Any) -> Any:  # noqa: ANN401
        assert self.process.stdin
        print(json.dumps((method, arguments)), file=self.process.stdin, flush=True)
        return self._receive()

    def _receive(self) -> Any:  # noqa: ANN401
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise SystemExit(f"{self.script} ended with status {status}; its error is above.")
        return json.loads(line)

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def check_installed(engine: Engine, python: str) -> None:
    """Refuse an engine that this Python cannot import.

    Raises:
        UnavailableError: It cannot; the message says how to install it.
    """
    imports = "; ".join(f"import {module}" for module in engine.modules)
    done = subprocess.run([python, "-c", imports], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UnavailableError(
            f"{reason} in {python}. Make an environment for it, `{engine.install}` there, and "
            f"set {engine.variable} to its Python."
        )
