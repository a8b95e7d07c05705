"""``polyvec pull``, ``polyvec models`` and ``polyvec info``: which models there are."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from polyvec.cli.flags import models as flags
from polyvec.cli.options import AttentionOption, JsonOption, MaxTokensOption, PoolingOption
from polyvec.cli.output import print_json, results_console
from polyvec.hub import ALIASES, cached_models, resolve
from polyvec.spec import (
    INSTRUCTION_SLOT,
    Architecture,
    BertArchitecture,
    LlamaArchitecture,
    Spec,
    spec_facts,
)

if TYPE_CHECKING:
    from polyvec.model.files import ModelFiles

_SEES = {
    "bidirectional": "every token sees every token",
    "causal": "a token sees those before it",
}
_POOLS = {
    "mean": "the mean of all token states",
    "last": "the last token's state",
    "cls": "the first token's state",
}


def pull(
    names: flags.Names,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model, so that it is here when it is needed.

    Examples:

    - `polyvec pull default`
    - `polyvec pull hf:Qwen/Qwen3-Embedding-0.6B`
    """
    places = {name: resolve(name).path for name in names}
    if as_json:
        print_json({name: str(path) for name, path in places.items()})
        return
    for name, path in places.items():
        typer.echo(f"{name} is at {path} ({_megabytes(_size(path))})")


def list_models(as_json: JsonOption = False) -> None:
    """List the models polyvec knows by a short name, and those that were fetched.

    Example: `polyvec models --json`
    """
    cached = {model.name: model for model in cached_models()}
    rows = [
        {
            "name": name,
            "source": alias.source,
            "license": alias.license,
            "about": alias.about,
            "size_bytes": cached[alias.source].size_bytes if alias.source in cached else None,
        }
        for name, alias in ALIASES.items()
    ]
    sources = {row["source"] for row in rows}
    rows += [
        {
            "name": m.name,
            "source": m.name,
            "license": "",
            "about": str(m.path),
            "size_bytes": m.size_bytes,
        }
        for m in cached.values()
        if m.name not in sources
    ]
    if as_json:
        print_json(rows)
    else:
        _print_models(rows)


def _print_models(rows: list[dict[str, Any]]) -> None:
    table = Table("name", "here", "what it is", "licence", "source", box=None)
    for row in rows:
        size = row["size_bytes"]
        here = "no; polyvec pull" if size is None else _megabytes(size)
        table.add_row(row["name"], here, row["about"], row["license"], row["source"])
    results_console().print(table)


def info(
    model: flags.Model = "default",
    as_json: JsonOption = False,
    attention: AttentionOption = None,
    pooling: PoolingOption = None,
    max_tokens: MaxTokensOption = None,
) -> None:
    """Say what a model is: attention, pooling, templates, limits, size, fingerprint.

    Examples:

    - `polyvec info`
    - `polyvec info ./my-model`
    - `polyvec info model.gguf --pooling mean --attention bidirectional`
    """
    from polyvec.model.files import open_model  # brings torch; only this command needs it

    place = resolve(model)
    given = {"attention": attention, "pooling": pooling, "max_tokens": max_tokens}
    stated = {**place.facts, **{k: v for k, v in given.items() if v is not None}}
    files = open_model(place.path, stated)
    if as_json:
        print_json(_facts(files))
    else:
        _print_info(files, model)


def _facts(files: "ModelFiles") -> dict[str, Any]:
    return {
        "path": str(files.path),
        "format": files.format,
        "spec": spec_facts(files.spec),
        "architecture": asdict(files.architecture),
        "parameters": files.architecture.num_parameters,
        "size_bytes": files.size_bytes,
        "fingerprint": files.fingerprint(),
    }


def _print_info(files: "ModelFiles", model: str) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _words(files, model):
        table.add_row(name, Text(value))
    results_console().print(table)


def _words(files: "ModelFiles", model: str) -> list[tuple[str, str]]:
    spec, shape = files.spec, files.architecture
    rows = [("model", f"{model}{': ' + ALIASES[model].about if model in ALIASES else ''}")]
    rows += [("files", f"{files.path} ({files.format}, {_megabytes(files.size_bytes)})")]
    rows += [
        ("attention", f"{spec.attention}: {_SEES[spec.attention]}"),
        ("pooling", f"{spec.pooling}: {_POOLS[spec.pooling]}"),
        ("normalized", "yes, to length 1" if spec.normalize else "no"),
        ("query", _template(spec.query_prefix)),
        ("document", _template(spec.document_prefix)),
    ]
    if INSTRUCTION_SLOT in spec.query_prefix:
        rows += [("instruction", f"{spec.default_instruction!r} unless another is given")]
    return [
        *rows,
        ("added tokens", _added_tokens(files)),
        ("dimension", _dimension(spec)),
        ("longest text", f"{spec.max_tokens:,} tokens; longer ones are cut, and that is reported"),
        ("network", f"{shape.model_type}, {shape.num_layers} layers, {shape.hidden_size} wide"),
        ("heads", _heads(shape)),
        ("positions", _positions(shape)),
        ("vocabulary", f"{shape.vocab_size:,} tokens"),
        ("parameters", f"{shape.num_parameters:,}"),
        ("fingerprint", files.fingerprint()),
    ]


def _heads(shape: Architecture) -> str:
    heads = f"{shape.num_heads} of {shape.head_dim}"
    if isinstance(shape, BertArchitecture):
        return heads
    return f"{heads}, {shape.num_kv_heads} for keys and values"


def _positions(shape: Architecture) -> str:
    if isinstance(shape, LlamaArchitecture):
        return f"RoPE {shape.rope.kind}, base {shape.rope.theta:,.0f}"
    return f"learned, {shape.max_positions:,} of them"


def _template(prefix: str) -> str:
    return repr(f"{prefix}{{text}}") if prefix else "the text as it is"


def _added_tokens(files: "ModelFiles") -> str:
    tokenizer = files.tokenizer
    parts = [
        f"{word} {tokenizer.decode(ids)}"
        for word, ids in (("first", tokenizer.bos_ids), ("last", tokenizer.eos_ids))
        if ids
    ]
    return ", ".join(parts) or "none"


def _dimension(spec: Spec) -> str:
    if not spec.matryoshka_dimensions:
        return f"{spec.dimension} (not Matryoshka: may not be cut)"
    return f"{spec.dimension}, Matryoshka: {', '.join(map(str, spec.matryoshka_dimensions))}"


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
