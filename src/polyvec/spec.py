"""What a model is: the facts that decide its vectors, and the shape of its network.

Files are read by :mod:`polyvec.model`; this module only knows the words.
"""

from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

from polyvec.errors import InputError, SpecError

Attention = Literal["bidirectional", "causal"]
Pooling = Literal["mean", "last", "cls"]
Role = Literal["query", "document"]

INSTRUCTION_SLOT = "{instruction}"

INSTRUCT_PREFIX = "Instruct: {instruction}\nQuery: "
"""The family's query template, exactly (nvidia/llama-embed-nemotron-8b's loader in mteb)."""

DEFAULT_INSTRUCTION = "Given a question, retrieve passages that answer the question"
"""The instruction in the default query prompt of nvidia/llama-embed-nemotron-8b."""


@dataclass(frozen=True)
class Spec:
    """Everything, beside the weights and the tokenizer's tables, that decides a vector."""

    attention: Attention
    """``bidirectional``: every token sees every token; ``causal``: only those before it."""
    pooling: Pooling
    """How token states become one vector: their mean, the last one or the first one."""
    normalize: bool
    """Whether vectors are scaled to length 1."""
    query_prefix: str
    """Written before a query; ``{instruction}`` in it is replaced by the instruction."""
    document_prefix: str
    """Written before a document."""
    default_instruction: str
    """The instruction of queries that come without one; empty if the prefix has no slot."""
    add_bos: bool
    """Whether the beginning-of-sequence token is put first."""
    add_eos: bool
    """Whether the end-of-sequence token is put last."""
    dimension: int
    """Numbers in a vector."""
    max_tokens: int
    """Tokens the model reads of one text, BOS, EOS and prefix included."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Shorter dimensions the model was trained for; empty means vectors may not be cut."""

    def __post_init__(self) -> None:
        for name, allowed in (("attention", get_args(Attention)), ("pooling", get_args(Pooling))):
            if getattr(self, name) not in allowed:
                raise SpecError(
                    f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}."
                )
        if self.max_tokens <= self.add_bos + self.add_eos:
            raise SpecError(
                f"max_tokens is {self.max_tokens}, which leaves no room for text beside BOS/EOS; "
                "give a larger --max-tokens."
            )

    def render(self, text: str, role: Role, instruction: str | None = None) -> str:
        """Return the exact string the tokenizer sees for a text in a role.

        Raises:
            InputError: An instruction is given for a document, or for a model whose query
                prefix is fixed.
        """
        return self.prefix(role, instruction) + text

    def prefix(self, role: Role, instruction: str | None = None) -> str:
        """Return what is written before a text: see :meth:`render`."""
        check_choice("role", role, Role)
        if role == "document":
            if instruction is not None:
                raise InputError(
                    "An instruction was given for documents; documents are embedded without one. "
                    "Leave it out, or embed these texts as queries."
                )
            return self.document_prefix
        if instruction is not None and not instruction.strip():
            raise InputError(
                f"The instruction is {instruction!r}, which says no task. Leave it out for the "
                f"model's own ({self.default_instruction!r}), or write one."
            )
        prefix = self.query_prefix
        if instruction is not None and INSTRUCTION_SLOT not in prefix:
            if prefix:
                raise InputError(
                    f"This model writes {prefix!r} before every query and takes no instruction; "
                    f"given: {instruction!r}. Leave the instruction out."
                )
            prefix = INSTRUCT_PREFIX
        return prefix.replace(INSTRUCTION_SLOT, instruction or self.default_instruction)

    def check_dimensions(self, dimensions: int | None) -> int:
        """Return the vector length to give for a requested one.

        Raises:
            InputError: The model is not Matryoshka, or was not trained for that length.
        """
        if dimensions is None or dimensions == self.dimension:
            return self.dimension
        if not self.matryoshka_dimensions:
            raise InputError(
                f"dimensions={dimensions} was asked for, but this model is not Matryoshka: its "
                f"{self.dimension} numbers belong together. Leave dimensions out."
            )
        if dimensions not in self.matryoshka_dimensions:
            allowed = ", ".join(map(str, (*self.matryoshka_dimensions, self.dimension)))
            raise InputError(f"dimensions={dimensions} was asked for; this model has {allowed}.")
        return dimensions


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: base and scaling (transformers' ``rope_parameters``)."""

    theta: float
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_tokens: int = 8192


@dataclass(frozen=True)
class LlamaArchitecture:
    """The shape of a Llama-family transformer (Llama, Mistral, Qwen)."""

    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    norm_eps: float
    rope: Rope
    max_positions: int
    qk_norm: bool = False
    """RMS norm on each head's queries and keys (Qwen3)."""
    sliding_window: int | None = None
    """Tokens further apart than this do not see each other (Mistral v0.1)."""

    def __post_init__(self) -> None:
        _check_counts(self)
        if self.num_heads % self.num_kv_heads:
            raise SpecError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} key/value heads; "
                "the first must be a multiple of the second."
            )
        if self.head_dim % 2:
            raise SpecError(f"head_dim is {self.head_dim}; rotary positions need an even number.")

    @property
    def num_parameters(self) -> int:
        """Weights in the network, token table included, output head and biases not."""
        heads = 2 * self.num_heads + 2 * self.num_kv_heads
        attention = self.hidden_size * self.head_dim * heads
        feed_forward = 3 * self.hidden_size * self.intermediate_size
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        layers = self.num_layers * (attention + feed_forward + norms)
        return self.vocab_size * self.hidden_size + layers + self.hidden_size


