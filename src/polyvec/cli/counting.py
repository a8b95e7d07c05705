"""The texts and tokens of a corpus, as `polyvec index` or `polyvec embed` would read it."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from polyvec.cli.options import MESSAGES
from polyvec.engine.rows import Columns, check_readable, read_rows
from polyvec.errors import InputError, PolyvecError
from polyvec.hub import ALIASES, cached_models, resolve

if TYPE_CHECKING:
    from polyvec.fit.corpus import Counted
    from polyvec.model.files import ModelFiles
    from polyvec.search.reader import Reader
    from polyvec.search.scan import Scan

_TEXT_ENDINGS = (".txt", ".md", ".rst", ".text")
_NEEDED = ("semantic_text_splitter", "pathspec")


def count_corpus(model: str, path: Path) -> "Counted":
    """Count a folder's documents, cut as `polyvec index` cuts them, or a file's rows.

    Without the extra ``search``, a folder's text files are counted whole, and that is said.

    Raises:
        InputError: Nothing is there, or the model's tokenizer is not on this machine.
    """
    from polyvec.fit.corpus import count_tokens

    if not path.exists():
        raise InputError(f"--corpus {path}: there is no such file or folder.")
    files = _opened(model)
    if not path.is_dir():
        check_readable([path], None)
        return count_tokens(files, (row.text for row in read_rows([path], Columns(), None)))
    if all(importlib.util.find_spec(name) for name in _NEEDED):
        return _count_documents(files, path)
    return _count_text_files(files, path)


def _opened(model: str) -> "ModelFiles":
    """Open a model that is here; nothing is fetched."""
    from polyvec.model.files import open_model

    source = ALIASES[model].source if model in ALIASES else model
    is_here = Path(model).expanduser().exists() or source in {m.name for m in cached_models()}
    if not is_here:
        raise InputError(
            f"--corpus needs the tokenizer of {model}, which is not on this machine. Give its "
            "folder or .gguf file, fetch it (`polyvec pull`), or state --texts and --tokens; "
            "`polyvec fit default --corpus ...` counts with the default model's."
        )
    place = resolve(model)
    # How texts are pooled decides no number here; some files leave it open.
    stated = {"attention": "bidirectional", "pooling": "mean"} | dict(place.facts)
    try:
        return open_model(place.path, dict(place.facts))
    except PolyvecError:
        return open_model(place.path, stated)


def _count_documents(files: "ModelFiles", folder: Path) -> "Counted":
    from polyvec.fit.corpus import Counted
    from polyvec.search.reader import Reader
    from polyvec.search.rows import ChunkSettings
    from polyvec.search.scan import scan
    from polyvec.search.settings import ReadSettings

    settings, folder = ReadSettings(), folder.resolve()
    found = scan(folder, settings)
    counts: list[int] = []
    with Reader(folder, files.tokenizer.backend, ChunkSettings(), settings) as reader:
        counts.extend(_piece_tokens(reader, found))
    if not counts:
        raise InputError(f"--corpus {folder}: no document with text in it was found.")
    return Counted(len(counts), sum(counts), max(counts), 0)


def _piece_tokens(reader: "Reader", found: "Scan") -> Iterator[int]:
    failed = 0
    for _, reading in reader.read_all([(seen.path, "") for seen in found.files]):
        failed += bool(reading.problem)
        yield from (piece.tokens for piece in reading.pieces)
    if failed:
        MESSAGES.print(
            f"[bold yellow]warning:[/] {failed:,} of {len(found.files):,} files could not be read "
            "and are not counted; `polyvec index` lists them with the reason."
        )


def _count_text_files(files: "ModelFiles", folder: Path) -> "Counted":
    from polyvec.fit.corpus import count_tokens

    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
    texts = [p for p in paths if p.suffix.lower() in _TEXT_ENDINGS]
    if len(texts) < len(paths):
        MESSAGES.print(
            f"[bold yellow]warning:[/] {len(paths) - len(texts):,} of {len(paths):,} files are no "
            "plain text and are not counted; pip install 'polyvec\\[search]' reads other formats."
        )
    if not texts:
        raise InputError(f"--corpus {folder}: no text file ({', '.join(_TEXT_ENDINGS)}) in it.")
    return count_tokens(files, (p.read_text(errors="replace") for p in texts))
