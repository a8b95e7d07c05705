"""``polyvec index``: a folder's documents, made findable."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

import polyvec
from polyvec.cli.flags import index as flags
from polyvec.cli.options import (
    MESSAGES,
    DeviceOption,
    JsonOption,
    MemoryOption,
    PrecisionOption,
    StorageOption,
    WeightsOption,
)
from polyvec.cli.output import announce, print_json
from polyvec.cli.team import (
    forget,
    source_facts,
    source_lines,
    tell,
)
from polyvec.cli.terminal import visible
from polyvec.errors import InputError
from polyvec.search.place import index_of
from polyvec.search.rows import ChunkSettings
from polyvec.search.settings import ReadSettings
from polyvec.search.storage import stated_options, storage_options

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder
    from polyvec.search.index import OnProgress, Progress, Report
    from polyvec.search.store import Store

_SHOWN_FAILURES = 20


def index(
    folder: flags.Folder = None,
    model: flags.Model = None,
    index: flags.Index = None,
    status: flags.Status = False,
    watch: flags.Watch = False,
    migrate: flags.Migrate = False,
    source: flags.Source = None,
    forget_source: flags.ForgetSource = False,
    storage_option: StorageOption = None,
    chunk_tokens: flags.ChunkTokens = None,
    overlap_tokens: flags.OverlapTokens = None,
    hidden: flags.Hidden = False,
    no_ignore: flags.NoIgnore = False,
    retry: flags.Retry = False,
    max_file_mb: flags.MaxFileMb = ReadSettings.max_file_mb,
    read_timeout: flags.ReadTimeout = ReadSettings.read_timeout_s,
    as_json: JsonOption = False,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    memory: MemoryOption = None,
) -> None:
    """Make a folder's documents findable, or bring their index up to date.

    Reads PDF, Word, PowerPoint, Excel, OpenDocument, RTF, HTML, EPUB, mail, notebooks, Markdown,
    plain text and source code. Only what has changed since the last run is read, and only texts
    that are new are embedded. An interrupted run is gone on with by the same command.

    Examples:

    - `polyvec index ~/Documents`
    - `polyvec index ~/Documents --watch`
    - `polyvec index ~/Documents --status`
    - `polyvec index ~/Documents --model ./bigger-model --migrate`
    - `polyvec index /mnt/handbook --index s3://team/index --source handbook`
    """
    root, options = folder or Path.cwd(), stated_options(storage_option or ())
    if status or forget_source:
        _refuse_reading(status, forget_source, watch=watch, migrate=migrate, retry=retry)
    if forget_source:
        forget(index or index_of(root), source, options)
        return
    if not root.is_dir():
        raise InputError(f"{root} is no folder. Give the folder whose documents are to be found.")
    place = index or index_of(root)
    storage_options(place, options)  # a wrong one is told before a model is loaded
    if status:
        _show_status(place, options, as_json)
        return
    settings = _read_settings(hidden, no_ignore, retry, max_file_mb, read_timeout)
    how = {"precision": precision, "device": device, "weights": weights, "memory_bytes": memory}
    embedder, name = _loaded(model, place, options, how)
    announce(embedder, name)
    chunking = _chunking(chunk_tokens, overlap_tokens)
    where = {"source": source, "storage_options": options}
    with _may_be_interrupted():
        store = _opened(root, embedder, name, place, chunking, migrate, where)
        _update(store, embedder, settings, as_json)
        if watch:
            _follow(store, embedder, settings, as_json)


def _refuse_reading(status: bool, forget_source: bool, **reading: bool) -> None:
    """Refuse flags of a run that reads files beside one that does not."""
    given = [f"--{name}" for name, is_given in reading.items() if is_given]
    if status and forget_source:
        given.append("--forget")
    if given:
        does = "--status changes nothing" if status else "--forget only forgets"
        raise InputError(f"{does}, so it goes without {' and '.join(given)}: leave one out.")


def _read_settings(
    hidden: bool, no_ignore: bool, retry: bool, max_file_mb: int, timeout_s: float
) -> ReadSettings:
    return ReadSettings(
        hidden=hidden,
        ignore_files=not no_ignore,
        max_file_mb=max_file_mb,
        read_timeout_s=timeout_s,
        retry_failed=retry,
    )


@contextmanager
def _may_be_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        MESSAGES.print("Interrupted. What is done is kept: the same command goes on from there.")
        raise typer.Exit(130) from None


def _loaded(
    model: str | None, place: str, options: dict[str, str], how: dict[str, Any]
) -> "tuple[Embedder, str]":
    """Load the model asked for, else that of the index, else the default; with its name."""
    from polyvec.errors import IndexMissingError
    from polyvec.search.loading import load_model
    from polyvec.search.store import Store

    if model is None:
        with suppress(IndexMissingError):
            store = Store.open(place, storage_options=options)
            return load_model(store, **how), store.info.model
    name = model or "default"
    return polyvec.load(name, **how), name


def _chunking(tokens: int | None, overlap: int | None) -> ChunkSettings | None:
    if tokens is None and overlap is None:
        return None
    size = ChunkSettings.max_tokens if tokens is None else tokens
    shared = min(ChunkSettings.overlap_tokens, size // 8) if overlap is None else overlap
    return ChunkSettings(size, shared)


def _opened(
    root: Path,
    embedder: "Embedder",
    model: str,
    place: str,
    chunking: ChunkSettings | None,
    migrate: bool,
    where: dict[str, Any],
) -> "Store":
    from polyvec.search.index import open_index
    from polyvec.search.migrate import migrated

    if not migrate:
        return open_index(root, embedder, model, place, chunking, **where)
    with _bar(what="chunks") as on_progress:
        return migrated(root, embedder, model, place, chunking, on_progress, **where, tell=tell)


def _update(store: "Store", embedder: "Embedder", settings: ReadSettings, as_json: bool) -> None:
    from polyvec.search.index import update

    with _bar() as on_progress:
        report = update(store, embedder, settings, on_progress, tell)
    _show(report, as_json)


def _follow(store: "Store", embedder: "Embedder", settings: ReadSettings, as_json: bool) -> None:
    from polyvec.search.watch import changes

    root = store.source.root
    MESSAGES.print(f"Watching {escape(visible(str(root)))}; Ctrl-C ends it.")
    for _ in changes(root, Path(store.uri)):
        _update(store, embedder, settings, as_json)


def _show(report: "Report", as_json: bool) -> None:
    if as_json:
        print_json(report.facts())
        return
    counts = {
        "added": report.added,
        "changed": report.changed,
        "moved": report.moved,
        "deleted": report.deleted,
        "unchanged": report.unchanged,
        "without text": report.without_text,
    }
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    typer.echo(f"{said or 'No files'}; {report.chunks:,} chunks in {visible(report.index)}")
    if report.files_read:
        facts = report.facts()
        typer.echo(
            f"{report.embedded_chunks:,} chunks embedded, {report.reused_chunks:,} known already: "
            f"{report.tokens:,} tokens in {report.seconds:,.1f} s ({facts['files_per_s']:,} "
            f"files/s, {facts['tokens_per_s']:,.0f} tokens/s)"
        )
    if report.ignored or report.links:
        MESSAGES.print(
            f"[dim]Passed over: {report.ignored:,} hidden or ignored, {report.links:,} links[/]"
        )
    _show_failed(report.failed)


def _show_failed(failed: dict[str, str]) -> None:
    if not failed:
        return
    MESSAGES.print(f"[bold yellow]{len(failed):,} could not be read:[/]")
    for path, reason in list(failed.items())[:_SHOWN_FAILURES]:
        MESSAGES.print(Text(f"  {visible(path)}: {visible(reason)}"))
    if len(failed) > _SHOWN_FAILURES:
        MESSAGES.print(f"  and {len(failed) - _SHOWN_FAILURES:,} more: the same with --status")


def _show_status(place: str, options: dict[str, str], as_json: bool) -> None:
    from polyvec.search.store import Store

    store = Store.open(place, storage_options=options)
    documents = store.documents()
    states = Counter(str(document.state) for document in documents)
    types = Counter(d.file_type for d in documents if d.state == "indexed")
    failed = {d.path: d.reason for d in documents if d.state == "failed"}
    facts = {
        "index": store.uri,
        **store.info.facts(),
        **source_facts(store),
        "documents": dict(states),
        "file_types": dict(types.most_common()),
        "languages": store.language_counts(),
        "chunks": store.count(),
        "tokens": sum(document.tokens for document in documents),
        "bytes": _size_bytes(place),
        "last_change": max((d.indexed_at for d in documents), default=None),
        "failed": failed,
    }
    if as_json:
        print_json(facts)
        return
    chunking = store.info.chunking
    size = f", {facts['bytes'] / 1e6:,.0f} MB" if facts["bytes"] is not None else ""
    lines = {
        "Index": f"{store.uri}{size}",
        "Folder": store.info.root or "several",
        **source_lines(facts),
        "Model": f"{store.info.model} [{store.info.dimension}], {store.info.fingerprint}",
        "Chunks": f"{store.count():,} of up to {chunking.max_tokens} tokens",
        "Documents": _listed(states.most_common()),
        "Types": _listed(types.most_common()),
        "Languages": _listed(list(store.language_counts().items())),
    }
    for title, line in lines.items():
        typer.echo(f"{title:<9} {visible(line)}")
    for path, reason in failed.items():
        MESSAGES.print(Text(f"  {visible(path)}: {visible(reason)}"))


def _listed(counted: list[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {name or 'unknown'}" for name, count in counted[:12]) or "none"


def _size_bytes(place: str) -> int | None:
    if "://" in place:
        return None
    return sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())


class _Rate(ProgressColumn):
    """Tokens embedded a second since the start."""

    def render(self, task: Task) -> Text:
        """Show the rate."""
        rate = task.fields["tokens"] / max(task.elapsed or 0.0, 1e-9)
        return Text(f"{rate:,.0f} tokens/s", style="cyan")


@contextmanager
def _bar(what: str = "files") -> Iterator["OnProgress | None"]:
    """Give what shows progress: files, tokens a second, time left; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.fields[files_done]:,}/{task.fields[files]:,} " + what),
        BarColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[path]}[/]"),
    )
    with Bar(*columns, console=Console(stderr=True), get_time=time.monotonic) as bar:
        start = {"files_done": 0, "files": 0, "tokens": 0, "path": ""}
        task = bar.add_task("index", total=None, **start)  # type: ignore[arg-type]

        def show(progress: "Progress") -> None:
            bar.update(
                task,
                total=progress.bytes or None,
                completed=progress.bytes_done,
                files=progress.files,
                files_done=progress.files_done,
                tokens=progress.tokens,
                path=_short(progress.path),
            )

        yield show


def _short(path: str) -> str:
    """Keep a path to what fits beside a bar, and out of it markup and what a terminal obeys."""
    end = path if len(path) <= 40 else f"...{path[-37:]}"
    return escape(visible(end))
