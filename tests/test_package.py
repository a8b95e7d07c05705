"""The package from outside: its face, and how light it is to import."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import polyvec
from polyvec import errors

ROOT = Path(__file__).parents[1]


def _modules_after(code: str) -> set[str]:
    """Return the modules a fresh process has loaded after running code."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_polyvec_is_light() -> None:
    loaded = _modules_after("import polyvec")
    assert "polyvec" in loaded
    heavy = ("torch", "numpy", "tokenizers", "safetensors", "gguf", "huggingface_hub", "rich")
    assert not loaded.intersection(heavy)


def test_torch_comes_with_the_first_use() -> None:
    assert "torch" in _modules_after("import polyvec; polyvec.load")


def test_the_reference_libraries_are_never_imported() -> None:
    loaded = _modules_after("import polyvec; polyvec.load")
    assert not loaded.intersection(("transformers", "sentence_transformers"))


def test_names_are_given_when_asked_for() -> None:
    from polyvec.engine import embedder

    assert polyvec.load is embedder.load
    assert polyvec.Embedder is embedder.Embedder


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'polyvec' has no attribute 'lode'"):
        polyvec.lode  # noqa: B018


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert polyvec.__version__ == project["version"]


def test_types_are_shipped() -> None:
    assert (ROOT / "src" / "polyvec" / "py.typed").is_file()


def test_every_error_is_one_of_ours() -> None:
    kinds = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    raised = [kind for kind in kinds if not issubclass(kind, Warning)]
    assert len(raised) > 5
    assert all(issubclass(kind, errors.PolyvecError) for kind in raised)


def test_bad_input_is_a_value_error_and_a_usage_error() -> None:
    assert issubclass(errors.InputError, ValueError)
    assert errors.InputError.exit_code == 2
    assert errors.PolyvecError.exit_code == 1


def test_a_wrong_type_is_a_type_error() -> None:
    assert issubclass(errors.InputTypeError, TypeError)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "polyvec", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"polyvec {polyvec.__version__}")
