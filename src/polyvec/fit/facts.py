"""What has to be known of a model to say what it takes: its shape and the size of its files."""

from dataclasses import dataclass
from pathlib import Path

from polyvec.catalogue.cards import Card, cards, find
from polyvec.errors import InputError
from polyvec.hub import ALIASES, cached_models, resolve
from polyvec.model.folder import read_architecture
from polyvec.model.gguf_file import GgufFile
from polyvec.model.gguf_model import gguf_architecture
from polyvec.spec import Architecture, BertArchitecture, LlamaArchitecture, Rope

BITS_PER_WEIGHT = {
    "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5, "Q6_K": 6.5625,
    "Q5_K_M": 5.7036, "Q4_K_M": 4.8944, "Q4_0": 4.6606,
}  # fmt: skip
"""Of a whole file of Llama-3.1-8B: ggml-org/llama.cpp, tools/quantize/README.md; F16, Q8_0 and Q6_K
by their blocks. A file that is here is measured instead."""

_NETWORKS = {
    "llama": False, "mistral": False, "qwen2": False, "qwen3": False,
    "bert": True, "roberta": True, "xlm-roberta": True,
}  # fmt: skip
"""A card's word for a network that polyvec runs -> whether it is an encoder of BERT's kind."""


@dataclass(frozen=True)
class ModelFacts:
    """A model's shape, from its files or from its card."""

    name: str
    architecture: Architecture
    size_bytes: int
    """Of the weight files, or of bf16 ones where there are none."""
    has_blocks: bool
    """Whether the files hold blocks (a GGUF), which can be kept packed."""
    source: str
    """Where the shape was read."""

    @property
    def parameters(self) -> int:
        """Weights in the network."""
        return self.architecture.num_parameters

    def as_gguf(self, kind: str) -> "ModelFacts":
        """Return the model as a GGUF of a type would have it.

        Raises:
            InputError: There is no such type.
        """
        if kind not in BITS_PER_WEIGHT:
            raise InputError(f"GGUF type {kind!r} is unknown; known: {', '.join(BITS_PER_WEIGHT)}.")
        size = int(self.parameters * BITS_PER_WEIGHT[kind] / 8)
        return ModelFacts(self.name, self.architecture, size, True, f"{self.source}, as {kind}")


def facts_of(name: str) -> ModelFacts:
    """Read a model's shape: from its files where they are here, else from its card.

    Nothing is downloaded.

    Raises:
        ModelNotFoundError: It is neither here nor in the catalogue.
        InputError: Its card lacks its shape, or polyvec does not run its network.
        ModelFileError, SpecError: Its files cannot be read.
    """
    path = Path(name).expanduser()
    if path.exists():
        return facts_of_path(name, path)
    source = ALIASES[name].source if name in ALIASES else name
    if source in {model.name for model in cached_models()}:
        return facts_of_path(name, resolve(name).path)
    return facts_of_card(find(name, cards()))


def facts_of_path(name: str, path: Path) -> ModelFacts:
    """Read a model folder's ``config.json``, or a GGUF's metadata."""
    if path.is_dir():
        shape = read_architecture(path)
        sizes = [file.stat().st_size for file in path.glob("*.safetensors")]
        size = sum(sizes) or 2 * shape.num_parameters
        return ModelFacts(name, shape, size, False, str(path / "config.json"))
    shape = gguf_architecture(GgufFile(path))
    return ModelFacts(name, shape, path.stat().st_size, True, str(path))


def facts_of_card(card: Card) -> ModelFacts:
    """Read a card of the catalogue.

    Raises:
        InputError: The card does not state the shape (a model behind an API, for one).
    """
    shape = card.architecture
    if shape is None:
        raise InputError(
            f"The card of {card.name} does not state its network's shape (layers, widths, heads), "
            "which decides what it takes. Give a model folder or a .gguf file."
        )
    if shape.network not in _NETWORKS:
        raise InputError(
            f"{card.name} is of network {shape.network!r}, which polyvec does not run; it runs "
            f"{', '.join(_NETWORKS)}. What it takes elsewhere is not known here."
        )
    source = f"the catalogue's card of {card.name}"
    if _NETWORKS[shape.network]:
        network: Architecture = BertArchitecture(
            "bert", shape.width, shape.layers, shape.heads, shape.ffn, shape.vocab, 1e-12,
            shape.context_tokens, 2,
        )  # fmt: skip
    else:
        network = LlamaArchitecture(
            "llama", shape.width, shape.layers, shape.heads, shape.kv_heads, shape.head_dim,
            shape.ffn, shape.vocab, 1e-5, Rope(10000.0), shape.context_tokens,
        )  # fmt: skip
    return ModelFacts(card.name, network, 2 * network.num_parameters, False, source)
