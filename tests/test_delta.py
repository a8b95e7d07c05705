"""A trained model as a few bits of difference to its base."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import polyvec
from polyvec.errors import InputError, ModelFileError
from polyvec.model.delta import (
    FACTS_FILE,
    WEIGHTS_FILE,
    Loss,
    add_delta,
    read_delta_facts,
    write_delta,
)
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.save import save_folder
from tests import tiny

WIDE = tiny.shape(is_causal=False, hidden_size=96, intermediate_size=64, num_hidden_layers=3)
CUT = WIDE | {"num_hidden_layers": 2}


def _changed(tensors: dict[str, Tensor], by: float) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(7)
    return {n: t + by * torch.randn(t.shape, generator=draw) for n, t in tensors.items()}


@pytest.fixture
def base(tmp_path: Path) -> ModelFiles:
    return open_model(tiny.write_model(tmp_path / "base", WIDE, tensors=tiny.weights(WIDE)))


@pytest.fixture
def trained(tmp_path: Path) -> ModelFiles:
    kept = {n: t for n, t in tiny.weights(WIDE).items() if not n.startswith("layers.2.")}
    folder = tiny.write_model(
        tmp_path / "trained",
        CUT,
        prompts={"query": "", "document": ""},
        tensors=_changed(kept, 0.05),
    )
    return open_model(folder)


def _error(files: ModelFiles, other: ModelFiles) -> float:
    names = sorted(other.weights.names)
    both = [(files.weights.tensor(n), other.weights.tensor(n)) for n in names]
    return max(float((a - b).norm() / b.norm()) for a, b in both)


def test_more_bits_come_nearer_and_the_base_alone_is_farthest(
    base: ModelFiles, trained: ModelFiles, tmp_path: Path
) -> None:
    errors = [_error(base, trained)]
    for bits in (1, 2, 3, 4, 8):
        write_delta(base, trained, tmp_path / str(bits), lambda _, n=bits: n)  # type: ignore[misc]
        errors.append(_error(add_delta(base, tmp_path / str(bits)), trained))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01 * errors[0]


def test_what_is_reported_lost_is_what_comes_back(
    base: ModelFiles, trained: ModelFiles, tmp_path: Path
) -> None:
    losses = write_delta(base, trained, tmp_path / "d", lambda name: 3 if "mlp" in name else 4)
    built = add_delta(base, tmp_path / "d")
    assert {x.bits for x in losses if "mlp" in x.name} == {3}
    for loss in losses:
        old, new, back = (f.weights.tensor(loss.name) for f in (base, trained, built))
        found = Loss(
            loss.name,
            loss.bits,
            float((back - new).norm() / (new - old).norm()),
            float((back - new).norm() / new.norm()),
        )
        assert found.of_difference == pytest.approx(loss.of_difference, rel=1e-3)
        assert found.of_weight == pytest.approx(loss.of_weight, rel=1e-3)
        assert loss.of_difference < (0.25 if loss.bits == 3 else 0.13)


def test_the_built_model_is_cut_and_embeds_as_the_trained_one(
    base: ModelFiles, trained: ModelFiles, tmp_path: Path
) -> None:
    write_delta(base, trained, tmp_path / "d", lambda _: 8)
    built = add_delta(base, tmp_path / "d")
    assert built.architecture.num_layers == 2
    assert not [name for name in built.weights.names if name.startswith("layers.2.")]
    save_folder(built, tmp_path / "built")
    texts = ["a quick brown fox", "быстрая лиса", "embedding vectors of texts"]
    ours, theirs = (
        polyvec.load(str(folder), precision="fp32").encode_document(texts)
        for folder in (tmp_path / "built", trained.path)
    )
    assert float((ours * theirs).sum(1).min()) > 0.9999


def test_rows_are_the_tensors_rows(base: ModelFiles, trained: ModelFiles, tmp_path: Path) -> None:
    write_delta(base, trained, tmp_path / "d", lambda _: 4)
    weights = add_delta(base, tmp_path / "d").weights
    for name in ("embed_tokens.weight", "norm.weight", "layers.1.mlp.down_proj.weight"):
        assert torch.equal(weights.rows(name, 3, 17), weights.tensor(name)[3:17])


def test_the_spec_is_the_trained_models(
    base: ModelFiles, trained: ModelFiles, tmp_path: Path
) -> None:
    spec = replace(trained.spec, query_prefix="ask: ", matryoshka_dimensions=(32,))
    write_delta(base, replace(trained, spec=spec), tmp_path / "d", lambda _: 4)
    facts = read_delta_facts(tmp_path / "d")
    assert facts["num_layers"] == 2
    assert facts["spec"]["query_prefix"] == "ask: "
    assert facts["spec"]["matryoshka_dimensions"] == [32]


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_that_are_none(
    base: ModelFiles, trained: ModelFiles, tmp_path: Path, bits: int
) -> None:
    with pytest.raises(InputError, match=f"1 to 8 bits, not {bits}"):
        write_delta(base, trained, tmp_path / "d", lambda _: bits)


def test_another_models_weights_are_refused(base: ModelFiles, tmp_path: Path) -> None:
    other = tiny.shape(is_causal=False, hidden_size=48)
    files = open_model(tiny.write_model(tmp_path / "other", other))
    with pytest.raises(InputError, match="is no model made from"):
        write_delta(base, files, tmp_path / "d", lambda _: 4)
    with pytest.raises(InputError, match="more layers"):
        write_delta(replace(base, architecture=replace(base.architecture, num_layers=1)),
                    base, tmp_path / "d", lambda _: 4)  # fmt: skip


def test_a_broken_delta_is_named(base: ModelFiles, trained: ModelFiles, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write_delta(base, trained, folder, lambda _: 4)
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[:100])
    with pytest.raises(ModelFileError, match=r"delta\.safetensors cannot be read"):
        add_delta(base, folder)
    (folder / WEIGHTS_FILE).write_bytes(whole)
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file({n: t for n, t in tensors.items() if "norm.weight" not in n}, folder / WEIGHTS_FILE)
    with pytest.raises(ModelFileError, match=r"has no norm\.weight"):
        add_delta(base, folder).weights.tensor("norm.weight")
    (folder / FACTS_FILE).write_text("{}")
    with pytest.raises(ModelFileError, match=r"delta\.json cannot be read"):
        add_delta(base, folder)
