"""Compiles the row kernels into the package: one library for each set of instructions.

Without a C++ compiler, or where one does not know a set, that library is left out and polyvec
uses torch's operators; ``POLYVEC_BUILD_KERNELS=1`` makes a missing one an error (for wheels).
"""

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent / "src" / "polyvec" / "kernels"
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-exceptions",
         "-fno-rtti", "-fno-math-errno", "-fno-trapping-math"]  # fmt: skip
SOURCES: dict[str, list[str]] = {
    "rows": [],
    "blocks": ["-ffp-contract=off"],  # a weight must be the same number as everywhere else
}
LEVELS = {
    "avx512bf16": ["-march=x86-64-v4", "-mavx512bf16", "-mprefer-vector-width=512"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "avx2": ["-march=x86-64-v3"],
}


class KernelBuild(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that pip and ``python -m build`` run."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; ``version`` is ``editable`` or ``standard``."""
        if self.target_name != "wheel":
            return
        built = [path for name, flags in levels().items() if (path := compile_level(name, flags))]
        if not built and os.environ.get("POLYVEC_BUILD_KERNELS") == "1":
            raise RuntimeError("POLYVEC_BUILD_KERNELS is 1 and no kernel could be compiled.")
        if not built or version == "editable":
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"
        for path in built:
            build_data["force_include"][str(path)] = f"polyvec/kernels/{path.name}"


def levels() -> dict[str, list[str]]:
    """Return the sets of instructions of this platform and the compiler's flags for them."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return LEVELS
    return {"native": []} if machine in ("arm64", "aarch64") else {}


def compile_level(name: str, flags: list[str]) -> Path | None:
    """Compile one library; None, and a line on stderr, if that fails."""
    target = HERE / f"_rows_{name}.so"
    compiler = os.environ.get("CXX", "c++")
    with tempfile.TemporaryDirectory() as folder:
        objects = [str(Path(folder) / f"{source}.o") for source in SOURCES]
        commands = [
            [compiler, *FLAGS, *flags, *own, "-c", str(HERE / f"{source}.cpp"), "-o", output]
            for (source, own), output in zip(SOURCES.items(), objects, strict=True)
        ]
        made = target.with_suffix(f".{os.getpid()}.partial")
        commands.append([compiler, "-shared", *objects, "-o", str(made)])
        for command in commands:
            problem = _run(command)
            if problem:
                sys.stderr.write(f"polyvec: no kernels for {name}: {problem}\n")
                made.unlink(missing_ok=True)
                return None
    made.replace(target)
    return target


def _run(command: list[str]) -> str:
    """Run a command; what went wrong, if something did."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip()[-500:] or "the compiler failed" if done.returncode else ""


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
