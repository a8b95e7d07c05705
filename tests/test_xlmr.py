"""BERT-family encoders over packed tokens against transformers' own, fp32."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from polyvec.engine.runner import Runner
from polyvec.model.files import open_model
from polyvec.model.packing import Packed
from tests.peers import Reference
from tests.tiny import Json
from tests.tiny_bert import (
    bert_shape,
    write_bert,
)

MODELS = {
    "bert": bert_shape("bert"),
    "bert, one token type": bert_shape("bert", type_vocab_size=1, layer_norm_eps=0.01),
    "roberta": bert_shape("roberta"),
    "xlm-roberta": bert_shape("xlm-roberta"),
    "xlm-roberta, padding is 3": bert_shape("xlm-roberta", pad_token_id=3),
}
LENGTHS = (1, 2, 7, 8, 9, 15, 15, 33, 40)

every_model = pytest.mark.parametrize("name", MODELS)


def _ids(config: Json, length: int, seed: int = 0) -> list[int]:
    random = torch.Generator().manual_seed(100 * seed + length)
    return torch.randint(4, config["vocab_size"], (length,), generator=random).tolist()


def _texts(config: Json) -> list[list[int]]:
    return [_ids(config, length, seed) for seed, length in enumerate(LENGTHS)]


def _runner(path: Path, dtype: torch.dtype = torch.float32) -> Runner:
    return Runner(open_model(path, {"pooling": "mean"}), dtype, torch.device("cpu"))


def _run(runner: Runner, texts: list[list[int]]) -> list[Tensor]:
    (states_TD,) = runner.run([Packed.of(texts)])
    return list(states_TD.split([len(ids) for ids in texts]))


def _worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@every_model
def test_packed_states_equal_transformers(name: str, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "m", MODELS[name])
    texts = _texts(MODELS[name])
    reference = Reference(folder)
    assert _worst(_run(_runner(folder), texts), [reference.states(ids) for ids in texts]) < 1e-4


@every_model
def test_states_of_single_texts_equal_transformers(name: str, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "m", MODELS[name])
    reference, runner = Reference(folder), _runner(folder)
    for ids in _texts(MODELS[name]):
        worst = _worst(_run(runner, [ids]), [reference.states(ids)])
        assert worst < 1e-4, f"{len(ids)} tokens"


@every_model
def test_alone_equals_batched(name: str, tmp_path: Path) -> None:
    runner, texts = _runner(write_bert(tmp_path / "m", MODELS[name])), _texts(MODELS[name])
    alone = [_run(runner, [ids])[0] for ids in texts]
    assert _worst(_run(runner, texts), alone) < 1e-5


@every_model
def test_the_last_token_changes_the_first_state(name: str, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "m", MODELS[name])
    runner, reference = _runner(folder), Reference(folder)
    for states in (lambda ids: _run(runner, [ids])[0], reference.states):
        assert _first_state_moves(states, _ids(MODELS[name], 6))


def _first_state_moves(states: Callable[[list[int]], Tensor], ids: list[int]) -> bool:
    changed = [*ids[:-1], ids[-1] + 1 if ids[-1] < 200 else ids[-1] - 1]
    return float((states(ids)[0] - states(changed)[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "xlm-roberta, padding is 3"])
def test_padding_tokens_inside_a_text_get_transformers_positions(name: str, tmp_path: Path) -> None:
    """A text may hold the word <pad>; RoBERTa's positions skip it."""
    config = MODELS[name]
    folder, padding = write_bert(tmp_path / "m", config), config["pad_token_id"]
    texts = [[5, padding, 6, 7, padding], [padding, 8], [9, 10, 11, 12, 13]]
    theirs = [Reference(folder).states(ids) for ids in texts]
    assert _worst(_run(_runner(folder), texts), theirs) < 1e-4


def test_positions_reach_to_the_end_of_the_table(tmp_path: Path) -> None:
    for name in ("bert", "xlm-roberta"):
        folder = write_bert(tmp_path / name, MODELS[name])
        longest = open_model(folder, {"pooling": "cls"}).architecture.max_positions
        ids = _ids(MODELS[name], longest)
        assert _worst(_run(_runner(folder), [ids]), [Reference(folder).states(ids)]) < 1e-4


def test_row_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, texts = _runner(write_bert(tmp_path / "m")), _texts(bert_shape())
    whole = _run(runner, texts)
    monkeypatch.setattr("polyvec.model.parts._BLOCK_ELEMENTS", 7 * 48)
    assert _worst(_run(runner, texts), whole) < 1e-5


@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_plain_torch_products_give_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, texts = write_bert(tmp_path / "m", MODELS[name]), _texts(MODELS[name])
    packed = _run(_runner(folder), texts)
    monkeypatch.setattr("polyvec.engine.linear.has_onednn", lambda: False)
    assert _worst(_run(_runner(folder), texts), packed) < 1e-5


def test_bf16_products_stay_near_fp32(tmp_path: Path) -> None:
    folder, texts = write_bert(tmp_path / "m"), _texts(bert_shape())
    exact = torch.cat(_run(_runner(folder), texts))
    rounded = torch.cat(_run(_runner(folder, torch.bfloat16), texts))
    assert float(torch.cosine_similarity(exact, rounded).min()) > 0.999


@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_gradients_equal_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plain torch products: oneDNN's packed ones have no gradient."""
    monkeypatch.setattr("polyvec.engine.linear.has_onednn", lambda: False)
    folder = write_bert(tmp_path / "m", MODELS[name])
    network, packed = _runner(folder).network, Packed.of([_ids(MODELS[name], 9)])
    table = network.embeddings.words_VD.requires_grad_()  # type: ignore[attr-defined]
    weight = torch.randn(9, 48, generator=torch.Generator().manual_seed(5))

    states_TD = network.embed(packed)
    for layer in network.source.layers():
        states_TD = network.block(states_TD, layer, network.context(packed))
    (network.finish(states_TD) * weight).sum().backward()

    model = Reference(folder).model
    (model(packed.token_ids_T[None])[0][0] * weight).sum().backward()
    theirs = model.embeddings.word_embeddings.weight.grad
    assert float((table.grad - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_counted(name: str, tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "m", MODELS[name])
    shape = open_model(folder, {"pooling": "cls"}).architecture
    tensors = load_file(folder / "model.safetensors")
    assert shape.num_parameters == sum(tensor.numel() for tensor in tensors.values())
    assert (shape.num_kv_heads, shape.head_dim) == (6, 8)


def test_no_tokens_give_no_states(tmp_path: Path) -> None:
    runner = _runner(write_bert(tmp_path / "m", bert_shape("xlm-roberta")))
    assert [tuple(states.shape) for states in _run(runner, [[], [5], []])] == [
        (0, 48), (1, 48), (0, 48),
    ]  # fmt: skip
