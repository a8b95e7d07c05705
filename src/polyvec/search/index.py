"""A folder's documents into an index: only what has changed is read, only new texts are embedded.

What is done is in the tables after every batch; a run that was killed at any point is gone on with
by the next one. A file's old chunks go when all of its new ones are in.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from polyvec.engine.embedder import Embedder
from polyvec.errors import IndexMismatchError, IndexMissingError, InputError
from polyvec.hub import lasting_name
from polyvec.search.batch import Batch, chunks_of
from polyvec.search.database import other_cut
from polyvec.search.place import check_new_place, index_of
from polyvec.search.reader import Reader
from polyvec.search.rows import SHARED_FORMAT, ChunkSettings, Document, IndexInfo
from polyvec.search.runs import refresh, silent, updating
from polyvec.search.scan import Scan, Seen, scan
from polyvec.search.settings import MB, ReadSettings
from polyvec.search.sources import Sources
from polyvec.search.storage import reaching
from polyvec.search.store import Store
from polyvec.search.turns import Tell
from polyvec.search.worker import Reading


@dataclass
class Progress:
    """How far a run is."""

    files: int = 0
    """Files there are to look at."""
    files_done: int = 0
    bytes: int = 0
    bytes_done: int = 0
    tokens: int = 0
    """Embedded so far."""
    path: str = ""
    """The file that was read last."""


OnProgress = Callable[[Progress], None]


@dataclass
class Report:
    """What a run did."""

    index: str
    root: str
    added: int = 0
    changed: int = 0
    moved: int = 0
    """Files that were under another path before, by content."""
    deleted: int = 0
    unchanged: int = 0
    without_text: int = 0
    """Files that are neither text nor a document, or have no text in them."""
    ignored: int = 0
    links: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Files and folders that could not be read, with the reason; of earlier runs too."""
    chunks: int = 0
    """In the index now."""
    embedded_chunks: int = 0
    reused_chunks: int = 0
    """Written without embedding, because the same text had a vector."""
    tokens: int = 0
    """Embedded in this run."""
    seconds: float = 0.0

    @property
    def files_read(self) -> int:
        """Files that were read in this run."""
        return self.added + self.changed + self.moved

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        seconds = max(self.seconds, 1e-9)
        rates = {"files_per_s": self.files_read / seconds, "tokens_per_s": self.tokens / seconds}
        return asdict(self) | {name: round(rate, 1) for name, rate in rates.items()}