def check_choice(name: str, value: str, choices: object) -> None:
    """Refuse a value that is none of a ``Literal``'s.

    Raises:
        InputError: It is another one; the message lists those allowed.
    """
    allowed = get_args(choices)
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed: {', '.join(allowed)}.")


@dataclass(frozen=True)
class BertArchitecture:
    """The shape of a BERT-family encoder (BERT, RoBERTa, XLM-RoBERTa): always bidirectional."""

    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    norm_eps: float
    num_positions: int
    """Rows of the table of learned positions."""
    num_token_types: int
    position_offset: int | None = None
    """RoBERTa counts positions from the number after the padding token's id; None: from 0."""

    def __post_init__(self) -> None:
        _check_counts(self)
        if self.hidden_size % self.num_heads:
            raise SpecError(
                f"hidden_size {self.hidden_size} cannot be shared by {self.num_heads} heads; the "
                "first must be a multiple of the second."
            )
        if self.max_positions < 1:
            raise SpecError(
                f"{self.num_positions} positions counted from {self.position_offset} leave none."
            )

    @property
    def head_dim(self) -> int:
        """The size of a head."""
        return self.hidden_size // self.num_heads

    @property
    def num_kv_heads(self) -> int:
        """Every head has keys and values of its own."""
        return self.num_heads

    @property
    def max_positions(self) -> int:
        """Tokens that have a learned position."""
        return self.num_positions - (self.position_offset or 0)

    @property
    def num_parameters(self) -> int:
        """Weights in the network, biases and tables included, pooler and other heads not."""
        hidden, width = self.hidden_size, self.intermediate_size
        attention = 4 * hidden * (hidden + 1)
        feed_forward = 2 * hidden * width + width + hidden
        norms = 4 * hidden
        rows = self.vocab_size + self.num_positions + self.num_token_types + 2
        return rows * hidden + self.num_layers * (attention + feed_forward + norms)


Architecture = LlamaArchitecture | BertArchitecture


def _check_counts(shape: Architecture) -> None:
    for field in fields(shape):
        value = getattr(shape, field.name)
        left_out = value is None and field.type == (int | None)
        counts = field.type in (int, int | None) and not left_out
        if counts and (type(value) is not int or value < 1):
            raise SpecError(f"{field.name} is {value!r}; it must be a positive whole number.")


def spec_facts(spec: Spec) -> dict[str, object]:
    """Return a spec as plain JSON values, in a fixed order (for fingerprints and ``--json``)."""
    facts = asdict(spec)
    facts["matryoshka_dimensions"] = list(spec.matryoshka_dimensions)
    return facts
