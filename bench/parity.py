"""Do other programs get polyvec's vectors from the files it exports?

Run from the repository's root, with the development dependencies installed::

    python bench/parity.py                                # some 10 minutes of one core
    python bench/parity.py --llama-python /path/to/python # one that has llama-cpp-python

llama-cpp-python builds llama.cpp and stays out of the development dependencies: make an
environment for it and ``pip install llama-cpp-python`` there. What is not installed is skipped,
and said.

What it compares, over the 46 texts of ``polyvec verify`` as documents and as queries:

* ``folder``: sentence-transformers' public calls and transformers' own model, in fp32, with polyvec
  on the exported folder.
* ``gguf``: llama.cpp with polyvec on the exported file; llama.cpp is told nothing but its path.
  Besides its weights llama.cpp rounds *activations* to 8 bits wherever a weight is quantized
  (``vec_dot_type`` in ggml-cpu), which polyvec does not. So a quantized file has three rows: as
  llama.cpp runs it; its weights as float32, so that llama.cpp rounds nothing; and whether ggml
  expands every block to the numbers polyvec does. The bar is on the last two.
* ``k-quants``: root mean square error of our encoders and of llama.cpp's, tensor by tensor.

The last line of standard output is one JSON document. The exit code is 1 where a bar is missed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from gguf.constants import GGMLQuantizationType
from rich.console import Console
from rich.table import Table

from ggml import Ggml
from polyvec.engine.embedder import Embedder
from polyvec.hub import resolve
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.gguf_file import GgufFile
from polyvec.model.quants import dequantize
from polyvec.publish.export import export
from polyvec.publish.kquants import quantize
from polyvec.publish.sides import read_probes

Vectors = npt.NDArray[np.float32]

GGUF_TYPES = ("F16", "Q8_0", "Q4_K_M")
K_QUANTS = (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_K, GGMLQuantizationType.Q6_K)
MIN_COSINE, MAX_ERROR_RATIO = 0.999, 1.02
TEXTS = [probe.text for probe in read_probes()]
CONSOLE = Console(width=110)


@dataclass(frozen=True)
class Row:
    """A peer's agreement with polyvec."""

    peer: str
    file: str
    cosine_min: float
    cosine_mean: float
    bar: bool = True
    """Whether the bar is on this row."""

    @property
    def passed(self) -> bool:
        """Whether every cosine is over the bar, if there is one."""
        return not self.bar or self.cosine_min > MIN_COSINE


@dataclass(frozen=True)
class ErrorRow:
    """Root mean square errors over the tensors of a kind of weights."""

    weights: str
    type: str
    ours: float
    llama_cpp: float
    worst_ratio: float
    """The largest ratio of ours to llama.cpp's for one tensor."""


def main() -> None:
    """Export, run the peers, print."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    place = resolve(arguments.model)
    source = open_model(place.path, place.facts)
    with tempfile.TemporaryDirectory(prefix="polyvec-parity-") as work:
        rows = [*_folder_rows(source, Path(work))]
        llama = _llama(arguments.llama_python)
        errors: list[ErrorRow] = []
        same_numbers: dict[str, float] = {}
        if llama is not None:
            rows += _gguf_rows(source, Path(work), arguments.llama_python)
            ggml = Ggml(Path(llama["library"]))
            same_numbers = _same_numbers(Path(work), ggml)
            errors = [*_error_rows(source, ggml)]
    _show(rows, errors, same_numbers)
    passed = all(row.passed for row in rows) and not any(same_numbers.values())
    passed = passed and all(row.worst_ratio <= MAX_ERROR_RATIO for row in errors)
    figures = {
        "model": arguments.model,
        "llama_cpp_python": llama and llama["version"],
        "rows": [asdict(row) | {"passed": row.passed if row.bar else None} for row in rows],
        "largest_difference_of_a_weight": same_numbers,
        "k_quants": [asdict(row) for row in errors],
        "passed": passed,
    }
    print(json.dumps(figures))
    sys.exit(0 if passed else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="any model polyvec loads")
    parser.add_argument("--llama-python", default=sys.executable, help="has llama-cpp-python")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def _skip(what: str, why: str) -> None:
    CONSOLE.print(f"[bold yellow]SKIPPED[/] {what}: {why}")


def _row(peer: str, file: str, ours: Vectors, theirs: Vectors, bar: bool = True) -> Row:
    unit = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    cosines = (ours * unit).sum(axis=1)
    return Row(peer, file, float(cosines.min()), float(cosines.mean()), bar)


def _ours(path: Path) -> tuple[Embedder, Vectors]:
    """Return the exported file opened, and its vectors as documents, then as queries."""
    embedder = Embedder(open_model(path), "fp32", "cpu")
    vectors = [embedder.embed(TEXTS, role).vectors for role in ("document", "query")]
    return embedder, np.concatenate(vectors)


# --- Folders ----------------------------------------------------------------------------------


def _folder_rows(source: ModelFiles, work: Path) -> Iterator[Row]:
    missing = [name for name in ("sentence-transformers", "transformers") if not _has(name)]
    if missing:
        _skip("folders", f"not installed: {', '.join(missing)}")
        return
    for kind in ("F32", "BF16"):
        export(source, work / kind, "folder", kind)
        embedder, ours = _ours(work / kind)
        peers = (("sentence-transformers", _sentence_transformers), ("transformers", _transformers))
        for name, run in peers:
            yield _row(
                f"{name} {version(name)}", f"folder {kind}", ours, run(work / kind, embedder)
            )


def _has(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _sentence_transformers(folder: Path, _: Embedder) -> Vectors:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    vectors = [model.encode_document(TEXTS), model.encode_query(TEXTS)]
    return np.concatenate(vectors).astype(np.float32)


def _transformers(folder: Path, embedder: Embedder) -> Vectors:
    """Run transformers' bare model on polyvec's ids, text by text, and pool by hand."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    spec = embedder.spec
    if spec.pooling != "mean":
        raise SystemExit(f"This bench pools by the mean; {folder} says {spec.pooling}.")
    encoded = [embedder.tokenizer.encode(TEXTS, spec, r).ids for r in ("document", "query")]
    with torch.inference_mode():
        states = [
            model(torch.tensor([ids]), use_cache=False)[0][0].mean(0)
            for role in encoded
            for ids in role
        ]
    return torch.stack(states).numpy()


