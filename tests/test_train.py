"""Runs from a recipe to a model folder: resume, adapters, teachers, evaluation, the command."""

import json
import shutil
import signal
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import orjson
import pytest
import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import polyvec
from polyvec.errors import (
    DiskFullError,
    InputError,
    MissingExtraError,
    ModelFileError,
    OutputError,
    ResumeError,
    TrainingError,
)
from polyvec.records.columns import Columns
from polyvec.records.record import Record
from polyvec.train import checkpoint
from polyvec.train.checkpoint import checkpoints
from polyvec.train.loop import Trained, train
from polyvec.train.lora import read_adapter
from polyvec.train.optimizer import clip_gradients, learning_rate
from polyvec.train.recipe import OptimizerSettings, Recipe, read_recipe
from polyvec.train.teacher import TeacherVectors
from tests import tiny, tiny_train
from tests.command import Command
from tests.peers import sentence_transformer

IN_BATCH = '[loss]\nin_batch = "all"\nmatryoshka_dimensions = [16]\n'
TEXTS = ["the quick brown fox", "лиса 敏捷"]


def _entries(folder: Path, name: str) -> list[Any]:
    entries = [orjson.loads(x) for x in (folder / "metrics.jsonl").read_bytes().splitlines()]
    return [entry[name] for entry in entries if name in entry]


def losses(folder: Path) -> list[float]:
    return _entries(folder, "loss")


def scores(folder: Path) -> list[dict[str, float]]:
    return _entries(folder, "evaluation")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


