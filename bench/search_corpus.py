"""A hundred thousand real passages in two dozen languages for the search bench, and vectors.

Passages are paragraphs of Debian's package descriptions and of LibreOffice's help, questions are
one-line descriptions. The default model embeds them (576 numbers); a random linear map to 4,096
keeps who is near whom, and noise in every direction fills what the map leaves empty.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from polyvec.engine.embedder import Embedder, load
from polyvec.sources.descriptions import descriptions
from polyvec.sources.help_pages import help_pages

Vectors = npt.NDArray[np.float32]

MIN_CHARACTERS, MAX_CHARACTERS = 40, 300
EMBEDDED_CHARACTERS = 100
"""Of a passage: what is near what changes little, and a minute of embedding stays one."""
HELP_LANGUAGES = ("el", "hi", "id", "ru", "tr", "vi", "zh-CN")
"""Those that Debian's descriptions have few of."""
MOST_OF_A_LANGUAGE = 0.12
"""Share of the passages."""
QUERIES = 500
NOISE = 0.1
"""Length of the noise beside a vector of length 1."""
LATENT, CLUSTERS = 64, 500
_PART = 5_000


@dataclass(frozen=True)
class Passage:
    """A paragraph and where it is from."""

    path: str
    """``debian/de/zsh`` or ``help/de/swriter/01/01120000.html``."""
    ordinal: int
    language: str
    text: str


@dataclass(frozen=True)
class Question:
    """A package's one line, whose paragraphs are what is looked for."""

    path: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Passages, and what is asked."""

    passages: list[Passage]
    questions: list[Question]


def corpus(folder: Path, passages: int) -> Corpus:
    """Read the corpus from a folder, or draw it (a minute) and keep it there."""
    path = folder / f"corpus-{passages}.json"
    if not path.exists():
        drawn = draw(_descriptions(), _help(), passages)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(drawn), ensure_ascii=False))
        partial.rename(path)
    facts = json.loads(path.read_text())
    return Corpus(
        [Passage(**row) for row in facts["passages"]],
        [Question(**row) for row in facts["questions"]],
    )


def draw(packages: tuple[list[Passage], list[Question]], pages: list[Passage], most: int) -> Corpus:
    """Draw passages by a hash of their text, no language more than its share, and questions.

    Raises:
        ValueError: There are fewer.
    """
    found, asked = packages
    by_text = {passage.text: passage for passage in (*found, *pages)}
    counts: dict[str, int] = {}
    chosen: list[Passage] = []
    for passage in sorted(by_text.values(), key=lambda p: _hash(p.text)):
        taken = counts.get(passage.language, 0)
        if taken < MOST_OF_A_LANGUAGE * most:
            counts[passage.language] = taken + 1
            chosen.append(passage)
    if len(chosen) < most:
        raise ValueError(f"{most:,} passages were asked for; there are {len(chosen):,}.")
    chosen = chosen[:most]
    here = {passage.path for passage in chosen}
    fitting = sorted((q for q in asked if q.path in here), key=lambda q: _hash(q.text))
    return Corpus(chosen, fitting[:QUERIES])


def _descriptions() -> tuple[list[Passage], list[Question]]:
    passages, questions = [], []
    for language, found in descriptions().by_language.items():
        for package, text in found.items():
            path = f"debian/{language}/{package}"
            passages += list(_cut(path, language, text.paragraphs))
            questions.append(Question(path, text.short))
    return passages, questions


def _help() -> list[Passage]:
    return [
        passage
        for language, pages in help_pages(HELP_LANGUAGES).by_language.items()
        for name, page in pages.items()
        for passage in _cut(f"help/{language}/{name}", language, list(page.paragraphs.values()))
    ]


def _cut(path: str, language: str, paragraphs: Sequence[str]) -> Iterator[Passage]:
    for ordinal, text in enumerate(paragraphs):
        if len(text) >= MIN_CHARACTERS:
            yield Passage(path, ordinal, language.partition("-")[0], text[:MAX_CHARACTERS])


def _hash(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def embedded(given: Corpus, folder: Path, model: str = "default") -> tuple[Vectors, Vectors]:
    """Return the vectors of passages and of questions, made in parts that are kept in a folder."""
    embedder = load(model, precision="int8")
    place = folder / f"vectors-{embedder.files.fingerprint()[:12]}-{len(given.passages)}"
    place.mkdir(parents=True, exist_ok=True)
    texts = [passage.text[:EMBEDDED_CHARACTERS] for passage in given.passages]
    parts = [
        _part(place / f"{start:07}.npy", embedder, texts[start : start + _PART])
        for start in range(0, len(texts), _PART)
    ]
    questions = place / "questions.npy"
    if not questions.exists():
        _save(questions, embedder.encode_query([q.text for q in given.questions]))
    return np.concatenate(parts), np.load(questions)


def _part(path: Path, embedder: Embedder, texts: list[str]) -> Vectors:
    if not path.exists():
        _save(path, embedder.encode_document(texts, show_progress=False))
        print(f"embedded {path.stem}", flush=True)
    vectors: Vectors = np.load(path)
    return vectors


def _save(path: Path, vectors: Vectors) -> None:
    partial = path.with_suffix(".partial.npy")
    np.save(partial, vectors)
    partial.rename(path)


def rows(path: Path, part: slice) -> Vectors:
    """Read some rows of an array's file, without mapping it: what is mapped counts as memory."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, kind = np.lib.format.read_array_header_1_0(file)
        file.seek(part.start * shape[1] * kind.itemsize, 1)
        read = np.fromfile(file, kind, (part.stop - part.start) * shape[1])
    return read.reshape(-1, shape[1])


def widened(vectors: Vectors, dimension: int, seed: int) -> Vectors:
    """Map ``[n, d]`` to unit vectors ``[n, dimension]`` by a random matrix, noise added.

    The matrix is always the same; ``seed`` is the noise's, another one for other rows.
    """
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((vectors.shape[1], dimension), dtype=np.float32)
    wide = np.empty((len(vectors), dimension), dtype=np.float32)
    noise = np.random.default_rng(seed)
    for start in range(0, len(vectors), _PART):
        rows = unit(vectors[start : start + _PART]) @ (matrix / np.sqrt(dimension))
        grain = noise.standard_normal(rows.shape, dtype=np.float32)
        wide[start : start + _PART] = unit(rows + NOISE / np.sqrt(dimension) * grain)
    return wide


def clustered(rows: int, questions: int, dimension: int) -> tuple[Vectors, Vectors]:
    """Return synthetic vectors: 500 clusters in 64 directions, mapped to ``dimension``."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((CLUSTERS, LATENT), dtype=np.float32)
    every = centres[rng.integers(0, CLUSTERS, rows + questions)]
    every = every + 0.5 * rng.standard_normal(every.shape, dtype=np.float32)
    wide = widened(every, dimension, seed=2)
    return wide[:rows], wide[rows:]


def unit(vectors: Vectors) -> Vectors:
    """Return the rows with length 1."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled
