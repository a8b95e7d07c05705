"""An index to another model, other chunk sizes or another place of its folder.

Another model: the texts in the index are embedded anew into a table of their own, while questions
are still answered by the old one; then the facts name the new one, in one commit. It can be killed
anywhere and goes on. Other chunk sizes: every file is read and cut anew, and texts that stay the
same keep their vectors.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from polyvec.engine.embedder import Embedder
from polyvec.hub import lasting_name
from polyvec.search.index import OnProgress, Progress, fitting_chunks, open_index
from polyvec.search.rows import Chunk, ChunkSettings, IndexInfo
from polyvec.search.runs import migrating, silent
from polyvec.search.store import Store
from polyvec.search.turns import Tell

_TOGETHER_CHUNKS = 256


def migrated(
    root: Path,
    embedder: Embedder,
    model: str,
    uri: str,
    chunking: ChunkSettings | None = None,
    on_progress: OnProgress | None = None,
    source: str | None = None,
    storage_options: Mapping[str, str] | None = None,
    tell: Tell = silent,
) -> Store:
    """Return the index with this model, cut and folder, changed to them where it had others.

    Args:
        root: The folder, where it is now.
        embedder: The model it is to have.
        model: The name that ``embedder`` was loaded by.
        uri: The index.
        chunking: How documents are to be cut; None leaves it, unless the model reads less.
        on_progress: Called after every batch, with chunks for files.
        source: The folder's name, in an index of several.
        storage_options: What LanceDB is told about an object store, beside what its file says.
        tell: Told in a sentence which other run this one waits for.

    Raises:
        IndexMissingError: There is no index to migrate.
        InputError: The model cannot read chunks of that size.
        StorageError: An object store refused, or cannot be reached.
        TurnLostError: This run was silent for so long that another may have gone on.
    """
    waiting = Store.open(uri, storage_options=storage_options)
    with migrating(waiting, tell):
        store = Store.open(uri, storage_options=storage_options)  # as the last run left it
        store.before_write = waiting.before_write
        _migrate(store, root, embedder, model, chunking, on_progress)
    return open_index(root, embedder, model, uri, None, source, storage_options)


def _migrate(
    store: Store,
    root: Path,
    embedder: Embedder,
    model: str,
    chunking: ChunkSettings | None,
    on_progress: OnProgress | None,
) -> None:
    old = store.info
    wanted = chunking or old.chunking
    fits = fitting_chunks(embedder, chunking)
    if chunking is None and wanted.max_tokens > fits.max_tokens:
        wanted = fits
    if wanted != old.chunking:
        store.forget_documents()
    fingerprint = embedder.files.fingerprint()
    place = "" if old.is_shared else str(root.resolve())
    name, size = lasting_name(model), embedder.dimension
    info = IndexInfo(name, fingerprint, size, place, wanted, old.format)
    if old.fingerprint != fingerprint:
        target = store.begin_migration(info)
        if wanted == old.chunking:
            _embed_anew(store, target, embedder, on_progress)
        store.end_migration(info)
    elif info != old:
        store.end_migration(info)


def _embed_anew(
    source: Store, target: Store, embedder: Embedder, on_progress: OnProgress | None
) -> None:
    """Embed what ``target`` lacks of ``source``, until it lacks nothing: others may write."""
    progress = Progress()
    while missing := sorted(source.chunk_ids() - target.chunk_ids()):
        progress.files += len(missing)
        progress.bytes += len(missing)
        for start in range(0, len(missing), _TOGETHER_CHUNKS):
            chunks = source.chunks_by_id(missing[start : start + _TOGETHER_CHUNKS])
            progress.tokens += _copy(chunks, target, embedder)
            progress.files_done += len(chunks)
            progress.bytes_done += len(chunks)
            if on_progress is not None:
                on_progress(replace(progress))
    target.delete_chunks(sorted(target.chunk_ids() - source.chunk_ids()))


def _copy(chunks: list[Chunk], target: Store, embedder: Embedder) -> int:
    embedding = embedder.embed([chunk.embedded_text for chunk in chunks], "document")
    target.put_chunks(chunks, embedding.vectors)
    return sum(embedding.token_counts)
