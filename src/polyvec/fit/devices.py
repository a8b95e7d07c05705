"""Devices a model may run on: a table of common ones, each figure from its maker's data sheet."""

import difflib
import functools
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from polyvec.errors import InputError

Kind = Literal["nvidia", "amd", "apple", "cpu"]


@dataclass(frozen=True)
class Device:
    """What computes. A figure that its maker does not state is None, never a guess."""

    name: str
    kind: Kind
    memory_gb: float | None
    """Of one device, as the maker counts it: 2^30 bytes. None: it depends on what is built in."""
    bandwidth_gb_per_s: float | None
    """Of memory, in 10^9 bytes."""
    bf16_tflops: float | None
    """Dense bf16 products with fp32 sums, 10^12 operations a second, without sparsity."""
    int8_tops: float | None
    """Dense int8 products, 10^12 operations a second, without sparsity."""
    source: str
    """The maker's document, with its number or revision, and where it lies."""
    aliases: tuple[str, ...] = ()
    """Other names of the same device, at providers and drivers."""
    has_bf16: bool = True
    """Whether it multiplies bf16 at all."""
    cores: int | None = None
    is_here: bool = False

    @property
    def is_cpu(self) -> bool:
        """Whether polyvec runs on its processor: on Apple's chips too, whose memory is one."""
        return self.kind in ("cpu", "apple")

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of memory."""
        return None if self.memory_gb is None else int(self.memory_gb * 2**30)


@functools.cache
def devices() -> tuple[Device, ...]:
    """Return the common devices, as the data file lists them."""
    table = tomllib.loads((files("polyvec.fit") / "devices.toml").read_text())
    return tuple(_device(row, table["sources"]) for row in table["device"])


def _device(row: dict[str, object], sources: dict[str, dict[str, str]]) -> Device:
    given = {
        name: row.get(name)
        for name in ("memory_gb", "bandwidth_gb_per_s", "bf16_tflops", "int8_tops", "cores")
    }
    aliases = row.get("aliases", ())
    document = sources[str(row["source"])]
    return Device(
        name=str(row["name"]),
        kind=row["kind"],  # type: ignore[arg-type]
        source=f"{document['title']}, {document['url']}",
        aliases=tuple(aliases),  # type: ignore[arg-type]
        has_bf16=bool(row.get("has_bf16", True)),
        **given,  # type: ignore[arg-type]
    )


def find_device(name: str, known: tuple[Device, ...] | None = None) -> Device:
    """Return a device by its name, written any way a provider or driver writes it.

    Raises:
        InputError: There is none of that name; the nearest are named.
    """
    listed = devices() if known is None else known
    found = named_like(name, listed)
    if found is not None:
        return found
    near = difflib.get_close_matches(name, [d.name for d in listed], n=4, cutoff=0.3)
    raise InputError(
        f"No device {name!r} in the table. Nearest: {', '.join(near) or 'none'}. "
        "`polyvec fit MODEL --all` lists all of them."
    )


def named_like(name: str, known: tuple[Device, ...]) -> Device | None:
    """Return the device that a provider's name means, or None."""
    wanted = _plain(name)
    for device in known:
        if wanted in {_plain(device.name), *map(_plain, device.aliases)}:
            return device
    return None


def _plain(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).split()
    return "".join(w for w in words if w not in {"nvidia", "geforce", "amd", "radeon", "instinct"})
