"""This machine as a device: its processor, its memory, and the GPUs in it."""

import os
import platform
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from polyvec.fit.devices import Device, devices, named_like

_SMI_TIMEOUT_S = 10.0
_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def this_machine() -> list[Device]:
    """Return the GPUs of this machine, then its processor."""
    return [*_gpus(), this_cpu()]


def this_cpu() -> Device:
    """Return this machine's processor, with the memory that a process may have."""
    import torch

    from polyvec.engine.cpu import cpu_name

    cores = torch.get_num_threads()
    memory = memory_bytes()
    return Device(
        name=f"{cpu_name()}, {cores} cores",
        kind="cpu",
        memory_gb=None if memory is None else memory / 2**30,
        bandwidth_gb_per_s=None,
        bf16_tflops=None,
        int8_tops=None,
        source="this machine",
        cores=cores,
        is_here=True,
    )


def memory_bytes() -> int | None:
    """Return the bytes of memory here, of which a container may be allowed fewer."""
    found = [_meminfo(), _limit()]
    known = [size for size in found if size is not None]
    return min(known, default=None)


def _meminfo() -> int | None:
    file = _PROC / "meminfo"
    if file.is_file():
        for line in file.read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    if platform.system() == "Darwin":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _limit() -> int | None:
    """Return the limit of a control group (cgroup v2, memory.max)."""
    try:
        text = _CGROUP.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def cpu_flags() -> list[str]:
    """Return what this processor can do that decides the speed of products."""
    import torch

    able = torch.cpu.get_capabilities()
    names = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "avx_vnni")
    return [name for name in (*names, "arm_bf16", "arm_dot", "i8mm") if able.get(name)]


def _gpus() -> list[Device]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []  # a driver that does not answer is no device
    if done.returncode:
        return []
    return [gpu for line in done.stdout.splitlines() if (gpu := _gpu(line)) is not None]


def _gpu(line: str) -> Device | None:
    """Read a line of nvidia-smi: ``NVIDIA H100 80GB HBM3, 81559`` (MiB)."""
    name, _, memory = (part.strip() for part in line.rpartition(","))
    if not name or not memory.isdigit():
        return None
    gigabytes = int(memory) / 1024
    listed = named_like(name, devices())
    if listed is not None:
        return replace(listed, memory_gb=gigabytes, is_here=True)
    return Device(name, "nvidia", gigabytes, None, None, None, "nvidia-smi", is_here=True)
