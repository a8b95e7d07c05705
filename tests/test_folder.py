"""The standard files of a model folder: what each means, and vectors as sentence-transformers'."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer

from polyvec.engine.embedder import Embedder
from polyvec.engine.runner import Runner
from polyvec.errors import ModelFileError, PolyvecError, SpecError
from polyvec.model.files import open_model
from polyvec.model.folder import prompt_facts, read_tokenizer
from polyvec.spec import DEFAULT_INSTRUCTION, INSTRUCT_PREFIX, Role, Rope
from tests.peers import sentence_transformer
from tests.tiny import (
    BOS,
    EOS,
    WORDS,
    Json,
    byte_bpe,
    byte_bpe_like,
    edit_json,
    llama3_scaling,
    shape,
    write_json,
    write_model,
    write_transformer,
)

PROMPTS = {"query": "Instruct: Find it\nQuery: ", "document": "passage: "}
LONG = " ".join(WORDS)
TEXTS = [*WORDS, "a", "  spaces  around  ", LONG, LONG[7:]]
MAX_TOKENS = 40

# --- Vectors equal sentence-transformers' -----------------------------------------------------


def _saved_by_sentence_transformers(
    place: Path, config: Json, pooling: str, tokenizer: Tokenizer
) -> Path:
    base = write_transformer(place / "base", config, tokenizer)
    size = config["hidden_size"]
    modules = [
        Transformer(str(base), max_seq_length=MAX_TOKENS),
        Pooling(size, pooling),
        Normalize(),
    ]
    SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu").save_pretrained(
        str(place / "saved"), create_model_card=False
    )
    return place / "saved"


_OLD_POOLING = {"mean": "mean_tokens", "lasttoken": "lasttoken", "cls": "cls_token"}


def _of_the_old_kind(place: Path, config: Json, pooling: str, tokenizer: Tokenizer) -> Path:
    """Write the key names that sentence-transformers before 5 wrote."""
    folder = write_model(place / "old", config, prompts=PROMPTS, tokenizer=tokenizer)
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken")
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config["hidden_size"]}
        | {f"pooling_mode_{mode}": mode == _OLD_POOLING[pooling] for mode in modes},
    )
    lengths = {"max_seq_length": MAX_TOKENS, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", lengths)
    return folder


WRITERS = {"written now": _saved_by_sentence_transformers, "written before": _of_the_old_kind}


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("tokens", ["bare", "bos", "bos and eos"])
@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "cls"])
@pytest.mark.parametrize("written", WRITERS)
def test_vectors_equal_sentence_transformers(
    written: str, pooling: str, tokens: str, role: Role, tmp_path: Path
) -> None:
    tokenizer = byte_bpe(bos=tokens != "bare", eos=tokens == "bos and eos")
    folder = WRITERS[written](tmp_path, shape("llama", is_causal=False), pooling, tokenizer)
    peer = sentence_transformer(folder)
    encode = peer.encode_query if role == "query" else peer.encode_document
    ours = Embedder(open_model(folder), precision="fp32").embed(TEXTS, role)
    assert 0 < len(ours.cut) < len(TEXTS)  # so that the cut is compared too
    cosines = (ours.vectors * encode(TEXTS)).sum(1)
    assert cosines.min() > 0.99999


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_causal_vectors_equal_sentence_transformers(model_type: str, tmp_path: Path) -> None:
    """Decoders are embedded by their last token, which is an EOS, as a rule."""
    # transformers gives every Qwen Qwen2's splitting rules, whatever its tokenizer.json says
    rules = "qwen2" if model_type.startswith("qwen") else "llama-bpe"
    tokenizer = byte_bpe_like(rules, eos=True)
    folder = _of_the_old_kind(tmp_path, shape(model_type), "lasttoken", tokenizer)
    ours = Embedder(open_model(folder), precision="fp32").embed(TEXTS, "query").vectors
    cosines = (ours * sentence_transformer(folder).encode_query(TEXTS)).sum(1)
    assert cosines.min() > 0.99999


def test_without_a_normalize_module_lengths_are_kept(tmp_path: Path) -> None:
    folder = write_model(tmp_path, normalize=False)
    ours = Embedder(open_model(folder), precision="fp32").encode_document(TEXTS[:4])
    theirs = sentence_transformer(folder).encode_document(TEXTS[:4])
    assert not open_model(folder).spec.normalize
    assert abs(float(np.linalg.norm(ours[0])) - 1) > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("written", WRITERS)
def test_max_tokens_are_read(written: str, tmp_path: Path) -> None:
    folder = WRITERS[written](tmp_path, shape(), "mean", byte_bpe())
    assert open_model(folder).spec.max_tokens == MAX_TOKENS


# --- Facts of the spec ------------------------------------------------------------------------


def _prompts(folder: Path, **prompts: str) -> Path:
    return write_model(folder, prompts=prompts)


def test_an_instruct_prompt_gets_a_slot() -> None:
    facts = prompt_facts({"query": "Instruct: Find it\nQuery: "})
    assert facts == {
        "query_prefix": INSTRUCT_PREFIX,
        "default_instruction": "Find it",
        "document_prefix": "",
    }


def test_an_instruct_prompt_keeps_what_follows_query() -> None:
    """Qwen3-Embedding has no space there."""
    facts = prompt_facts({"query": "Instruct: Find it\nQuery:"})
    assert facts["query_prefix"] == "Instruct: {instruction}\nQuery:"


def test_an_instruction_of_two_lines_is_kept_whole() -> None:
    facts = prompt_facts({"query": "Instruct: Find\nQuery: it\nQuery: "})
    assert facts["default_instruction"] == "Find\nQuery: it"


def test_a_fixed_prompt_has_no_slot() -> None:
    facts = prompt_facts({"query": "query: ", "passage": "passage: "})
    assert facts["query_prefix"] == "query: "
    assert facts["document_prefix"] == "passage: "
    assert facts["default_instruction"] == ""


def test_no_prompts_are_empty_prefixes() -> None:
    assert set(prompt_facts({}).values()) == {""}


@pytest.mark.parametrize(
    ("changes", "attention"),
    [
        ({}, "causal"),
        ({"is_causal": True}, "causal"),
        ({"is_causal": False}, "bidirectional"),
        ({"use_bidirectional_attention": True}, "bidirectional"),
        ({"use_bidirectional_attention": False}, "causal"),
        ({"model_type": "llama_bidirec"}, "bidirectional"),
    ],
)
def test_attention_is_causal_unless_the_files_say_otherwise(
    changes: Json, attention: str, tmp_path: Path
) -> None:
    folder = write_model(tmp_path, shape(**changes))
    assert open_model(folder).spec.attention == attention


def test_a_bare_folder_asks_how_it_pools(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "model")
    expected = (
        r"does not state its pooling, which decide.*--pooling mean\|last\|cls .*pooling=\.\.\."
    )
    with pytest.raises(SpecError, match=expected):
        open_model(folder)


def test_modules_without_pooling_ask_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": 48})
    with pytest.raises(SpecError, match=r"does not state its pooling"):
        open_model(folder)


def test_a_stated_pooling_wins_over_the_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path, pooling="mean")
    assert open_model(folder, {"pooling": "cls"}).spec.pooling == "cls"


def test_a_folder_of_nvidias_kind_is_read_as_its_code_runs_it(tmp_path: Path) -> None:
    """llama_bidirec, with the pooling in config.json and no sentence-transformers files."""
    config = shape("llama_bidirec", pooling="avg", rope_scaling=llama3_scaling())
    spec = open_model(write_transformer(tmp_path / "model", config)).spec
    assert (spec.attention, spec.pooling, spec.normalize) == ("bidirectional", "mean", True)
    assert spec.query_prefix == INSTRUCT_PREFIX
    assert spec.default_instruction == DEFAULT_INSTRUCTION


@pytest.mark.parametrize("mode", ["max", "weightedmean", "mean_sqrt_len_tokens"])
def test_another_pooling_names_the_known_ones(mode: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, pooling=mode)
    with pytest.raises(SpecError, match=rf"says pooling '{mode}'; polyvec runs mean, avg, last"):
        open_model(folder)


def test_two_poolings_at_once_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    both = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    write_json(folder / "1_Pooling" / "config.json", both)
    with pytest.raises(SpecError, match=r"says pooling \"\['mean', 'cls'\]\""):
        open_model(folder)


def test_pooling_without_the_prompt_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    edit_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    with pytest.raises(SpecError, match=r"leaves the prompt's tokens out.*include_prompt false"):
        open_model(folder)


def test_lowercasing_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    write_json(folder / "sentence_bert_config.json", {"do_lower_case": True})
    with pytest.raises(SpecError, match=r"sentence_bert_config.json says do_lower_case"):
        open_model(folder)


def test_an_unknown_module_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    modules = [
        {"type": f"sentence_transformers.models.{k}", "path": k} for k in ("Pooling", "Dense")
    ]
    write_json(folder / "modules.json", modules)
    with pytest.raises(SpecError, match=r"models\.Dense; polyvec runs Transformer, Pooling, Norm"):
        open_model(folder)


@pytest.mark.parametrize("text", ["{", "3", '[{"path": ""}]', "[7]"])
def test_a_broken_module_list_is_refused(text: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "modules.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"modules.json is not a sentence-transformers module"):
        open_model(folder)


def test_max_tokens_are_the_least_of_what_the_files_say(tmp_path: Path) -> None:
    folder = write_model(tmp_path, tokenizer_config={"model_max_length": 77})
    assert open_model(folder).spec.max_tokens == 77
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 55})
    assert open_model(folder).spec.max_tokens == 55


def test_no_limit_means_the_models_own(tmp_path: Path) -> None:
    folder = write_model(tmp_path, tokenizer_config={"model_max_length": int(1e30)})
    assert open_model(folder).spec.max_tokens == 128


def test_more_tokens_than_the_model_has_places_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    with pytest.raises(SpecError, match=r"max_tokens is 129 and .* was made for 128; give that"):
        open_model(folder, {"max_tokens": 129})


def test_shorter_dimensions_are_sorted_and_below_the_full_one(tmp_path: Path) -> None:
    config = shape(is_causal=False, matryoshka_dimensions=[32, 8, 48, 16, 8])
    assert open_model(write_model(tmp_path, config)).spec.matryoshka_dimensions == (8, 16, 32)


# --- The shape of the network -----------------------------------------------------------------


def _architecture(folder: Path, config: Json) -> Any:
    return open_model(write_model(folder, config)).architecture


def test_rope_is_read_from_both_spellings(tmp_path: Path) -> None:
    old = shape(rope_theta=500.0, rope_scaling=llama3_scaling())
    new = shape(rope_theta=None, rope_parameters={"rope_theta": 500.0, **llama3_scaling()})
    expected = Rope(500.0, "llama3", 8.0, 1.0, 4.0, 16)
    assert _architecture(tmp_path / "old", old).rope == expected
    assert _architecture(tmp_path / "new", new).rope == expected


def test_rope_of_the_oldest_spelling_is_read(tmp_path: Path) -> None:
    config = shape(rope_scaling={"type": "linear", "factor": 2})
    assert _architecture(tmp_path, config).rope == Rope(10000.0, "linear", 2.0)


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope"])
def test_another_rope_is_refused(kind: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, shape(rope_scaling={"rope_type": kind, "factor": 2.0}))
    with pytest.raises(SpecError, match=rf"RoPE of type '{kind}' is not run; .* default, linear"):
        open_model(folder)


def test_a_mistral_without_the_key_has_transformers_default_window(tmp_path: Path) -> None:
    config = shape("mistral")
    del config["sliding_window"]
    assert _architecture(tmp_path, config).sliding_window == 4096


def test_an_unknown_model_type_names_the_known_ones(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shape("gemma3"))
    with pytest.raises(
        SpecError, match=r"model_type 'gemma3'; polyvec runs llama, llama_bidirec, m"
    ):
        open_model(folder)


def test_another_activation_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path, shape(hidden_act="gelu"))
    with pytest.raises(SpecError, match=r"hidden_act 'gelu'; polyvec runs 'silu'"):
        open_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ],
    ids=["stated", "from a layer on"],
)
def test_layers_of_several_kinds_are_refused(changes: Json, tmp_path: Path) -> None:
    folder = write_model(tmp_path, shape("qwen2", **changes))
    with pytest.raises(SpecError, match=r"mixes layer types \(full_attention, sliding_attention\)"):
        open_model(folder)


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "max_position_embeddings"])
def test_a_missing_size_is_named(key: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    edit_json(folder / "config.json", **{key: None})
    with pytest.raises(ModelFileError, match=rf"config.json lacks the key '{key}', which shapes"):
        open_model(folder)


@pytest.mark.parametrize("junk", [None, 0, -1, 1, 10**12, 1.5, "x", [], [1], {}, {"a": 1}], ids=str)
@pytest.mark.parametrize("key", [*shape("mistral"), "head_dim", "rope_scaling", "layer_types"])
def test_a_junk_value_gives_a_model_or_an_error_of_ours(
    key: str, junk: object, tmp_path: Path
) -> None:
    folder = write_model(tmp_path, shape("mistral"))
    write_json(folder / "config.json", {**shape("mistral"), key: junk})
    with contextlib.suppress(PolyvecError):
        Runner(open_model(folder), torch.float32, torch.device("cpu"))


def test_heads_that_cannot_share_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    edit_json(folder / "config.json", num_key_value_heads=4)
    with pytest.raises(SpecError, match=r"6 query heads cannot share 4 key/value heads"):
        open_model(folder)


# --- Missing and broken files -----------------------------------------------------------------


def test_a_folder_without_a_configuration_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is not a model folder: it has no config.json"):
        open_model(tmp_path)


@pytest.mark.parametrize("text", ["{", "\x00", '{"a": 1'])
def test_a_broken_configuration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"config.json is not JSON \("):
        open_model(tmp_path)


def test_a_configuration_that_is_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelFileError, match=r"config.json holds list, not a JSON object"):
        open_model(tmp_path)


def test_a_missing_tokenizer_says_how_to_save_one(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"has no tokenizer.json. Save .*save_pretrained"):
        open_model(folder)


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ModelFileError, match=r"tokenizer.json is not a tokenizer file \("):
        open_model(folder)


# --- BOS and EOS ------------------------------------------------------------------------------


def _special(folder: Path, tokenizer: Tokenizer, **config: Any) -> tuple[list[int], list[int]]:
    write_transformer(folder, tokenizer=tokenizer, tokenizer_config=config)
    read = read_tokenizer(folder)
    return read.bos_ids, read.eos_ids


@pytest.mark.parametrize(
    ("bos", "eos", "expected"),
    [
        (False, False, ([], [])),
        (True, False, ([1], [])),
        (False, True, ([], [2])),
        (True, True, ([1], [2])),
    ],
)
def test_bos_and_eos_are_the_post_processors(
    bos: bool, eos: bool, expected: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    assert _special(tmp_path, byte_bpe(bos, eos)) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"add_bos_token": True, "bos_token": BOS}, ([1], [])),
        ({"add_eos_token": True, "eos_token": EOS}, ([], [2])),
        ({"add_bos_token": True, "bos_token": {"content": BOS, "special": True}}, ([1], [])),
        ({"add_bos_token": False, "add_eos_token": False}, ([], [])),
    ],
)
def test_stated_bos_and_eos_are_added(
    config: Json, expected: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    assert _special(tmp_path, byte_bpe(), **config) == expected


def test_stated_bos_and_eos_win_over_the_post_processor(tmp_path: Path) -> None:
    stated = {"add_bos_token": False, "add_eos_token": True, "eos_token": EOS}
    assert _special(tmp_path, byte_bpe(bos=True), **stated) == ([], [2])


@pytest.mark.parametrize("token", [None, "<nowhere>"])
def test_a_stated_token_that_is_not_there_is_refused(token: str | None, tmp_path: Path) -> None:
    expected = rf"says add_eos_token and its eos_token is {token!r}, which is not in the vocab"
    with pytest.raises(ModelFileError, match=expected):
        _special(tmp_path, byte_bpe(), add_eos_token=True, eos_token=token)
