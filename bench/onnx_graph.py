"""SmolLM2 as an ONNX graph for other engines: bidirectional, mean-pooled, weights in fp32.

Written out from ``config.json`` and ``model.safetensors`` without torch, so that the engines'
environments need none. As a good export would: one matrix for q/k/v and one for gate and up,
grouped queries beside their key instead of repeated keys, no causal mask or cache, the mean inside.

Shapes: B texts, S tokens, D hidden, H heads, G key/value heads, E their width.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
_FLOAT, _INT = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
OPSET = 17


def write_graph(folder: Path, output: Path) -> None:
    """Write the model in ``folder``: ``ids`` and ``mask`` [B, S] to ``vectors`` [B, D]."""
    config = json.loads((folder / "config.json").read_text())
    graph = _Graph(config, read_safetensors(folder / "model.safetensors"))
    onnx.save(graph.model(), str(output))


def read_safetensors(path: Path) -> dict[str, Array]:
    """Read a safetensors file of F32 tensors."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + size)
    tensors: dict[str, Array] = {}
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        if facts["dtype"] != "F32":
            raise SystemExit(f"{name} in {path} is {facts['dtype']}; this reader takes F32.")
        start, end = facts["data_offsets"]
        tensors[name] = data[start:end].view(np.float32).reshape(facts["shape"])
    return tensors


