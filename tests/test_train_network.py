"""Models as modules: the engine's vectors, transformers' gradients, less memory, bf16."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import polyvec
from polyvec.errors import InputError, ModelFileError
from polyvec.model.files import open_model
from polyvec.model.packing import Packed
from polyvec.train.network import Network, build_network, cut_layers, load_weights
from tests import tiny, tiny_bert
from tests.peers import Reference

TEXTS = ["the quick brown fox", "лиса", "敏捷的棕色狐狸跳过懒狗 over the lazy dog", "zorro marrón"]


def network(
    path: Path,
    dtype: torch.dtype = torch.float32,
    checkpointing: bool = False,
    num_layers: int | None = None,
    **stated: Any,
) -> Network:
    built = build_network(cut_layers(open_model(path, stated), num_layers), dtype, checkpointing)
    load_weights(built, torch.device("cpu"), {})
    return built


def packed(built: Network) -> Packed:
    files = built.files
    ids = files.tokenizer.encode(TEXTS, files.spec, "document").ids
    return Packed.of(ids)


def write_llama(folder: Path, model_type: str = "llama") -> Path:
    return tiny.write_model(folder, tiny.shape(model_type, is_causal=False))


MODELS: dict[str, Callable[[Path], Path]] = {
    "llama": write_llama,
    "qwen3": lambda folder: write_llama(folder, "qwen3"),
    "qwen2 with biases": lambda folder: write_llama(folder, "qwen2"),
    "bert": lambda folder: tiny_bert.write_bert_model(folder),
}


@pytest.mark.parametrize("kind", MODELS)
def test_vectors_are_the_engines(tmp_path: Path, kind: str) -> None:
    folder = MODELS[kind](tmp_path / "m")
    built = network(folder)
    ours = torch.nn.functional.normalize(built(packed(built)), dim=-1).detach().numpy()
    engine = polyvec.load(str(folder), precision="fp32", device="cpu")
    np.testing.assert_allclose(ours, engine.encode_document(TEXTS), atol=2e-6)


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_gradients_are_those_of_transformers(tmp_path: Path, model_type: str) -> None:
    folder = write_llama(tmp_path / "m", model_type)
    built, reference = network(folder), Reference(folder)
    batch = packed(built)
    draw = torch.randn((len(TEXTS), 48), generator=torch.Generator().manual_seed(0))
    (built(batch) * draw).sum().backward()
    ids = batch.token_ids_T.split(batch.lengths)
    total = sum(
        (reference.model(row[None], use_cache=False)[0][0].mean(0) * weight).sum()
        for row, weight in zip(ids, draw, strict=True)
    )
    assert isinstance(total, Tensor)
    total.backward()
    theirs = {name: p.grad for name, p in reference.model.named_parameters()}
    for name, parameter in built.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_checkpointing_changes_no_gradient(tmp_path: Path, kind: str) -> None:
    folder = MODELS[kind](tmp_path / "m")
    whole, spared = network(folder), network(folder, checkpointing=True)
    for built in (whole, spared):
        built(packed(built)).square().sum().backward()
    for (name, a), (_, b) in zip(whole.named_parameters(), spared.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_bf16_rounds_products_and_keeps_fp32_weights_and_gradients(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "m")
    exact, rounded = network(folder), network(folder, torch.bfloat16)
    for built in (exact, rounded):
        built(packed(built))[:, 0].sum().backward()
    for (name, a), (_, b) in zip(exact.named_parameters(), rounded.named_parameters(), strict=True):
        assert b.dtype == torch.float32
        assert a.grad is not None
        assert b.grad is not None
        likeness = torch.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0)
        assert likeness > 0.98, name


def test_attention_by_products_equals_the_fused_one_in_bf16(tmp_path: Path) -> None:
    built = network(write_llama(tmp_path / "m"), torch.bfloat16)
    with torch.no_grad():
        fused = built(packed(built))
    torch.testing.assert_close(built(packed(built)), fused, rtol=0.05, atol=0.05)


def test_the_first_layers_are_a_model_of_their_own(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "m")
    built = network(folder, num_layers=1)
    assert [n for n, _ in built.named_parameters() if n.startswith("layers.1")] == []
    with pytest.raises(InputError, match=r"model.num_layers is 4 .* has 3; give 1 to 3"):
        network(folder, num_layers=4)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    tensors = tiny.weights(tiny.shape())
    tensors["layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    folder = tiny.write_model(tmp_path / "m", tiny.shape(is_causal=False), tensors=tensors)
    with pytest.raises(ModelFileError, match=r"layers.1.mlp.up_proj.weight has values that"):
        network(folder)
