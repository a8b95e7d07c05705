"""Layers read from files: weights and configuration must belong together."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from polyvec.engine.layers import ResidentLayers
from polyvec.engine.matrices import Matrices
from polyvec.engine.readers import LlamaReader
from polyvec.engine.runner import Runner
from polyvec.errors import ModelFileError
from polyvec.model.files import open_model
from polyvec.spec import LlamaArchitecture
from tests.tiny import Json, shape, weights, write_model

CPU = torch.device("cpu")


def _load(folder: Path, config: Json, tensors: dict[str, Tensor]) -> Runner:
    files = open_model(write_model(folder, config, tensors=tensors))
    return Runner(files, torch.float32, CPU)


def _states(runner: Runner) -> Tensor:
    from polyvec.model.packing import Packed

    (states,) = runner.run([Packed.of([[5, 6, 7], [8]])])
    return states


def test_every_layer_is_read(tmp_path: Path) -> None:
    files = open_model(write_model(tmp_path, shape(num_hidden_layers=2)))
    assert isinstance(files.architecture, LlamaArchitecture)
    reader = LlamaReader(Matrices(files), files.architecture, torch.float32, CPU)
    assert len(list(ResidentLayers(reader).layers())) == 2


@pytest.mark.parametrize(
    "name",
    [
        "embed_tokens.weight",
        "norm.weight",
        "layers.2.self_attn.q_proj.weight",
        "layers.0.mlp.down_proj.weight",
        "layers.1.post_attention_layernorm.weight",
    ],
)
def test_a_missing_tensor_is_named(name: str, tmp_path: Path) -> None:
    tensors = weights(shape())
    del tensors[name]
    with pytest.raises(
        ModelFileError, match=rf"has no tensor {name}, which its configuration asks"
    ):
        _load(tmp_path, shape(), tensors)


@pytest.mark.parametrize("name", ["q_norm", "k_norm"])
def test_a_qwen3_without_its_head_norms_is_refused(name: str, tmp_path: Path) -> None:
    tensors = weights(shape("qwen3"))
    del tensors[f"layers.0.self_attn.{name}.weight"]
    with pytest.raises(ModelFileError, match=rf"has no tensor layers\.0\.self_attn\.{name}"):
        _load(tmp_path, shape("qwen3"), tensors)


@pytest.mark.parametrize(
    ("name", "size", "asked"),
    [
        ("layers.0.self_attn.k_proj.weight", (48, 48), r"\[16, 48\]"),
        ("layers.1.mlp.gate_proj.weight", (48, 72), r"\[72, 48\]"),
        ("layers.2.input_layernorm.weight", (47,), r"\[48\]"),
        ("embed_tokens.weight", (384, 40), r"\[384, 48\]"),
        ("norm.weight", (48, 1), r"\[48\]"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(
    name: str, size: tuple[int, ...], asked: str, tmp_path: Path
) -> None:
    tensors = weights(shape()) | {name: torch.zeros(size)}
    expected = rf"tensor {name} is \[.*\] and the configuration asks for {asked}"
    with pytest.raises(ModelFileError, match=expected):
        _load(tmp_path, shape(), tensors)


def test_a_bias_of_another_length_is_refused(tmp_path: Path) -> None:
    config = shape(attention_bias=True)
    tensors = weights(config) | {"layers.0.self_attn.q_proj.bias": torch.zeros(47)}
    with pytest.raises(ModelFileError, match=r"q_proj\.bias is \[47\] .* asks for \[48\]"):
        _load(tmp_path, config, tensors)


@pytest.mark.parametrize(
    "name",
    [
        "layers.0.self_attn.q_norm.weight",
        "layers.3.mlp.up_proj.weight",
        "layers.0.mlp.router.weight",
    ],
    ids=["Qwen3's norms in a Llama", "a fourth layer", "a part of another network"],
)
def test_a_layer_tensor_nobody_asks_for_is_refused(name: str, tmp_path: Path) -> None:
    """It would have changed the vectors."""
    tensors = weights(shape()) | {name: torch.ones(8)}
    expected = rf"has 1 tensor\(s\) its configuration does not account for: {name}"
    with pytest.raises(ModelFileError, match=expected):
        _load(tmp_path, shape(), tensors)


@pytest.mark.parametrize(
    "name", ["layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight", "score.weight"]
)
def test_tensors_that_change_no_vector_are_let_be(name: str, tmp_path: Path) -> None:
    """Old files hold the rotary frequencies; language models hold a head."""
    _load(tmp_path, shape(), weights(shape()) | {name: torch.ones(8)})


@pytest.mark.parametrize("missing", ["q_proj", "k_proj", "v_proj"])
def test_a_missing_bias_is_zeros(missing: str, tmp_path: Path) -> None:
    config = shape(attention_bias=True)
    tensors = weights(config)
    name = f"layers.0.self_attn.{missing}.bias"
    zeros = tensors | {name: torch.zeros_like(tensors[name])}
    left_out = {key: value for key, value in tensors.items() if key != name}
    with_zeros = _states(_load(tmp_path / "a", config, zeros))
    assert torch.equal(_states(_load(tmp_path / "b", config, left_out)), with_zeros)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_weights_stored_in_half_are_computed_in_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    halves = {name: tensor.to(dtype) for name, tensor in weights(shape()).items()}
    floats = {name: tensor.float() for name, tensor in halves.items()}
    of_halves = _states(_load(tmp_path / "a", shape(), halves))
    assert torch.equal(of_halves, _states(_load(tmp_path / "b", shape(), floats)))
