"""``polyvec report``: results of evaluations as one page, and as pictures."""

from pathlib import Path

from polyvec.cli.flags import report as flags
from polyvec.cli.options import MESSAGES, ForcePageOption
from polyvec.errors import InputError


def report(
    results: flags.Results,
    output: flags.Output = Path("report.html"),
    png: flags.Png = None,
    baseline: flags.Baseline = None,
    force: ForcePageOption = False,
) -> None:
    """Make a page of results: models by task type, languages, costs, the worst queries.

    The page needs nothing else, no network and no script, and may be mailed as it is.

    Examples:

    - `polyvec report evaluation -o report.html`
    - `polyvec report evaluation mteb-results --png charts`
    """
    from polyvec.evaluate.gather import gather
    from polyvec.evaluate.mmteb_instructions import published_types
    from polyvec.evaluate.pictures import write_pictures
    from polyvec.evaluate.report import report_of
    from polyvec.evaluate.results import write_file
    from polyvec.evaluate.summary import rows_of

    if output.exists() and not force:
        raise InputError(f"{output} exists already; use --force to replace it, or another name.")
    found = gather(results, published_types(), baseline)
    write_file(output, report_of(found.results, found.tasks).encode())
    MESSAGES.print(f"[dim]Report: {output}[/]")
    if png is not None:
        pictures = write_pictures(png, rows_of(found.results, found.tasks))
        MESSAGES.print(f"[dim]Pictures: {', '.join(map(str, pictures))}[/]")
