"""A step's gradients: the same in one pass or several, on one process or two."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from torch import Tensor

from polyvec.model.files import open_model
from polyvec.records.mixture import Draw
from polyvec.records.record import Record
from polyvec.train.batches import Reader, make_batch, plan_chunks
from polyvec.train.losses import LossSettings
from polyvec.train.network import build_network, load_weights
from polyvec.train.ranks import Ranks
from polyvec.train.step import Stepper
from tests import tiny, tiny_train

JOINT = LossSettings(temperature=0.1, in_batch="all", same_tower_queries=True)
APART = LossSettings(temperature=0.1)


def stepper(folder: Path, loss: LossSettings, max_tokens: int) -> Stepper:
    files = open_model(folder)
    network = build_network(files, torch.float32, False)
    load_weights(network, torch.device("cpu"), {})
    reader = Reader(files.tokenizer, {"query": files.spec, "document": files.spec})
    ranks = Ranks(0, 1, torch.device("cpu"))
    return Stepper(network, network, reader, loss, [], 2, max_tokens, ranks, 0)


def gradients(folder: Path, loss: LossSettings, max_tokens: int) -> tuple[float, dict[str, Tensor]]:
    one = stepper(folder, loss, max_tokens)
    items = [(record, Draw("made", i, 0)) for i, record in enumerate(tiny_train.records(7))]
    found = one.run(items, 0, 1.0, last=True)
    named = {name: p.grad for name, p in one.network.named_parameters() if p.grad is not None}
    return found.loss, named


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_model(tmp_path / "m", tiny.shape(is_causal=False))


@pytest.mark.parametrize("loss", [JOINT, APART], ids=["gradient cache", "accumulated"])
def test_several_passes_equal_one(folder: Path, loss: LossSettings) -> None:
    whole_loss, whole = gradients(folder, loss, 10**6)
    loss_in_parts, parts = gradients(folder, loss, 60)
    assert loss_in_parts == pytest.approx(whole_loss, rel=1e-5)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_the_joint_way_equals_plain_autograd(folder: Path) -> None:
    from polyvec.model.packing import Packed
    from polyvec.train.losses import contrastive_loss

    one = stepper(folder, JOINT, 60)
    items = [(record, Draw("made", i, 0)) for i, record in enumerate(tiny_train.records(7))]
    batch = make_batch(items, 2)
    vectors = torch.cat([one.network(Packed.of([x])) for x in one.reader.ids(batch.texts)])
    plain = contrastive_loss(*batch.vectors(vectors), batch.masks, JOINT).mean()
    plain.backward()
    expected = {n: p.grad for n, p in one.network.named_parameters()}
    loss, found = gradients(folder, JOINT, 60)
    assert loss == pytest.approx(plain.item(), rel=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_bf16_pass_is_filled_to_a_round_number_of_tokens(folder: Path) -> None:
    plain = stepper(folder, JOINT, 10**6)
    half = stepper(folder, JOINT, 10**6)
    half.network.dtype = torch.bfloat16
    seen: list[int] = []
    half.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0].token_ids_T)))
    ids = [[5], [5, 6, 7], [8, 9, 10, 11]]
    expected, found = plain._pass(ids, 0, 0)(), half._pass(ids, 0, 0)()
    assert seen == [128]
    assert found.shape == expected.shape == (3, plain.network.files.architecture.hidden_size)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05)
    for vectors in (expected, found):
        vectors.square().sum().backward()
    tables = [one.network.get_parameter("embed_tokens.weight").grad for one in (plain, half)]
    assert tables[0] is not None
    assert tables[1] is not None
    untouched = tables[0].abs().sum(1) == 0
    assert bool(untouched[0])
    assert not tables[1][untouched].any(), "what fills a pass has no gradient"


def test_equal_texts_are_encoded_once() -> None:
    rows = [Record(f"text {i}", ("sport",), ("art",), task="classification") for i in range(5)]
    batch = make_batch([(row, Draw("x", i, 0)) for i, row in enumerate(rows)], 1)
    assert len(batch.texts) == 7
    assert batch.masks.known_BM[0].tolist() == [True] * 5 + [False] * 5


def test_symmetric_tasks_read_documents_as_queries() -> None:
    row = Record("a b", ("c d",), ("e f",), task="bitext")
    batch = make_batch([(row, Draw("x", 0, 0))], 1)
    said = {(text.role, text.instruction) for text in batch.texts}
    assert said == {("query", "Retrieve parallel sentences")}


def test_positives_and_negatives_are_taken_in_turn() -> None:
    row = Record("q", ("p0", "p1"), ("n0", "n1", "n2"))
    texts = [[t.text for t in make_batch([(row, Draw("x", 0, v))], 2).texts] for v in (0, 1, 2)]
    assert texts == [["q", "p0", "n0", "n1"], ["q", "p1", "n2", "n0"], ["q", "p0", "n1", "n2"]]


def test_chunks_hold_what_they_may_and_are_as_many_as_asked() -> None:
    chunks = plan_chunks([5, 1, 9, 3], 8)
    assert chunks == [[1, 3], [0], [2]]
    places = [place for chunk in plan_chunks([4] * 10, 100, 3) for place in chunk]
    assert sorted(places) == list(range(10))
    assert len(plan_chunks([4] * 10, 100, 3)) == 3
    assert plan_chunks([4], 100, 3) == [[0], [], []]


SCRIPT = """
import sys
from pathlib import Path
import torch
from rich.console import Console
from polyvec.train.loop import train
from polyvec.train.recipe import read_recipe
torch.set_num_threads(1)
changes = dict(text.split("=", 1) for text in sys.argv[2:])
train(read_recipe(Path(sys.argv[1]), changes), lambda name: None, Console(quiet=True))
"""


def start(recipe: Path, world: int, port: int, *changes: str) -> None:
    """Run a recipe on processes of its own, as torchrun would start them."""
    processes = []
    for rank in range(world):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        env = os.environ | {k: str(v) for k, v in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
        command = [sys.executable, "-c", SCRIPT, str(recipe), *changes]
        processes.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors


@pytest.mark.parametrize(
    ("parallel", "loss"),
    [("ddp", "joint"), ("ddp", "apart"), ("fsdp", "joint"), ("fsdp", "apart")],
)
def test_two_ranks_equal_one_on_the_joined_batch(
    tmp_path: Path, free_port: int, parallel: str, loss: str
) -> None:
    from safetensors.torch import load_file

    extra = '[loss]\nin_batch = "all"\n' if loss == "joint" else ""
    recipe = tiny_train.write_recipe(tmp_path, extra=extra)
    few = ("optimizer.steps=2", "batch.max_tokens=100")
    tiny_train.run(recipe, output=str(tmp_path / "one"), **_python(few))
    start(recipe, 2, free_port, f"output={tmp_path / 'two'}", f"parallel={parallel}", *few)
    one, two = (load_file(tmp_path / x / "model" / "model.safetensors") for x in ("one", "two"))
    assert one.keys() == two.keys()
    # Adam, and the limit of the gradient's length, hide a gradient that is too long by a factor.
    for name in ("loss", "gradient_norm"):
        alone, together = (_told(tmp_path / x, name) for x in ("one", "two"))
        assert len(alone) == 2
        assert together == pytest.approx(alone, rel=1e-4), name
    base = load_file(tmp_path / "base" / "model.safetensors")
    moved = max(float((one[name] - base[name]).abs().max()) for name in one)
    assert moved > 1e-3
    for name, tensor in one.items():
        # Adam divides by the gradient's size, which shows rounding where it is almost zero.
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=moved / 50, msg=name)


def _told(folder: Path, name: str) -> list[float]:
    lines = (folder / "metrics.jsonl").read_bytes().splitlines()
    return [entry[name] for entry in map(orjson.loads, lines) if name in entry]


def _python(changes: tuple[str, ...]) -> dict[str, Any]:
    return {k.replace(".", "__"): v for k, v in (text.split("=") for text in changes)}


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
