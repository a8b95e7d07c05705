"""The GGUF container: its header, and its tensors' bytes as memory-mapped views.

The ``gguf`` package's own reader takes 1.5 s for a 49k-token vocabulary and minutes of start-up
add up, so the header is read here (the format is a page long: ggml-org/ggml, docs/gguf.md);
block sizes come from the package.
"""

import mmap
import struct
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from polyvec.errors import ModelFileError
from polyvec.model.reading import read_bytes

Value = bool | int | float | str | list["Value"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_STRING, _ARRAY = 8, 9
_MAX_DEPTH = 4
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f",
    7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies in the file. ``shape`` is in row-major order, as torch has it."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    num_bytes: int


class GgufFile:
    """A GGUF file opened for reading: ``metadata`` and ``tensors``.

    Raises:
        ModelFileError: The file is not GGUF, is truncated, or contradicts itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = _map(path)
        cursor = _Cursor(self._bytes, path)
        num_tensors = _read_preamble(cursor)
        num_keys = cursor.scalar("<Q")
        self.metadata: dict[str, Value] = {}
        for _ in range(num_keys):
            key = cursor.string()
            self.metadata[key] = cursor.value(cursor.scalar("<I"))
        infos = [cursor.tensor_info() for _ in range(num_tensors)]
        self.tensors = self._place(infos, cursor.place)

    def _place(self, infos: list["_TensorInfo"], header_end: int) -> dict[str, GgufTensor]:
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ModelFileError(f"{self.path}: general.alignment is {alignment!r}, not a size.")
        data_start = -(-header_end // alignment) * alignment
        tensors = {}
        for info in infos:
            tensor = _locate(info, data_start, self.path)
            if tensor.offset + tensor.num_bytes > len(self._bytes):
                raise ModelFileError(
                    f"{self.path} is truncated: tensor {info.name} ends at byte "
                    f"{tensor.offset + tensor.num_bytes:,} and the file has {len(self._bytes):,}. "
                    "Fetch it again."
                )
            tensors[info.name] = tensor
        return tensors

    def raw(self, tensor: GgufTensor) -> np.ndarray:
        """Return a tensor's bytes, ``uint8 [num_bytes]``, as a read-only view of the file."""
        return np.frombuffer(self._bytes, np.uint8, tensor.num_bytes, tensor.offset)

    def read(
        self, tensor: GgufTensor, start: int, stop: int, into: np.ndarray | None = None
    ) -> np.ndarray:
        """Read the bytes of some rows from the file: nothing stays mapped into memory."""
        width = tensor.num_bytes // tensor.shape[0]
        return read_bytes(self.path, tensor.offset + start * width, (stop - start) * width, into)


@dataclass(frozen=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


class _Cursor:
    """Reads little-endian values one after another, and never past the end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.place = data, path, 0

    def take(self, size: int) -> int:
        start, self.place = self.place, self.place + size
        if self.place > len(self.data):
            raise ModelFileError(
                f"{self.path} is truncated or corrupt: its header needs byte {self.place:,} and "
                f"the file has {len(self.data):,}. Fetch it again."
            )
        return start

    def scalar(self, layout: str) -> int:
        value: int = struct.unpack_from(layout, self.data, self.take(struct.calcsize(layout)))[0]
        return value

    def string(self) -> str:
        size = self.scalar("<Q")
        start = self.take(size)
        return self.data[start : start + size].decode("utf-8", errors="replace")

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        return self.scalar(self.layout(kind))

    def array(self, depth: int = 1) -> list[Value]:
        kind, count = self.scalar("<I"), self.scalar("<Q")
        if depth > _MAX_DEPTH:
            raise ModelFileError(
                f"{self.path} is corrupt: lists nested over {_MAX_DEPTH} deep before byte "
                f"{self.place:,}."
            )
        if kind in (_STRING, _ARRAY):
            if count * 8 > len(self.data):  # each item takes 8 bytes at least
                self.take(count * 8)
            item = self.string if kind == _STRING else partial(self.array, depth + 1)
            return [item() for _ in range(count)]
        layout = self.layout(kind)
        start = self.take(count * struct.calcsize(layout))
        values: list[Value] = np.frombuffer(self.data, layout, count, start).tolist()
        return values

    def layout(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ModelFileError(
                f"{self.path} is corrupt: unknown value type {kind} before byte {self.place:,}."
            )
        return _SCALARS[kind]

    def tensor_info(self) -> _TensorInfo:
        name = self.string()
        dims = [self.scalar("<Q") for _ in range(self.scalar("<I"))]
        return _TensorInfo(name, tuple(reversed(dims)), self.scalar("<I"), self.scalar("<Q"))


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise ModelFileError(f"{path} is empty; fetch it again.") from error


def _read_preamble(cursor: _Cursor) -> int:
    """Check magic and version; return the number of tensors."""
    start = cursor.take(4)
    magic = cursor.data[start : start + 4]
    if magic != _MAGIC:
        raise ModelFileError(f"{cursor.path} is not a GGUF file: it starts with {magic!r}.")
    version = cursor.scalar("<I")
    if version not in _VERSIONS:
        raise ModelFileError(
            f"{cursor.path} has GGUF version {version}; polyvec reads little-endian versions "
            f"{' and '.join(map(str, _VERSIONS))}."
        )
    return cursor.scalar("<Q")


def _locate(info: _TensorInfo, data_start: int, path: Path) -> GgufTensor:
    try:
        kind = GGMLQuantizationType(info.type_id)
    except ValueError as error:
        raise ModelFileError(
            f"{path}: tensor {info.name} has type {info.type_id}, which is not a GGML type."
        ) from error
    block_size, block_bytes = GGML_QUANT_SIZES[kind]
    if not info.shape or 0 in info.shape or info.shape[-1] % block_size:
        raise ModelFileError(
            f"{path}: tensor {info.name} has shape {list(info.shape)}, which is not rows of whole "
            f"{kind.name} blocks of {block_size}."
        )
    num_bytes = prod(info.shape) // block_size * block_bytes
    return GgufTensor(info.name, info.shape, kind, data_start + info.offset, num_bytes)
