"""``polyvec verify``: do two models, files or servers give the same vectors?"""

from typing import TYPE_CHECKING

import typer
from rich.table import Table

from polyvec.cli.flags import verify as flags
from polyvec.cli.options import (
    MESSAGES,
    AttentionOption,
    DeviceOption,
    JsonOption,
    PoolingOption,
    PrecisionOption,
)
from polyvec.cli.output import print_json, results_console

if TYPE_CHECKING:
    from polyvec.publish.verify import Verdict


def verify(
    a: flags.TrustedModel,
    b: flags.DoubtedModel,
    min_cosine: flags.MinCosine = 0.999,
    html: flags.Html = None,
    as_json: JsonOption = False,
    precision: PrecisionOption = "fp32",
    device: DeviceOption = "auto",
    attention: AttentionOption = None,
    pooling: PoolingOption = None,
) -> None:
    r"""Compare the vectors of two models, files or servers, and say what is wrong.

    Each side is a model as elsewhere, or the address of a running server: OpenAI's, Ollama's and
    TEI's shapes are found out, Cohere's is named. The exit code is 0 if they agree, else 3.
    `--attention` and `--pooling` state what the files of A do not.

    Examples:

    - `polyvec verify ./model ./model.gguf`
    - `polyvec verify ./model "http://127.0.0.1:11434?model=nemotron"`
    - `polyvec verify ./model "cohere+http://127.0.0.1:8080?model=m" --html report.html`
    """
    from polyvec.publish.report import html_report  # these bring torch; only this command needs it
    from polyvec.publish.sides import open_side
    from polyvec.publish.verify import verify as compare

    options = {"precision": precision, "device": device}
    stated = {"attention": attention, "pooling": pooling}
    first = open_side(a, **options, **stated)
    second = open_side(b, **options)
    verdict = compare(first, second, (a, b), min_cosine)
    if html is not None:
        html.write_text(html_report(verdict), encoding="utf-8")
        MESSAGES.print(f"[dim]Report: {html}[/]")
    if as_json:
        print_json(verdict.facts())
    else:
        _print(verdict)
    raise typer.Exit(0 if verdict.agree else 3)


def _print(verdict: "Verdict") -> None:
    console = results_console()
    table = Table("as", "mean cosine", "lowest", "lowest text", "nearest kept", "ranks", box=None)
    for x in verdict.agreements:
        numbers = (f"{x.cosine_mean:.5f}", f"{x.cosine_min:.5f}")
        kept = (f"{x.neighbours_kept:.1%}", f"{x.rank_correlation:.4f}")
        table.add_row(x.role, *numbers, x.worst, *kept)
    console.print(table)
    console.print(f"over-long text: cosine {verdict.over_long_cosine:.5f}")
    word = "[bold green]agree[/]" if verdict.agree else "[bold red]differ[/]"
    console.print(f"\nThe vectors {word} (every cosine at least {verdict.min_cosine} is asked).")
    for diagnosis in verdict.diagnoses:
        console.print(f"- [bold]{diagnosis.kind}[/]: ", end="")
        console.print(diagnosis.words, markup=False)
