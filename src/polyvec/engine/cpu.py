"""What this machine's processor can do, in the words the engine needs."""

import functools

import torch

from polyvec.errors import DeviceError


def cpu_name() -> str:
    """Return the processor's name as torch reports it."""
    return str(torch.cpu.get_capabilities().get("cpu_name", "CPU"))


def has_fast_bf16() -> bool:
    """Whether bf16 products run in hardware (AVX512_BF16, AMX, or ARM's BF16), not emulated."""
    flags = torch.cpu.get_capabilities()
    return any(flags.get(flag) for flag in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def has_onednn() -> bool:
    """Whether torch has oneDNN's operators on weights packed once."""
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_reorder_linear_weight"
    )


@functools.cache
def keep_freed_memory() -> None:
    """Make malloc keep what a batch frees for the next one, instead of giving it to the kernel.

    glibc raises its limits for that to the size of the largest mapped block it has seen freed, up
    to 32 MiB (mallopt(3), M_MMAP_THRESHOLD: "dynamic"). Until then every batch of the default
    model takes 170,000 page faults, a ninth of its time in fp32 and a quarter in bf16. At most
    64 MB more stay with the process; other allocators are left as they are.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def pick_device(device: str) -> torch.device:
    """Return the torch device for ``auto`` or a torch device name.

    Raises:
        DeviceError: There is no such device on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"device {device!r} cannot be used here ({reason}). Use 'auto', 'cpu', or one that "
            "torch reports on this machine."
        ) from error
    return picked


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of products for ``auto``, ``fp32`` or ``bf16``.

    Raises:
        DeviceError: The name is not one of these.
    """
    names = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if precision in names:
        return names[precision]
    if precision != "auto":
        raise DeviceError(f"precision is {precision!r}; allowed: auto, {', '.join(names)}.")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device.type == "cpu" and has_fast_bf16() else torch.float32
