"""The packed transformer against transformers' own, on random small models, fp32."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from polyvec.engine.runner import Runner
from polyvec.model.files import open_model
from polyvec.model.llama import inverse_frequencies
from polyvec.model.packing import Packed
from polyvec.spec import Rope
from tests.peers import Reference
from tests.tiny import VOCAB_SIZE, Json, llama3_scaling, shape, write_transformer

MODELS = {
    "llama": shape("llama"),
    "llama, every bias": shape("llama", attention_bias=True, mlp_bias=True),
    "llama, own head size": shape("llama", head_dim=14),
    "llama, one key head": shape("llama", num_key_value_heads=1),
    "llama, no shared heads": shape("llama", num_key_value_heads=6),
    "llama, llama3 rope": shape("llama", rope_scaling=llama3_scaling()),
    "llama, linear rope": shape("llama", rope_scaling={"rope_type": "linear", "factor": 4.0}),
    "llama, transformers 5 rope": shape(
        "llama", rope_theta=None, rope_parameters={"rope_theta": 500.0} | llama3_scaling(32, 4.0)
    ),
    "mistral": shape("mistral"),
    "mistral, sliding window": shape("mistral", sliding_window=7),
    "qwen2": shape("qwen2"),
    "qwen2, sliding window": shape(
        "qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=0
    ),
    "qwen2, window switched off": shape("qwen2", use_sliding_window=False, sliding_window=7),
    "qwen2, window on no layer": shape(
        "qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=3
    ),
    "qwen3": shape("qwen3"),
}
LENGTHS = (1, 2, 7, 8, 9, 15, 15, 33, 40)

every_model = pytest.mark.parametrize("name", MODELS)
both_ways = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])


def _ids(length: int, seed: int = 0) -> list[int]:
    random = torch.Generator().manual_seed(100 * seed + length)
    return torch.randint(3, VOCAB_SIZE, (length,), generator=random).tolist()


def _texts() -> list[list[int]]:
    return [_ids(length, seed) for seed, length in enumerate(LENGTHS)]


def _folder(place: Path, config: Json, causal: bool) -> Path:
    return write_transformer(place / "model", config | {"is_causal": causal})


def _runner(folder: Path, dtype: torch.dtype = torch.float32) -> Runner:
    return Runner(open_model(folder, {"pooling": "mean"}), dtype, torch.device("cpu"))


def _run(runner: Runner, texts: list[list[int]]) -> list[Tensor]:
    (states_TD,) = runner.run([Packed.of(texts)])
    return list(states_TD.split([len(ids) for ids in texts]))


def _worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@every_model
@both_ways
def test_packed_states_equal_transformers(name: str, causal: bool, tmp_path: Path) -> None:
    folder = _folder(tmp_path, MODELS[name], causal)
    reference = Reference(folder)
    theirs = [reference.states(ids) for ids in _texts()]
    worst = _worst(_run(_runner(folder), _texts()), theirs)
    assert worst < 1e-4


@every_model
@both_ways
def test_states_of_single_texts_equal_transformers(name: str, causal: bool, tmp_path: Path) -> None:
    folder = _folder(tmp_path, MODELS[name], causal)
    reference, runner = Reference(folder), _runner(folder)
    for ids in _texts():
        worst = _worst(_run(runner, [ids]), [reference.states(ids)])
        assert worst < 1e-4, f"{len(ids)} tokens"


def _first_state_moves(states: Callable[[list[int]], Tensor], ids: list[int]) -> bool:
    """Whether the last token's change is seen at the first token."""
    changed = [*ids[:-1], ids[-1] % (VOCAB_SIZE - 1) + 1]
    return float((states(ids)[0] - states(changed)[0]).abs().max()) > 1e-3


@every_model
@both_ways
def test_the_reference_attends_as_the_test_means_it(
    name: str, causal: bool, tmp_path: Path
) -> None:
    """Otherwise the parity above would prove nothing: is_causal is easily ignored."""
    reference = Reference(_folder(tmp_path, MODELS[name], causal))
    assert _first_state_moves(reference.states, _ids(6)) is not causal


