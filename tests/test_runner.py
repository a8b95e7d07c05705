"""Packed batches through all layers, one layer over all batches."""

from collections.abc import Iterator

import pytest
import torch

from polyvec.engine.runner import Runner, _together
from polyvec.model.files import open_model
from polyvec.model.llama import Layer
from polyvec.model.packing import Packed
from tests.tiny import shape, write_model

BATCHES = [[[5, 6, 7], [8, 9, 10]], [[11]], [[12] * 30, [], [13, 14]]]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = write_model(tmp_path_factory.mktemp("model"), shape("qwen3", is_causal=False))
    return Runner(open_model(folder), torch.float32, torch.device("cpu"))


class CountedLayers:
    """A source that notes which layer is taken when."""

    def __init__(self, layers: list[Layer]) -> None:
        self._layers = layers
        self.taken: list[int] = []

    def layers(self) -> Iterator[Layer]:
        for number, layer in enumerate(self._layers):
            self.taken.append(number)
            yield layer


def test_several_batches_give_what_each_gives_alone(runner: Runner) -> None:
    packed = [Packed.of(batch) for batch in BATCHES]
    together = runner.run(packed)
    for states, batch in zip(together, packed, strict=True):
        (alone,) = runner.run([batch])
        assert torch.equal(states, alone)


def test_each_layer_is_taken_once_for_all_batches(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = CountedLayers(list(runner.network.source.layers()))
    monkeypatch.setattr(runner.network, "source", counted)
    runner.run([Packed.of(batch) for batch in BATCHES])
    assert counted.taken == [0, 1, 2]


def test_another_batch_may_run_between_layers(runner: Runner) -> None:
    """A server lets a short query overtake; neither batch's states may change by it."""
    packed = [Packed.of(batch) for batch in BATCHES]
    expected = [runner.run([batch])[0].clone() for batch in packed]
    overtaking: list[torch.Tensor] = []
    states = runner.run([packed[2]], lambda: overtaking.append(runner.run([packed[0]])[0].clone()))
    assert torch.equal(states[0], expected[2])
    assert len(overtaking) == 3
    assert all(torch.equal(other, expected[0]) for other in overtaking)


def test_states_are_fp32_one_row_a_token(runner: Runner) -> None:
    (states,) = runner.run([Packed.of([[5, 6, 7], [8]])])
    assert states.dtype == torch.float32
    assert states.shape == (4, 48)


def test_running_twice_gives_the_same_states(runner: Runner) -> None:
    """The residual stream is updated in place; the token table must not be."""
    packed = Packed.of([[5, 6, 7], [5, 6, 7]])
    (first,) = runner.run([packed])
    first = first.clone()
    (second,) = runner.run([packed])
    assert torch.equal(first, second)


@pytest.mark.parametrize("texts", [[], [[]], [[], []]], ids=["no texts", "one empty", "two empty"])
def test_a_batch_without_tokens_gives_no_states(runner: Runner, texts: list[list[int]]) -> None:
    (states,) = runner.run([Packed.of(texts)])
    assert states.shape == (0, 48)


def test_no_batches_give_nothing(runner: Runner) -> None:
    assert runner.run([]) == []


def test_idle_rows_make_no_super_batch_of_their_own() -> None:
    """16 batches of 504 tokens, 512 rows each, are planned as one super-batch of 8,190 tokens."""
    batches = [Packed.of([[1] * 504], size=512) for _ in range(16)]
    assert {len(packed.token_ids_T) for packed in batches} == {512}
    assert [len(group) for group in _together(batches, 8_190)] == [16]
    assert [len(group) for group in _together(batches, 504 * 10)] == [10, 6]
