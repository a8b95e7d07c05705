"""The standard files of a model folder: what sentence-transformers and transformers write."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Tokenizer as Backend

from polyvec.errors import ModelFileError, SpecError
from polyvec.model.bert_config import BERT_MODEL_TYPES, bert_architecture
from polyvec.model.tokens import Tokenizer
from polyvec.spec import (
    DEFAULT_INSTRUCTION,
    INSTRUCT_PREFIX,
    INSTRUCTION_SLOT,
    Architecture,
    LlamaArchitecture,
    Rope,
)

Json = dict[str, Any]

# model_type -> q/k norm. `llama_bidirec` is nvidia's name for its bidirectional Llama.
_MODEL_TYPES = {
    "llama": False,
    "llama_bidirec": False,
    "mistral": False,
    "qwen2": False,
    "qwen3": True,
}

_DEFAULT_WINDOW = 4096
_CHECKPOINT_FILES = ("state.json", "optimizer.safetensors")
"""What ``polyvec.train.checkpoint`` writes and no model has."""

_POOLING_WORDS = {
    "mean": "mean", "avg": "mean", "last": "last", "lasttoken": "last", "cls": "cls",
}  # fmt: skip
_LEGACY_POOLING = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


def read_json(path: Path) -> Json:
    """Read a JSON object; a missing file is an empty one.

    Raises:
        ModelFileError: The file is not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelFileError(f"{path} is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} holds {type(value).__name__}, not a JSON object.")
    return value


def read_architecture(folder: Path) -> Architecture:
    """Read the network's shape from ``config.json``.

    Raises:
        ModelFileError: There is no ``config.json``, or a needed key is missing.
        SpecError: The model is of a type, or uses a feature, that polyvec does not run.
    """
    path = folder / "config.json"
    config = read_json(path)
    if not config:
        raise ModelFileError(_no_config(folder))
    model_type = config.get("model_type")
    known = (*_MODEL_TYPES, *BERT_MODEL_TYPES)
    if str(model_type) not in known:
        raise SpecError(f"{path} says model_type {model_type!r}; polyvec runs {', '.join(known)}.")
    try:
        if model_type in BERT_MODEL_TYPES:
            return bert_architecture(config, path)
        _refuse_unknown_features(config, path)
        return _architecture(config, str(model_type))
    except KeyError as error:
        raise ModelFileError(f"{path} lacks the key {error}, which shapes the network.") from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{path} holds a value of the wrong kind ({error}).") from error


def _no_config(folder: Path) -> str:
    if all((folder / name).is_file() for name in _CHECKPOINT_FILES):
        return (
            f"{folder} is a checkpoint of a training run and no model. polyvec train RECIPE "
            "--finish makes a model of the run's newest one (of the best, if its recipe says so): "
            "then give the folder 'model' of the run's output."
        )
    adapter = read_json(folder / "adapter_config.json")
    if not adapter:
        return f"{folder} is not a model folder: it has no config.json."
    base = adapter.get("base_model_name_or_path") or "BASE"
    return (
        f"{folder} holds a LoRA adapter and no model: it only changes {base}. Fold the two first "
        f"(polyvec merge {folder} --base BASE --output FOLDED), then give the folded folder."
    )


def _architecture(config: Json, model_type: str) -> LlamaArchitecture:
    heads = config["num_attention_heads"]
    return LlamaArchitecture(
        model_type=model_type,
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        norm_eps=config.get("rms_norm_eps", 1e-6),
        rope=_rope(config),
        max_positions=config["max_position_embeddings"],
        qk_norm=_MODEL_TYPES[model_type],
        sliding_window=_sliding_window(config, model_type),
    )


def _refuse_unknown_features(config: Json, path: Path) -> None:
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise SpecError(f"{path} says hidden_act {activation!r}; polyvec runs 'silu'.")
    kinds = _layer_kinds(config)
    if len(kinds) > 1:
        raise SpecError(f"{path} mixes layer types ({', '.join(sorted(kinds))}), which is not run.")


