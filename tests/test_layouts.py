"""Folders laid out as the models people have are, file by file, against transformers.

Only the sizes are ours: names, keys, shards, tokens and prompts are those of the published
repositories (nvidia/llama-embed-nemotron-8b, intfloat/e5-mistral-7b-instruct,
Qwen/Qwen3-Embedding-0.6B), whose remote code is not needed and not there.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModel, LlamaConfig, LlamaModel

from polyvec.engine.embedder import Embedder
from polyvec.model.files import open_model
from tests.tiny import (
    BOS,
    EOS,
    byte_bpe,
    llama3_scaling,
    shape,
    weights,
    write_json,
    write_model,
)

TEXTS = ["the quick brown fox", "búsqueda 2024", "敏捷的棕色狐狸跳过懒狗", "a"]
INSTRUCTION = "Given a question, retrieve passages that answer the question"


def unit(vectors: Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).detach().numpy()


@pytest.fixture
def nemotron(tmp_path: Path) -> Path:
    """nvidia/llama-embed-nemotron-8b: two bf16 shards, left padding, BOS and no EOS, no pooling
    module; ``auto_map`` names code that is not there."""
    folder = tmp_path / "llama-embed-nemotron-8b"
    config = shape("llama_bidirec", rope_scaling=llama3_scaling(), rope_theta=500000.0)
    config |= {
        "architectures": ["LlamaBidirectionalModel"],
        "auto_map": {"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
        "pooling": "avg",
        "temperature": 1.0,
        "torch_dtype": "bfloat16",
        "attention_bias": False,
        "mlp_bias": False,
    }
    write_json(folder / "config.json", config)
    tensors = {name: t.bfloat16() for name, t in weights(config).items()}
    names = sorted(tensors)
    index: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    byte_bpe(bos=True).save(str(folder / "tokenizer.json"))
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": EOS}
    write_json(folder / "special_tokens_map.json", special)
    tokenizer = special | {"padding_side": "left", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", tokenizer | {"model_max_length": 32768})
    return folder


def reference_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    """The card's own recipe: left-padded batch, states masked, summed, divided, normalized."""
    config = json.loads((folder / "config.json").read_text())
    kept = {k: v for k, v in config.items() if k not in ("model_type", "auto_map", "architectures")}
    shaped = LlamaConfig(**kept)
    shaped.is_causal = False
    model: Any = LlamaModel(shaped)
    model.eval()
    state = {name: t.bfloat16().float() for name, t in weights(config).items()}
    model.load_state_dict(state)
    backend = byte_bpe(bos=True)
    ids = [backend.encode(text).ids for text in texts]
    width = max(map(len, ids))
    tokens = torch.tensor([[2] * (width - len(i)) + i for i in ids])
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    states = model(tokens, attention_mask=mask, position_ids=positions).last_hidden_state
    states = states.masked_fill(~mask[..., None].bool(), 0.0)
    return unit(states.sum(1) / mask.sum(1)[..., None])


def test_nemotrons_official_folder(nemotron: Path) -> None:
    model = Embedder(open_model(nemotron), "fp32", "cpu")
    spec = model.spec
    assert (spec.attention, spec.pooling, spec.normalize) == ("bidirectional", "mean", True)
    assert (spec.add_bos, spec.add_eos) == (True, False)
    assert (spec.default_instruction, spec.matryoshka_dimensions) == (INSTRUCTION, ())
    assert np.allclose(model.encode_document(TEXTS), reference_vectors(nemotron, TEXTS), atol=1e-5)
    written = [f"Instruct: {INSTRUCTION}\nQuery: {text}" for text in TEXTS]
    expected = reference_vectors(nemotron, written)
    assert np.allclose(model.encode_query(TEXTS), expected, atol=1e-5)


def test_its_smaller_sibling_is_matryoshka(nemotron: Path) -> None:
    config = json.loads((nemotron / "config.json").read_text())
    write_json(nemotron / "config.json", config | {"matryoshka_dimensions": [16, 32, 48]})
    model = Embedder(open_model(nemotron), "fp32", "cpu")
    cut = model.encode_document(TEXTS, dimensions=16)
    whole = model.encode_document(TEXTS)[:, :16]
    assert model.spec.matryoshka_dimensions == (16, 32)
    assert np.allclose(cut, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6)


def last_token_vectors(folder: Path, token_ids: list[list[int]]) -> np.ndarray:
    model: Any = AutoModel.from_pretrained(folder)
    model.eval()
    return unit(
        torch.stack([model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in token_ids])
    )


def test_e5_mistral_is_causal_with_bos_and_eos_and_the_last_token(tmp_path: Path) -> None:
    """Its tokenizer file adds BOS only; EOS is in ``tokenizer_config.json``, where transformers 5
    loses it."""
    query = "Instruct: Given a web search query, retrieve relevant passages\nQuery: "
    folder = write_model(
        tmp_path / "e5-mistral",
        shape("mistral", sliding_window=4096),
        pooling="lasttoken",
        prompts={"web_search_query": query},
        tokenizer=byte_bpe(bos=True),
        tokenizer_config={"bos_token": BOS, "eos_token": EOS, "add_eos_token": True},
    )
    model = Embedder(open_model(folder), "fp32", "cpu")
    ids = [[1, *byte_bpe().encode(text).ids, 2] for text in TEXTS]
    assert model.spec.attention == "causal"
    assert np.allclose(model.encode_document(TEXTS), last_token_vectors(folder, ids), atol=1e-5)


def test_qwen3_embedding_is_causal_with_its_own_end_token(tmp_path: Path) -> None:
    """Its end token is its tokenizer file's (not its ``eos_token``), and no space follows
    ``Query:``."""
    query = "Instruct: Given a web search query, retrieve relevant passages\nQuery:"
    folder = write_model(
        tmp_path / "qwen3-embedding",
        shape("qwen3"),
        pooling="lasttoken",
        prompts={"query": query, "document": ""},
        tokenizer=byte_bpe(eos=True),
        tokenizer_config={"eos_token": BOS, "add_bos_token": False},
    )
    model = Embedder(open_model(folder), "fp32", "cpu")
    backend = byte_bpe()
    documents = [[*backend.encode(text).ids, 2] for text in TEXTS]
    assert np.allclose(
        model.encode_document(TEXTS), last_token_vectors(folder, documents), atol=1e-5
    )
    queries = [[*backend.encode(query + text).ids, 2] for text in TEXTS]
    assert np.allclose(model.encode_query(TEXTS), last_token_vectors(folder, queries), atol=1e-5)
    other = "Instruct: Find it\nQuery:"
    queries = [[*backend.encode(other + text).ids, 2] for text in TEXTS]
    found = model.encode_query(TEXTS, instruction="Find it")
    assert np.allclose(found, last_token_vectors(folder, queries), atol=1e-5)


def test_a_hub_name_is_found_in_the_hubs_own_cache_offline(nemotron: Path, tmp_path: Path) -> None:
    """huggingface_hub's real code, on its real cache layout, with the network switched off."""
    repo = tmp_path / "hub" / "models--nvidia--tiny"
    shutil.copytree(nemotron, repo / "snapshots" / ("0" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "v2").write_text("0" * 40)
    program = "import polyvec; print(polyvec.load('hf:nvidia/tiny@v2').spec.pooling)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "mean\n", done.stderr
