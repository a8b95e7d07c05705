"""The ``config.json`` of BERT, RoBERTa and XLM-RoBERTa, as transformers writes it."""

from pathlib import Path
from typing import Any

from polyvec.errors import SpecError
from polyvec.spec import BertArchitecture

# model_type -> whether positions are counted from the number after the padding token's id.
BERT_MODEL_TYPES = {"bert": False, "roberta": True, "xlm-roberta": True}

_ROBERTA_PADDING = 1


def bert_architecture(config: dict[str, Any], path: Path) -> BertArchitecture:
    """Return the network's shape, with transformers' defaults.

    Raises:
        SpecError: The model uses a feature that polyvec does not run.
        KeyError: A needed key is missing.
    """
    _refuse_unknown_features(config, path)
    padding = config.get("pad_token_id", _ROBERTA_PADDING)
    return BertArchitecture(
        model_type=config["model_type"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        norm_eps=config.get("layer_norm_eps", 1e-12),
        num_positions=config["max_position_embeddings"],
        num_token_types=config.get("type_vocab_size", 2),
        position_offset=padding + 1 if BERT_MODEL_TYPES[config["model_type"]] else None,
    )


def _refuse_unknown_features(config: dict[str, Any], path: Path) -> None:
    activation = config.get("hidden_act", "gelu")
    if activation != "gelu":
        raise SpecError(
            f"{path} says hidden_act {activation!r}; for this kind polyvec runs 'gelu'."
        )
    kind = config.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise SpecError(
            f"{path} says position_embedding_type {kind!r}; polyvec runs 'absolute' ones."
        )
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise SpecError(f"{path} says {key}: it is no encoder, and polyvec does not run it.")
