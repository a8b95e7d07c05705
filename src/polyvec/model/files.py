"""A model's files, opened: its spec, shape, tokenizer and weights, from a folder or a GGUF."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from polyvec.errors import ModelFileError, ModelNotFoundError, SpecError
from polyvec.model.folder import read_architecture, read_facts, read_tokenizer
from polyvec.model.gguf_file import GgufFile
from polyvec.model.gguf_model import gguf_architecture, gguf_facts
from polyvec.model.gguf_tokenizer import tokenizer_from_gguf
from polyvec.model.tokens import Tokenizer
from polyvec.model.weights import GgufWeights, SafetensorsWeights, Weights
from polyvec.spec import Architecture, BertArchitecture, Spec, spec_facts

# A fact the files may leave open, and the flag of the command line that states it.
_FLAGS = {
    "attention": "--attention bidirectional|causal",
    "pooling": "--pooling mean|last|cls",
}


@dataclass(frozen=True)
class ModelFiles:
    """A model opened for reading; no weight has been read yet."""

    path: Path
    format: str
    spec: Spec
    architecture: Architecture
    tokenizer: Tokenizer
    weights: Weights

    @property
    def size_bytes(self) -> int:
        """Bytes of the weight files."""
        return sum(path.stat().st_size for path in self.weights.files)

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the vectors: spec, shape, tokenizer, weights.

        Reads every weight file once; callers keep the result.
        """
        digest = hashlib.sha256()
        digest.update(orjson.dumps(spec_facts(self.spec)))
        digest.update(orjson.dumps(self.architecture))
        digest.update(orjson.dumps((self.tokenizer.bos_ids, self.tokenizer.eos_ids)))
        digest.update(self.tokenizer.backend.to_str().encode())
        for path in self.weights.files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


def open_model(path: Path, stated: Mapping[str, Any] | None = None) -> ModelFiles:
    """Open a model folder or a ``.gguf`` file.

    Args:
        path: The folder or file.
        stated: Facts of the spec that win over the files' own (field name -> value).

    Raises:
        ModelNotFoundError: Nothing is at that path.
        ModelFileError: A file is missing, truncated or corrupt.
        SpecError: The files do not say a fact, or say one that polyvec does not run.
    """
    if not path.exists():
        raise ModelNotFoundError(f"No model at {path}: there is no such file or folder.")
    if path.is_dir():
        return _open_folder(path, stated or {})
    return _open_gguf(path, stated or {})


def _open_folder(path: Path, stated: Mapping[str, Any]) -> ModelFiles:
    architecture = read_architecture(path)
    tokenizer = read_tokenizer(path)
    spec = _spec(read_facts(path, architecture) | dict(stated), tokenizer, architecture, path)
    files = ModelFiles(path, "safetensors", spec, architecture, tokenizer, SafetensorsWeights(path))
    return _checked(files)


def _open_gguf(path: Path, stated: Mapping[str, Any]) -> ModelFiles:
    file = GgufFile(path)
    architecture = gguf_architecture(file)
    tokenizer = tokenizer_from_gguf(file)
    spec = _spec(gguf_facts(file, architecture) | dict(stated), tokenizer, architecture, path)
    weights = GgufWeights(file, architecture.num_heads, architecture.num_kv_heads)
    return _checked(ModelFiles(path, "gguf", spec, architecture, tokenizer, weights))


def _spec(facts: dict[str, Any], tokenizer: Tokenizer, shape: Architecture, path: Path) -> Spec:
    missing = [name for name in _FLAGS if name not in facts]
    if missing:
        flags = " and ".join(_FLAGS[name] for name in missing)
        raise SpecError(
            f"{path} does not state its {' and '.join(missing)}, which decide the vectors; polyvec "
            f"does not guess. State it with {flags} (in Python: "
            f"{', '.join(f'{name}=...' for name in missing)}), as the model's card says."
        )
    if facts["max_tokens"] > shape.max_positions:
        raise SpecError(
            f"max_tokens is {facts['max_tokens']:,} and {path} was made for "
            f"{shape.max_positions:,}; give that or less."
        )
    if isinstance(shape, BertArchitecture) and facts["attention"] == "causal":
        raise SpecError(
            f"causal attention was stated for {path}, and a model of type {shape.model_type} is "
            "bidirectional by its nature. Leave --attention out."
        )
    spec = Spec(**facts, add_bos=bool(tokenizer.bos_ids), add_eos=bool(tokenizer.eos_ids))
    if spec.matryoshka_dimensions:
        cuts = sorted({int(d) for d in spec.matryoshka_dimensions if d < spec.dimension})
        spec = replace(spec, matryoshka_dimensions=tuple(cuts))
    return spec


def _checked(files: ModelFiles) -> ModelFiles:
    """Refuse a tokenizer that gives ids the token table does not have."""
    if files.tokenizer.vocab_size > files.architecture.vocab_size:
        raise ModelFileError(
            f"{files.path}: the tokenizer has {files.tokenizer.vocab_size:,} tokens and the "
            f"model's table {files.architecture.vocab_size:,}; they do not belong together."
        )
    return files
