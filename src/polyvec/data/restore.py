"""Subsets that were published as ids, given their texts back from where those are published.

Licences let nvidia/embed-nemotron-dataset-v1 pass on some subsets only as ids (``ids_only``): a
question ``q_17`` is row 17 of a source's queries, a document ``d_5`` row 5 of its documents.
``source_config.json`` says where from, in one of two ways: *mteb*, a data set with the configs
``queries`` and ``corpus`` and their column ``text``; *column*, two columns of one table. The rules
are those of NeMo Automodel's ``data_preparation.py``.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from polyvec.disk import full_disk_is_an_error
from polyvec.errors import DownloadError, InputError, OutputError
from polyvec.records.corpus import CORPUS, QUERIES, SUBSET_METADATA, read_json_object
from polyvec.records.table import parquet_module, read_table

SOURCE_CONFIG = "source_config.json"
HUB = "hf:"

_PARQUET_REVISION = "refs/convert/parquet"
"""The Hub keeps every data set as Parquet here, CONFIG/SPLIT/0000.parquet, in the rows' order."""
_BATCH_ROWS = 8_192

Prefix = Literal["q", "d"]


class Table(NamedTuple):
    """One column of a source."""

    config: str
    split: str
    column: str


@dataclass(frozen=True)
class Restored:
    """What was restored."""

    name: str
    queries: int
    documents: int
    source: str
    """The repository or folder the texts are from."""


Find = Callable[[str, Table], list[Path]]
"""Gives the files of a source's table, in the order of their rows."""


def restore(subset: str, output: Path, source: Path | None = None, force: bool = False) -> Restored:
    """Write a subset with its texts, in the layout it came in.

    Args:
        subset: A folder with ``queries.parquet``, ``corpus.parquet``, ``dataset_metadata.json`` and
            ``source_config.json``, or ``hf:ORG/NAME/SUBSET`` to fetch it.
        output: The folder to make.
        source: A folder with the source's files, where they are here; else they are fetched.
        force: Replace an earlier output; nothing else is.

    Raises:
        InputError: The subset is no ids-only one, or an id is not in the source.
        DownloadError: Something cannot be fetched.
        OutputError: The output exists, or is nothing that may be replaced.
        MissingExtraError: pyarrow is not installed.
    """
    parquet_module()
    _check_output(output, force)
    folder = _subset_folder(subset)
    metadata = read_json_object(folder / SUBSET_METADATA)
    if not metadata.get("ids_only"):
        raise InputError(f"{subset} has its texts already (no ids_only): use it as it is.")
    config = read_json_object(folder / SOURCE_CONFIG)
    queries, documents = _tables(config, folder / SOURCE_CONFIG)
    find = _in_folder(source) if source is not None else _on_hub
    partial = output.with_name(f".{output.name}.writing")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with full_disk_is_an_error(output, "Make room and run it again."):
            partial.mkdir(parents=True)
            where = str(source or config["source_repo"])
            counts = (
                _rewrite(folder / QUERIES, partial / QUERIES, "q", find(where, queries), queries),
                _rewrite(folder / CORPUS, partial / CORPUS, "d", find(where, documents), documents),
            )
            facts = {**metadata, "ids_only": False}
            (partial / SUBSET_METADATA).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
            if output.exists():
                shutil.rmtree(output)
            partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Restored(folder.name, *counts, where)


def _check_output(output: Path, force: bool) -> None:
    """Refuse to write over anything but an earlier output."""
    if not output.exists():
        return
    if not force:
        raise OutputError(f"{output} exists already; use --force to replace it, or another name.")
    if not (output / SUBSET_METADATA).is_file():
        raise OutputError(
            f"{output} is no subset with its texts (it has no {SUBSET_METADATA}), so --force does "
            "not replace it. Give another name."
        )


def _tables(config: Mapping[str, Any], path: Path) -> tuple[Table, Table]:
    """Return where questions and documents are."""
    loader = config.get("loader_config")
    if "source_repo" not in config or loader not in ("mteb", "column"):
        raise InputError(
            f"{path} has the loader_config {loader!r} and the source_repo "
            f"{config.get('source_repo')!r}; known loaders: mteb, column."
        )
    if loader == "mteb":
        return Table("queries", "queries", "text"), Table("corpus", "corpus", "text")
    missing = [n for n in ("split", "query_column", "document_column") if n not in config]
    if missing:
        raise InputError(f"{path} has no {missing[0]!r}, which the column loader needs.")
    place = (str(config.get("subset", "default")), str(config["split"]))
    queries, documents = (str(config[f"{kind}_column"]) for kind in ("query", "document"))
    return Table(*place, queries), Table(*place, documents)