@every_model
@both_ways
def test_the_last_token_changes_the_first_state_unless_causal(
    name: str, causal: bool, tmp_path: Path
) -> None:
    runner = _runner(_folder(tmp_path, MODELS[name], causal))
    assert _first_state_moves(lambda ids: _run(runner, [ids])[0], _ids(6)) is not causal


def test_a_sliding_window_hides_the_end_of_a_long_text(tmp_path: Path) -> None:
    """Three layers of a window of 3 reach 9 tokens."""
    runner = _runner(_folder(tmp_path, shape("mistral", sliding_window=3), causal=False))
    assert _first_state_moves(lambda ids: _run(runner, [ids])[0], _ids(10))
    assert not _first_state_moves(lambda ids: _run(runner, [ids])[0], _ids(11))


@pytest.mark.parametrize("name", ["llama, llama3 rope", "llama, linear rope"])
def test_rope_scaling_changes_the_states(name: str, tmp_path: Path) -> None:
    """Otherwise the parity of the scaled models would prove nothing."""
    scaled = _runner(_folder(tmp_path / "a", MODELS[name], causal=False))
    plain = _runner(_folder(tmp_path / "b", MODELS["llama"], causal=False))
    assert _worst(_run(scaled, [_ids(9)]), _run(plain, [_ids(9)])) > 0.05


@pytest.mark.parametrize(
    "rope",
    [
        Rope(10_000.0),
        Rope(1e6, "linear", factor=2.5),
        Rope(500_000.0, "llama3", 8.0, 1.0, 4.0, 8192),
        Rope(500_000.0, "llama3", 32.0, 1.0, 4.0, 8192),
    ],
    ids=["default", "linear", "llama 3.1", "llama 3.2"],
)
def test_frequencies_equal_transformers_at_real_sizes(rope: Rope) -> None:
    scaling: Json = {
        "rope_type": rope.kind,
        "rope_theta": rope.theta,
        "factor": rope.factor,
        "low_freq_factor": rope.low_freq_factor,
        "high_freq_factor": rope.high_freq_factor,
        "original_max_position_embeddings": rope.original_max_tokens,
    }
    config = LlamaConfig(head_dim=128, max_position_embeddings=131_072, rope_parameters=scaling)
    theirs = LlamaRotaryEmbedding(config).inv_freq
    torch.testing.assert_close(inverse_frequencies(rope, 128), theirs, rtol=1e-6, atol=0)


def test_row_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model's rows all fit one block, a big one's do not."""
    runner = _runner(_folder(tmp_path, MODELS["qwen3"], causal=False))
    whole = _run(runner, _texts())
    monkeypatch.setattr("polyvec.model.parts._BLOCK_ELEMENTS", 7 * 48)
    assert _worst(_run(runner, _texts()), whole) < 1e-5


@pytest.mark.parametrize("name", ["llama, every bias", "mistral, sliding window", "qwen3"])
def test_gradients_equal_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plain torch products: oneDNN's packed ones have no gradient."""
    monkeypatch.setattr("polyvec.engine.linear.has_onednn", lambda: False)
    folder = _folder(tmp_path, MODELS[name], causal=False)
    network, packed = _runner(folder).network, Packed.of([_ids(9)])
    embedded = network.embed(packed)
    weight = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(5))

    ours = embedded.clone().requires_grad_()
    states_TD = ours
    for layer in network.source.layers():
        states_TD = network.block(states_TD, layer, network.context(packed))
    (network.finish(states_TD) * weight).sum().backward()

    theirs = embedded.clone().requires_grad_()
    states = Reference(folder).model(inputs_embeds=theirs[None], use_cache=False)[0][0]
    (states * weight).sum().backward()

    assert ours.grad is not None
    assert theirs.grad is not None
    assert float((ours.grad - theirs.grad).abs().max()) < 1e-4 * float(theirs.grad.abs().max())
