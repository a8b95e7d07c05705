"""Named tensors from safetensors folders and GGUF files, under one set of names.

The names are transformers' without the prefix of the whole model: for a Llama e.g.
``layers.0.self_attn.q_proj.weight``, for a BERT ``encoder.layer.0.output.dense.weight``.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import orjson
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from polyvec.errors import ModelFileError
from polyvec.kernels.blocks import Raw, Stored
from polyvec.model.gguf_file import GgufFile, GgufTensor
from polyvec.model.names import GGUF_BERT_NAMES, GGUF_NAMES, renamed
from polyvec.model.quants import dequantize
from polyvec.model.reading import read_bytes
from polyvec.model.stored import FLOAT_TYPES, PLAIN_TYPES, of_tensor

T = TypeVar("T")

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_BLOCK_ELEMENTS = 2**24

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


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

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it.

        Raises:
            ModelFileError: There is no such tensor.
        """
        ...

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read rows ``start:stop`` of a tensor, as :meth:`tensor` does.

        Nothing is mapped into memory, so that a whole model can pass through in little of it.
        """
        ...


@runtime_checkable
class StoredWeights(Protocol):
    """Weights that can be read as their files have them."""

    @property
    def has_blocks(self) -> bool:
        """Whether matrices of layers are stored in quantized blocks."""
        ...

    def stored_as(self, name: str) -> torch.dtype | None:
        """Return the dtype of rows that are stored as plain numbers in their own order."""
        ...

    def stored(self, name: str, start: int, stop: int, into: Raw | None = None) -> Stored:
        """Read rows ``start:stop`` of a matrix as the file has them.

        They are read into ``into`` if it is given and large enough.

        Raises:
            ModelFileError: There is no such tensor, or its bytes cannot be read.
        """
        ...


def has_blocks(weights: Weights) -> bool:
    """Whether matrices of layers are stored in quantized blocks."""
    return isinstance(weights, StoredWeights) and weights.has_blocks


def stored_as(weights: Weights, name: str) -> torch.dtype | None:
    """Return the dtype of rows that can be read as plain numbers in their own order."""
    return weights.stored_as(name) if isinstance(weights, StoredWeights) else None


def stored(weights: Weights, name: str, start: int, stop: int, into: Raw | None = None) -> Stored:
    """Read rows as their file has them, or as they come; see :meth:`StoredWeights.stored`."""
    if isinstance(weights, StoredWeights):
        return weights.stored(name, start, stop, into)
    return of_tensor(weights.rows(name, start, stop))


def row_blocks(weights: Weights, name: str, first: int = 0) -> Iterator[Tensor]:
    """Give a tensor from a row on, in blocks that need little memory, whatever its size."""
    shape = weights.shape(name)
    step = max(1, _BLOCK_ELEMENTS // prod(shape[1:]))
    for start in range(first, shape[0], step):
        yield weights.rows(name, start, min(start + step, shape[0]))


class SafetensorsWeights:
    """A folder's ``model.safetensors``, or its shards as the index lists them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files = _safetensors_files(folder)
        self._handles = [_open(path) for path in self.files]
        self._places = {
            _bare(stored): (handle, stored)
            for handle in self._handles
            for stored in handle.keys()  # noqa: SIM118 (safe_open is not a mapping)
        }
        self._extents: dict[str, _Extent] | None = None

    has_blocks = False

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

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape; see :class:`Weights`."""
        handle, stored = _look_up(self._places, name, self._folder)
        return tuple(handle.get_slice(stored).get_shape())

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read some rows; see :class:`Weights`."""
        return self._extent(name).read(start, stop)

    def stored_as(self, name: str) -> torch.dtype | None:
        """Return the dtype; see :class:`Weights`."""
        return _DTYPES.get(self._extent(name).dtype)

    def stored(self, name: str, start: int, stop: int, into: Raw | None = None) -> Stored:
        """Read some rows as they are; see :class:`Weights`."""
        extent = self._extent(name)
        if _DTYPES.get(extent.dtype) in FLOAT_TYPES:
            raw = extent.bytes(start, stop, into)
            kind = FLOAT_TYPES[_DTYPES[extent.dtype]]
            return Stored(kind, raw, stop - start, extent.shape[1])
        return of_tensor(extent.read(start, stop))

    def _extent(self, name: str) -> "_Extent":
        if self._extents is None:
            self._extents = {k: e for path in self.files for k, e in _extents(path).items()}
        _, stored = _look_up(self._places, name, self._folder)
        return self._extents[stored]


