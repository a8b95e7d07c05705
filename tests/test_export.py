"""``export``: forms, types, refusals, and that nothing half-written is ever left."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from polyvec.engine.embedder import Embedder
from polyvec.errors import (
    DiskFullError,
    InputError,
    ModelFileError,
    OutputError,
    PolyvecError,
    SpecError,
)
from polyvec.model import save
from polyvec.model.files import ModelFiles, open_model
from polyvec.publish import export as module
from polyvec.publish import gguf as gguf_module
from polyvec.publish import gguf_keys as keys_module
from polyvec.publish.export import export
from polyvec.publish.gguf import write_gguf as write_gguf_file
from polyvec.publish.vocabulary import tokenizer_metadata
from polyvec.spec import LlamaArchitecture
from tests.command import Command
from tests.peers import sentence_transformer
from tests.tiny import WORDS, byte_bpe, llama3_scaling, shape, weights, write_json, write_model
from tests.tiny_bert import bert_shape, write_bert_model
from tests.tiny_gguf import write_gguf

TEXTS = list(WORDS)
PROMPTS = {"query": "Instruct: Find it\nQuery: ", "document": "doc: "}


@pytest.fixture
def source(tmp_path: Path) -> ModelFiles:
    return open_model(write_model(tmp_path / "source", prompts=PROMPTS))


@pytest.fixture
def polyvec(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capfd)


def _listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _cosine(a: ModelFiles, b: ModelFiles) -> float:
    ours, theirs = (Embedder(files, "fp32").encode_document(TEXTS) for files in (a, b))
    return float((ours * theirs).sum(1).min())


# --- Forms and types --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_folder_has_its_type_and_the_same_spec(
    source: ModelFiles, tmp_path: Path, kind: str
) -> None:
    report = export(source, tmp_path / "out", type_name=kind)
    result = open_model(tmp_path / "out")
    assert result.spec == source.spec
    assert result.weights.tensor("norm.weight").dtype == module.FOLDER_TYPES[kind]
    assert report.tensors == {kind: len(source.weights.names)}
    assert report.quality.cosine_min > 0.995
    assert report.form == "folder"


def test_our_safetensors_are_the_librarys(source: ModelFiles, tmp_path: Path) -> None:
    export(source, tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(source.weights.names)
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            assert torch.equal(file.get_tensor(name), source.weights.tensor(name))


def test_shards_load_in_sentence_transformers(
    source: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "_MAX_SHARD_BYTES", 60_000)
    report = export(source, tmp_path / "out")
    assert len([name for name in report.files if name.endswith(".safetensors")]) > 2
    peer = sentence_transformer(tmp_path / "out")
    expected = Embedder(source, "fp32").encode_query(TEXTS)
    assert np.allclose(peer.encode_query(TEXTS), expected, atol=1e-5)


def test_big_tensors_pass_in_blocks(
    source: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(source, tmp_path / "whole.gguf", type_name="Q8_0")
    export(source, tmp_path / "whole")
    monkeypatch.setattr("polyvec.model.weights._BLOCK_ELEMENTS", 1000)
    export(source, tmp_path / "parts.gguf", type_name="Q8_0")
    export(source, tmp_path / "parts")
    for whole, parts in (("whole", "parts"), ("whole.gguf", "parts.gguf")):
        a, b = (open_model(tmp_path / name).weights for name in (whole, parts))
        assert all(torch.equal(a.tensor(name), b.tensor(name)) for name in source.weights.names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_folder_keeps_the_sources_type(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in weights(shape()).items()}
    source = open_model(write_model(tmp_path / "source", tensors=tensors))
    assert module.FOLDER_TYPES[export(source, tmp_path / "out").type] == dtype


def test_gguf_is_q8_0_unless_told(source: ModelFiles, tmp_path: Path) -> None:
    report = export(source, tmp_path / "out.gguf")
    assert (report.form, report.type) == ("gguf", "Q8_0")
    assert report.files == {"out.gguf": (tmp_path / "out.gguf").stat().st_size}
    assert report.size_bytes == sum(report.files.values())
    assert open_model(tmp_path / "out.gguf").spec == source.spec


def test_gguf_to_folder_and_back(tmp_path: Path) -> None:
    source = open_model(write_gguf(tmp_path / "source.gguf"))
    export(source, tmp_path / "folder")
    export(open_model(tmp_path / "folder"), tmp_path / "back.gguf", type_name="F32")
    back = open_model(tmp_path / "back.gguf")
    assert back.spec == source.spec
    assert _cosine(source, back) > 0.99999


def test_llama3_scaling_of_a_gguf_reaches_the_folder(tmp_path: Path) -> None:
    config = shape(is_causal=False, rope_scaling=llama3_scaling(8192, 32.0), rope_theta=500000.0)
    folder = open_model(write_model(tmp_path / "m", config))
    export(folder, tmp_path / "m.gguf", type_name="F32")
    export(open_model(tmp_path / "m.gguf"), tmp_path / "back")
    before, after = folder.architecture, open_model(tmp_path / "back").architecture
    assert isinstance(before, LlamaArchitecture)
    assert isinstance(after, LlamaArchitecture)
    assert after.rope == before.rope


def test_factors_that_config_json_cannot_say_are_refused(tmp_path: Path) -> None:
    odd = np.linspace(1, 3, 4, dtype=np.float32)
    source = open_model(write_gguf(tmp_path / "m.gguf", extra={"rope_freqs.weight": odd}))
    with pytest.raises(SpecError, match=r"rope_freqs\.weight\) that config\.json has no words for"):
        export(source, tmp_path / "out")
    assert _listing(tmp_path) == {"m.gguf"}


def test_a_qwen_with_a_window_keeps_it(tmp_path: Path) -> None:
    config = shape(
        "qwen3", is_causal=True, sliding_window=16, use_sliding_window=True, max_window_layers=0
    )
    source = open_model(write_model(tmp_path / "m", config))
    export(source, tmp_path / "out")
    assert open_model(tmp_path / "out").architecture == source.architecture


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_encoders_go_to_a_folder_and_to_a_gguf(kind: str, tmp_path: Path) -> None:
    source = open_model(write_bert_model(tmp_path / "bert", bert_shape(kind)))
    report = export(source, tmp_path / "out")
    assert report.quality.cosine_min > 0.99999
    peer = sentence_transformer(tmp_path / "out")
    expected = Embedder(source, "fp32").encode_document(TEXTS)
    assert np.allclose(peer.encode(TEXTS), expected, atol=1e-5)
    report = export(source, tmp_path / "out.gguf", type_name="F32")
    assert report.quality.cosine_min > 0.99999
    assert report.tensors == {"F32": len(source.weights.names)}


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    tensors = weights(shape())
    tensors["layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    source = open_model(write_model(tmp_path / "m", tensors=tensors))
    with pytest.raises(OutputError, match=r"up_proj\.weight has weights beyond F16's range"):
        export(source, tmp_path / "out", type_name="F16")
    with pytest.raises(ModelFileError, match="holds NaN or infinity"):
        tensors["layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
        export(open_model(write_model(tmp_path / "n", tensors=tensors)), tmp_path / "out")
    assert _listing(tmp_path) == {"m", "n"}


def test_a_tokenizer_that_would_change_is_refused(
    source: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tokenizer_metadata

    def without_most_merges(*given: Any) -> dict[str, Any]:
        keys = real(*given)
        return keys | {"tokenizer.ggml.merges": keys["tokenizer.ggml.merges"][:9]}

    monkeypatch.setattr(keys_module, "tokenizer_metadata", without_most_merges)
    with pytest.raises(SpecError, match="The tokenizer would not survive: as a query, 'Where can"):
        export(source, tmp_path / "out.gguf")
    assert _listing(tmp_path) == {"source"}


# --- Refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "name", "kind", "error", "words"),
    [
        ("onnx", "out", None, InputError, "exported to folder or gguf; given: 'onnx'"),
        ("gguf", "out", None, OutputError, r"--to gguf and .*out\."),
        ("folder", "out.gguf", None, OutputError, "a folder's does not"),
        ("folder", "out", "Q8_0", InputError, "can have F32, F16, BF16. Export to gguf for it"),
        ("gguf", "out.gguf", "Q3_K", InputError, "a gguf can have F32, F16, BF16, Q8_0, Q6_K"),
        (None, "no/out", None, OutputError, r"there is no folder .*no\. Make it first"),
    ],
)
def test_what_cannot_be_is_refused(
    source: ModelFiles,
    tmp_path: Path,
    to: Any,
    name: str,
    kind: str | None,
    error: type[PolyvecError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        export(source, tmp_path / name, to, kind)
    assert _listing(tmp_path) == {"source"}


@pytest.mark.parametrize("name", ["out", "out.gguf"])
def test_what_is_there_is_replaced_only_by_force(
    source: ModelFiles, tmp_path: Path, name: str
) -> None:
    export(source, tmp_path / name)
    with pytest.raises(OutputError, match="exists already; use --force"):
        export(source, tmp_path / name)
    export(source, tmp_path / name, force=True)
    assert _listing(tmp_path) == {"source", name}
    assert _cosine(source, open_model(tmp_path / name)) > 0.99


def test_force_does_not_replace_what_is_no_model(source: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "m.gguf").mkdir()
    with pytest.raises(OutputError, match="is not a model folder, so --force does not replace it"):
        export(source, tmp_path / "home", force=True)
    with pytest.raises(OutputError, match="is not a model gguf"):
        export(source, tmp_path / "m.gguf", force=True)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_a_model_can_be_exported_onto_itself(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", prompts=PROMPTS)
    before = Embedder(open_model(folder), "fp32").encode_document(TEXTS)
    export(open_model(folder), folder, type_name="BF16", force=True)
    after = Embedder(open_model(folder), "fp32").encode_document(TEXTS)
    assert float((before * after).sum(1).min()) > 0.99
    assert _listing(tmp_path) == {"m"}


def _full_after(writes: int) -> Callable[..., Any]:
    """Return a ``_write_*`` that fills the disk at its ``writes``-th call."""
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fail


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("name", "place"),
    [("out", (save, "_write_shard")), ("out.gguf", (gguf_module, "_write_tensor"))],
)
def test_a_full_disk_leaves_nothing_and_the_old_model(
    source: ModelFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    place: tuple[Any, str],
    force: bool,
) -> None:
    if force:
        export(source, tmp_path / name)
    monkeypatch.setattr(*place, _full_after(0 if name == "out" else 3))
    with pytest.raises(DiskFullError, match=r"No room left on the disk of .*smaller --type"):
        export(source, tmp_path / name, force=force)
    assert _listing(tmp_path) == {"source", *([name] if force else [])}
    if force:
        assert _cosine(source, open_model(tmp_path / name)) > 0.99


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_device_is_an_error_too(
    source: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing: bytes buffered by the writer fail when the file is closed."""
    real = write_gguf_file
    monkeypatch.setattr(
        module, "write_gguf", lambda files, _, kind: real(files, Path("/dev/full"), kind)
    )
    with pytest.raises(DiskFullError):
        export(source, tmp_path / "out.gguf")
    assert _listing(tmp_path) == {"source"}


