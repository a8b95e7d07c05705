"""llama.cpp's names of tensors and transformers', both ways."""

from collections.abc import Mapping

from polyvec.errors import SpecError

GGUF_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


GGUF_BERT_NAMES = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a Llama's or a BERT's tensor: the way back.

    Raises:
        SpecError: Neither has such a tensor in llama.cpp.
    """
    stem, _, kind = name.rpartition(".")
    for layers, names in (("layers.", GGUF_NAMES), ("encoder.layer.", GGUF_BERT_NAMES)):
        layer, rest = "", stem
        if stem.startswith(layers):
            number, _, rest = stem.removeprefix(layers).partition(".")
            layer = f"blk.{number}."
        for theirs, ours in names.items():
            if rest == ours:
                return f"{layer}{theirs}.{kind}"
    raise SpecError(f"Tensor {name} has no name in GGUF; polyvec cannot write this model as one.")


def renamed(gguf_name: str, layers: str, names: Mapping[str, str]) -> str:
    """Return transformers' name of llama.cpp's."""
    stem, _, kind = gguf_name.rpartition(".")
    layer = ""
    if stem.startswith("blk.") and stem.count(".") > 1:
        _, number, stem = stem.split(".", 2)
        layer = f"{layers}.{number}."
    return f"{layer}{names.get(stem, stem)}.{kind}"
