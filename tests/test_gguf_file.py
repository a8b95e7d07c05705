"""The GGUF header reader, against the ``gguf`` package's own and against broken files."""

import contextlib
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyvec.engine.runner import Runner
from polyvec.errors import ModelFileError, PolyvecError
from polyvec.model.files import open_model
from polyvec.model.gguf_file import GgufFile
from tests.tiny import shape
from tests.tiny_gguf import write_gguf, write_raw_gguf

SMALL = shape(num_hidden_layers=1, hidden_size=8, num_attention_heads=2, intermediate_size=8)


def _every_type(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("u8", 250)
    writer.add_int8("i8", -100)
    writer.add_uint16("u16", 65_000)
    writer.add_int16("i16", -30_000)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -2_000_000_000)
    writer.add_uint64("u64", 2**63 + 5)
    writer.add_int64("i64", -(2**62))
    writer.add_float32("f32", 0.1)
    writer.add_float64("f64", 0.1)
    writer.add_bool("true", True)
    writer.add_bool("false", False)
    writer.add_string("text", "größe ▁ 狐狸\x00 end")
    writer.add_string("empty", " ")
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("floats", [0.5, -0.1])
    writer.add_array("bools", [True, False, True])
    writer.add_array("strings", ["a", "狐", "c d"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_value_type_reads_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    path = _every_type(tmp_path / "m.gguf")
    fields = gguf.GGUFReader(path).fields
    expected = {k: f.contents() for k, f in fields.items() if not k.startswith("GGUF.")}
    ours = GgufFile(path).metadata
    assert ours == expected
    assert {k: type(v) for k, v in ours.items()} == {k: type(v) for k, v in expected.items()}


@pytest.mark.parametrize("alignment", [None, 64], ids=["default alignment", "64"])
def test_tensors_read_as_the_gguf_package_reads_them(alignment: int | None, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "odd": random.normal(size=(3,)).astype(np.float32),
        "matrix": random.normal(size=(5, 7)).astype(np.float32),
        "half": random.normal(size=(2, 3)).astype(np.float16),
    }
    metadata = {} if alignment is None else {"general.alignment": alignment}
    path = tmp_path / "m.gguf"
    write_raw_gguf(path, "llama", metadata, arrays)
    file = GgufFile(path)
    for tensor in gguf.GGUFReader(path).tensors:
        info = file.tensors[tensor.name]
        assert info.shape == arrays[tensor.name].shape
        assert info.type == tensor.tensor_type
        assert file.raw(info).tobytes() == arrays[tensor.name].tobytes()


# --- Broken files ---------------------------------------------------------------------------


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _header(
    pairs: bytes = b"", num_pairs: int = 0, num_tensors: int = 0, version: int = 3
) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_pairs) + pairs


def _open(folder: Path, data: bytes) -> GgufFile:
    path = folder / "broken.gguf"
    path.write_bytes(data)
    return GgufFile(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"broken.gguf is empty"):
        _open(tmp_path, b"")


def test_another_magic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is not a GGUF file: it starts with b'PK\\x03\\x04'"):
        _open(tmp_path, b"PK\x03\x04" + bytes(100))


@pytest.mark.parametrize("version", [0, 1, 4, 3 << 24], ids=["0", "1", "4", "big-endian 3"])
def test_another_version_is_refused(version: int, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=rf"has GGUF version {version}; .* versions 2 and 3"):
        _open(tmp_path, _header(version=version))


def test_version_2_is_read(tmp_path: Path) -> None:
    pair = _string("key") + struct.pack("<II", 4, 7)
    assert _open(tmp_path, _header(pair, num_pairs=1, version=2)).metadata == {"key": 7}


@pytest.mark.parametrize("kind", [13, 255, 2**32 - 1])
def test_an_unknown_value_type_is_refused(kind: int, tmp_path: Path) -> None:
    pair = _string("key") + struct.pack("<II", kind, 7)
    with pytest.raises(ModelFileError, match=rf"corrupt: unknown value type {kind} before byte"):
        _open(tmp_path, _header(pair, num_pairs=1))


def test_an_unknown_item_type_is_refused(tmp_path: Path) -> None:
    pair = _string("key") + struct.pack("<IIQ", 9, 77, 2) + bytes(8)
    with pytest.raises(ModelFileError, match=r"corrupt: unknown value type 77 before byte"):
        _open(tmp_path, _header(pair, num_pairs=1))


HUGE = 2**63
HUGE_COUNTS = {
    "metadata pairs": _header(num_pairs=HUGE),
    "tensors": _header(num_tensors=HUGE),
    "characters of a key": _header(struct.pack("<Q", HUGE) + b"key", num_pairs=1),
    "characters of a value": _header(
        _string("key") + struct.pack("<IQ", 8, HUGE) + b"value", num_pairs=1
    ),
    "numbers in a list": _header(_string("key") + struct.pack("<IIQ", 9, 4, HUGE), num_pairs=1),
    "strings in a list": _header(_string("key") + struct.pack("<IIQ", 9, 8, HUGE), num_pairs=1),
    "lists in a list": _header(_string("key") + struct.pack("<IIQ", 9, 9, HUGE), num_pairs=1),
    "dimensions": _header(_string("tensor") + struct.pack("<I", 2**32 - 1), num_tensors=1),
}


@pytest.mark.parametrize("what", HUGE_COUNTS)
def test_a_huge_count_is_refused_at_once(what: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ModelFileError, match=r"truncated or corrupt: its header needs byte"):
        _open(tmp_path, HUGE_COUNTS[what])
    assert time.monotonic() - start < 5


def test_lists_nested_without_end_are_refused(tmp_path: Path) -> None:
    nested = struct.pack("<IQ", 9, 1) * 5_000
    pair = _string("key") + struct.pack("<I", 9) + nested
    with pytest.raises(ModelFileError, match=r"corrupt: lists nested .* before byte"):
        _open(tmp_path, _header(pair, num_pairs=1))


def test_a_list_of_lists_is_read(tmp_path: Path) -> None:
    inner = struct.pack("<IQBB", 0, 2, 5, 6)
    pair = _string("key") + struct.pack("<IIQ", 9, 9, 2) + inner * 2
    assert _open(tmp_path, _header(pair, num_pairs=1)).metadata == {"key": [[5, 6], [5, 6]]}


def _tensor(name: str, dims: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return _string(name) + sizes + struct.pack("<IQ", kind, offset)


def test_an_unknown_tensor_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tensor t has type 9999, which is not a GGML type"):
        _open(tmp_path, _header(_tensor("t", (32,), 9999), num_tensors=1))


def test_rows_that_are_not_whole_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"t has shape \[2, 33\].* whole Q8_0 blocks of 32"):
        _open(tmp_path, _header(_tensor("t", (33, 2), 8), num_tensors=1))


def test_a_tensor_without_dimensions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"t has shape \[\]"):
        _open(tmp_path, _header(_tensor("t", (), 0), num_tensors=1))


def test_a_tensor_without_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"t has shape \[0, 4\], .* whole F32 blocks of 1"):
        _open(tmp_path, _header(_tensor("t", (4, 0), 0), num_tensors=1) + bytes(100))


@pytest.mark.parametrize("offset", [2**40, 2**64 - 8])
def test_a_tensor_beyond_the_end_is_refused(offset: int, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is truncated: tensor t ends at byte .* Fetch it"):
        _open(tmp_path, _header(_tensor("t", (4,), 0, offset), num_tensors=1) + bytes(100))


def test_a_tensor_of_astronomic_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is truncated: tensor t ends at byte"):
        _open(tmp_path, _header(_tensor("t", (2**60, 2**60), 0), num_tensors=1) + bytes(100))


def test_an_alignment_that_is_no_size_is_refused(tmp_path: Path) -> None:
    pair = _string("general.alignment") + struct.pack("<II", 4, 0)
    with pytest.raises(ModelFileError, match=r"general.alignment is 0, not a size"):
        _open(tmp_path, _header(pair, num_pairs=1))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="module")
def good_gguf(scratch: Path) -> bytes:
    return write_gguf(scratch / "good.gguf", SMALL).read_bytes()


def test_truncated_tensor_data_names_the_tensor(good_gguf: bytes, tmp_path: Path) -> None:
    with pytest.raises(
        ModelFileError, match=r"is truncated: tensor output_norm.weight ends at byte"
    ):
        _open(tmp_path, good_gguf[:-32])


@given(data=st.data())
@settings(max_examples=60)
def test_a_file_cut_anywhere_is_refused(
    good_gguf: bytes, scratch: Path, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, len(good_gguf) - 40))
    with pytest.raises(ModelFileError, match=r"truncated|is empty"):
        _open(scratch, good_gguf[:length])


@given(data=st.data())
@settings(max_examples=200, deadline=30_000)
def test_flipped_bytes_give_a_model_or_an_error_of_ours(
    good_gguf: bytes, scratch: Path, data: st.DataObject
) -> None:
    """No damage to the header ends in a traceback from deep inside, or a hang."""
    header = good_gguf.index(b"blk.0.ffn_norm.weight") + 64
    flip = st.tuples(st.integers(0, header), st.integers(0, 255))
    broken = bytearray(good_gguf)
    for place, byte in data.draw(st.lists(flip, min_size=1, max_size=4)):
        broken[place] = byte
    path = scratch / "flipped.gguf"
    path.write_bytes(broken)
    with contextlib.suppress(PolyvecError):
        Runner(open_model(path), torch.float32, torch.device("cpu"))
