"""``polyvec evaluate``: which model answers a person's own question best?"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from polyvec.cli.benchmark import BenchmarkOptions, run_benchmarks
from polyvec.cli.evaluate_tables import Comparison, print_results
from polyvec.cli.flags import evaluate as flags
from polyvec.cli.options import (
    MESSAGES,
    DeviceOption,
    InstructionOption,
    JsonOption,
    MaxTokensOption,
)
from polyvec.cli.output import print_json
from polyvec.errors import InputError
from polyvec.hub import cache_folder

if TYPE_CHECKING:
    from polyvec.engine.peers import Peer
    from polyvec.evaluate.collection import Collection
    from polyvec.evaluate.question import Question
    from polyvec.evaluate.results import ModelResult
    from polyvec.evaluate.several import Candidate, Outcome


def evaluate(
    models: flags.Models,
    queries: flags.Queries = None,
    corpus: flags.Corpus = None,
    qrels: flags.Qrels = None,
    beir: flags.Beir = None,
    split: flags.Split = "test",
    missing: flags.Missing = "error",
    metrics: flags.Metrics = None,
    dimensions: flags.Dimensions = None,
    skip_same_id: flags.SkipSameId = False,
    seed: flags.Seed = 0,
    output: flags.Output = Path("evaluation"),
    cache: flags.Cache = None,
    restart: flags.Restart = False,
    html: flags.Html = None,
    as_json: JsonOption = False,
    precision: flags.Precisions = None,
    device: DeviceOption = "auto",
    max_tokens: MaxTokensOption = None,
    query_prefix: flags.QueryPrefix = None,
    document_prefix: flags.DocumentPrefix = None,
    instruction: InstructionOption = None,
    benchmark: flags.Benchmark = None,
    tasks: flags.Tasks = None,
    dry_run: flags.DryRun = False,
) -> None:
    """Judge models on a collection of your own, or on a benchmark's tasks.

    A collection is queries, documents, and which answers which.

    Every query searches all documents exactly, by cosine. Means come with 95% bootstrap
    intervals, differences to the first model with a paired interval and a paired randomization
    test, corrected for the number of models.

    Examples:

    - `polyvec evaluate default st:./minilm -q q.jsonl -c c.jsonl -r qrels.tsv --html report.html`
    - `polyvec evaluate ./model --beir ./nfcorpus --dimensions 64 --dimensions 256`
    - `polyvec evaluate ./model "http://127.0.0.1:11434?model=m" --beir ./set --query-prefix "q: "`
    - `polyvec evaluate default --benchmark offline`
    - `polyvec evaluate ./model --benchmark "MTEB(Multilingual, v2)" --dry-run`

    A run that was interrupted goes on where it stopped: give the same command again.
    """
    from polyvec.evaluate.several import Places, candidates  # these bring torch

    wanted = candidates(models, precision or ["auto"])
    vectors = cache or cache_folder() / "vectors"
    options = {"device": device, "max_tokens": max_tokens}
    options |= {"query_prefix": query_prefix, "document_prefix": document_prefix}
    if benchmark is not None:
        _refuse_collection(queries, corpus, qrels, beir, metrics, dimensions, instruction, html)
        asked = BenchmarkOptions(benchmark, tasks or (), output, vectors, dry_run, as_json)
        run_benchmarks([_opener(candidate, options) for candidate in wanted], asked)
        return
    if tasks or dry_run:
        raise InputError("--task and --dry-run are of a benchmark: name it with --benchmark.")
    collection = _read(_files(queries, corpus, qrels, beir, split), missing)
    question = _question(metrics, dimensions, instruction, skip_same_id, seed)
    outcomes = _run(wanted, collection, question, Places(output, vectors, restart), options)
    _finish(outcomes, output, html, as_json)


def _refuse_collection(*given: object) -> None:
    if any(option for option in given):
        raise InputError(
            "--benchmark brings its own texts, instructions and scores: leave out --queries, "
            "--corpus, --qrels, --beir, --metric, --dimensions, --instruction and --html."
        )


def _opener(candidate: "Candidate", options: dict[str, Any]) -> Callable[[], "Peer"]:
    from polyvec.engine.peers import open_peer

    return lambda: open_peer(candidate.model, precision=candidate.precision, **options)


def _files(
    queries: Path | None, corpus: Path | None, qrels: Path | None, beir: Path | None, split: str
) -> tuple[Path, Path, Path]:
    single = [queries, corpus, qrels]
    if beir is not None and single == [None] * 3:
        return beir / "queries.jsonl", beir / "corpus.jsonl", beir / "qrels" / f"{split}.tsv"
    if beir is None and queries and corpus and qrels:
        return queries, corpus, qrels
    raise InputError("Give --queries, --corpus and --qrels, or a folder with --beir.")


def _read(files: tuple[Path, Path, Path], missing: str) -> "Collection":
    from polyvec.evaluate.collection import Missing, read_collection
    from polyvec.spec import check_choice

    check_choice("--missing", missing, Missing)
    chosen: Missing = "drop" if missing == "drop" else "error"
    collection = read_collection(*files, chosen)
    for note in collection.notes:
        MESSAGES.print(f"[bold yellow]warning:[/] {note}.", markup=True)
    empty = sum(not text.strip() for text in collection.documents.values())
    if empty:
        MESSAGES.print(
            f"[bold yellow]warning:[/] {empty:,} documents have no text; they have zeros for a "
            "vector and are found last."
        )
    return collection


def _question(
    metrics: list[str] | None,
    dimensions: list[int] | None,
    instruction: str | None,
    skip_same_id: bool,
    seed: int,
) -> "Question":
    from polyvec.evaluate.question import DEFAULT_METRICS, Question

    names = tuple(dict.fromkeys(metrics or DEFAULT_METRICS))
    sizes = tuple(sorted(set(dimensions or ())))
    return Question(names, instruction, sizes, skip_same_id, seed)


def _run(
    wanted: Sequence[Any],
    collection: "Collection",
    question: "Question",
    places: Any,  # noqa: ANN401 (Places; importing it brings torch)
    options: dict[str, Any],
) -> list["Outcome"]:
    from polyvec.evaluate.several import evaluate_models

    outcomes = []
    try:
        with _bars() as watch:
            for outcome in evaluate_models(wanted, collection, question, places, options, watch):
                _say(outcome)
                outcomes.append(outcome)
    except KeyboardInterrupt:
        MESSAGES.print("Interrupted. Give the same command again to go on.")
        raise typer.Exit(130) from None
    return outcomes


@contextmanager
def _bars() -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=MESSAGES, disable=not MESSAGES.is_terminal
    ) as bars:

        def watch(name: str, texts: int) -> Any:  # noqa: ANN401 (a callback)
            task = bars.add_task(name, total=texts)
            return lambda texts, _characters: bars.update(task, advance=texts)

        yield watch


def _say(outcome: "Outcome") -> None:
    name = outcome.candidate.name
    if outcome.error is not None:
        MESSAGES.print(f"{name} failed: {outcome.error}", style="bold red", markup=False)
    elif outcome.kept:
        MESSAGES.print(f"{name}: result of an earlier run", style="dim", markup=False)
    if outcome.cut:
        MESSAGES.print(
            f"warning: {outcome.cut:,} texts are longer than {name} reads and were cut.",
            style="yellow",
            markup=False,
        )


def _finish(outcomes: list["Outcome"], output: Path, html: Path | None, as_json: bool) -> None:
    from polyvec.evaluate.compare import compare
    from polyvec.evaluate.results import write_json

    results = [outcome.result for outcome in outcomes if outcome.result is not None]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not results:
        raise InputError("No model could be judged.") from failed[0].error
    comparison = compare(results)
    facts = _facts(results, comparison, failed)
    write_json(output / "comparison.json", facts)
    if html is not None:
        _write_html(html, results)
    if as_json:
        print_json(facts)
    else:
        print_results(results, comparison)
        MESSAGES.print(f"[dim]Results: {output}[/]")
    if failed:
        raise typer.Exit(1)


def _write_html(html: Path, results: list["ModelResult"]) -> None:
    from polyvec.evaluate.report import report_of
    from polyvec.evaluate.results import write_file

    write_file(html, report_of(results).encode())
    MESSAGES.print(f"[dim]Report: {html}[/]")


def _facts(
    results: list["ModelResult"], comparison: Comparison, failed: list["Outcome"]
) -> dict[str, Any]:
    return {
        "collection": results[0].collection,
        "counts": results[0].counts,
        "settings": results[0].settings,
        "models": [
            {
                "model": result.model,
                "fingerprint": result.fingerprint,
                "about": result.about,
                "scores": result.scores,
                "languages": result.languages,
                "dimensions": result.dimensions,
                "worst": result.worst,
            }
            for result in results
        ],
        "compared_with_first": comparison,
        "failed": {outcome.candidate.name: str(outcome.error) for outcome in failed},
    }
