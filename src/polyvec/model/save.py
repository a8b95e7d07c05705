"""A model to a folder that sentence-transformers and transformers load with no remote code."""

import os
import re
import shutil
from collections.abc import Collection, Sequence
from math import prod
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import processors
from torch import Tensor

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import ModelFileError, OutputError, SpecError
from polyvec.model.files import ModelFiles
from polyvec.model.llama import inverse_frequencies
from polyvec.model.tokens import Tokenizer
from polyvec.model.weights import INDEX_FILE, SINGLE_FILE, row_blocks
from polyvec.spec import INSTRUCTION_SLOT, BertArchitecture, LlamaArchitecture, Rope, Spec

_MODEL_TYPES = {"llama-embed": "llama", "llama_bidirec": "llama"}
_CLASSES = {
    "llama": "LlamaModel", "mistral": "MistralModel", "qwen2": "Qwen2Model", "qwen3": "Qwen3Model",
    "bert": "BertModel", "roberta": "RobertaModel", "xlm-roberta": "XLMRobertaModel",
}  # fmt: skip
_ORIGINAL_LENGTHS = (8192, 4096, 2048, 16384, 32768)
"""Lengths before scaling, Llama 3's own first."""

_POOLING_WORDS = {"mean": "mean", "last": "lasttoken", "cls": "cls"}
_MAX_SHARD_BYTES = 2**30
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
# Not part of what makes a vector: the output head, a GGUF's RoPE factors (config.json says them).
_LEFT_OUT = ("lm_head.", "rope_freqs.")
_NO_ROOM = "Nothing of it was kept; make room, or choose a smaller type of weights."
_BUFFERS = ("rotary_emb.inv_freq", "position_ids")


def save_folder(files: ModelFiles, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a model as a standard folder; its weights pass through memory some rows at a time.

    Raises:
        OutputError: Something is at that path already, or a weight does not fit ``dtype``.
        SpecError: The model has a fact that the standard files cannot say.
        DiskFullError: There is no room; nothing half-written is left.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists already; give another path or remove it first.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with full_disk_is_an_error(folder, _NO_ROOM):
            write_folder(files, partial, dtype)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_folder(files: ModelFiles, folder: Path, dtype: torch.dtype) -> None:
    """Write a model's files straight into a new folder, for callers who clean up themselves.

    Raises:
        OutputError: A weight does not fit ``dtype``.
        SpecError: The model has a fact that the standard files cannot say.
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True)
    for name, value in _standard_files(files, dtype).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    state = _with_post_processor(files.tokenizer).to_str(pretty=True)  # its save() hides errno
    (folder / "tokenizer.json").write_text(state, encoding="utf-8")
    _save_weights(files, folder, dtype)


def _standard_files(files: ModelFiles, dtype: torch.dtype) -> dict[str, Any]:
    spec = files.spec
    modules = [("", "models.Transformer"), ("1_Pooling", "models.Pooling")]
    if spec.normalize:
        modules.append(("2_Normalize", "models.Normalize"))
    return {
        "config.json": _config(files, dtype),
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


def _config(files: ModelFiles, dtype: torch.dtype) -> dict[str, Any]:
    shape, spec = files.architecture, files.spec
    own = (
        _bert_config(shape) if isinstance(shape, BertArchitecture) else _llama_config(files, shape)
    )
    return own | {
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "matryoshka_dimensions": list(spec.matryoshka_dimensions),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _llama_config(files: ModelFiles, shape: LlamaArchitecture) -> dict[str, Any]:
    model_type = _MODEL_TYPES.get(shape.model_type, shape.model_type)
    return (
        {
            "architectures": [_CLASSES[model_type]],
            "model_type": model_type,
            "is_causal": files.spec.attention == "causal",
            "num_key_value_heads": shape.num_kv_heads,
            "head_dim": shape.head_dim,
            "rms_norm_eps": shape.norm_eps,
            "hidden_act": "silu",
            "max_position_embeddings": shape.max_positions,
            "rope_theta": shape.rope.theta,
            "rope_scaling": _rope_scaling(_stated_rope(files, shape)),
            "tie_word_embeddings": True,
        }
        | _window(shape, model_type)
        | _biases(files)
    )


def _window(shape: LlamaArchitecture, model_type: str) -> dict[str, Any]:
    """Say the sliding window the way this kind of model reads it."""
    if not model_type.startswith("qwen"):
        return {"sliding_window": shape.sliding_window}
    if shape.sliding_window is None:
        return {"use_sliding_window": False}
    window = {"use_sliding_window": True, "max_window_layers": 0}
    return window | {"sliding_window": shape.sliding_window}


def _biases(files: ModelFiles) -> dict[str, bool]:
    """Say which products have biases; Qwen2's are not optional and it ignores the keys."""
    names = files.weights.names
    return {
        "attention_bias": "layers.0.self_attn.q_proj.bias" in names,
        "mlp_bias": "layers.0.mlp.up_proj.bias" in names,
    }


def _bert_config(shape: BertArchitecture) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [_CLASSES[shape.model_type]],
        "model_type": shape.model_type,
        "layer_norm_eps": shape.norm_eps,
        "hidden_act": "gelu",
        "max_position_embeddings": shape.num_positions,
        "type_vocab_size": shape.num_token_types,
    }
    if shape.position_offset is not None:
        config["pad_token_id"] = shape.position_offset - 1
    return config


