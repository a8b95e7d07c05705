"""int8: the same vectors but for a measured little, and clear words where it cannot be had."""

from pathlib import Path

import numpy as np
import pytest
import torch

from polyvec.engine import cpu
from polyvec.engine.embedder import load
from polyvec.engine.int8 import Int8Linear
from polyvec.errors import DeviceError, ModelFileError
from polyvec.kernels import library
from tests.tiny import shape, weights, write_model
from tests.tiny_bert import bert_shape, write_bert_model

TEXTS = ["a short text", "another one, somewhat longer than that", "Habari ya asubuhi", "x", "a b"]

pytestmark = pytest.mark.skipif(not cpu.has_int8(), reason="this processor has no VNNI or AMX")


def _wide(model_type: str) -> dict[str, object]:
    return shape(
        model_type, hidden_size=96, intermediate_size=160, num_attention_heads=3, head_dim=32,
        num_key_value_heads=1, num_hidden_layers=2,
    )  # fmt: skip


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_vectors_stay_close_to_fp32(
    tmp_path: Path, model_type: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYVEC_KERNELS", kernels)
    library.library.cache_clear()
    folder = str(write_model(tmp_path / "m", _wide(model_type)))
    exact, rounded = (load(folder, precision=name, pooling="mean") for name in ("fp32", "int8"))
    cosines = (exact.encode_document(TEXTS) * rounded.encode_document(TEXTS)).sum(1)
    library.library.cache_clear()
    assert rounded.precision == "int8"
    assert cosines.min() > 0.995


def test_bert_too(tmp_path: Path) -> None:
    folder = str(write_bert_model(tmp_path / "m", bert_shape()))
    exact, rounded = (load(folder, precision=name, pooling="mean") for name in ("fp32", "int8"))
    cosines = (exact.encode_document(TEXTS) * rounded.encode_document(TEXTS)).sum(1)
    assert cosines.min() > 0.995


@pytest.mark.parametrize(("precision", "rounded"), [("int8", False), ("packed", True)])
def test_queries_keys_and_values_are_rounded_only_to_four_bits(
    tmp_path: Path, precision: str, rounded: bool
) -> None:
    if rounded and library.library() is None:
        pytest.skip("rounding to 4 bits needs the compiled kernels")
    for folder in (
        write_model(tmp_path / "llama", _wide("llama")),
        write_bert_model(tmp_path / "bert", bert_shape(hidden_size=96, intermediate_size=160)),
    ):
        model = load(str(folder), precision=precision, pooling="mean")
        layers = list(model.runner.network.source.layers())
        assert {isinstance(layer.qkv, Int8Linear) for layer in layers} == {rounded}
        assert all(isinstance(layer.down, Int8Linear) for layer in layers)


def test_an_outlier_column_does_not_drown_the_rest(tmp_path: Path) -> None:
    """One column of the residual stream a hundred times the others, as trained models have."""
    config = _wide("llama")
    tensors = weights(config)
    table = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    tensors[table][:, 7] *= 100
    folder = str(write_model(tmp_path / "m", config, tensors=tensors))
    exact, rounded = (load(folder, precision=name, pooling="mean") for name in ("fp32", "int8"))
    cosines = (exact.encode_document(TEXTS) * rounded.encode_document(TEXTS)).sum(1)
    assert cosines.min() > 0.995


def test_alone_equals_together(tmp_path: Path) -> None:
    model = load(str(write_model(tmp_path / "m", _wide("llama"))), precision="int8", pooling="mean")
    together = model.encode_document(TEXTS)
    alone = np.vstack([model.encode_document([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 2e-3


def test_a_processor_without_the_instructions_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "has_int8", lambda: False)
    with pytest.raises(DeviceError, match="VNNI or AMX"):
        cpu.pick_precision("int8", torch.device("cpu"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(tmp_path: Path, precision: str, value: float) -> None:
    config = _wide("llama")
    tensors = weights(config)
    name = next(name for name in tensors if name.endswith("layers.1.mlp.up_proj.weight"))
    tensors[name][3, 4] = value
    folder = str(write_model(tmp_path / "m", config, tensors=tensors))
    with pytest.raises(ModelFileError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        load(folder, precision=precision, pooling="mean")
