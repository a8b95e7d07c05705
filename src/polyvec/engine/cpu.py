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


def has_int8() -> bool:
    """Whether int8 products run in hardware that sums in 32 bits: VNNI or AMX, ARM's dot product.

    oneDNN's code for older processors saturates at 16 bits: an error of 29% instead of 0.3%.
    """
    flags = torch.cpu.get_capabilities()
    names = ("avx512_vnni", "avx_vnni", "amx_int8", "arm_dot", "dotprod", "i8mm")
    return hasattr(torch.ops.onednn, "qlinear_pointwise") and any(flags.get(n) for n in names)


PRECISIONS = ("fp32", "bf16", "int8", "packed")


def pick_precision(precision: str, device: torch.device) -> str:
    """Return ``fp32``, ``bf16``, ``int8`` or ``packed`` for ``auto`` or one of these.

    ``auto`` is bf16 where the processor has it; which models int8 is good enough for is known to
    :mod:`polyvec.engine.quality`.

    Raises:
        DeviceError: The name is not one of these, or this machine lacks the instructions.
    """
    if precision == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
        return "bf16" if device.type == "cpu" and has_fast_bf16() else "fp32"
    if precision not in PRECISIONS:
        raise DeviceError(f"precision is {precision!r}; allowed: auto, {', '.join(PRECISIONS)}.")
    if precision in ("int8", "packed") and not (device.type == "cpu" and has_int8()):
        raise DeviceError(
            f"precision {precision!r} needs a processor with VNNI or AMX; {device.type} here is "
            f"{cpu_name() if device.type == 'cpu' else device}. Use 'auto', 'bf16' or 'fp32'."
        )
    return precision


def compute_dtype(precision: str) -> torch.dtype:
    """Return what tables, attention and products' results are kept in at a precision."""
    if precision in ("int8", "packed"):
        return torch.bfloat16 if has_fast_bf16() else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32
