"""A model to a folder that sentence-transformers and transformers load with no remote code."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import save_file
from tokenizers import processors
from torch import Tensor

from polyvec.errors import OutputError
from polyvec.model.files import ModelFiles
from polyvec.model.tokens import Tokenizer
from polyvec.model.weights import INDEX_FILE, SINGLE_FILE
from polyvec.spec import INSTRUCTION_SLOT, Architecture, Rope, Spec

_MODEL_TYPES = {"llama-embed": "llama", "llama_bidirec": "llama"}
_CLASSES = {
    "llama": "LlamaModel", "mistral": "MistralModel", "qwen2": "Qwen2Model", "qwen3": "Qwen3Model",
}  # fmt: skip
_POOLING_WORDS = {"mean": "mean", "last": "lasttoken", "cls": "cls"}
_MAX_SHARD_BYTES = 2**30


def save_folder(files: ModelFiles, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model as a standard folder; its weights pass through memory a shard at a time.

    Raises:
        OutputError: Something is at that path already.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists already; give another path or remove it first.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, value in _standard_files(files, dtype).items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))
        _with_post_processor(files.tokenizer).save(str(partial / "tokenizer.json"))
        _save_weights(files, partial, dtype)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _standard_files(files: ModelFiles, dtype: torch.dtype) -> dict[str, Any]:
    spec = files.spec
    modules = [("", "models.Transformer"), ("1_Pooling", "models.Pooling")]
    if spec.normalize:
        modules.append(("2_Normalize", "models.Normalize"))
    return {
        "config.json": _config(files.architecture, spec, dtype),
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "embedding_dimension": spec.dimension,
            "pooling_mode": _POOLING_WORDS[spec.pooling],
            "include_prompt": True,
        },
        "config_sentence_transformers.json": {
            "prompts": {"query": _default_prompt(spec), "document": spec.document_prefix},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "sentence_bert_config.json": {"max_seq_length": spec.max_tokens, "do_lower_case": False},
        "tokenizer_config.json": _tokenizer_config(files.tokenizer, spec),
    }


def _default_prompt(spec: Spec) -> str:
    return spec.query_prefix.replace(INSTRUCTION_SLOT, spec.default_instruction)


def _config(shape: Architecture, spec: Spec, dtype: torch.dtype) -> dict[str, Any]:
    model_type = _MODEL_TYPES.get(shape.model_type, shape.model_type)
    return {
        "architectures": [_CLASSES[model_type]],
        "model_type": model_type,
        "is_causal": spec.attention == "causal",
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "rms_norm_eps": shape.norm_eps,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_positions,
        "rope_theta": shape.rope.theta,
        "rope_scaling": _rope_scaling(shape.rope),
        "sliding_window": shape.sliding_window,
        "tie_word_embeddings": True,
        "matryoshka_dimensions": list(spec.matryoshka_dimensions),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _rope_scaling(rope: Rope) -> dict[str, Any] | None:
    if rope.kind == "default":
        return None
    scaling = {"rope_type": rope.kind, "factor": rope.factor}
    if rope.kind == "linear":
        return scaling
    return scaling | {
        "low_freq_factor": rope.low_freq_factor,
        "high_freq_factor": rope.high_freq_factor,
        "original_max_position_embeddings": rope.original_max_tokens,
    }


def _tokenizer_config(tokenizer: Tokenizer, spec: Spec) -> dict[str, Any]:
    token = tokenizer.backend.id_to_token
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": spec.max_tokens,
        "padding_side": "right",
    }
    if tokenizer.bos_ids:
        config["bos_token"] = token(tokenizer.bos_ids[0])
    if tokenizer.eos_ids:
        config["eos_token"] = token(tokenizer.eos_ids[0])
    # Peers pad batches; which token they pad with changes nothing, so it may be any.
    config["pad_token"] = config.get("eos_token") or token(0)
    return config


def _with_post_processor(tokenizer: Tokenizer) -> Any:  # noqa: ANN401 (tokenizers is untyped)
    """Return a copy of the tokenizer that adds BOS and EOS itself, for peers."""
    backend = type(tokenizer.backend).from_str(tokenizer.backend.to_str())
    before = [str(backend.id_to_token(i)) for i in tokenizer.bos_ids]
    after = [str(backend.id_to_token(i)) for i in tokenizer.eos_ids]
    ids = zip((*before, *after), (*tokenizer.bos_ids, *tokenizer.eos_ids), strict=True)
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], special_tokens=list(dict(ids).items())
    )
    return backend


def _save_weights(files: ModelFiles, folder: Path, dtype: torch.dtype) -> None:
    shards: list[list[str]] = []
    for shard in _shards(files, dtype):
        shards.append(list(shard))
        save_file(shard, folder / f"{len(shards)}.safetensors", metadata={"format": "pt"})
    if len(shards) == 1:
        (folder / "1.safetensors").rename(folder / SINGLE_FILE)
        return
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        (folder / f"{number}.safetensors").rename(folder / file)
        places |= dict.fromkeys(names, file)
    (folder / INDEX_FILE).write_bytes(orjson.dumps({"metadata": {}, "weight_map": places}))


def _shards(files: ModelFiles, dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name in sorted(files.weights.names):
        if name in ("lm_head.weight", "rope_freqs.weight"):
            continue
        shard[name] = files.weights.tensor(name).to(dtype).contiguous()
        if sum(t.numel() * t.element_size() for t in shard.values()) >= _MAX_SHARD_BYTES:
            yield shard
            shard = {}
    if shard:
        yield shard