class GgufWeights:
    """A GGUF file's tensors under transformers' names, dequantized when read."""

    def __init__(self, file: GgufFile, num_heads: int, num_kv_heads: int) -> None:
        self._file = file
        self.files = [file.path]
        architecture = file.metadata.get("general.architecture")
        places = _bert_places if architecture == "bert" else _llama_places
        self._places = places(file.tensors)
        # llama.cpp's converter reorders these rows for its rotary layout; others are as they were.
        interleaved = architecture in ("llama", "llama-embed")
        self._interleaved = {"q_proj": num_heads, "k_proj": num_kv_heads} if interleaved else {}

    @property
    def names(self) -> Collection[str]:
        """All tensors' names."""
        return self._places.keys()

    @property
    def has_blocks(self) -> bool:
        """Whether matrices of layers are stored in quantized blocks."""
        return any(
            info.type not in PLAIN_TYPES
            for name, info in self._places.items()
            if name.startswith(("layers.", "encoder."))
        )

    def tensor(self, name: str) -> Tensor:
        """Read a tensor; see :class:`Weights`."""
        info = _look_up(self._places, name, self._file.path)
        return self._reordered(name, dequantize(self._file.raw(info), info.type, info.shape))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape; see :class:`Weights`."""
        return _look_up(self._places, name, self._file.path).shape

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Read some rows; see :class:`Weights`. Queries' and keys' are all read."""
        info = _look_up(self._places, name, self._file.path)
        if self._heads(name) is not None:
            raw = self._file.read(info, 0, info.shape[0])
            return self._reordered(name, dequantize(raw, info.type, info.shape))[start:stop]
        stop = min(stop, info.shape[0])
        raw = self._file.read(info, start, stop)
        return dequantize(raw, info.type, (stop - start, *info.shape[1:]))

    def stored_as(self, name: str) -> torch.dtype | None:
        """Return the dtype; see :class:`Weights`."""
        info = _look_up(self._places, name, self._file.path)
        return None if self._heads(name) is not None else PLAIN_TYPES.get(info.type)

    def stored(self, name: str, start: int, stop: int, into: Raw | None = None) -> Stored:
        """Read some rows as they are; see :class:`Weights`. Queries' and keys' are all read."""
        info = _look_up(self._places, name, self._file.path)
        width, heads = info.shape[1], self._heads(name)
        if heads is None:
            raw = self._file.read(info, start, stop, into)
            return Stored(info.type, raw, stop - start, width)
        places = torch.arange(info.shape[0])[:, None]
        order = self._reordered(name, places).flatten().numpy()[start:stop].copy()
        return Stored(
            info.type, self._file.read(info, 0, info.shape[0], into), stop - start, width, order
        )

    def _heads(self, name: str) -> int | None:
        """Return how many heads a tensor's rows are, if they lie in llama.cpp's order."""
        return self._interleaved.get(name.split(".")[-2] if "." in name else name)

    def _reordered(self, name: str, tensor: Tensor) -> Tensor:
        heads = self._heads(name)
        if heads is None:
            return tensor
        if tensor.shape[0] % (2 * heads):
            raise ModelFileError(
                f"{self._file.path}: tensor {name} has {tensor.shape[0]} rows, which are not "
                f"{heads} heads of rotary pairs. The file contradicts itself; fetch it again."
            )
        return _halves_from_pairs(tensor, heads)


def _llama_places(tensors: Mapping[str, GgufTensor]) -> dict[str, GgufTensor]:
    """``blk.3.attn_q.weight`` is ``layers.3.self_attn.q_proj.weight``."""
    return {renamed(name, "layers", GGUF_NAMES): info for name, info in tensors.items()}


def _bert_places(tensors: Mapping[str, GgufTensor]) -> dict[str, GgufTensor]:
    """``blk.3.attn_q.weight`` is ``encoder.layer.3.attention.self.query.weight``."""
    apart = {name: info for whole in tensors.items() for name, info in _apart(*whole)}
    return {renamed(name, "encoder.layer", GGUF_BERT_NAMES): i for name, i in apart.items()}


def _apart(name: str, info: GgufTensor) -> list[tuple[str, GgufTensor]]:
    """Take queries, keys and values apart where a file has them in one tensor."""
    if ".attn_qkv." not in name or info.shape[0] % 3:
        return [(name, info)]
    size, shape = info.num_bytes // 3, (info.shape[0] // 3, *info.shape[1:])
    return [
        (
            name.replace("attn_qkv", f"attn_{letter}"),
            replace(info, shape=shape, offset=info.offset + place * size, num_bytes=size),
        )
        for place, letter in enumerate("qkv")
    ]


_PREFIXES = ("model.", "bert.", "roberta.")
_OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def _bare(stored: str) -> str:
    """Take the whole model's prefix off, and give TensorFlow-born LayerNorms their new names."""
    prefix = next((p for p in _PREFIXES if stored.startswith(p)), "")
    name = stored.removeprefix(prefix)
    for old, new in _OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _halves_from_pairs(tensor: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's row order (rotary pairs side by side) to transformers' (two halves)."""
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(tensor.shape)


def pairs_from_halves(tensor: Tensor, heads: int) -> Tensor:
    """Put transformers' rows (two halves) in llama.cpp's order (rotary pairs side by side)."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(tensor.shape)


def _look_up(places: Mapping[str, T], name: str, source: Path) -> T:
    if name not in places:
        raise ModelFileError(
            f"{source} has no tensor {name}, which its configuration asks for "
            f"({len(places)} tensors are there). It is incomplete, or of another model."
        )
    return places[name]


@dataclass(frozen=True)
class _Extent:
    """Where a tensor lies in a safetensors file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self, start: int, stop: int) -> Tensor:
        if self.dtype not in _DTYPES:
            raise ModelFileError(
                f"{self.path}: tensor {self.name} is {self.dtype}, not a float type."
            )
        stop = min(stop, self.shape[0])
        raw = torch.from_numpy(self.bytes(start, stop))
        return raw.view(_DTYPES[self.dtype]).reshape(stop - start, *self.shape[1:])

    def bytes(self, start: int, stop: int, into: Raw | None = None) -> Raw:
        width = prod(self.shape[1:]) * _DTYPES[self.dtype].itemsize
        return read_bytes(self.path, self.offset + start * width, (stop - start) * width, into)


def _extents(path: Path) -> dict[str, _Extent]:
    """Read a safetensors header, which ``safe_open`` has checked and does not show."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = orjson.loads(file.read(size))
    header.pop("__metadata__", None)
    return {
        name: _Extent(path, name, t["dtype"], tuple(t["shape"]), 8 + size + t["data_offsets"][0])
        for name, t in header.items()
    }


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
        places = orjson.loads(index.read_bytes())["weight_map"]
        shards = sorted({folder / shard for shard in places.values()})
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ModelFileError(f"{index} is not a safetensors index ({error}).") from error
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ModelFileError(f"{folder} lacks {len(missing)} shard(s): {', '.join(missing[:5])}.")
    return shards


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
