"""Any model that embeds, behind one face: ours, a sentence-transformers one, or a server's.

sentence-transformers is imported here and nowhere else, and only when such a model is opened.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from polyvec.engine.embedder import Embedder, load
from polyvec.engine.remote import RemoteEmbedder, connect
from polyvec.errors import InputError, MissingExtraError, ModelNotFoundError
from polyvec.spec import DEFAULT_INSTRUCTION, INSTRUCT_PREFIX, INSTRUCTION_SLOT

Vectors = npt.NDArray[np.float32]

SENTENCE_TRANSFORMERS = "st:"
_PROBE = "polyvec"
_INSTRUCT = re.compile(r"(?<=Instruct: ).*(?=\nQuery:)", re.DOTALL)


class Peer(Protocol):
    """A model that embeds queries and documents, whatever runs it."""

    name: str
    """What it was opened as."""
    cut: int
    """Texts so far that were longer than the model reads, where that can be known."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""

    @property
    def fingerprint(self) -> str:
        """A short hash of what decides the vectors, for caches."""

    @property
    def takes_instructions(self) -> bool:
        """Whether the model was made to be told the task of a query."""

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Return the vectors of queries, ``float32 [texts, d]``, as the model gives them."""

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of documents, ``float32 [texts, d]``, as the model gives them."""


def open_peer(
    name: str,
    *,
    precision: str = "auto",
    device: str = "auto",
    max_tokens: int | None = None,
    query_prefix: str | None = None,
    document_prefix: str | None = None,
    timeout_s: float = 600.0,
) -> Peer:
    """Open a model by name.

    Args:
        name: A name that :func:`polyvec.load` knows; ``st:NAME_OR_FOLDER`` for one that
            sentence-transformers runs; or a server's address, see
            :func:`polyvec.engine.remote.connect`.
        precision: For a model of ours.
        device: For a model that runs here.
        max_tokens: Read fewer tokens of a text than the model could; not for servers.
        query_prefix: For a server: what is written before a query, ``{instruction}`` in it is
            replaced. Models that run here know their own.
        document_prefix: For a server: what is written before a document.
        timeout_s: For a server: how long a request may take.

    Raises:
        InputError: An option is given that this kind of model has no use for.
        ModelNotFoundError, SpecError, RemoteError: It cannot be opened.
        MissingExtraError: sentence-transformers is needed and not installed.
    """
    if "://" in name:
        _refuse(name, "a server", max_tokens=max_tokens)
        prefixes = (query_prefix or "", document_prefix or "")
        return RemotePeer(name, connect(name, timeout_s), *prefixes)
    _refuse(
        name,
        "a model that knows its own prefixes",
        query_prefix=query_prefix,
        document_prefix=document_prefix,
    )
    if name.startswith(SENTENCE_TRANSFORMERS):
        return SentencePeer(name, device, max_tokens)
    embedder = load(name, precision=precision, device=device, max_tokens=max_tokens)
    return EmbedderPeer(name, embedder)


def _refuse(name: str, kind: str, **options: object) -> None:
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} was given for {name}, {kind}. Leave it out.")


class EmbedderPeer:
    """A model that polyvec runs itself."""

    def __init__(self, name: str, embedder: Embedder) -> None:
        self.name, self.embedder, self.cut = name, embedder, 0
        self._fingerprint = ""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.embedder.dimension

    @property
    def fingerprint(self) -> str:
        """The model's own fingerprint, with the precision of products."""
        if not self._fingerprint:
            self._fingerprint = _hash(self.embedder.files.fingerprint(), self.embedder.precision)
        return self._fingerprint

    @property
    def takes_instructions(self) -> bool:
        """Whether its query prefix has a place for one."""
        return INSTRUCTION_SLOT in self.embedder.spec.query_prefix

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Embed queries."""
        embedding = self.embedder.embed(texts, "query", instruction)
        self.cut += len(embedding.cut)
        return embedding.vectors

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Embed documents."""
        embedding = self.embedder.embed(texts, "document")
        self.cut += len(embedding.cut)
        return embedding.vectors


