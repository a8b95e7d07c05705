import pytest
import torch

from polyvec.engine.cpu import compute_dtype, has_fast_bf16, pick_device, pick_precision
from polyvec.errors import DeviceError

CPU = torch.device("cpu")


def test_an_unknown_precision_names_the_known_ones() -> None:
    with pytest.raises(DeviceError, match=r"precision is 'fp64'; allowed: auto, fp32, bf16, int8"):
        pick_precision("fp64", CPU)


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_named_precision_is_taken(name: str, dtype: torch.dtype) -> None:
    assert pick_precision(name, CPU) == name
    assert compute_dtype(name) == dtype


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "amx_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_takes_bf16_where_the_processor_multiplies_it(
    flags: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: flags)
    assert has_fast_bf16() is (dtype == torch.bfloat16)
    assert compute_dtype(pick_precision("auto", CPU)) == dtype


def test_an_unknown_device_says_what_can_be_used() -> None:
    with pytest.raises(DeviceError, match=r"device 'tpu9' cannot be used here .*'auto', 'cpu'"):
        pick_device("tpu9")


def test_a_device_that_is_not_there_is_refused() -> None:
    missing = f"cuda:{torch.cuda.device_count() + 7}"
    with pytest.raises(DeviceError, match=rf"device '{missing}' cannot be used here"):
        pick_device(missing)


def test_auto_without_a_gpu_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pick_device("auto") == CPU
