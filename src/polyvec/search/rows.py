"""What an index holds: documents, their chunks, and the facts of the index itself."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from polyvec.errors import InputError

Vectors = npt.NDArray[np.float32]
State = Literal["indexed", "empty", "failed", "skipped"]
"""Searchable; without any text; unreadable, with a reason; neither text nor document."""

FORMAT = 2
"""Of the tables, the newest that this program reads; it reads older ones too."""
SHARED_FORMAT = 2
"""Of an index of several folders, whose paths begin with the folder's name."""


@dataclass(frozen=True)
class Chunk:
    """A piece of a document, as long as a vector can stand for."""

    chunk_id: str
    """A hash of path, content and place: the same file cut the same way has the same ids."""
    source_id: str
    """A hash of path and content: one version of one file."""
    document_id: str
    """The hash of the file's bytes: copies of a file share it."""
    text_id: str
    """The hash of what was embedded: equal texts are embedded once."""
    path: str
    """From the index's root, with ``/``."""
    title: str
    """What the document calls itself, else its file name."""
    heading: str
    """The headings that the chunk stands under, outermost first, joined by `` > ``."""
    page: int | None
    """Where the chunk starts, from 1, where the format has pages (or slides)."""
    line_start: int | None
    """The chunk's first line in the file, from 1, where the file itself is lines of text."""
    line_end: int | None
    """Its last line."""
    language: str
    """A likely ISO 639 code; empty where there is too little text to tell."""
    file_type: str
    """``pdf``, ``docx``, ``markdown``, ``python``, ..."""
    modified_at: datetime
    """Of the file, in UTC."""
    ordinal: int
    """The chunk's number in its document, from 0."""
    text: str
    """What the document says there, nothing added."""

    @property
    def embedded_text(self) -> str:
        """What the vector was made of: the headings, and the text."""
        above = heading_above(self.heading, self.text)
        return f"{above}\n{self.text}" if above else self.text


def heading_above(heading: str, text: str) -> str:
    """Return a chunk's headings without the one that its text begins with."""
    outer, _, last = heading.rpartition(" > ")
    first_line = text.split("\n", 1)[0]
    return outer if last and first_line.strip("#= ").endswith(last) else heading


@dataclass(frozen=True)
class Document:
    """One file of the folder, and what became of it."""

    path: str
    document_id: str
    """The hash of its bytes; empty where they could not be read."""
    size_bytes: int
    modified_ns: int
    """As the file system has it: with the size, whether to look at the file again."""
    file_type: str
    title: str
    state: State
    reason: str
    """Why it failed, or what was left out; empty otherwise."""
    chunks: int
    tokens: int
    """Of all its chunks, as the model reads them."""
    indexed_at: datetime


@dataclass(frozen=True)
class ChunkSettings:
    """How documents are cut; one index has one way."""

    max_tokens: int = 400
    """Tokens of a chunk at most, of the model's own tokenizer, headings included."""
    overlap_tokens: int = 50
    """Tokens that a chunk repeats of the one before it, where a piece of text had to be cut."""

    def __post_init__(self) -> None:
        if not self.max_tokens >= 16:
            raise InputError(f"Chunks of {self.max_tokens} tokens say nothing; 16 is the least.")
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise InputError(
                f"An overlap of {self.overlap_tokens} tokens was asked for; chunks of "
                f"{self.max_tokens} may overlap by 0 to {self.max_tokens // 2}."
            )


@dataclass(frozen=True)
class IndexInfo:
    """The facts of an index: kept with it, and true of every vector in it."""

    model: str
    """The name the model was loaded by, to load it again for questions; a path may be another
    machine's, and the fingerprint decides which model it is."""
    fingerprint: str
    """Of spec and weights: vectors of another model are not comparable."""
    dimension: int
    root: str
    """The folder that paths start from, absolute; empty where each path names its source first."""
    chunking: ChunkSettings = field(default_factory=ChunkSettings)
    format: int = 1

    @property
    def is_shared(self) -> bool:
        """Whether several folders may be in it."""
        return self.format >= SHARED_FORMAT

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> "IndexInfo":
        """Return what :meth:`facts` gave."""
        return cls(**(facts | {"chunking": ChunkSettings(**facts["chunking"])}))


@dataclass(frozen=True)
class Hit:
    """A chunk that was found."""

    chunk: Chunk
    score: float
    """Cosine similarity of a dense search, BM25 of a full-text one: higher is better."""