def _stated_rope(files: ModelFiles, shape: LlamaArchitecture) -> Rope:
    """Return RoPE as ``config.json`` can say it; a GGUF has llama3's scaling as a tensor instead.

    Raises:
        SpecError: The tensor is not llama3's scaling for any of the usual settings.
    """
    if "rope_freqs.weight" not in files.weights.names:
        return shape.rope
    factors = files.weights.tensor("rope_freqs.weight")
    plain = inverse_frequencies(shape.rope, shape.head_dim)
    for original in _ORIGINAL_LENGTHS:
        rope = Rope(shape.rope.theta, "llama3", float(factors.max()), 1.0, 4.0, original)
        if torch.allclose(plain / inverse_frequencies(rope, shape.head_dim), factors, rtol=1e-4):
            return rope
    raise SpecError(
        f"{files.path} scales RoPE by factors (tensor rope_freqs.weight) that config.json has no "
        "words for. Export it as GGUF, or export the folder it was made from."
    )


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
    named = {"bos_token": tokenizer.named_bos, "eos_token": tokenizer.named_eos}
    config |= {name: token(number) for name, number in named.items() if number is not None}
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
    shards = _shards(files, dtype)
    if len(shards) == 1:
        _write_shard(folder / SINGLE_FILE, shards[0], files, dtype)
        return
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / file, names, files, dtype)
        places |= dict.fromkeys(names, file)
    (folder / INDEX_FILE).write_bytes(orjson.dumps({"metadata": {}, "weight_map": places}))


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: It cannot be written; the library says so in words and hides the number.
    """
    try:
        save_file(tensors, path, {"format": "pt"})
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def saved_names(names: Collection[str]) -> list[str]:
    """Return the tensors that make vectors, sorted: those a folder gets."""
    return sorted(n for n in names if not n.startswith(_LEFT_OUT) and not n.endswith(_BUFFERS))


def _shards(files: ModelFiles, dtype: torch.dtype) -> list[list[str]]:
    """Share the tensors that make vectors out among files of some size."""
    shards: list[list[str]] = [[]]
    room = _MAX_SHARD_BYTES
    for name in saved_names(files.weights.names):
        size = prod(files.weights.shape(name)) * dtype.itemsize
        if size > room and shards[-1]:
            shards.append([])
            room = _MAX_SHARD_BYTES
        shards[-1].append(name)
        room -= size
    return shards


def _write_shard(path: Path, names: Sequence[str], files: ModelFiles, dtype: torch.dtype) -> None:
    """Write a safetensors file a block of rows at a time.

    The library's own writer holds a whole file in memory. The format is eight bytes of length, a
    JSON header and the tensors (github.com/huggingface/safetensors, README).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        shape = files.weights.shape(name)
        start, end = end, end + prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": (start, end)}
    raw = orjson.dumps(header)
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name in names:
            for rows in row_blocks(files.weights, name):
                file.write(_cast(rows, dtype, name, files.path).view(torch.uint8).numpy().data)


def _cast(rows: Tensor, dtype: torch.dtype, name: str, source: Path) -> Tensor:
    """Convert weights, refusing those that are no numbers or become none."""
    cast = rows.to(dtype).contiguous()
    if bool(cast.isfinite().all()):
        return cast
    if not bool(rows.isfinite().all()):
        raise ModelFileError(
            f"{source}: tensor {name} holds NaN or infinity. Fetch or train the model again."
        )
    raise OutputError(
        f"{source}: tensor {name} has weights beyond {_DTYPES[dtype]}'s range; export as BF16 or "
        "F32."
    )
