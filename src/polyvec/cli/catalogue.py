"""``polyvec catalogue``: what is known of embedding models."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from polyvec.catalogue.cards import Card, cards, families, find
from polyvec.catalogue.facts import KINDS
from polyvec.cli.flags import catalogue as flags
from polyvec.cli.options import MESSAGES, ForcePageOption, JsonOption
from polyvec.cli.output import print_json, results_console
from polyvec.errors import InputError

_COLUMNS = ("parameters", "dimension", "context_tokens", "languages", "commercial_use", "released")


def catalogue(
    models: flags.Models = None,
    html: flags.Html = None,
    force: ForcePageOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show known embedding models: size, licence, languages, published scores, how to run them.

    Each figure has its source; one that nobody states is not known. The page needs nothing else
    and may be mailed as it is; `polyvec serve` has it at /models.

    Examples:

    - `polyvec catalogue`
    - `polyvec catalogue llama-embed-nemotron-8b bge-m3`
    - `polyvec catalogue --html models.html`
    """
    known = cards()
    chosen = [find(name, known) for name in models or []]
    chosen = list({card.name: card for card in chosen}.values())
    if html is not None:
        _write(html, {card.name: card for card in chosen} or known, force)
        if not as_json:
            return
    if as_json:
        print_json([_facts(card) for card in chosen or known.values()])
    elif not chosen:
        _print_all(known)
    elif len(chosen) == 1:
        _print_card(chosen[0])
    else:
        _print_compared(chosen)


def _write(path: Path, chosen: Mapping[str, Card], force: bool) -> None:
    from polyvec.evaluate.results import write_file
    from polyvec.fit.prices import known_prices
    from polyvec.gallery.page import catalogue_page
    from polyvec.gallery.running import Running

    if path.exists() and not force:
        raise InputError(f"{path} exists already; use --force to replace it, or another name.")
    write_file(path, catalogue_page(chosen, Running(known_prices())).encode())
    MESSAGES.print(f"[dim]Catalogue: {path}[/]")


def _facts(card: Card) -> dict[str, Any]:
    from polyvec.gallery.scores import scores_of
    from polyvec.gallery.words import commands

    scores = scores_of(card)
    return {
        "name": card.name,
        "family": card.family,
        "provider": card.provider,
        "about": card.about,
        "facts": {key: asdict(fact) for key, fact in card.facts.items()},
        "mmteb": None
        if scores is None
        else {
            "by_type": dict(scores.by_type),
            "mean_of_types": scores.mean,
            "source": scores.source,
        },
        "commands": commands(card),
    }


def _print_all(known: Mapping[str, Card]) -> None:
    from polyvec.gallery.scores import all_scores
    from polyvec.gallery.words import figure

    scores = all_scores(known.values())
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for heading in ("size", "dims", "tokens", "langs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("sold", no_wrap=True)
    table.add_column("released", no_wrap=True)
    table.add_column("MMTEB", justify="right", no_wrap=True)
    for family, group in families(known.values()).items():
        table.add_row(Text(family, style="bold"))
        for card in group:
            cells = [_cell(figure(card, key)) for key in _COLUMNS]
            cells[-2:] = cells[-2].replace("with conditions", "cond."), cells[-1][:7]
            mean = f"{scores[card.name].mean:.1f}" if card.name in scores else "-"
            table.add_row(Text(f"  {card.short_name}"), *cells, mean)
    results_console().print(table)
    MESSAGES.print(
        "[dim]- is not known. sold: whether commercial use is allowed. MMTEB: published mean of "
        "task types. `polyvec catalogue MODEL` has the sources, two models are compared, --html "
        "makes a page.[/]"
    )


def _cell(words: str) -> str:
    from polyvec.gallery.words import NOT_KNOWN

    return "-" if words == NOT_KNOWN else words


def _print_card(card: Card) -> None:
    from polyvec.gallery.scores import SHORT, scores_of
    from polyvec.gallery.words import BYTES, commands, figure, weights, why_not

    sources = list(dict.fromkeys(fact.source for fact in card.facts.values()))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("model", Text(f"{card.name}: {card.about}"))
    table.add_row("made by", Text(f"{card.provider}, family {card.family}"))
    for key, kind in KINDS.items():
        fact = card.facts.get(key)
        mark = "" if fact is None else f" [{sources.index(fact.source) + 1}]"
        note = f" ({fact.note})" if fact is not None and fact.note else ""
        table.add_row(kind.label, Text(figure(card, key) + note + mark))
    table.add_row("weights take about", ", ".join(f"{p} {weights(card, p)}" for p in BYTES))
    scores = scores_of(card)
    if scores is None:
        table.add_row("MMTEB", "no published scores by task type are known")
    else:
        means = ", ".join(f"{name} {scores.by_type[kind]:.1f}" for kind, name in SHORT.items())
        table.add_row("MMTEB", Text(f"{scores.mean:.2f}: {means}"))
        table.add_row("", Text(scores.source, style="dim"))
    for place, line in enumerate(commands(card) or [why_not(card)]):
        table.add_row("" if place else "to run it", Text(line))
    for number, source in enumerate(sources, start=1):
        table.add_row("" if number > 1 else "sources", Text(f"[{number}] {source}", style="dim"))
    results_console().print(table)


def _print_compared(chosen: list[Card]) -> None:
    from polyvec.fit.prices import known_prices
    from polyvec.gallery.running import Running
    from polyvec.gallery.words import compared

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for card in chosen:
        table.add_column(card.short_name, overflow="fold")
    for name, cells in compared(chosen, Running(known_prices()).rows):
        style = "dim" if len(set(cells)) == 1 else ""
        table.add_row(Text(name, style="bold"), *(Text(cell, style=style) for cell in cells))
    results_console().print(table)
