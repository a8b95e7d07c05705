"""``polyvec rent``: where a GPU that runs a model is cheapest."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from polyvec.cli.fit import as_document
from polyvec.cli.flags import rent as flags
from polyvec.cli.options import MESSAGES, JsonOption, KnownModelArgument
from polyvec.cli.output import print_json, results_console
from polyvec.errors import InputError
from polyvec.fit.facts import ModelFacts, facts_of
from polyvec.fit.plan import TEXT_TOKENS, Work
from polyvec.fit.prices import (
    DEFAULT_PROVIDERS,
    TIMEOUT_S,
    Prices,
    Rental,
    prices,
    rentals,
)

_OLD_S = 3_600.0


def rent(
    model: KnownModelArgument = "default",
    precision: flags.Precision = "bf16",
    weights: flags.Weights = None,
    tokens: flags.Tokens = TEXT_TOKENS,
    provider: flags.Provider = None,
    spot: flags.Spot = None,
    top: flags.Top = 10,
    refresh: flags.Refresh = False,
    offline: flags.Offline = False,
    timeout_s: flags.TimeoutS = TIMEOUT_S,
    as_json: JsonOption = False,
) -> None:
    """List the cheapest GPUs for rent with enough memory for a model, spot and on demand.

    Prices come from the providers' own interfaces and are kept for an hour; without a network the
    last ones are used, with their age. Keys, where a provider wants one: VAST_API_KEY and
    RUNPOD_API_KEY.

    Examples:

    - `polyvec rent llama-embed-nemotron-8b`
    - `polyvec rent bge-m3 --on-demand --tokens 400`
    - `polyvec rent llama-embed-nemotron-8b --precision Q4_K_M --offline`
    """
    facts = facts_of(model)
    names = tuple(dict.fromkeys(provider or DEFAULT_PROVIDERS))
    known = prices(names, refresh, offline, timeout_s)
    found = rentals(known.offers, facts, precision, weights, Work(1_000_000, tokens))
    if spot is not None:
        found = [r for r in found if r.offer.is_spot == spot]
    if not found:
        raise InputError(_nothing(known, facts, precision))
    kinds = [[r for r in found if r.offer.is_spot == is_spot][:top] for is_spot in (False, True)]
    _warn(known)
    if as_json:
        print_json(_document(known, facts, kinds[0] + kinds[1]))
        return
    for title, rows in zip(("on demand", "spot, may be interrupted"), kinds, strict=True):
        if rows:
            _print(title, rows)
    _print_end(known, has_spot=bool(kinds[1]))


def _nothing(known: Prices, facts: ModelFacts, precision: str) -> str:
    most = max((offer.memory_gb for offer in known.offers), default=0.0)
    return (
        f"None of {len(known.offers):,} offers runs {facts.name} in {precision} that way; the "
        f"largest GPU among them has {most:,.0f} GB. Try --weights streamed, or another precision."
    )


def _warn(known: Prices) -> None:
    for problem in known.problems:
        MESSAGES.print(f"[bold yellow]warning:[/] {problem}", markup=True)
    for name in known.fetched_at:
        age = known.age_s(name)
        if age > _OLD_S:
            MESSAGES.print(
                f"[bold yellow]warning:[/] {name}'s prices are {_age(age)} old, from the cache."
            )


def _print(title: str, rows: list[Rental]) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("GPU", "provider", "where"):
        table.add_column(name)
    for name in ("memory", "needs", "$/GPU-hour", "$/million documents", "documents/s"):
        table.add_column(name, justify="right")
    table.add_column("runs")
    for row in rows:
        offer, a = row.offer, row.assessment
        per_million = "unknown" if row.price_per_million is None else f"{row.price_per_million:.3f}"
        rate = "unknown" if a.texts_per_s is None else f"{a.texts_per_s:,.0f}"
        table.add_row(
            f"{offer.gpus} x {offer.gpu}", offer.provider, offer.place,
            f"{offer.memory_gb:.0f} GiB", f"{a.memory.total / 2**30:.1f} GiB",
            f"{offer.price_per_gpu_h:.3f}", per_million, rate, f"[{a.color}]{a.source}[/]",
        )  # fmt: skip
    results_console().print(table, "")


def _print_end(known: Prices, has_spot: bool) -> None:
    ages = ", ".join(f"{name} {_age(known.age_s(name))}" for name in known.fetched_at)
    MESSAGES.print(
        f"[dim]Prices: {ages} old. Documents a second are computed from the maker's figures, not "
        "measured. A GPU of several is rented with all of them.[/]"
    )
    if has_spot:
        MESSAGES.print(
            "[bold yellow]warning:[/] spot machines are taken away without notice. There is no "
            "--resume to remember: `polyvec embed`, `train`, `index` and `evaluate` given the same "
            "command again go on where they stopped. For that, their output must lie on a disk "
            "that stays: a network volume, or copied away as it grows."
        )


def _age(seconds: float) -> str:
    for size, word in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} seconds"


def _document(known: Prices, facts: ModelFacts, rows: list[Rental]) -> dict[str, Any]:
    return {
        "model": facts.name,
        "fetched_at": known.fetched_at,
        "age_s": {name: known.age_s(name) for name in known.fetched_at},
        "problems": known.problems,
        "rentals": [
            asdict(row.offer)
            | {
                "price_per_gpu_h": row.offer.price_per_gpu_h,
                "price_per_million": row.price_per_million,
                "assessment": as_document(row.assessment),
            }
            for row in rows
        ],
    }
