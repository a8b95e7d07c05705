"""llama.cpp on exported GGUF files: vectors, tokens, and its own quantizer."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType

from ggml import Ggml
from polyvec.engine.embedder import Embedder
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.gguf_file import GgufFile
from polyvec.model.quants import dequantize
from polyvec.publish.export import export
from polyvec.publish.measure import measure
from polyvec.publish.mixture import FILE_TYPES
from polyvec.publish.sides import read_probes
from polyvec.spec import Role

Vectors = npt.NDArray[np.float32]

GGUF_TYPES = ("F16", "Q8_0", "Q4_K_M")
ROLES: tuple[Role, ...] = ("document", "query")
TEXTS = [probe.text for probe in read_probes()]
_MAX_TOKENS = 512
"""What llama-cpp-python reads of a text unless it is told otherwise."""


@dataclass(frozen=True)
class Row:
    """A peer's agreement with polyvec."""

    model: str
    peer: str
    file: str
    cosine_min: float
    cosine_mean: float
    vectors: int
    judged: str = "lowest"
    """Which cosine must be over the bar: ``lowest``, ``mean`` or ``none``."""
    other_tokens: int = 0
    """Vectors left out because the peer's tokens of the text are others."""


@dataclass(frozen=True)
class TypesRow:
    """A quantized file of ours beside llama.cpp's own of the same model."""

    model: str
    file: str
    tensors: int
    other_types: int
    """Tensors that have another type than llama.cpp gives them."""
    ours_mean: float
    """Mean cosine of our file's vectors to the source's, both run by polyvec."""
    llama_cpp_mean: float


def row(model: str, peer: str, file: str, ours: Vectors, theirs: Vectors, judged: str) -> Row:
    """Compare vectors; the peer's need no unit length."""
    unit = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    cosines = (ours * unit).sum(axis=1)
    return Row(model, peer, file, float(cosines.min()), float(cosines.mean()), len(ours), judged)


class LlamaCpp:
    """A Python that has llama-cpp-python."""

    def __init__(self, python: str) -> None:
        self.python = python
        done = self._run()
        lines = done.stderr.strip().splitlines() or ["it did not run"]
        self.problem = f"{python}: {lines[-1]}" if done.returncode else None
        facts = {} if done.returncode else json.loads(done.stdout.splitlines()[0])
        self.version: str | None = facts.get("version")
        self.library = Path(facts.get("library", ""))

    def embed(self, path: Path, texts: list[str]) -> tuple[Vectors, list[list[int]]]:
        """Return vectors and tokens, told nothing but the file's path."""
        given, out, ids = (path.with_suffix(e) for e in (".json", ".npy", ".tokens"))
        given.write_text(json.dumps(texts))
        self._checked("embed", path, given, out, ids)
        vectors: Vectors = np.load(out)
        tokens: list[list[int]] = json.loads(ids.read_text())
        return vectors, tokens

    def quantize(self, source: Path, target: Path, kind: str) -> None:
        """Quantize a GGUF as llama.cpp does."""
        self._checked("quantize", source, target, FILE_TYPES[kind].number)

    def _checked(self, *arguments: object) -> None:
        done = self._run(*map(str, arguments))
        if done.returncode:
            raise SystemExit(
                f"llama.cpp ended with {done.returncode} on {arguments[1]}: "
                f"{done.stderr.strip()[-500:]} "
                "(-4 is an illegal instruction: build it with CMAKE_ARGS='-DGGML_NATIVE=OFF')"
            )

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, str(Path(__file__).with_name("llama_peer.py")), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def gguf_rows(
    name: str, source: ModelFiles, work: Path, llama: LlamaCpp, trained: bool
) -> Iterator[Row]:
    """Compare llama.cpp with polyvec on each type of file.

    A quantized file's own row is judged by its mean where the model is trained, and by nothing
    where it is a raw backbone (see bench/parity.py); with its weights as float32 by the lowest.
    """
    for kind in GGUF_TYPES:
        path = work / f"{kind}.gguf"
        export(source, path, "gguf", kind)
        rounds = kind not in ("F16", "F32")
        judged = "lowest" if not rounds else "mean" if trained else "none"
        yield _compared(name, f"GGUF {kind}", path, llama, judged)
        if rounds:
            plain = work / f"{kind}-as-F32.gguf"
            export(open_model(path), plain, "gguf", "F32")
            yield _compared(name, f"GGUF {kind}, weights as F32", plain, llama, "lowest")
            plain.unlink()


def _compared(name: str, file: str, path: Path, llama: LlamaCpp, judged: str) -> Row:
    """Compare over the texts whose tokens are the same; how many are not is in the row."""
    files = open_model(path)
    spec = replace(files.spec, max_tokens=min(_MAX_TOKENS, files.architecture.max_positions))
    embedder = Embedder(files, "fp32", "cpu").varied(spec, files.tokenizer)
    ours = np.concatenate([embedder.embed(TEXTS, role).vectors for role in ROLES])
    ids = [i for role in ROLES for i in embedder.tokenizer.encode(TEXTS, spec, role).ids]
    texts = [spec.render(text, role) for role in ROLES for text in TEXTS]
    theirs, tokens = llama.embed(path, texts)
    same = np.array([a == b[: len(a)] for a, b in zip(ids, tokens, strict=True)])
    compared = row(name, "llama.cpp", file, ours[same], theirs[same], judged)
    return replace(compared, other_tokens=int((~same).sum()))


def same_numbers(work: Path, ggml: Ggml) -> dict[str, float]:
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


def types_rows(name: str, source: ModelFiles, work: Path, llama: LlamaCpp) -> Iterator[TypesRow]:
    """Let llama.cpp's own quantizer make each type, and compare types and quality with ours."""
    plain = work / "plain.gguf"
    export(source, plain, "gguf", "F32")
    for kind in FILE_TYPES:
        if kind in ("F32", "F16", "BF16"):
            continue
        ours, theirs = work / f"ours-{kind}.gguf", work / f"theirs-{kind}.gguf"
        quality = export(source, ours, "gguf", kind).quality
        llama.quantize(plain, theirs, kind)
        types = [{t.name: t.type for t in GgufFile(p).tensors.values()} for p in (ours, theirs)]
        other = sum(types[0].get(tensor) != type_ for tensor, type_ in types[1].items())
        peer = measure(source, open_model(theirs))
        yield TypesRow(name, kind, len(types[1]), other, quality.cosine_mean, peer.cosine_mean)
        ours.unlink()
        theirs.unlink()
