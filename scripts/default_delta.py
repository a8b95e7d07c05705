"""What training changed, as the package ships it, and what each way to write it loses.

    python scripts/default_delta.py MODEL HELD_OUT FOLDER

Writes ``delta.json`` and ``delta.safetensors`` of the trained model folder ``MODEL`` into
``FOLDER`` with as many bits a weight as fit in ``MAX_BYTES``, and prints, for every way tried (the
difference in 2 to 4 bits, the weights themselves in 4, the difference's largest singular values in
as many bytes), its size, the error of the weights, the mean cosine of its vectors to the model's
own, and the share of held-out queries that find their document first among all.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import polyvec
from polyvec.hub import resolve
from polyvec.model.delta import WEIGHTS_FILE, add_delta, write_delta
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.save import save_folder
from polyvec.records.read import read_records
from polyvec.train.checkpoint import MemoryWeights

MAX_BYTES = 40_000_000
BITS: dict[str, Callable[[str], int]] = {
    "2 bits": lambda _: 2,
    "3 bits": lambda _: 3,
    "4 bits, tokens 2": lambda name: 2 if "embed" in name else 4,
    "4 bits, tokens 3": lambda name: 3 if "embed" in name else 4,
}
RANK = 112
"""A low-rank difference of some 37 MB in float16 for the layers alone."""


def main() -> None:
    """Try every way, ship the one that fits and loses least."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for name in ("model", "held_out", "folder"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    place = resolve("smollm2")
    base, trained = open_model(place.path, place.facts), open_model(options.model)
    texts = _texts(options.held_out)
    own = _vectors(options.model, texts)
    print(f"{'way':>18} {'MB':>6} {'of difference':>14} {'cosine':>8} {'acc@1':>6}")
    print(f"{'the model itself':>18} {'':6} {'':14} {'':8} {100 * _found(own):6.1f}", flush=True)
    best: tuple[float, str] = (0.0, "")
    with tempfile.TemporaryDirectory() as work:
        for way, bits in BITS.items():
            folder = Path(work) / way
            losses = write_delta(base, trained, folder, bits)
            size = (folder / WEIGHTS_FILE).stat().st_size
            error = float(np.mean([loss.of_difference for loss in losses]))
            cosine = _report(way, size, error, add_delta(base, folder), own, texts, Path(work))
            if size <= MAX_BYTES and cosine > best[0]:
                best = (cosine, way)
        for way, files, size, error in _others(base, trained):
            _report(way, size, error, files, own, texts, Path(work))
        options.folder.mkdir(parents=True, exist_ok=True)
        for file in (Path(work) / best[1]).iterdir():
            shutil.copy(file, options.folder / file.name)
    print(f"{best[1]} is in {options.folder}")


def _texts(path: Path) -> tuple[list[str], list[str]]:
    records = list(read_records(path))[::3]  # every set is in it
    return [r.query for r in records], [r.positives[0] for r in records]


def _vectors(model: Path, texts: tuple[list[str], list[str]]) -> tuple[np.ndarray, np.ndarray]:
    embedder = polyvec.load(str(model), precision="fp32")
    return embedder.encode_query(texts[0]), embedder.encode_document(texts[1])


def _found(vectors: tuple[np.ndarray, np.ndarray]) -> float:
    """Return how many queries have their positive first among all, of one language or another."""
    scores = vectors[0] @ vectors[1].T
    return float((scores.argmax(1) == np.arange(len(scores))).mean())


def _report(
    way: str,
    size: int,
    error: float,
    files: ModelFiles,
    own: tuple[np.ndarray, np.ndarray],
    texts: tuple[list[str], list[str]],
    work: Path,
) -> float:
    folder = work / "built"
    shutil.rmtree(folder, ignore_errors=True)
    save_folder(files, folder, torch.bfloat16)
    found = _vectors(folder, texts)
    cosine = float(np.mean([(a * b).sum(1).mean() for a, b in zip(own, found, strict=True)]))
    print(f"{way:>18} {size / 1e6:6.1f} {error:14.3f} {cosine:8.5f} {100 * _found(found):6.1f}",
          flush=True)  # fmt: skip
    return cosine


def _others(base: ModelFiles, trained: ModelFiles) -> list[tuple[str, ModelFiles, int, float]]:
    """Return the difference cut to some singular values, and the weights in 4 bits."""
    low: dict[str, torch.Tensor] = {}
    four: dict[str, torch.Tensor] = {}
    errors: tuple[list[float], list[float]] = ([], [])
    size_low = size_four = 0
    for name in trained.weights.names:
        new = trained.weights.tensor(name).float()
        if new.ndim == 1:
            continue
        difference = new - base.weights.tensor(name).float()
        left, values, right = torch.svd_lowrank(difference, q=RANK)
        low[name] = base.weights.tensor(name).float() + (left * values) @ right.T
        size_low += 2 * RANK * sum(new.shape)
        errors[0].append(float((low[name] - new).norm() / difference.norm()))
        groups = new.view(new.shape[0], -1, 32)
        scale = groups.abs().amax(-1, keepdim=True) / 7
        four[name] = ((groups / scale).round().clamp(-8, 7) * scale).view_as(new)
        size_four += new.numel() * 9 // 16
        errors[1].append(float((four[name] - new).norm() / difference.norm()))
    names = sorted(trained.weights.names)

    def with_(tensors: dict[str, torch.Tensor]) -> ModelFiles:
        return replace(trained, weights=MemoryWeights(tensors, trained.weights, names))

    means = [float(np.mean(x)) for x in errors]
    return [
        (f"rank {RANK}", with_(low), size_low, means[0]),
        ("weights in 4 bits", with_(four), size_four, means[1]),
    ]


if __name__ == "__main__":
    main()