def _sliding_window(config: Json, model_type: str) -> int | None:
    """Return the window of every layer, with transformers' defaults; None where there is none."""
    if model_type == "mistral":
        return config.get("sliding_window", _DEFAULT_WINDOW)
    windowed = _uses_window(config) and _layer_kinds(config) == {"sliding_attention"}
    return config.get("sliding_window", _DEFAULT_WINDOW) if windowed else None


def _uses_window(config: Json) -> bool:
    """Qwen's files name a window that is switched off, as a rule."""
    return str(config["model_type"]).startswith("qwen") and bool(config.get("use_sliding_window"))


def _layer_kinds(config: Json) -> set[str]:
    """Return the kinds of attention in a stack; Qwen's window begins at a layer."""
    if config.get("layer_types"):
        return set(config["layer_types"])
    if not _uses_window(config):
        return {"full_attention"}
    first = config.get("max_window_layers", 28)
    layers = range(config["num_hidden_layers"])
    return {"sliding_attention" if i >= first else "full_attention" for i in layers}


def _rope(config: Json) -> Rope:
    """Read transformers 5's ``rope_parameters``, or 4's ``rope_theta`` and ``rope_scaling``."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(scaling.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ("default", "linear", "llama3"):
        raise SpecError(f"RoPE of type {kind!r} is not run; polyvec runs default, linear, llama3.")
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, "linear", factor=float(scaling["factor"]))
    return Rope(
        theta,
        "llama3",
        factor=float(scaling["factor"]),
        low_freq_factor=float(scaling["low_freq_factor"]),
        high_freq_factor=float(scaling["high_freq_factor"]),
        original_max_tokens=int(scaling["original_max_position_embeddings"]),
    )


def read_facts(folder: Path, architecture: Architecture) -> Json:
    """Read what the folder states of its spec; a fact it does not state is left out."""
    config = read_json(folder / "config.json")
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    facts: Json = {
        "attention": _attention(config),
        "dimension": architecture.hidden_size,
        "max_tokens": _max_tokens(folder, architecture),
        "matryoshka_dimensions": tuple(config.get("matryoshka_dimensions") or ()),
    }
    modules = _modules(folder)
    pooling = _module_pooling(folder, modules) if modules else config.get("pooling")
    if pooling is not None:
        facts["pooling"] = _pooling_word(str(pooling), folder)
    facts["normalize"] = not modules or any(m.endswith("Normalize") for m in modules)
    if not modules and config["model_type"] == "llama_bidirec":
        prompts = {"query": INSTRUCT_PREFIX.replace(INSTRUCTION_SLOT, DEFAULT_INSTRUCTION)}
    return facts | prompt_facts(prompts)


def _attention(config: Json) -> str:
    """Bidirectional by kind or if the files say so; else causal: transformers' own meaning."""
    bidirectional = (
        config["model_type"] == "llama_bidirec"
        or config["model_type"] in BERT_MODEL_TYPES
        or config.get("is_causal") is False
        or config.get("use_bidirectional_attention") is True
    )
    return "bidirectional" if bidirectional else "causal"


def _max_tokens(folder: Path, architecture: Architecture) -> int:
    module = read_json(folder / "sentence_bert_config.json")
    stated = (
        module.get("max_seq_length"),
        read_json(folder / "tokenizer_config.json").get("model_max_length"),
    )
    if module.get("do_lower_case"):
        raise SpecError(
            f"{folder}/sentence_bert_config.json says do_lower_case, which polyvec does not do."
        )
    # transformers writes 1e30 for "no limit"
    limits = [int(limit) for limit in stated if isinstance(limit, int | float)]
    return min(*limits, architecture.max_positions) if limits else architecture.max_positions


def _modules(folder: Path) -> dict[str, str]:
    """Return ``modules.json`` as type -> path; empty if there is none."""
    path = folder / "modules.json"
    if not path.is_file():
        return {}
    try:
        modules = {str(m["type"]): str(m["path"]) for m in orjson.loads(path.read_bytes())}
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is not a sentence-transformers module list.") from error
    for kind in modules:
        if kind.rpartition(".")[2] not in ("Transformer", "Pooling", "Normalize"):
            raise SpecError(
                f"{path} has a module of type {kind}; polyvec runs Transformer, Pooling, Normalize."
            )
    return modules