def _rewrite(before: Path, after: Path, prefix: Prefix, sources: list[Path], table: Table) -> int:
    """Copy a Parquet file with texts in place of ids; return its rows."""
    key, column = ("question", "question") if prefix == "q" else ("id", "text")
    wanted = {_number(row[key], prefix, before) for _, row in read_table(before)}
    texts = _texts(sources, table, wanted)
    missing = sorted(wanted - set(texts))
    if missing:
        raise InputError(
            f"{before} has {prefix}_{missing[0]}, and {', '.join(map(str, sources))} have no such "
            f"row ({len(missing):,} are missing). The source was changed, or is another one."
        )

    def restored(row: Mapping[str, Any]) -> str:
        return texts[_number(row[key], prefix, before)]

    return _copy(before, after, column, restored)


def _number(value: object, prefix: Prefix, path: Path) -> int:
    start, _, digits = str(value).partition("_")
    if start != prefix or not digits.isdigit():
        raise InputError(f"{path} has {value!r:.40} where an id like {prefix}_0 is expected.")
    return int(digits)


def _texts(sources: list[Path], table: Table, wanted: set[int]) -> dict[int, str]:
    """Return the wanted rows' texts by number, counted over all files."""
    texts = {}
    for number, (path, line, row) in enumerate(_rows(sources)):
        if number not in wanted:
            continue
        text = row.get(table.column)
        if not isinstance(text, str):
            raise InputError(
                f"{path}, row {line}: {table.column!r} is {text!r:.40}; a text is needed."
            )
        texts[number] = text
    return texts


def _rows(paths: list[Path]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for path in paths:
        for line, row in read_table(path):
            yield path, line, row


def _copy(before: Path, after: Path, column: str, text: Callable[[Mapping[str, Any]], str]) -> int:
    parquet = parquet_module()
    import pyarrow as pa

    file = parquet.ParquetFile(before)
    writer, rows = None, 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            texts = pa.array([text(row) for row in batch.to_pylist()], pa.string())
            names = table.column_names
            place = names.index(column) if column in names else len(names)
            table = table.drop_columns([column]) if column in names else table
            table = table.add_column(place, column, texts)
            writer = writer or parquet.ParquetWriter(after, table.schema)
            writer.write_table(table)
            rows += len(texts)
    finally:
        if writer is not None:
            writer.close()
    return rows


def _in_folder(folder: Path) -> Find:
    """Find tables in a folder: as the Hub converts them, as data sets are published, or JSONL."""

    def find(_name: str, table: Table) -> list[Path]:
        config, split, _ = table
        patterns = (
            f"{config}/{split}/*.parquet",
            f"{config}/{split}-*.parquet",
            f"data/{split}-*.parquet" if config == "default" else f"{config}-*.parquet",
            f"{config}.parquet",
            f"{split}.parquet",
            f"{config}.jsonl*",
            f"{split}.jsonl*",
        )
        for pattern in patterns:
            found = sorted(folder.glob(pattern))
            if found:
                return found
        raise InputError(
            f"{folder} has no files of the config {config!r} and the split {split!r}. Looked for: "
            f"{', '.join(patterns)}."
        )

    return find


def _on_hub(repository: str, table: Table) -> list[Path]:
    pattern = f"{table.config}/{table.split}/*.parquet"
    folder = _snapshot(repository, [pattern], _PARQUET_REVISION)
    found = sorted(folder.glob(pattern))
    if not found:
        raise DownloadError(
            f"{repository} has no {pattern} in the Hub's Parquet copy (large data sets have only "
            "part of one). Fetch it another way and give its folder with --source."
        )
    return found


def _subset_folder(subset: str) -> Path:
    if not subset.startswith(HUB):
        return Path(subset)
    repository, _, name = subset.removeprefix(HUB).rpartition("/")
    if repository.count("/") != 1:
        raise InputError(f"{subset} is not of the form hf:ORG/NAME/SUBSET.")
    return _snapshot(repository, [f"{name}/*"]) / name


def _snapshot(repository: str, patterns: list[str], revision: str | None = None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=patterns
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DownloadError(
            f"{repository} cannot be fetched from the Hugging Face Hub: {reason} Fetch it on "
            "another machine and give its folder."
        ) from error