def test_a_lora_folder_says_how_to_merge(tmp_path: Path) -> None:
    write_json(tmp_path / "lora" / "adapter_config.json", {"base_model_name_or_path": "org/base"})
    with pytest.raises(
        ModelFileError, match=r"LoRA adapter .* only changes org/base\. .*polyvec merge"
    ):
        open_model(tmp_path / "lora")


# --- The command ------------------------------------------------------------------------------


def test_command_reports(polyvec: Command, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", tokenizer=byte_bpe(bos=True))
    result = polyvec("export", folder, tmp_path / "m.gguf", "--type", "F16", "--json")
    facts = json.loads(result.out)
    assert result.code == 0
    assert (facts["form"], facts["type"]) == ("gguf", "F16")
    assert set(facts["tensors"]) == {"F16", "F32"}
    assert facts["quality"]["cosine_min"] > 0.99
    result = polyvec("export", folder, tmp_path / "m.gguf", "--to", "gguf", "--force")
    assert "Q8_0" in result.out
    assert "lowest of 28" in result.out


def test_command_tells_what_a_file_cannot_say(polyvec: Command, tmp_path: Path) -> None:
    prompts = {"query": "[INST] find: ", "document": ""}
    folder = write_model(tmp_path / "m", shape(is_causal=False), prompts=prompts)
    done = polyvec("export", folder, tmp_path / "out.gguf", "--type", "F32")
    assert "write '[INST] find: ' before" in " ".join(done.out.split())
    done = polyvec("export", folder, tmp_path / "out", "--json")
    assert json.loads(done.out)["notes"] == []


def test_command_states_what_the_files_do_not(polyvec: Command, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "old.gguf", metadata=None)
    result = polyvec(
        "export", path, tmp_path / "new.gguf", "--pooling", "last", "--attention", "causal",
        "--max-tokens", "64",
    )  # fmt: skip
    assert result.code == 0
    spec = open_model(tmp_path / "new.gguf").spec
    assert (spec.pooling, spec.attention, spec.max_tokens) == ("last", "causal", 64)


def test_command_refuses_what_exists(polyvec: Command, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    result = polyvec("export", folder, folder)
    assert result.code == 1
    assert "exists already; use --force" in result.err