class _Graph:
    """The nodes under construction; every method returns the name of its output."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Array]) -> None:
        self.config, self.weights = config, weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.heads, self.groups = config["num_attention_heads"], config["num_key_value_heads"]
        self.width = config["head_dim"]

    def model(self) -> onnx.ModelProto:
        bias = self._mask_bias()
        cosine, sine = self._rotation()
        states = self.op("Gather", self.weight("embed_tokens.weight"), "ids")
        for layer in range(self.config["num_hidden_layers"]):
            states = self._layer(f"layers.{layer}.", states, bias, cosine, sine)
        self._mean(self._norm(states, "norm.weight"))
        inputs = [helper.make_tensor_value_info(n, _INT, ["B", "S"]) for n in ("ids", "mask")]
        outputs = [
            helper.make_tensor_value_info("vectors", _FLOAT, ["B", self.config["hidden_size"]])
        ]
        graph = helper.make_graph(
            self.nodes, "embedder", inputs, outputs, list(self.constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 9
        return model

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        """Add a node."""
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"n_{name}", **attributes))
        return name

    def constant(self, value: Array | float | list[int], name: str | None = None) -> str:
        """Add a constant; a list is a shape or indices, a number a float scalar."""
        array = np.asarray(value, np.int64 if isinstance(value, list) else None)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = name or f"c_{array.dtype}_{array.ravel()[:8].tolist()}_{list(array.shape)}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def weight(self, *names: str, transpose: bool = False) -> str:
        """Add tensors of the file, stacked by rows; transposed for a product with states."""
        arrays = [self.weights.get(name, self.weights.get(f"model.{name}")) for name in names]
        if any(array is None for array in arrays):
            raise SystemExit(f"The model has no {' or '.join(names)}.")
        stacked = np.concatenate([array for array in arrays if array is not None])
        return self.constant(stacked.T if transpose else stacked, "+".join(names))

    def _layer(self, prefix: str, states: str, bias: str, cosine: str, sine: str) -> str:
        mixed = self._attention(
            prefix, self._norm(states, f"{prefix}input_layernorm.weight"), bias, cosine, sine
        )
        states = self.op("Add", states, mixed)
        normed = self._norm(states, f"{prefix}post_attention_layernorm.weight")
        names = [f"{prefix}mlp.{part}_proj.weight" for part in ("gate", "up")]
        both = self.op("MatMul", normed, self.weight(*names, transpose=True))
        width = self.config["intermediate_size"]
        gate, up = self._cut(both, 0, width), self._cut(both, width, 2 * width)
        gated = self.op("Mul", self.op("Mul", gate, self.op("Sigmoid", gate)), up)
        down = self.weight(f"{prefix}mlp.down_proj.weight", transpose=True)
        return self.op("Add", states, self.op("MatMul", gated, down))

    def _attention(self, prefix: str, x: str, bias: str, cosine: str, sine: str) -> str:
        names = [f"{prefix}self_attn.{part}_proj.weight" for part in "qkv"]
        mixed = self.op("MatMul", x, self.weight(*names, transpose=True))
        q, kv = self.heads * self.width, self.groups * self.width
        query = self._rotated(self._split_heads(self._cut(mixed, 0, q), self.heads), cosine, sine)
        key = self._split_heads(self._cut(mixed, q, q + kv), self.groups)
        key = self._rotated(key, cosine, sine)
        value = self._split_heads(self._cut(mixed, q + kv, q + 2 * kv), self.groups)
        key_t = self.op("Transpose", key, perm=[0, 1, 3, 2])
        scores = self.op("MatMul", self._grouped(query), self._unsqueezed(key_t))
        scores = self.op("Mul", scores, self.constant(self.width**-0.5))
        shares = self.op("Softmax", self.op("Add", scores, bias), axis=-1)
        out = self.op("MatMul", shares, self._unsqueezed(value))
        out = self.op("Transpose", out, perm=[0, 3, 1, 2, 4])
        out = self.op("Reshape", out, self.constant([0, 0, q]))
        return self.op(
            "MatMul", out, self.weight(f"{prefix}self_attn.o_proj.weight", transpose=True)
        )

    def _split_heads(self, x: str, heads: int) -> str:
        """[B, S, heads * E] -> [B, heads, S, E]."""
        split = self.op("Reshape", x, self.constant([0, 0, heads, self.width]))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def _grouped(self, query: str) -> str:
        """[B, H, S, E] -> [B, G, H / G, S, E]."""
        shape = self.op("Shape", query)
        ends = [self.op("Slice", shape, self.constant([i]), self.constant([i + 1])) for i in (0, 2)]
        groups = self.constant([self.groups, self.heads // self.groups])
        wide = self.op("Concat", ends[0], groups, ends[1], self.constant([self.width]), axis=0)
        return self.op("Reshape", query, wide)

    def _unsqueezed(self, x: str) -> str:
        return self.op("Unsqueeze", x, self.constant([2]))

    def _rotated(self, x: str, cosine: str, sine: str) -> str:
        """Apply RoPE: the second half of each head, negated, goes before the first."""
        half = self.width // 2
        turned = self.op(
            "Concat", self.op("Neg", self._cut(x, half, self.width)), self._cut(x, 0, half), axis=-1
        )
        return self.op("Add", self.op("Mul", x, cosine), self.op("Mul", turned, sine))

    def _rotation(self) -> tuple[str, str]:
        """Rows of the tables of cosines and sines, [S, E]."""
        limit = min(self.config["max_position_embeddings"], 2048)
        exponents = np.arange(0, self.width, 2) / self.width
        angles = np.outer(np.arange(limit), self.config["rope_theta"] ** -exponents)
        angles = np.concatenate([angles, angles], axis=1)
        length = self.op("Slice", self.op("Shape", "ids"), self.constant([1]), self.constant([2]))
        start, axis = self.constant([0]), self.constant([0])
        tables = {"cosines": np.cos(angles), "sines": np.sin(angles)}
        cosine, sine = (
            self.op("Slice", self.constant(table.astype(np.float32), name), start, length, axis)
            for name, table in tables.items()
        )
        return cosine, sine

    def _mask_bias(self) -> str:
        """[B, S] of 1 and 0 -> [B, 1, 1, 1, S] of 0 and a number that softmax makes 0."""
        mask = self.op("Cast", "mask", to=_FLOAT)
        lacking = self.op("Sub", mask, self.constant(1.0))
        bias = self.op("Mul", lacking, self.constant(1e9))
        return self.op("Unsqueeze", bias, self.constant([1, 2, 3]))

    def _norm(self, x: str, gain: str) -> str:
        """RMSNorm, in the form that engines know and fuse."""
        square = self.op("Pow", x, self.constant(2.0))
        mean = self.op("ReduceMean", square, axes=[-1], keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.constant(self.config["rms_norm_eps"])))
        return self.op("Mul", self.op("Div", x, root), self.weight(gain))

    def _mean(self, states: str) -> str:
        """Mean of the tokens that are there, [B, S, D] -> [B, D]."""
        mask = self.op("Unsqueeze", self.op("Cast", "mask", to=_FLOAT), self.constant([2]))
        axis = self.constant([1])
        total = self.op("ReduceSum", self.op("Mul", states, mask), axis, keepdims=0)
        return self.op("Div", total, self.op("ReduceSum", mask, axis, keepdims=0), output="vectors")

    def _cut(self, x: str, start: int, end: int) -> str:
        """A slice of the last axis."""
        return self.op(
            "Slice", x, self.constant([start]), self.constant([end]), self.constant([-1])
        )