class SentencePeer:
    """A model that sentence-transformers runs, with the prompts its folder states."""

    def __init__(self, name: str, device: str = "auto", max_tokens: int | None = None) -> None:
        self.name, self.cut = name, 0
        self.model = _sentence_transformer(name.removeprefix(SENTENCE_TRANSFORMERS), device)
        if max_tokens is not None:
            self.model.max_seq_length = max_tokens
        self._fingerprint = ""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        old = "get_sentence_embedding_dimension"  # its name before sentence-transformers 6
        name = "get_embedding_dimension" if hasattr(self.model, "get_embedding_dimension") else old
        return int(getattr(self.model, name)())

    @property
    def fingerprint(self) -> str:
        """A hash of every weight, the modules, prompts and limit of tokens."""
        if not self._fingerprint:
            digest = hashlib.sha256()
            for name, tensor in sorted(self.model.state_dict().items()):
                raw = tensor.detach().cpu().contiguous().flatten()
                digest.update(name.encode() + str(tensor.dtype).encode())
                digest.update(raw.view(torch.uint8).numpy().data)
            facts = (str(self.model), self.model.prompts, self.model.max_seq_length)
            self._fingerprint = _hash(digest.hexdigest(), *map(str, facts))
        return self._fingerprint

    @property
    def takes_instructions(self) -> bool:
        """Whether its query prompt has a place for one, as ``Instruct: ...`` and ``Query:``."""
        return _INSTRUCT.search(self._query_prompt) is not None

    @property
    def _query_prompt(self) -> str:
        return str(self.model.prompts.get("query") or "")

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Embed queries with the model's query prompt, an instruction put in its place there.

        Raises:
            InputError: An instruction is given to a model whose query prompt is fixed.
        """
        options: dict[str, Any] = {"show_progress_bar": False, "convert_to_numpy": True}
        if instruction is not None:
            options["prompt"] = self._with(instruction)
        return self._floats(self.model.encode_query(list(texts), **options))

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Embed documents with the model's document prompt, if it has one."""
        vectors = self.model.encode_document(list(texts), show_progress_bar=False)
        return self._floats(vectors)

    def _with(self, instruction: str) -> str:
        prompt = self._query_prompt
        if not prompt:
            return INSTRUCT_PREFIX.replace(INSTRUCTION_SLOT, instruction)
        if not self.takes_instructions:
            raise InputError(
                f"{self.name} writes {prompt!r} before every query and takes no instruction; "
                f"given: {instruction!r}. Leave the instruction out."
            )
        return _INSTRUCT.sub(lambda _: instruction, prompt)

    def _floats(self, vectors: Any) -> Vectors:  # noqa: ANN401 (the library's own)
        return np.asarray(vectors, dtype=np.float32).reshape(-1, self.dimension)


class RemotePeer:
    """A model of a server, which gets texts with the prefixes stated."""

    def __init__(
        self, name: str, server: RemoteEmbedder, query_prefix: str, document_prefix: str
    ) -> None:
        self.name, self.server, self.cut = name, server, 0
        self.query_prefix, self.document_prefix = query_prefix, document_prefix
        self._dimension = 0

    @property
    def dimension(self) -> int:
        """Numbers in a vector; asks the server once."""
        if not self._dimension:
            self._dimension = int(self.server.embed([_PROBE]).shape[1])
        return self._dimension

    @property
    def fingerprint(self) -> str:
        """A hash of address, model, prefixes and dimension: a server does not show its weights."""
        server = (self.server.base, self.server.dialect, self.server.model)
        return _hash(*server, self.query_prefix, self.document_prefix, str(self.dimension))

    @property
    def takes_instructions(self) -> bool:
        """Whether the prefix stated for queries has a place for one."""
        return INSTRUCTION_SLOT in self.query_prefix

    def encode_query(self, texts: Sequence[str], instruction: str | None = None) -> Vectors:
        """Embed queries; where the prefix has a place for an instruction, None is the default one.

        Raises:
            InputError: An instruction is given and the prefix has no place for it.
        """
        if instruction is not None and not self.takes_instructions:
            raise InputError(
                f"The queries' prefix for {self.name} is {self.query_prefix!r}, which has no "
                f"{INSTRUCTION_SLOT} for the instruction {instruction!r}."
            )
        prefix = self.query_prefix.replace(INSTRUCTION_SLOT, instruction or DEFAULT_INSTRUCTION)
        return self._embed(texts, "query", prefix)

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Embed documents."""
        return self._embed(texts, "document", self.document_prefix)

    def _embed(self, texts: Sequence[str], role: Any, prefix: str) -> Vectors:  # noqa: ANN401
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        return self.server.embed([prefix + text for text in texts], role)


def _sentence_transformer(name: str, device: str) -> Any:  # noqa: ANN401 (an optional library)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError(
            f"{SENTENCE_TRANSFORMERS}{name} needs sentence-transformers, which is not installed: "
            "pip install sentence-transformers."
        ) from error
    try:
        return SentenceTransformer(name, device=None if device == "auto" else device)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"sentence-transformers cannot load {name!r}: {str(error).splitlines()[0]}"
        ) from error


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]
