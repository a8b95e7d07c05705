"""Named tensors from safetensors folders and GGUF files, under one set of names.

The names are transformers' for a Llama without its ``model.`` prefix, e.g.
``layers.0.self_attn.q_proj.weight``.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import orjson
from safetensors import SafetensorError, safe_open
from torch import Tensor

from polyvec.errors import ModelFileError
from polyvec.model.gguf_file import GgufFile
from polyvec.model.quants import dequantize

T = TypeVar("T")

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


class Weights(Protocol):
    """A model's tensors, read when asked for."""

    @property
    def files(self) -> list[Path]:
        """The files the tensors are in."""
        ...

    @property
    def names(self) -> Collection[str]:
        """All tensors' names."""
        ...

    def tensor(self, name: str) -> Tensor:
        """Read a tensor in the float dtype it is stored in (quantized ones as float32).

        Raises:
            ModelFileError: There is no such tensor, or its bytes cannot be read.
        """
        ...


class SafetensorsWeights:
    """A folder's ``model.safetensors``, or its shards as the index lists them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files = _safetensors_files(folder)
        self._handles = [_open(path) for path in self.files]
        self._places = {
            stored.removeprefix("model."): (handle, stored)
            for handle in self._handles
            for stored in handle.keys()  # noqa: SIM118 (safe_open is not a mapping)
        }

    @property
    def names(self) -> Collection[str]:
        """All tensors' names."""
        return self._places.keys()

    def tensor(self, name: str) -> Tensor:
        """Read a tensor; see :class:`Weights`."""
        handle, stored = _look_up(self._places, name, self._folder)
        with _corrupt_is_an_error(self._folder):
            tensor: Tensor = handle.get_tensor(stored)
        if not tensor.is_floating_point():
            raise ModelFileError(
                f"{self._folder}: tensor {name} is {tensor.dtype}, not a float type."
            )
        return tensor


class GgufWeights:
    """A GGUF file's tensors under transformers' names, dequantized when read."""

    def __init__(self, file: GgufFile, num_heads: int, num_kv_heads: int) -> None:
        self._file = file
        self.files = [file.path]
        self._places = {_canonical(name): info for name, info in file.tensors.items()}
        # llama.cpp's converter reorders these rows for its rotary layout; others are as they were.
        interleaved = file.metadata.get("general.architecture") in ("llama", "llama-embed")
        self._interleaved = {"q_proj": num_heads, "k_proj": num_kv_heads} if interleaved else {}

    @property
    def names(self) -> Collection[str]:
        """All tensors' names."""
        return self._places.keys()

    def tensor(self, name: str) -> Tensor:
        """Read a tensor; see :class:`Weights`."""
        info = _look_up(self._places, name, self._file.path)
        tensor = dequantize(self._file.raw(info), info.type, info.shape)
        heads = self._interleaved.get(name.split(".")[-2] if "." in name else name)
        if heads is None:
            return tensor
        if tensor.shape[0] % (2 * heads):
            raise ModelFileError(
                f"{self._file.path}: tensor {name} has {tensor.shape[0]} rows, which are not "
                f"{heads} heads of rotary pairs. The file contradicts itself; fetch it again."
            )
        return _halves_from_pairs(tensor, heads)


_GGUF_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _canonical(gguf_name: str) -> str:
    """``blk.3.attn_q.weight`` to ``layers.3.self_attn.q_proj.weight``."""
    stem, _, kind = gguf_name.rpartition(".")
    layer = ""
    if stem.startswith("blk.") and stem.count(".") > 1:
        _, number, stem = stem.split(".", 2)
        layer = f"layers.{number}."
    return f"{layer}{_GGUF_NAMES.get(stem, stem)}.{kind}"


def _halves_from_pairs(tensor: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's row order (rotary pairs side by side) to transformers' (two halves)."""
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(tensor.shape)


def _look_up(places: Mapping[str, T], name: str, source: Path) -> T:
    if name not in places:
        raise ModelFileError(
            f"{source} has no tensor {name}, which its configuration asks for "
            f"({len(places)} tensors are there). It is incomplete, or of another model."
        )
    return places[name]


def _safetensors_files(folder: Path) -> list[Path]:
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    index = folder / INDEX_FILE
    if not index.is_file():
        raise ModelFileError(
            f"{folder} has no weights: neither {SINGLE_FILE} nor {INDEX_FILE} is there. polyvec "
            "reads safetensors and GGUF, never pickles (pytorch_model.bin)."
        )
    try:
        shards = sorted(set(orjson.loads(index.read_bytes())["weight_map"].values()))
    except (orjson.JSONDecodeError, KeyError, AttributeError) as error:
        raise ModelFileError(f"{index} is not a safetensors index ({error}).") from error
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise ModelFileError(f"{folder} lacks {len(missing)} shard(s): {', '.join(missing[:5])}.")
    return [folder / shard for shard in shards]


def _open(path: Path) -> safe_open:
    with _corrupt_is_an_error(path):
        return safe_open(path, framework="pt")


@contextmanager
def _corrupt_is_an_error(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise ModelFileError(
            f"{path} is truncated or corrupt ({error}). Fetch or save it again."
        ) from error