KINDS = {
    "full": "",
    "lora": "[lora]\ndropout = 0.2\n",
    "taught": '[[distill]]\nteacher = "counts"\n'
    '[evaluation]\npaths = ["train.jsonl"]\nevery_steps = 2\npatience = 9\n',
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path: Path, kind: str) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH + KINDS[kind])
    how = "lora" if kind == "lora" else "full"
    few = {"model__train": how, "batch__max_tokens": "150", "batch__accumulate": "2"}
    tiny_train.run(recipe, output=str(tmp_path / "whole"), **few)
    whole = losses(tmp_path / "whole")
    part = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", part)
    shutil.rmtree(part / "model")
    for later in checkpoints(part / "checkpoints")[1:]:
        shutil.rmtree(later)
    (first,) = checkpoints(part / "checkpoints")
    assert first.name != "step-00000006"
    resumed = tiny_train.run(recipe, output=str(part), **few)
    assert resumed.steps == 6
    assert losses(part) == whole
    assert scores(part) == scores(tmp_path / "whole")
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(weights(part)[name], tensor), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_keeps_its_step_and_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    class Impatient(Console):
        def print(self, *objects: Any, **_: Any) -> None:
            if str(objects[0]).startswith("step 3/"):
                signal.raise_signal(number)

    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    changes = {"log.every_steps": "1", "checkpoint.every_steps": "100"}
    stopped = train(read_recipe(recipe, changes), lambda _: tiny_train.FakeTeacher(), Impatient())
    assert isinstance(stopped, Trained)
    assert (stopped.steps, stopped.model) == (3, None)
    assert [c.name for c in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000003"]
    assert tiny_train.run(recipe).steps == 6
    tiny_train.run(recipe, output=str(tmp_path / "whole"))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_model_can_be_made_of_a_run_that_was_stopped(tmp_path: Path, run: Command) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    early = run("train", recipe, "--finish")
    assert (early.code, "has no checkpoint yet" in early.err) == (2, True)
    assert not (tmp_path / "run").exists()
    tiny_train.run(recipe)
    (last,) = checkpoints(tmp_path / "run" / "checkpoints")[-1:]
    shutil.rmtree(last)  # as if it had been stopped after step 4
    shutil.rmtree(tmp_path / "run" / "model")
    done = run("train", recipe, "--finish", "--json")
    assert orjson.loads(done.out)["steps"] == 4
    (last,) = checkpoints(tmp_path / "run" / "checkpoints")[-1:]
    kept = checkpoint.read_checkpoint(last).weights
    assert kept
    made = weights(tmp_path / "run")
    assert all(torch.equal(made[name], tensor) for name, tensor in kept.items())
    assert tiny_train.run(recipe).steps == 6
    assert run("train", recipe, "--finish", "--fresh").code == 2


def test_a_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    written = list[Path]()

    def full(tensors: dict[str, torch.Tensor], path: Path, facts: dict[str, str]) -> None:
        written.append(path)
        if len(written) > 3:  # the moments of the second checkpoint
            raise SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )
        save_file(tensors, path, facts)

    monkeypatch.setattr("polyvec.model.save.save_file", full)
    with pytest.raises(DiskFullError, match="The checkpoints before it are whole; make room"):
        tiny_train.run(recipe)
    assert [x.name for x in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    assert tiny_train.run(recipe).steps == 6


def test_training_lowers_the_loss_and_the_model_loads_everywhere(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    result = tiny_train.run(recipe, optimizer__steps="30", model__num_layers="2")
    found = losses(result.folder)
    assert np.mean(found[-3:]) < np.mean(found[:3]) - 0.3
    assert result.model is not None
    embedder = polyvec.load(str(result.model), precision="fp32", device="cpu")
    assert embedder.spec.matryoshka_dimensions == (16,)
    theirs = sentence_transformer(result.model).encode(TEXTS)
    np.testing.assert_allclose(embedder.encode_document(TEXTS), theirs, atol=1e-5)
    assert json.loads((result.model / "config.json").read_text())["num_hidden_layers"] == 2
    entry = orjson.loads((result.folder / "metrics.jsonl").read_bytes().splitlines()[0])
    assert {"loss", "learning_rate", "gradient_norm", "tokens_per_s", "memory_gb"} <= entry.keys()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_folded_equals_the_adapter_on_and_loads_in_peft(tmp_path: Path) -> None:
    import peft
    from transformers import AutoModel

    extra = IN_BATCH + '[lora]\nrank = 4\ntargets = ["q_proj", "down_proj"]\n'
    recipe = tiny_train.write_recipe(tmp_path, extra=extra)
    result = tiny_train.run(recipe, model__train="lora", optimizer__lr="0.02")
    base = AutoModel.from_pretrained(tmp_path / "base", dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(base, result.folder / "adapter").eval()
    folded = AutoModel.from_pretrained(result.folder / "model", dtype=torch.float32).eval()
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        on, plain = (m(input_ids=ids, use_cache=False)[0] for m in (adapted, folded))
        off = AutoModel.from_pretrained(tmp_path / "base")(input_ids=ids, use_cache=False)[0]
    torch.testing.assert_close(on, plain, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(off, plain, atol=1e-2)


def test_an_adapter_has_pefts_names_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    result = tiny_train.run(recipe, model__train="lora", lora__targets='["v_proj"]')
    names = load_file(result.folder / "adapter" / "adapter_model.safetensors").keys()
    assert "base_model.model.layers.0.self_attn.v_proj.lora_A.weight" in names
    assert len(names) == 6
    config = json.loads((result.folder / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (16, 32.0)
    assert config["target_modules"] == ["v_proj"]
    before = load_file(tmp_path / "base" / "model.safetensors")
    changed = [n for n, t in weights(result.folder).items() if not torch.equal(before[n], t)]
    assert sorted(changed) == [f"layers.{n}.self_attn.v_proj.weight" for n in range(3)]
    assert "layers.0.self_attn.v_proj.adapter.lora_A" in read_adapter(result.folder / "adapter")
    with pytest.raises(ModelFileError, match="holds no adapter"):
        read_adapter(tmp_path)


def test_a_frozen_table_stays(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    result = tiny_train.run(recipe, model__freeze='["embed_tokens"]')
    before = load_file(tmp_path / "base" / "model.safetensors")
    after = weights(result.folder)
    assert torch.equal(before["embed_tokens.weight"], after["embed_tokens.weight"])
    assert not torch.equal(before["norm.weight"], after["norm.weight"])
    with pytest.raises(InputError, match=r"model\.freeze has 'head', and no parameter's name"):
        tiny_train.run(recipe, model__freeze='["head"]', output=str(tmp_path / "other"))


@pytest.mark.parametrize("weights_of", ["vectors_weight", "scores_weight"])
def test_a_teacher_is_learned(tmp_path: Path, weights_of: str) -> None:
    other = {"vectors_weight": "scores_weight", "scores_weight": "vectors_weight"}[weights_of]
    distill = f'[[distill]]\nteacher = "counts"\n{other} = 0.0\n{weights_of} = 1.0\n'
    extra = '[loss]\nweight = 0.0\nin_batch = "all"\n' + distill
    recipe = tiny_train.write_recipe(tmp_path, extra=extra)
    result = tiny_train.run(recipe, optimizer__steps="40", optimizer__lr="0.003")
    found = losses(result.folder)
    assert np.mean(found[-4:]) < 0.7 * np.mean(found[:4])
    teacher, rows = tiny_train.FakeTeacher(), tiny_train.records()
    kept = TeacherVectors.open(result.folder / "teacher-0")
    assert len(kept) == len({t for r in rows for t in (r.query, *r.positives, *r.negatives)})
    from polyvec.train.batches import Text

    vector = kept.vectors([Text(rows[0].query, "query", None)])[0].numpy()
    np.testing.assert_allclose(vector, teacher.encode_query([rows[0].query])[0], rtol=1e-3)
    assert result.model is not None
    assert not any(name.startswith("distill") for name in weights(result.folder))


def test_a_teachers_map_begins_where_the_model_stands(tmp_path: Path) -> None:
    """A teacher that is the model, turned: a map drawn at random has a loss of about 1."""
    extra = '[loss]\nweight = 0.0\n[[distill]]\nteacher = "turned"\n'
    recipe = tiny_train.write_recipe(tmp_path, tiny_train.records(120), extra=extra)
    model = polyvec.load(str(tmp_path / "base"), precision="fp32")
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(model.dimension,) * 2))[0]

    class Turned:
        dimension, fingerprint = model.dimension, "turned"

        def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Any:
            return model.encode_query(texts) @ turn.astype(np.float32)

        def encode_document(self, texts: Sequence[str]) -> Any:
            return model.encode_document(texts) @ turn.astype(np.float32)

    result = tiny_train.run(recipe, Turned(), optimizer__steps="2")
    assert losses(result.folder)[0] < 0.02


def test_score_distillation_is_zero_for_the_teacher_itself() -> None:
    from polyvec.records.mixture import Draw
    from polyvec.train.batches import make_batch
    from polyvec.train.losses import LossSettings
    from polyvec.train.recipe import DistillSettings
    from polyvec.train.teacher import Distillation

    items = [(record, Draw("made", i, 0)) for i, record in enumerate(tiny_train.records(5))]
    batch = make_batch(items, 2)
    vectors = torch.randn((len(batch.texts), 8), generator=torch.Generator().manual_seed(0))

    class Same:
        dimension = 8

        def vectors(self, texts: object) -> torch.Tensor:
            return vectors

    settings = DistillSettings("x", vectors_weight=0.0, scores_weight=1.0, temperature=0.1)
    loss = LossSettings(temperature=0.1, in_batch="all")
    same = Distillation(settings, Same(), 8, 0)(vectors, batch, loss)  # type: ignore[arg-type]
    assert same.item() == pytest.approx(0.0, abs=1e-6)
    other = Distillation(settings, Same(), 8, 0)(vectors.flip(0), batch, loss)  # type: ignore[arg-type]
    queries, positives, negatives = batch.vectors(F.normalize(vectors, dim=-1))
    theirs = (queries @ torch.cat((positives, negatives.flatten(0, 1))).T / 0.1).softmax(1)
    queries, positives, negatives = batch.vectors(F.normalize(vectors.flip(0), dim=-1))
    ours = (queries @ torch.cat((positives, negatives.flatten(0, 1))).T / 0.1).log_softmax(1)
    expected = F.kl_div(ours, theirs, reduction="batchmean")
    assert other.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_teachers_folder_survives_a_kill_and_refuses_another_teacher(tmp_path: Path) -> None:
    from polyvec.train.batches import Text

    teacher = tiny_train.FakeTeacher()
    texts = [Text(f"text {i}", "document", None) for i in range(5)]
    kept = TeacherVectors.make(tmp_path / "t", "counts", 16)
    kept.add(texts[:3], lambda part: teacher.encode_document([t.text for t in part]))
    with (tmp_path / "t" / "vectors.f16").open("ab") as file:
        file.write(b"half a vector")
    again = TeacherVectors.make(tmp_path / "t", "counts", 16)
    again.add(texts, lambda part: teacher.encode_document([t.text for t in part]))
    expected = teacher.encode_document([t.text for t in texts])
    np.testing.assert_allclose(again.vectors(texts).numpy(), expected, rtol=1e-3)
    with pytest.raises(ResumeError, match="holds another teacher's vectors"):
        TeacherVectors.make(tmp_path / "t", "another", 16)
    with pytest.raises(InputError, match="has no vector of the query 'new'"):
        again.vectors([Text("new", "query", None)])


def test_evaluation_finds_the_best_and_stops_early(tmp_path: Path) -> None:
    extra = IN_BATCH + '[evaluation]\npaths = ["train.jsonl"]\nevery_steps = 1\npatience = 2\n'
    recipe = tiny_train.write_recipe(tmp_path, extra=extra)
    result = tiny_train.run(
        recipe, optimizer__lr="1e-12", optimizer__steps="50", checkpoint__model="best"
    )
    assert result.steps < 50
    assert result.model is not None
    assert result.evaluation["best"]["mean"] >= result.evaluation["last"]["mean"]
    assert scores(result.folder)[0].keys() == {"made", "mean"}


def test_evaluation_is_retrieval_among_the_sources_documents(tmp_path: Path) -> None:
    rows = [Record(f"q {i}", (f"unlike {i}",), source="s") for i in range(4)]
    extra = '[evaluation]\npaths = ["train.jsonl"]\nmetric = "accuracy@4"\n' + IN_BATCH
    recipe = tiny_train.write_recipe(tmp_path, rows, extra)
    result = tiny_train.run(recipe, batch__size="4", optimizer__steps="1")
    assert result.evaluation["last"] == {"s": 1.0, "mean": 1.0}


def test_the_mean_is_shown_however_many_sources_there_are(tmp_path: Path, run: Command) -> None:
    rows = [Record(f"q {i}", (f"unlike {i}",), source=f"s{i}") for i in range(9)]
    extra = '[evaluation]\npaths = ["train.jsonl"]\n' + IN_BATCH
    recipe = tiny_train.write_recipe(tmp_path, rows, extra)
    assert "ndcg@10: mean 1.000 s0 1.000" in run("train", recipe, "--set", "optimizer.steps=1").err


def test_held_out_records_are_read_before_a_teacher_is_asked(tmp_path: Path) -> None:
    extra = IN_BATCH + '[[distill]]\nteacher = "x"\n[evaluation]\npaths = ["none.jsonl"]\n'
    recipe = tiny_train.write_recipe(tmp_path, extra=extra)
    asked: list[str] = []

    def teacher(name: str) -> tiny_train.FakeTeacher:
        asked.append(name)
        return tiny_train.FakeTeacher()

    with pytest.raises(InputError, match=r"none\.jsonl cannot be read"):
        train(read_recipe(recipe), teacher)
    assert asked == []
    assert not (tmp_path / "run").exists()


def test_gradients_are_scaled_to_the_longest_they_may_be() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([parameter], 0.0) == pytest.approx(5.0)
    assert parameter.grad.tolist() == [3.0, 4.0]
    assert clip_gradients([parameter], 1.0) == pytest.approx(5.0)
    assert parameter.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-5)


def test_the_rate_rises_then_falls_to_its_end() -> None:
    settings = OptimizerSettings(lr=1.0, warmup_steps=3)
    rates = [round(learning_rate(step, 9, settings), 4) for step in range(9)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 0.8333, 0.6667, 0.5, 0.3333, 0.1667]
    cosine = OptimizerSettings(lr=1.0, warmup_steps=0, schedule="cosine", min_lr=0.5)
    assert learning_rate(5, 10, cosine) == pytest.approx(0.75)


def test_other_recipes_and_strange_folders_are_refused(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    tiny_train.run(recipe, optimizer__steps="2")
    with pytest.raises(ResumeError, match=r"recipe: optimizer\.steps was 2 and is 3\. Give"):
        tiny_train.run(recipe, optimizer__steps="3")
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "file").touch()
    with pytest.raises(OutputError, match="holds something that is no training run"):
        tiny_train.run(recipe, output=str(strange))


def test_a_run_without_a_checkpoint_begins_anew_from_files_as_they_are(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    train(read_recipe(recipe), lambda _: tiny_train.FakeTeacher(), estimate_only=True)
    kept = tmp_path / "run" / "data" / "records.jsonl"
    assert len(kept.read_bytes().splitlines()) == 24
    tiny_train.write_recipe(tmp_path, tiny_train.records(9), IN_BATCH)
    result = tiny_train.run(recipe, optimizer__steps="2")
    assert result.steps == 2
    assert len(kept.read_bytes().splitlines()) == 9


def test_keys_that_are_newer_than_a_run_do_not_stop_it(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    tiny_train.run(recipe, optimizer__lr="2e-3")
    path = tmp_path / "run" / "recipe.json"
    before = orjson.loads(path.read_bytes())
    del before["evaluation"]["columns"]
    path.write_bytes(orjson.dumps(before))
    with pytest.raises(ResumeError, match=r"evaluation\.columns\.query was None and is 'en'"):
        tiny_train.run(recipe, optimizer__lr="2e-3", evaluation__columns__query="en")
    assert tiny_train.run(recipe, optimizer__lr="2e-3").steps == 6


def test_a_run_that_diverges_says_so(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    with pytest.raises(TrainingError, match=r"Step \d+: the loss is"):
        tiny_train.run(recipe, optimizer__lr="1e38", optimizer__warmup_steps="0")


def test_bad_rows_are_named_before_the_first_step(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"query": "", "positives": ["x"]}\n{"query": "q"}\n')
    with pytest.raises(InputError, match=r"2 of 26 rows cannot be used:\n.*line 25: .*\n.*line 26"):
        tiny_train.run(recipe)


def test_records_without_negatives_need_another_loss(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, tiny_train.records(8, negatives=0))
    words = r"8 of 8 records have no negatives, and the loss .*; its --drop-without-negatives"
    with pytest.raises(InputError, match=words):
        tiny_train.run(recipe)


def test_texts_that_are_cut_are_counted_and_said(tmp_path: Path, run: Command) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    limits = ("--set", "model.max_query_tokens=6", "--set", "model.max_document_tokens=128")
    result = run("train", recipe, "--set", "optimizer.steps=1", *limits)
    assert "of the first batch's texts are longer than model.max_query_tokens" in result.err
    entry = orjson.loads((tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()[0])
    assert 0 < entry["cut_share"] < 1


def test_columns_of_another_name_and_weights_are_read(tmp_path: Path) -> None:
    rows = "".join(f'{{"en": "word {i}", "de": "Wort {i}"}}\n' for i in range(12))
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    (tmp_path / "pairs.jsonl").write_text(rows)
    columns = '{query = "en", positive = "de", task = "bitext"}'
    data = f'[{{path = "pairs.jsonl", columns = {columns}, weight = 1}}, {{path = "train.jsonl"}}]'
    changes = {"optimizer__steps": "2", "batch__same_source": "true"}
    held_out = f'{{paths = ["pairs.jsonl"], columns = {columns}}}'
    result = tiny_train.run(recipe, data=data, evaluation=held_out, **changes)
    assert len(losses(result.folder)) == 2
    assert set(scores(result.folder)[0]) == {"pairs", "mean"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch__sise": "4"}, "batch.sise is unknown; did you mean batch.size"),
        ({"batch__size": "'many'"}, "batch.size is 'many'; it must be a whole number"),
        ({"batch__size": "0"}, "batch.size is 0; it must be at least 1"),
        ({"batch__accumulate": "3"}, "batch.accumulate = 3 does not divide"),
        ({"loss__temperature": "0"}, "loss.temperature is 0.0; it must be above 0"),
        ({"optimizer__schedule": "steps"}, "it must be one of 'linear', 'cosine', 'constant'"),
        ({"lora__rank": "0"}, "lora.rank is 0"),
        ({"log__trackers": '["paper"]'}, "log.trackers has paper; allowed: tensorboard, wandb"),
        ({"checkpoint__model": "best"}, "checkpoint.model is 'best' and evaluation.paths names"),
        ({"model__num_layers": "true"}, "model.num_layers is True; it must be a whole number"),
        ({"model__max_query_tokens": "0"}, "model.max_query_tokens is 0; it must be at least 1"),
        ({"loss__matryoshka_dimensions": "[16, 64]"}, "has 64; this model's vectors have 48"),
        ({"data": '[{path = "x", weight = 1, count = 2}]'}, "has a weight and a count; give one"),
        ({"optimizer__beta2": "1.5"}, "optimizer.beta2 is 1.5; it must be below 1"),
        ({"optimizer__eps": "0"}, "optimizer.eps is 0.0; it must be above 0"),
        (
            {"optimizer__weight_decay": "-1"},
            "optimizer.weight_decay is -1.0; it must be at least 0",
        ),
        ({"optimizer__min_lr": "0.1"}, "optimizer.min_lr is 0.1, above optimizer.lr, 0.001"),
        ({"evaluation__every_steps": "-1"}, "evaluation.every_steps is -1; it must be at least 0"),
        ({"evaluation__max_queries": "0"}, "evaluation.max_queries is 0; it must be at least 1"),
        ({"evaluation__patience": "2"}, "evaluation.patience is 2 and nothing is evaluated"),
    ],
)
def test_recipes_that_cannot_be_are_refused(
    tmp_path: Path, change: dict[str, str], words: str
) -> None:
    recipe = tiny_train.write_recipe(tmp_path)
    with pytest.raises(InputError) as caught:
        tiny_train.run(recipe, **change)
    assert words in str(caught.value)


def test_shipped_recipes_are_the_papers() -> None:
    folder = Path(__file__).parents[1] / "configs"
    first = read_recipe(folder / "nemotron-8b-stage1.toml")
    second = read_recipe(folder / "nemotron-8b-stage2.toml")
    assert (first.optimizer.lr, first.batch.size, first.batch.num_negatives) == (1e-5, 2048, 1)
    assert (second.optimizer.lr, second.batch.size, second.batch.num_negatives) == (2e-6, 128, 4)
    for recipe in (first, second):
        assert (recipe.loss.temperature, recipe.loss.in_batch) == (0.02, "none")
        assert (recipe.optimizer.weight_decay, recipe.optimizer.warmup_steps) == (0.01, 100)
        assert recipe.optimizer.schedule == "linear"
        assert (recipe.model.max_query_tokens, recipe.model.max_document_tokens) == (512, 512)
        assert recipe.model.train == "full"
    assert (first.optimizer.steps, second.optimizer.steps) == (5773, 33668)
    small = read_recipe(folder / "nemotron-1b.toml")
    assert (small.loss, small.batch) == (second.loss, second.batch)
    assert (small.optimizer.steps, small.model.train) == (33668, "full")
    for recipe in (first, second, small):
        assert (recipe.model.attention, recipe.model.pooling) == ("bidirectional", "mean")
    assert read_recipe(folder / "smol-cpu.toml").model.num_layers == 12


def _keys(kind: Any) -> set[str]:
    """Return every key of a recipe's sections; those of columns are another page's."""
    found, hints = set(), get_type_hints(kind)
    for own in fields(kind):
        found.add(own.name)
        for inner in (hints[own.name], *get_args(hints[own.name])):
            if is_dataclass(inner) and inner is not Columns:
                found |= _keys(inner)
    return found


def test_the_manual_has_every_key() -> None:
    text = (Path(__file__).parents[1] / "docs" / "train.md").read_text(encoding="utf-8")
    keys = _keys(Recipe)
    assert {"output", "lr", "mask_known", "patience"} <= keys
    assert [key for key in sorted(keys) if f"`{key}`" not in text and f"[{key}]" not in text] == []


def test_an_unknown_tracker_library_names_the_pip_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    with pytest.raises(MissingExtraError, match="pip install wandb"):
        tiny_train.run(recipe, log__trackers='["wandb"]')
    assert not (tmp_path / "run").exists()  # found before data are read and a teacher is asked


def test_curves_are_drawn(tmp_path: Path) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    tiny_train.run(recipe, log__plot="true", optimizer__steps="2")
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_trains_goes_on_and_estimates(
    tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    estimated = run("train", recipe, "--estimate", "--json", "--output", tmp_path / "e")
    assert estimated.code == 0
    assert {"seconds", "tokens_per_s", "peak_gb"} <= orjson.loads(estimated.out).keys()
    done = run("train", recipe, "--set", "optimizer.steps=3")
    assert done.code == 0
    assert "step 3/3 loss" in done.err
    assert "3 steps," in done.err
    assert "polyvec similarity -m" in done.err
    again = run("train", recipe, "--set", "optimizer.steps=4")
    assert again.code == 1
    assert "another recipe: optimizer.steps was 3 and is 4" in again.err
    fresh = run("train", recipe, "--set", "optimizer.steps=4", "--fresh")
    assert fresh.code == 0
    monkeypatch.setenv("RANK", "1")  # one process of several tells what came of it, not each
    other = run("train", recipe, "--set", "optimizer.steps=4")
    assert "4 steps," not in other.err
    wrong = run("train", recipe, "--set", "optimizer.steps")
    assert wrong.code == 2
    assert "write it as section.key=value" in wrong.err


def test_a_model_of_bert_trains(tmp_path: Path) -> None:
    from tests import tiny_bert

    tiny_bert.write_bert_model(tmp_path / "base")
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    result = tiny_train.run(recipe, optimizer__steps="20")
    found = losses(result.folder)
    assert np.mean(found[-3:]) < np.mean(found[:3])
    assert result.model is not None
    embedder = polyvec.load(str(result.model), precision="fp32", device="cpu")
    theirs = sentence_transformer(result.model).encode(TEXTS)
    np.testing.assert_allclose(embedder.encode_document(TEXTS), theirs, atol=1e-5)


def test_a_gguf_can_be_trained_from(tmp_path: Path) -> None:
    from polyvec.model.files import open_model
    from polyvec.publish.export import export

    tiny.write_model(tmp_path / "folder", tiny.shape(is_causal=False))
    export(open_model(tmp_path / "folder"), tmp_path / "base.gguf", None, "F32", False)
    recipe = tiny_train.write_recipe(tmp_path, extra=IN_BATCH)
    result = tiny_train.run(recipe, model__base=str(tmp_path / "base.gguf"))
    assert result.model is not None
    assert polyvec.load(str(result.model), device="cpu").dimension == 48


def test_free_memory_counts_what_the_cache_of_files_would_give_back() -> None:
    from polyvec.train.estimate import _memory_available, available_gb

    facts = (
        "MemTotal:       24105000 kB\nMemFree:          341000 kB\nMemAvailable:    7609000 kB\n"
    )
    assert _memory_available(facts) == 7_609_000 * 1024
    assert 0 < available_gb(torch.device("cpu")) < 10_000