# --- GGUF -------------------------------------------------------------------------------------


def _llama(python: str) -> dict[str, str] | None:
    """Return the version and library of llama-cpp-python there, or None."""
    done = _peer(python)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it did not run"]
        _skip("llama.cpp and k-quants", f"{python}: {lines[-1]} (see --help for --llama-python)")
        return None
    found: dict[str, str] = json.loads(done.stdout.splitlines()[0])
    return found


def _peer(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, str(Path(__file__).with_name("llama_peer.py")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _gguf_rows(source: ModelFiles, work: Path, python: str) -> Iterator[Row]:
    for kind in GGUF_TYPES:
        path = work / f"{kind}.gguf"
        export(source, path, "gguf", kind)
        embedder, ours = _ours(path)
        spec = embedder.spec
        texts = [spec.render(t, role) for role in ("document", "query") for t in TEXTS]
        rounds = kind not in ("F16", "F32")
        theirs = _llama_vectors(path, texts, python)
        yield _row("llama.cpp", f"GGUF {kind}", ours, theirs, bar=not rounds)
        if rounds:
            plain = work / f"{kind}-as-F32.gguf"
            export(open_model(path), plain, "gguf", "F32")
            theirs = _llama_vectors(plain, texts, python)
            yield _row("llama.cpp", f"GGUF {kind}, weights as F32", ours, theirs)
            plain.unlink()


def _llama_vectors(path: Path, texts: list[str], python: str) -> Vectors:
    given, out = path.with_suffix(".json"), path.with_suffix(".npy")
    given.write_text(json.dumps(texts))
    done = _peer(python, str(path), str(given), str(out))
    if done.returncode:
        raise SystemExit(
            f"llama.cpp ended with {done.returncode} on {path.name}: {done.stderr.strip()[-500:]} "
            "(-4 is an illegal instruction: build it with CMAKE_ARGS='-DGGML_NATIVE=OFF')"
        )
    vectors: Vectors = np.load(out)
    return vectors


def _same_numbers(work: Path, ggml: Ggml) -> dict[str, float]:
    """Return the largest difference between ggml's and our expansion of any weight in a file."""
    largest = {}
    for kind in GGUF_TYPES:
        file = GgufFile(work / f"{kind}.gguf")
        differences = [0.0]
        for tensor in file.tensors.values():
            if tensor.type == GGMLQuantizationType.F32:
                continue
            raw = file.raw(tensor)
            ours = dequantize(raw, tensor.type, tensor.shape).flatten()
            theirs = ggml.dequantize(raw, tensor.type, ours.numel())
            differences.append(float((ours - theirs).abs().max()))
        largest[kind] = max(differences)
    return largest


# --- K-quants ---------------------------------------------------------------------------------


def _error_rows(source: ModelFiles, ggml: Ggml) -> Iterator[ErrorRow]:
    normal = torch.Generator().manual_seed(0)
    draws = [torch.randn(576, 1536, generator=normal) * 0.02 for _ in range(8)]
    sets = {
        "the model's ffn_down": [*_tensors(source)],
        "normal": draws,
        "cubes of normal": [(draw / 0.02) ** 3 * 0.02 for draw in draws],
    }
    for name, tensors in sets.items():
        for kind in K_QUANTS:
            ours = [_error(t, quantize(t, kind).numpy(), kind) for t in tensors]
            theirs = [_error(t, ggml.quantize(t, kind), kind) for t in tensors]
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            means = (float(np.mean(ours)), float(np.mean(theirs)))
            yield ErrorRow(name, kind.name, *means, worst_ratio=max(ratios))


def _tensors(source: ModelFiles) -> Iterator[torch.Tensor]:
    """Give the model's tensors whose rows are whole blocks of 256."""
    for name in sorted(source.weights.names):
        if name.endswith("mlp.down_proj.weight") and source.weights.shape(name)[1] % 256 == 0:
            yield source.weights.tensor(name).float()


def _error(weights: torch.Tensor, raw: np.ndarray, kind: GGMLQuantizationType) -> float:
    decoded = dequantize(raw, kind, tuple(weights.shape))
    return float((decoded - weights).square().mean().sqrt())


# --- Output -----------------------------------------------------------------------------------


def _show(rows: list[Row], errors: list[ErrorRow], same_numbers: dict[str, float]) -> None:
    table = Table("peer", "file", "lowest cosine", "mean", f"over {MIN_COSINE}?")
    for row in rows:
        word = ("yes" if row.passed else "[bold red]NO[/]") if row.bar else "8-bit activations"
        table.add_row(row.peer, row.file, f"{row.cosine_min:.6f}", f"{row.cosine_mean:.6f}", word)
    CONSOLE.print(table)
    for kind, difference in same_numbers.items():
        CONSOLE.print(f"{kind}: ggml expands every weight to polyvec's number, within {difference}")
    if not errors:
        return
    table = Table("weights", "type", "our RMS error", "llama.cpp's", "worst ratio")
    for error in errors:
        cells = (f"{error.ours:.4e}", f"{error.llama_cpp:.4e}", f"{error.worst_ratio:.4f}")
        table.add_row(error.weights, error.type, *cells)
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
