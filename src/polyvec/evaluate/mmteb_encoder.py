"""Any model behind the face that mteb asks: instructions by task and side, texts embedded once."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType

from polyvec.engine.peers import EmbedderPeer, Peer, RemotePeer, SentencePeer
from polyvec.evaluate.cache import VectorCache
from polyvec.evaluate.mmteb_instructions import Instructions, instructions

Vectors = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with (texts, characters) done since the last call."""


class BenchmarkEncoder:
    """A peer as mteb's ``EncoderProtocol``.

    A text with an instruction is a query to the model, one without is a document. A model that was
    not made for instructions gets its own query prefix instead of one.
    """

    def __init__(
        self,
        peer: Peer,
        vectors: VectorCache,
        defaults: dict[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Wrap ``peer``.

        Args:
            peer: The model.
            vectors: Where its vectors are kept.
            defaults: Task name to its class's ``abstask_prompt``, for tasks that state no prompt.
            progress: Told of every chunk of texts.
        """
        self.peer, self.vectors, self.progress = peer, vectors, progress
        self.defaults = defaults or {}
        self.mteb_model_meta = model_meta(peer)

    def encode(
        self,
        inputs: Iterable[dict[str, Any]],
        *,
        task_metadata: Any,  # noqa: ANN401 (mteb's TaskMetadata)
        prompt_type: PromptType | None = None,
        **_: object,
    ) -> Vectors:
        """Return the vectors of mteb's batches, ``float32 [texts, d]``, scaled to length 1.

        Subset, split and batch size, which mteb also gives, change no vector and are not used.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        side = None if prompt_type is None else prompt_type.value
        instruction = self.instructions(task_metadata).of(side)
        if not instruction:
            vectors = self.vectors.encode(texts, "document", progress=self.progress)
        else:
            told = instruction if self.peer.takes_instructions else None
            vectors = self.vectors.encode(texts, "query", told, progress=self.progress)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(norms, np.float32(1e-12))

    def instructions(self, task_metadata: Any) -> Instructions:  # noqa: ANN401 (mteb's own)
        """Return what a task's texts are told."""
        return instructions(task_metadata, self.defaults.get(task_metadata.name, ""))

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:  # noqa: ANN401
        """Return cosines of vectors of length 1, ``[n, m]``."""
        return _tensor(embeddings1) @ _tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:  # noqa: ANN401
        """Return cosines of the pairs at the same places, ``[n]``."""
        return (_tensor(embeddings1) * _tensor(embeddings2)).sum(dim=-1)


def _tensor(vectors: Any) -> torch.Tensor:  # noqa: ANN401 (a tensor, an array or a row of one)
    tensor = torch.as_tensor(np.asarray(vectors), dtype=torch.float32)
    return tensor if tensor.ndim > 1 else tensor[None]


def model_meta(peer: Peer) -> ModelMeta:
    """Return what mteb writes beside the results: a name of two parts, and the fingerprint."""
    facts: dict[str, Any] = {
        "name": model_name(peer.name),
        "revision": peer.fingerprint,
        "embed_dim": peer.dimension,
        "similarity_fn_name": ScoringFunction.COSINE,
        "use_instructions": peer.takes_instructions,
        "framework": _framework(peer),
        "modalities": ["text"],
    }
    if isinstance(peer, EmbedderPeer):
        facts["n_parameters"] = peer.embedder.files.architecture.num_parameters
        facts["max_tokens"] = float(peer.embedder.spec.max_tokens)
        facts["memory_usage_mb"] = peer.embedder.files.size_bytes / 2**20
    return ModelMeta.create_empty(facts)


def model_name(name: str) -> str:
    """Return a name as mteb has it, ``organization/model``."""
    stem = re.sub(r"^(st|hf|pypi):|^https?://", "", name).rstrip("/")
    parts = [re.sub(r"[^\w.=-]+", "_", part) for part in stem.split("/") if part not in ("", ".")]
    return "/".join(parts[-2:]) if len(parts) > 1 else f"polyvec/{parts[-1]}"


def _framework(peer: Peer) -> list[str]:
    if isinstance(peer, SentencePeer):
        return ["Sentence Transformers", "PyTorch"]
    return ["API"] if isinstance(peer, RemotePeer) else ["PyTorch"]