def _module_pooling(folder: Path, modules: Mapping[str, str]) -> str | None:
    path = next((p for kind, p in modules.items() if kind.endswith("Pooling")), None)
    if path is None:
        return None
    config = read_json(folder / path / "config.json")
    if config.get("include_prompt", True) is False:
        raise SpecError(
            f"{folder / path} leaves the prompt's tokens out of the mean (include_prompt false), "
            "which polyvec does not do."
        )
    modes = [word for key, word in _LEGACY_POOLING.items() if config.get(key)]
    mode = config.get("pooling_mode") or (modes[0] if len(modes) == 1 else modes or None)
    return None if mode is None else str(mode)


def _pooling_word(stated: str, folder: Path) -> str:
    if stated not in _POOLING_WORDS:
        raise SpecError(
            f"{folder} says pooling {stated!r}; polyvec runs {', '.join(_POOLING_WORDS)}."
        )
    return _POOLING_WORDS[stated]


def prompt_facts(prompts: Mapping[str, str]) -> Json:
    r"""Turn sentence-transformers prompts into prefixes, with a slot where an instruction is.

    ``Instruct: ...\nQuery:`` keeps whatever follows ``Query:``, a space or none: models differ.
    """
    query = prompts.get("query") or ""
    head, tail = "Instruct: ", "\nQuery:"
    place = query.rfind(tail)
    instruction = query[len(head) : place] if query.startswith(head) and place > 0 else ""
    if instruction:
        query = head + INSTRUCTION_SLOT + query[place:]
    document = prompts.get("document") or prompts.get("passage") or ""
    return {
        "query_prefix": query,
        "document_prefix": document,
        "default_instruction": instruction,
    }


def read_tokenizer(folder: Path) -> Tokenizer:
    """Build the tokenizer of a folder, with the BOS and EOS its files say.

    ``add_bos_token`` and ``add_eos_token`` of ``tokenizer_config.json`` win where they are
    stated; otherwise it is as ``tokenizer.json``'s own post-processor does.

    Raises:
        ModelFileError: There is no ``tokenizer.json``, or it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelFileError(
            f"{folder} has no tokenizer.json. Save the model's fast tokenizer into it "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(folder))."
        )
    try:
        backend = Backend.from_file(str(path))
    except Exception as error:
        raise ModelFileError(f"{path} is not a tokenizer file ({error}).") from error
    config = read_json(folder / "tokenizer_config.json")
    bos_ids, eos_ids = _post_processor_ids(backend)
    return Tokenizer(
        backend,
        _stated_ids(config, "bos", bos_ids, backend, path),
        _stated_ids(config, "eos", eos_ids, backend, path),
        _named_id(config, "bos", backend),
        _named_id(config, "eos", backend),
    )


def _post_processor_ids(backend: Backend) -> tuple[list[int], list[int]]:
    """Return the ids the post-processor puts before and after a text."""
    backend.no_truncation()  # a file may pad every text to a length, which hides the end
    backend.no_padding()
    bare = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a", add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


def _stated_ids(
    config: Json, name: str, otherwise: list[int], backend: Backend, path: Path
) -> list[int]:
    stated = config.get(f"add_{name}_token")
    if stated is None or stated == bool(otherwise):
        return otherwise
    if stated is False:
        return []
    number = _named_id(config, name, backend)
    if number is None:
        raise ModelFileError(
            f"{path.parent} says add_{name}_token and its {name}_token is "
            f"{config.get(f'{name}_token')!r}, which is not in the vocabulary."
        )
    return [number]


def _named_id(config: Json, name: str, backend: Backend) -> int | None:
    """Return the id of the token named as BOS or EOS, whether it is added to texts or not."""
    token = config.get(f"{name}_token")
    text = token.get("content") if isinstance(token, dict) else token
    return None if text is None else backend.token_to_id(text)
