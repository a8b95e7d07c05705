"""Which type each tensor of a GGUF gets: llama.cpp's mixtures.

From ``llama_tensor_get_type`` and ``tensor_type_fallback`` in ggml-org/llama.cpp,
src/llama-quant.cpp.
"""

from typing import NamedTuple

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

_T = GGMLQuantizationType


class FileType(NamedTuple):
    """A kind of GGUF file."""

    number: int
    """llama.cpp's enum llama_ftype, which goes into ``general.file_type``."""
    main: GGMLQuantizationType
    """The type of most tensors."""
    mixed: bool = False
    """Whether the tensors that matter most get Q6_K."""


FILE_TYPES = {
    "F32": FileType(0, _T.F32),
    "F16": FileType(1, _T.F16),
    "BF16": FileType(32, _T.BF16),
    "Q8_0": FileType(7, _T.Q8_0),
    "Q6_K": FileType(18, _T.Q6_K),
    "Q5_K_M": FileType(17, _T.Q5_K, mixed=True),
    "Q4_K_M": FileType(15, _T.Q4_K, mixed=True),
    "Q4_0": FileType(2, _T.Q4_0),
}

_UNQUANTIZED = (_T.F32, _T.F16, _T.BF16)
_FALLBACKS = {_T.Q4_K: _T.Q5_0, _T.Q5_K: _T.Q5_1, _T.Q6_K: _T.Q8_0}
_NEVER_ROUNDED = ("position_embd.weight", "token_types.weight")
_LAYERS_OF_70B = 80
_IMPORTANT = ("attn_v", "ffn_down")


def tensor_type(
    name: str, shape: tuple[int, ...], file_type: FileType, num_layers: int
) -> GGMLQuantizationType:
    """Return the type of a tensor.

    Vectors (norms, biases) stay float32, and so do a BERT's tables of positions and token types,
    which llama.cpp's converter never stores otherwise. The token table counts as llama.cpp counts
    one that is also the output head, for an embedder has no other.
    """
    if len(shape) < 2 or name in _NEVER_ROUNDED:
        return _T.F32
    kind = file_type.main
    if kind in _UNQUANTIZED:
        return kind
    is_table = name == "token_embd.weight" and kind != _T.Q8_0
    if is_table or (file_type.mixed and _is_important(name, num_layers)):
        kind = _T.Q6_K
    if kind == _T.Q4_K and _is_shared_value(name, shape, num_layers):
        kind = _T.Q5_K
    return _fitting(kind, shape[-1])


def _is_important(name: str, num_layers: int) -> bool:
    """llama.cpp's ``use_more_bits``: the first and last eighth of layers, and every third."""
    if not name.startswith("blk.") or name.split(".")[2] not in _IMPORTANT:
        return False
    layer, eighth = int(name.split(".")[1]), num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2


def _is_shared_value(name: str, shape: tuple[int, ...], num_layers: int) -> bool:
    """llama.cpp's ``LLM_TYPE_70B``: values that several heads share are small beside the rest."""
    return num_layers == _LAYERS_OF_70B and name.endswith("attn_v.weight") and shape[0] < shape[1]


def _fitting(kind: GGMLQuantizationType, columns: int) -> GGMLQuantizationType:
    """Return a type of smaller blocks where rows are not whole ones, at worst F16."""
    if columns % GGML_QUANT_SIZES[kind][0] == 0:
        return kind
    kind = _FALLBACKS.get(kind, kind)
    return kind if columns % GGML_QUANT_SIZES[kind][0] == 0 else _T.F16
