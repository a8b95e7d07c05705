"""``polyvec data``: training data checked, and restored from ids."""

from collections import Counter
from typing import TYPE_CHECKING

import typer

from polyvec.cli.flags import data as flags
from polyvec.cli.options import ForceOption, JsonOption, RecordFilesArgument
from polyvec.cli.output import print_json, results_console

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console

    from polyvec.data.check.run import Report

app = typer.Typer(
    help="Check training data, and give published ids their texts back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_SHOWN = 12


@app.command("check")
def check(
    files: RecordFilesArgument,
    tests: flags.TestFiles = None,
    model: flags.TokensOf = "default",
    max_tokens: flags.MaxTokens = 512,
    no_languages: flags.NoLanguages = False,
    query_column: flags.QueryColumn = None,
    positive_column: flags.PositiveColumn = None,
    negative_columns: flags.NegativeColumns = None,
    label_column: flags.LabelColumn = None,
    min_score: flags.MinScore = None,
    task: flags.Task = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is in files of records and what is wrong with them.

    Wrong are: a file without a row, rows that are no records, a pair of one text, a negative that
    is a positive, the same record twice, one text with two labels, and texts of the test files. The
    exit code is 0 if nothing is, else 3. Texts count as the same exactly, or but for case, width
    and white space.

    Examples:

    - `polyvec data check train.jsonl --test held_out.jsonl`
    - `polyvec data check pairs.csv --query-column en --positive-column de --task bitext`
    - `polyvec data check *.jsonl --model none --json`
    """
    from polyvec.data.check.run import CheckSettings, check_files
    from polyvec.records.columns import Columns

    columns = Columns(
        query=query_column,
        positive=positive_column,
        negatives=tuple(negative_columns or ()),
        label=label_column,
        min_score=min_score,
        task=task,
    )
    settings = CheckSettings(columns, not no_languages, max_tokens)
    report = check_files(files, tests or [], _measure(model), settings)
    if as_json:
        unit = "characters" if model == "none" else "tokens"
        print_json({**report.facts(), "unit": unit})
    else:
        _print(report, "characters" if model == "none" else "tokens", max_tokens)
    raise typer.Exit(0 if report.clean else 3)


@app.command("restore")
def restore(
    subset: flags.Subset,
    output: flags.RestoredFolder,
    source: flags.TextsSource = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give the texts back to a subset that was published as ids (`ids_only`).

    For nvidia/embed-nemotron-dataset-v1, whose licences leave out some texts: they are fetched
    from where they are published. The result is read by `polyvec train`, `mine` and `data check`.

    Examples:

    - `polyvec data restore hf:nvidia/embed-nemotron-dataset-v1/SciFact scifact`
    - `polyvec data restore ./SciFact scifact --source ./mteb-scifact`
    """
    from polyvec.data.restore import restore as run

    done = run(subset, output, source, force)
    if as_json:
        print_json({"output": str(output), **vars(done)})
    else:
        typer.echo(
            f"{done.queries:,} queries and {done.documents:,} documents of {done.name} with texts "
            f"from {done.source}: {output}"
        )


def _measure(model: str) -> "Callable[[Sequence[str]], list[int]]":
    if model == "none":
        return lambda texts: [len(text) for text in texts]
    from polyvec.hub import resolve
    from polyvec.model.files import open_model

    place = resolve(model)
    tokenizer = open_model(place.path, place.facts).tokenizer

    def count(texts: "Sequence[str]") -> list[int]:
        encodings = tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]

    return count


def _print(report: "Report", unit: str, limit: int) -> None:
    console = results_console()
    _print_contents(console, report)
    _print_lengths(console, report, unit, limit)
    for name, counted in (("scripts", report.scripts), ("languages (guessed)", report.languages)):
        for kind, own in counted.items() if report.records else ():
            console.print(f"{name} of {kind}: {_shares(own)}", markup=False, soft_wrap=True)
    _print_findings(console, report)


def _print_contents(console: "Console", report: "Report") -> None:
    console.print(f"{report.records:,} records in {', '.join(report.files)}", soft_wrap=True)
    counts: dict[str, Counter[str] | Counter[int]] = {
        "tasks": report.tasks,
        "sources": report.sources,
        "instructions": report.instructions,
        "positives a record": report.positives,
        "negatives a record": report.negatives,
    }
    for name, counter in counts.items() if report.records else ():
        console.print(f"{name}: {_counted(counter)}", markup=False, soft_wrap=True)
    if report.labels:
        shown = f"{_counted(report.labels)} (the most frequent {report.label_imbalance:.1f} times "
        console.print(f"labels: {shown}the rarest)", markup=False, soft_wrap=True)
    if report.repeated_queries:
        console.print(f"queries again with another positive: {report.repeated_queries:,}")


def _print_lengths(console: "Console", report: "Report", unit: str, limit: int) -> None:
    from rich.table import Table

    if not report.records:
        return
    table = Table(unit, "texts", "half up to", "90%", "99%", "longest", f"over {limit}", box=None)
    for kind, facts in report.lengths.items():
        if facts["texts"]:
            table.add_row(kind, *(f"{value:,}" for value in facts.values()))
    console.print(table)


def _print_findings(console: "Console", report: "Report") -> None:
    if report.clean:
        against = f", nor any of the {report.test_texts:,} test rows" if report.test_texts else ""
        console.print(f"\n[bold green]Nothing wrong was found[/]{against}.")
        return
    console.print("\n[bold red]Wrong:[/]")
    for kind, finding in report.findings.kinds.items():
        also = f", {finding.normalized:,} but for case and spaces" if finding.normalized else ""
        console.print(f"- [bold]{kind}[/]: {finding.exact:,}{also}")
        for example in finding.examples:
            console.print(f"    {example}", markup=False, soft_wrap=True)


def _counted(counter: Counter[str] | Counter[int]) -> str:
    shown = ", ".join(f"{key} {count:,}" for key, count in counter.most_common(_SHOWN))
    return shown + (f", and {len(counter) - _SHOWN} more" if len(counter) > _SHOWN else "")


def _shares(counts: "Mapping[str, int]") -> str:
    total = max(sum(counts.values()), 1)
    parts = [f"{name} {count / total:.1%}" for name, count in list(counts.items())[:_SHOWN]]
    more = f", and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    return ", ".join(parts) + more