def open_index(
    root: Path,
    embedder: Embedder,
    model: str,
    uri: str | None = None,
    chunking: ChunkSettings | None = None,
    source: str | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Store:
    """Open the index of a folder, or make it.

    Args:
        root: The folder.
        embedder: What embeds its documents.
        model: The name that ``embedder`` was loaded by; a new index records it, to load it again.
        uri: Where the index is or is to be; None is the folder's own place.
        chunking: How documents are cut; None is as the index has it, or the defaults.
        source: The folder's name in an index of several. Given, or in an object store, a new index
            is one of several; None is then the name that the folder had before, else its own.
        storage_options: What LanceDB is told about an object store, beside what its file says.

    Raises:
        IndexMismatchError: The index is of another model, cut or folder.
        InputError: The model cannot read chunks of that size, the source's name is taken, or
            a new index would lie among other files.
        StorageError: An object store refused, or cannot be reached.
    """
    place = uri or index_of(root)
    fingerprint = embedder.files.fingerprint()
    try:
        store = Store.open(place, fingerprint, storage_options)
    except IndexMissingError:
        check_new_place(place, root)
        info = _new_info(root, embedder, model, chunking, source is not None or "://" in place)
        store = Store.create(place, info, storage_options)
    if chunking is not None and chunking != store.info.chunking:
        raise other_cut(place, store.info, replace(store.info, chunking=chunking))
    if store.info.is_shared:
        _claim(store, root, source)
    else:
        _check_folder(store, root, source)
    return store


def _new_info(
    root: Path, embedder: Embedder, model: str, chunking: ChunkSettings | None, is_shared: bool
) -> IndexInfo:
    fingerprint, cut = embedder.files.fingerprint(), fitting_chunks(embedder, chunking)
    name, place = lasting_name(model), str(root.resolve())
    info = IndexInfo(name, fingerprint, embedder.dimension, place, cut)
    return replace(info, root="", format=SHARED_FORMAT) if is_shared else info


def _claim(store: Store, root: Path, name: str | None) -> None:
    def known(name: str) -> list[str]:
        return [document.path.removeprefix(f"{name}/") for document in store.documents(f"{name}/")]

    with reaching(store.uri):
        store.source = Sources(store.database).claim(root, name, known)


def _check_folder(store: Store, root: Path, source: str | None) -> None:
    if source is not None:
        raise IndexMismatchError(
            f"The index {store.uri} is of one folder, {store.info.root}; --source {source} is for "
            "an index of several. Make that at another place: polyvec index FOLDER --index PLACE "
            f"--source {source}"
        )
    if store.info.root != str(root.resolve()):
        raise IndexMismatchError(
            f"The index {store.uri} is of {store.info.root}, and {root.resolve()} was given: its "
            "files would replace the others. Leave --index out, or, if the folder has moved, add "
            "--migrate. For several folders in one index, make it with --source NAME."
        )


def fitting_chunks(embedder: Embedder, chunking: ChunkSettings | None) -> ChunkSettings:
    """Return how to cut for a model: as asked for, or the defaults, or less if it reads less.

    Raises:
        InputError: More was asked for than the model reads.
    """
    frame = embedder.tokenizer.encode([""], embedder.spec, "document").counts[0]
    room = embedder.spec.max_tokens - frame - 1  # a token more where prefix and text meet
    if chunking is None:
        most = min(ChunkSettings.max_tokens, room)
        return ChunkSettings(most, min(ChunkSettings.overlap_tokens, most // 8))
    if chunking.max_tokens > room:
        raise InputError(
            f"Chunks of {chunking.max_tokens} tokens were asked for, and this model reads {room} "
            "beside its prefix. Give --chunk-tokens of at most that."
        )
    return chunking


def update(
    store: Store,
    embedder: Embedder,
    settings: ReadSettings,
    on_progress: OnProgress | None = None,
    tell: Tell = silent,
) -> Report:
    """Bring an index up to its folder.

    Args:
        store: The index.
        embedder: What embeds; of the index's fingerprint.
        settings: What is read.
        on_progress: Called after every file and every batch.
        tell: Told in a sentence which other run this one waits for.

    Raises:
        InputError: The folder is gone or empty, and the index is not.
        MissingExtraError: A library is not installed.
        StorageError: An object store refused, or cannot be reached.
        TurnLostError: This run was silent for so long that another may have gone on with it.
    """
    begun = time.monotonic()
    with updating(store, tell):
        report = _Run(store, embedder, settings, on_progress).run()
    report.seconds = time.monotonic() - begun
    return report


class _Run:
    """One pass over a folder."""

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        settings: ReadSettings,
        on_progress: OnProgress | None,
    ) -> None:
        self.store, self.settings = store, settings
        self.source, self.root = store.source, store.source.root
        self.report = Report(store.uri, str(self.root))
        self.progress, self.on_progress = Progress(), on_progress
        self.batch = Batch(store, embedder, self._tell)
        self.tokenizer = embedder.tokenizer.backend
        prefix, path = self.source.prefix, self.source.path
        store.delete_chunks(store.doubled_ids(prefix))  # their files are read again
        self.known = {path(document.path): document for document in store.documents(prefix)}
        self.counts = {path(key): count for key, count in store.chunk_counts(prefix).items()}

    def run(self) -> Report:
        """Read what is new, then forget what is gone."""
        found = self._scan()
        wanted = [seen for seen in found.files if not self._is_unchanged(seen)]
        self.report.unchanged = len(found.files) - len(wanted)
        self.progress.files, self.progress.bytes = len(wanted), sum(s.size_bytes for s in wanted)
        gone = self._gone(found)
        lost = Counter(self.known[path].document_id for path in gone if path in self.known)
        for seen, reading in self._readings(wanted):
            self._take(seen, reading, lost)
            self.progress.files_done += 1
            self.progress.bytes_done += seen.size_bytes
            self._tell(0, seen.path)
        self.batch.flush()
        self.store.delete_documents([self.source.key(path) for path in gone])
        if wanted or gone or (self.known and not self.store.has_words()):
            refresh(self.store)
        return self._finished(found, gone)

    def _scan(self) -> Scan:
        index = None if "://" in self.store.uri else Path(self.store.uri).resolve()
        found = scan(self.root, self.settings, index)
        if not found.files and self.known:
            named = f"polyvec index --index {self.store.uri} --source {self.source.name} --forget"
            raise InputError(
                f"{self.root} has no files to read, and its index has {len(self.known):,}. Is it a "
                "drive that is not mounted? If everything was deleted, "
                + (named if self.source.name else f"delete the index too: {self.store.uri}")
            )
        return found

    def _is_unchanged(self, seen: Seen) -> bool:
        row = self.known.get(seen.path)
        if row is None or (row.size_bytes, row.modified_ns) != (seen.size_bytes, seen.modified_ns):
            return False
        return self._is_whole(seen.path) and not (
            row.state == "failed" and self.settings.retry_failed
        )

    def _is_whole(self, path: str) -> bool:
        """Whether the index has the chunks that the document's row says it has."""
        return self.counts.get(path, 0) == self.known[path].chunks

    def _gone(self, found: Scan) -> list[str]:
        """Return the paths that the index has and the folder has not.

        What lies under a folder that cannot be listed now stays.
        """
        here = {seen.path for seen in found.files}
        hidden = tuple(path for path in found.unreadable if path.endswith("/"))
        known = self.known.keys() | self.counts.keys()
        if "." in found.unreadable:
            return []
        return sorted(path for path in known - here if not path.startswith(hidden or "\0"))

    def _readings(self, wanted: list[Seen]) -> Iterator[tuple[Seen, Reading]]:
        most = self.settings.max_file_mb * MB
        for seen in wanted:
            if seen.size_bytes > most:
                size = f"{seen.size_bytes / MB:,.0f} MB, and {self.settings.max_file_mb:,} MB"
                yield seen, Reading(problem=f"it has {size} are allowed (--max-file-mb)")
        small = [seen for seen in wanted if seen.size_bytes <= most]
        asked = [(seen.path, self._known_id(seen)) for seen in small]
        with Reader(self.root, self.tokenizer, self.store.info.chunking, self.settings) as reader:
            readings = reader.read_all(asked)
            for seen, (_, reading) in zip(small, readings, strict=True):
                yield seen, reading

    def _known_id(self, seen: Seen) -> str:
        row = self.known.get(seen.path)
        is_good = row is not None and row.state != "failed" and self._is_whole(seen.path)
        return row.document_id if row is not None and is_good else ""

    def _take(self, seen: Seen, reading: Reading, lost: Counter[str]) -> None:
        before = self.known.get(seen.path)
        if reading.is_known and before is not None:
            touched = replace(before, modified_ns=seen.modified_ns)
            self.batch.add(touched, None)
            self.report.unchanged += 1
            return
        document = self._document(seen, reading)
        chunks = chunks_of(document, reading.pieces)
        self.batch.add(document, chunks)
        if document.state in ("indexed", "empty"):
            is_moved = before is None and lost[reading.document_id] > 0
            lost[reading.document_id] -= is_moved  # of two copies one was moved, one is new
            kind = "changed" if before else "moved" if is_moved else "added"
            setattr(self.report, kind, getattr(self.report, kind) + 1)

    def _document(self, seen: Seen, reading: Reading) -> Document:
        state = "indexed" if reading.pieces else "empty"
        if reading.problem or reading.is_binary:
            state = "failed" if reading.problem else "skipped"
        return Document(
            path=self.source.key(seen.path),
            document_id=reading.document_id,
            size_bytes=seen.size_bytes,
            modified_ns=seen.modified_ns,
            file_type=reading.file_type,
            title=reading.title,
            state=state,  # type: ignore[arg-type]
            reason=reading.problem,
            chunks=len(reading.pieces),
            tokens=sum(piece.tokens for piece in reading.pieces),
            indexed_at=datetime.now(UTC),
        )

    def _tell(self, tokens: int, path: str | None = None) -> None:
        self.progress.tokens += tokens
        self.progress.path = path or self.progress.path
        if self.on_progress is not None:
            self.on_progress(self.progress)

    def _finished(self, found: Scan, gone: list[str]) -> Report:
        report, batch = self.report, self.batch
        documents = self.store.documents(self.source.prefix)
        report.deleted = len(gone) - report.moved
        report.ignored, report.links = found.ignored, found.links
        report.without_text = found.without_text
        report.without_text += sum(d.state in ("empty", "skipped") for d in documents)
        report.failed = {d.path: d.reason for d in documents if d.state == "failed"}
        report.failed |= {self.source.key(path): why for path, why in found.unreadable.items()}
        report.chunks = self.store.count()
        report.embedded_chunks, report.reused_chunks = batch.embedded_chunks, batch.reused_chunks
        report.tokens = batch.tokens
        return report
