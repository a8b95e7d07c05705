"""``merge``: averages to the bit, adapters as PEFT folds them, refusals, little memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from polyvec.engine.embedder import Embedder
from polyvec.errors import DiskFullError, InputError, ModelFileError, OutputError, SpecError
from polyvec.model import save
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.weights import SafetensorsWeights
from polyvec.publish.merge import check_sources, merge, open_checkpoint
from polyvec.train.lora import LoraSettings, folded, write_adapter
from tests import tiny_train
from tests.command import Command
from tests.tiny import WORDS, byte_bpe, edit_json, shape, weights, write_model

pytestmark = [  # peft asks transformers by an old name, and says that it saves a table too
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model with .tie_word_embeddings:UserWarning"),
]

SHAPE = shape(is_causal=False)
PROMPTS = {"query": "Instruct: Find it\nQuery: ", "document": "doc: "}


def _write(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    config = changes.pop("config", SHAPE)
    tensors = {name: tensor.to(dtype) for name, tensor in weights(config, seed).items()}
    own: dict[str, Any] = {"prompts": PROMPTS, "tensors": tensors}
    return write_model(folder, config, **own | changes)


def _models(tmp_path: Path, count: int, dtype: torch.dtype = torch.float32) -> list[ModelFiles]:
    return [open_model(_write(tmp_path / f"m{seed}", seed, dtype)) for seed in range(count)]


def _tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


# --- Averages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shares", [None, [3.0, 0.0, 1.0, 0.5, 2.0, 1.0]])
def test_the_average_is_float64s_rounded_once(
    tmp_path: Path, dtype: torch.dtype, shares: list[float] | None
) -> None:
    sources = _models(tmp_path, 6, dtype)
    report = merge(sources, tmp_path / "out", shares, compare=False)
    parts = [_tensors(files.path) for files in sources]
    counts = shares or [1.0] * 6
    for name, tensor in _tensors(tmp_path / "out").items():
        sums = sum(w * part[name].double() for w, part in zip(counts, parts, strict=True))
        exact = torch.as_tensor(sums) / sum(counts)
        assert tensor.dtype == dtype
        assert torch.equal(tensor, exact.to(dtype))
    assert [p.weight for p in report.parts] == pytest.approx([w / sum(counts) for w in counts])
    assert report.tensors == len(sources[0].weights.names)


def test_a_model_averaged_with_itself_is_itself(tmp_path: Path) -> None:
    (source,) = _models(tmp_path, 1)
    report = merge([source] * 3, tmp_path / "out")
    a, b = _tensors(source.path), _tensors(tmp_path / "out")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert report.parts[0].quality is not None
    assert report.parts[0].quality.cosine_min == pytest.approx(1.0)
    assert open_model(tmp_path / "out").spec == source.spec


def test_a_written_average_embeds_as_its_weights_say(tmp_path: Path) -> None:
    a, b = _models(tmp_path, 2)
    merge([a, b], tmp_path / "out", [1, 3])
    own = {n: 0.25 * t + 0.75 * b.weights.tensor(n) for n, t in _tensors(a.path).items()}
    expected = open_model(_write(tmp_path / "hand", tensors=own))
    vectors = [
        Embedder(files, "fp32").encode_query(list(WORDS))
        for files in (open_model(tmp_path / "out"), expected)
    ]
    assert np.allclose(vectors[0], vectors[1], atol=1e-6)


def test_blocks_of_rows_and_shards_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = _models(tmp_path, 3, torch.bfloat16)
    merge(sources, tmp_path / "whole", compare=False)
    monkeypatch.setattr("polyvec.model.weights._BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr(save, "_MAX_SHARD_BYTES", 30_000)
    seen: list[int] = []
    merge(sources, tmp_path / "parts", compare=False, on_rows=seen.append)
    whole, parts = (SafetensorsWeights(tmp_path / name) for name in ("whole", "parts"))
    assert len(parts.files) > 2
    assert max(seen) <= 1000
    assert all(torch.equal(whole.tensor(n), parts.tensor(n)) for n in whole.names)


def test_other_types_meet_in_f32(tmp_path: Path) -> None:
    a = open_model(_write(tmp_path / "a", 0, torch.bfloat16))
    b = open_model(_write(tmp_path / "b", 1, torch.float16))
    assert merge([a, b], tmp_path / "out", compare=False).type == "F32"
    assert merge([a, b], tmp_path / "o2", type_name="BF16", compare=False).type == "BF16"


def test_nvidias_name_for_a_bidirectional_llama_is_a_llama(tmp_path: Path) -> None:
    a = open_model(_write(tmp_path / "a", 0))
    b = open_model(_write(tmp_path / "b", 1, config=shape("llama_bidirec", pooling="avg")))
    merge([a, b], tmp_path / "out", compare=False)
    assert open_model(tmp_path / "out").architecture.model_type == "llama"


def test_the_folder_says_what_it_was_made_of(tmp_path: Path) -> None:
    sources = _models(tmp_path, 2)
    report = merge(sources, tmp_path / "out", [1, 3], notes={"why": "a test"})
    said = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert said["why"] == "a test"
    assert [p["weight"] for p in said["parts"]] == [0.25, 0.75]
    assert said["parts"][0]["model"] == str(sources[0].path)
    assert said["type"] == report.type == "F32"


# --- Refusals ---------------------------------------------------------------------------------


def test_other_shapes_are_named(tmp_path: Path) -> None:
    a, b = _write(tmp_path / "a"), _write(tmp_path / "b", config=SHAPE | {"num_hidden_layers": 2})
    with pytest.raises(SpecError, match="shape differs: num_layers is 2 and 3"):
        merge([open_model(a), open_model(b)], tmp_path / "out")


def test_other_prompts_are_named(tmp_path: Path) -> None:
    a, b = _write(tmp_path / "a"), _write(tmp_path / "b", prompts={"query": "q: "})
    with pytest.raises(SpecError, match=r"spec differs: .*query_prefix is 'q: ' and 'Instruct"):
        merge([open_model(a), open_model(b)], tmp_path / "out")


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    other = byte_bpe()
    state = json.loads(other.to_str())
    vocab = state["model"]["vocab"]
    first, second = list(vocab)[100:102]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    a = _write(tmp_path / "a")
    b = _write(tmp_path / "b", tokenizer=type(other).from_str(json.dumps(state)))
    with pytest.raises(SpecError, match="tokenizers differ"):
        merge([open_model(a), open_model(b)], tmp_path / "out")


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    a, b, c = (open_model(_write(tmp_path / name)) for name in "abc")
    tensors = _tensors(b.path)
    more = {"layers.0.self_attn.q_proj.bias": torch.zeros(48)}
    save_file(tensors | more, b.path / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"b has a tensor layers.0.self_attn.q_proj.bias"):
        merge([a, open_model(b.path)], tmp_path / "out")
    save_file(tensors | {"norm.weight": torch.ones(47)}, c.path / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"norm.weight is \[48\] in .*a and \[47\] in .*c"):
        merge([a, open_model(c.path)], tmp_path / "out")


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([1.0], "1 weight.* for 2 model"),
        ([1.0, -1.0], "from 0 on"),
        ([0.0, 0.0], "one above 0"),
        ([1.0, float("nan")], "must be a number"),
    ],
)
def test_weights_that_make_no_average(tmp_path: Path, shares: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        merge(_models(tmp_path, 2), tmp_path / "out", shares)


def test_one_model_is_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to merge"):
        check_sources(_models(tmp_path, 1))


def test_a_weight_that_is_no_number_leaves_nothing(tmp_path: Path) -> None:
    sources = _models(tmp_path, 2)
    tensors = _tensors(sources[1].path) | {"norm.weight": torch.full((48,), float("nan"))}
    save_file(tensors, sources[1].path / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"norm\.weight holds NaN"):
        merge([sources[0], open_model(sources[1].path)], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"m0", "m1"}


def test_an_output_that_exists_is_replaced_only_if_told(tmp_path: Path) -> None:
    sources = _models(tmp_path, 2)
    merge(sources, tmp_path / "out", compare=False)
    with pytest.raises(OutputError, match="--force"):
        merge(sources, tmp_path / "out")
    before = _tensors(tmp_path / "out")["norm.weight"].clone()
    merge(sources, tmp_path / "out", [1, 9], force=True, compare=False)
    assert not torch.equal(before, _tensors(tmp_path / "out")["norm.weight"])


def test_a_full_disk_keeps_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = _models(tmp_path, 2)
    merge(sources, tmp_path / "out", compare=False)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save, "_write_shard", full)
    with pytest.raises(DiskFullError, match="No room"):
        merge(sources, tmp_path / "out", force=True)
    assert {p.name for p in tmp_path.iterdir()} == {"m0", "m1", "out"}
    open_model(tmp_path / "out")


# --- Adapters ---------------------------------------------------------------------------------


def _adapter(base: Path, folder: Path, seed: int = 0, **config: Any) -> PeftModel:
    """Write an adapter with PEFT itself, none of whose tensors is zero; return the live model."""
    torch.manual_seed(seed)
    own: dict[str, Any] = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"]}
    model = get_peft_model(AutoModel.from_pretrained(base), LoraConfig(**own | config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora" in name:
                parameter.normal_(std=0.1)
            elif parameter.requires_grad:
                parameter.add_(0.1)
    model.save_pretrained(str(folder))
    return model.eval()


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "all": {"target_modules": "all-linear"},
    "patterns": {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"1.self_attn.q_proj": 3}},
    "whole": {"modules_to_save": ["norm"]},
    "table": {"target_modules": ["embed_tokens", "v_proj"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_folded_equals_adapter_on(tmp_path: Path, kind: str) -> None:
    base = _write(tmp_path / "base")
    live = _adapter(base, tmp_path / "adapter", **KINDS[kind])
    merge([open_checkpoint(str(tmp_path / "adapter"))], tmp_path / "out")
    ids = torch.tensor([byte_bpe().encode(WORDS[0]).ids])
    folded = AutoModel.from_pretrained(tmp_path / "out").eval()
    before = AutoModel.from_pretrained(base).eval()
    with torch.no_grad():
        on = live(ids).last_hidden_state
        off = before(ids).last_hidden_state
        torch.testing.assert_close(folded(ids).last_hidden_state, on, rtol=1e-4, atol=1e-5)
    assert (on - off).abs().max() > 0.1  # else the adapter did nothing
    by_peft = live.merge_and_unload().state_dict()
    for name, tensor in _tensors(tmp_path / "out").items():
        torch.testing.assert_close(tensor, by_peft[name], rtol=1e-5, atol=1e-6)


def test_folding_in_blocks_and_in_bf16_rounds_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = _write(tmp_path / "base", dtype=torch.bfloat16)
    _adapter(base, tmp_path / "adapter", target_modules=["embed_tokens", "q_proj"])
    monkeypatch.setattr("polyvec.model.weights._BLOCK_ELEMENTS", 1000)
    files = open_checkpoint(str(tmp_path / "adapter"))
    report = merge([files], tmp_path / "out", compare=False)
    assert report.type == "BF16"
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    stem = "base_model.model.layers.1.self_attn.q_proj.lora_"
    delta = 3.0 * adapter[f"{stem}B.weight"].double() @ adapter[f"{stem}A.weight"].double()
    name = "layers.1.self_attn.q_proj.weight"
    exact = open_model(base).weights.tensor(name).double() + delta
    torch.testing.assert_close(_tensors(tmp_path / "out")[name], exact.bfloat16(), rtol=0, atol=0)


def test_adapters_are_averaged_folded(tmp_path: Path) -> None:
    base = _write(tmp_path / "base")
    parts = []
    for seed in (1, 2):
        folder = tmp_path / f"adapter{seed}"
        parts.append(_adapter(base, folder, seed).merge_and_unload().state_dict())
    names = [str(tmp_path / f"adapter{seed}") for seed in (1, 2)]
    report = merge([open_checkpoint(name) for name in names], tmp_path / "out")
    for name, tensor in _tensors(tmp_path / "out").items():
        expected = (parts[0][name] + parts[1][name]) / 2
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
    assert [part.model for part in report.parts] == names


def test_a_causal_lms_adapter_fits_its_body(tmp_path: Path) -> None:
    """PEFT writes ``base_model.model.model.layers...`` for a model with an output head."""
    base = _write(tmp_path / "base")
    _adapter(base, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    renamed = {
        k.replace("model.layers", "model.model.layers"): t for k, t in load_file(path).items()
    }
    plain = open_checkpoint(str(tmp_path / "adapter")).weights.tensor(
        "layers.0.mlp.down_proj.weight"
    )
    save_file(renamed, path)
    again = open_checkpoint(str(tmp_path / "adapter")).weights.tensor(
        "layers.0.mlp.down_proj.weight"
    )
    assert torch.equal(plain, again)


def test_an_adapter_that_polyvec_trained_is_folded_as_training_does(tmp_path: Path) -> None:
    base = _write(tmp_path / "base")
    name, random = "layers.1.mlp.up_proj", torch.Generator().manual_seed(0)
    shapes = {"A": (4, 48), "B": (72, 4)}
    state = {
        f"{name}.adapter.lora_{side}": torch.randn(shape, generator=random)
        for side, shape in shapes.items()
    }
    settings = LoraSettings(rank=4, alpha=6)
    (tmp_path / "adapter").mkdir()
    write_adapter(tmp_path / "adapter", state, settings, str(base))
    ours = open_checkpoint(str(tmp_path / "adapter")).weights
    theirs = folded(state, [f"{name}.weight"], open_model(base).weights, settings)
    torch.testing.assert_close(ours.tensor(f"{name}.weight"), theirs[f"{name}.weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "is a DoRA"),
        ({"peft_type": "IA3"}, "of type IA3"),
        ({"init_lora_weights": "pissa"}, "began with 'pissa'"),
        ({"lora_bias": True}, "biases inside LoRA"),
    ],
)
def test_adapters_that_cannot_be_folded(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    _adapter(_write(tmp_path / "base"), tmp_path / "adapter")
    edit_json(tmp_path / "adapter" / "adapter_config.json", **change)
    with pytest.raises(SpecError, match=f"{words}.*merge_and_unload"):
        open_checkpoint(str(tmp_path / "adapter"))


def test_an_adapter_of_another_model(tmp_path: Path) -> None:
    _adapter(_write(tmp_path / "base"), tmp_path / "adapter")
    other = _write(tmp_path / "other", config=SHAPE | {"intermediate_size": 80})
    with pytest.raises(ModelFileError, match="of another model; give its own with --base"):
        open_checkpoint(str(tmp_path / "adapter"), str(other))
    small = _write(tmp_path / "small", config=SHAPE | {"num_hidden_layers": 1})
    with pytest.raises(ModelFileError, match=r"changes layers.1.* which its base does not have"):
        open_checkpoint(str(tmp_path / "adapter"), str(small))


def test_a_torn_adapter(tmp_path: Path) -> None:
    _adapter(_write(tmp_path / "base"), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({k: t for k, t in tensors.items() if not k.endswith("q_proj.lora_B.weight")}, path)
    with pytest.raises(ModelFileError, match="has no B beside its A"):
        open_checkpoint(str(tmp_path / "adapter"))
    save_file(tensors | {"base_model.model.layers.0.lora_magnitude_vector": torch.ones(3)}, path)
    with pytest.raises(SpecError, match="lora_magnitude_vector, which polyvec cannot fold"):
        open_checkpoint(str(tmp_path / "adapter"))
    path.unlink()
    with pytest.raises(ModelFileError, match="reads no pickles"):
        open_checkpoint(str(tmp_path / "adapter"))


# --- The command ------------------------------------------------------------------------------


def test_the_command_merges_and_says_what(run: Command, tmp_path: Path) -> None:
    _models(tmp_path, 2)
    names = [tmp_path / "m0", tmp_path / "m1"]
    done = run("merge", *names, "-o", tmp_path / "out", "--weights", "1,3", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert [part["weight"] for part in said["parts"]] == [0.25, 0.75]
    assert -1 < said["parts"][0]["quality"]["cosine_mean"] < 1
    done = run("merge", *names, "-o", tmp_path / "o2", "--no-compare")
    assert "not measured" in done.out


def test_the_command_folds(run: Command, tmp_path: Path) -> None:
    base = _write(tmp_path / "base")
    _adapter(base, tmp_path / "adapter")
    done = run("merge", tmp_path / "adapter", "--base", base, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    done = run("info", tmp_path / "adapter")
    assert "polyvec merge" in done.err


def test_a_training_checkpoint_is_named(run: Command, tmp_path: Path) -> None:
    tiny_train.run(tiny_train.write_recipe(tmp_path), optimizer__steps="2")
    step = tmp_path / "run" / "checkpoints" / "step-00000002"
    done = run("merge", step, tmp_path / "run" / "model", "-o", tmp_path / "out")
    assert (done.code, "polyvec train RECIPE --finish" in done.err) == (1, True), done.err
    assert "is a checkpoint of a training run and no model" in done.err


def test_the_command_refuses_in_words(run: Command, tmp_path: Path) -> None:
    _models(tmp_path, 2)
    names = [tmp_path / "m0", tmp_path / "m1"]
    done = run("merge", *names, "-o", tmp_path / "out", "--weights", "a,b")
    assert (done.code, "no numbers" in done.err) == (2, True)
    done = run("merge", names[0], "-o", tmp_path / "out")
    assert (done.code, "nothing to merge" in done.err) == (2, True)
    done = run("merge", *names, "-o", tmp_path / "out", "--type", "Q8_0")
    assert (done.code, "polyvec export" in done.err) == (2, True)
