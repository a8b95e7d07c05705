"""``polyvec fit``: which device runs a model, how fast, how well and at what price."""

import time
from dataclasses import asdict, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from polyvec.cli.counting import count_corpus
from polyvec.cli.flags import fit as flags
from polyvec.cli.options import MESSAGES, JsonOption, KnownModelArgument
from polyvec.cli.output import print_json, results_console
from polyvec.errors import InputError
from polyvec.fit.corpus import Counted
from polyvec.fit.devices import Device, devices, find_device
from polyvec.fit.facts import ModelFacts, facts_of
from polyvec.fit.machine import cpu_flags, this_machine
from polyvec.fit.plan import TEXT_TOKENS, Assessment, Work
from polyvec.fit.prices import Prices, known_prices
from polyvec.fit.ranking import Ranked, every_way, ranked

_SHOWN_DEVICES = 12
_WORDS = {"green": "runs", "yellow": "runs, slower to answer", "red": "no"}


def fit(
    model: KnownModelArgument = "default",
    precision: flags.Precision = None,
    weights: flags.Weights = None,
    tokens: flags.Tokens = TEXT_TOKENS,
    texts: flags.Texts = 1000000,
    corpus: flags.Corpus = None,
    device: flags.Device = None,
    memory: flags.Memory = None,
    show_all: flags.ShowAll = False,
    measure: flags.Measure = False,
    as_json: JsonOption = False,
) -> None:
    """Say which devices run a model: memory, speed, quality and hours, the cheapest first.

    Nothing is downloaded: a model that is not here is taken from the catalogue. Figures are for
    polyvec: an embedder has no KV cache, and its layers may stay packed or on the disk.

    Examples:

    - `polyvec fit llama-embed-nemotron-8b --texts 200000 --tokens 300`
    - `polyvec fit default --corpus ./documents`
    - `polyvec fit bge-m3 --device "RTX 4090" --device L4 --json`
    """
    facts = facts_of(model)
    work, counted = Work(texts, tokens), None
    if corpus is not None:
        counted = count_corpus(model, corpus)
        work = Work(counted.texts, counted.tokens / counted.texts)
    here = _here(memory)
    judged = [a for d in here for a in every_way(facts, d, precision, weights, work, measure)]
    wanted = tuple(find_device(name) for name in device or []) or devices()
    known = known_prices()
    rows = ranked(facts, wanted, known.offers if known else [], precision, weights, work)
    if as_json:
        print_json(_document(facts, work, counted, judged, rows, known))
        return
    _print_head(facts, work, counted)
    if not device:
        _print_here(judged, here)
    shown = rows if show_all or device else [r for r in rows if r.best.color != "red"]
    _print_devices(shown if show_all else shown[:_SHOWN_DEVICES], len(rows), known, bool(device))


def _here(memory: int | None) -> list[Device]:
    found = this_machine()
    if memory is None:
        return found
    if memory == 0:
        raise InputError("--memory is 0: state what the machine has, for example 16GB.")
    return [replace(d, memory_gb=memory / 2**30) if d.kind == "cpu" else d for d in found]


def _print_head(facts: ModelFacts, work: Work, counted: Counted | None) -> None:
    shape, console = facts.architecture, results_console()
    console.print(
        f"[bold]{facts.name}[/]: {facts.parameters / 1e9:.2f} billion weights, "
        f"{shape.num_layers} layers of {shape.hidden_size} ({facts.source})"
    )
    counted_words = "" if counted is None else f", counted; the longest has {counted.longest:,}"
    console.print(
        f"{work.texts:,} texts of {work.tokens_per_text:,.0f} tokens: "
        f"{_count(work.tokens)} tokens{counted_words}\n"
    )


def _print_here(judged: list[Assessment], here: list[Device]) -> None:
    table = _table("this machine", "precision", "weights")
    for a in judged:
        table.add_row(a.device.name, a.precision, a.source, *_figures(a))
    console = results_console()
    console.print(table)
    console.print(
        f"[dim]{', '.join(cpu_flags()) or 'no fast bf16 or int8 products'}; "
        f"{_size(here[-1])} of memory[/]\n"
    )


def _print_devices(rows: list[Ranked], total: int, known: Prices | None, chosen: bool) -> None:
    table = _table("device", "memory", "precision", "weights", "$/h")
    for row in rows:
        a = row.best
        price = "" if row.price_per_gpu_h is None else f"{row.price_per_gpu_h:.2f}"
        table.add_row(a.device.name, _size(a.device), a.precision, a.source, price, *_figures(a))
    results_console().print(table)
    left = "" if chosen or len(rows) == total else f" {total - len(rows)} more with --all."
    MESSAGES.print(f"[dim]{_price_words(known)}{left} Speeds of GPUs are computed from their "
                   "makers' figures and not measured; empty is unknown.[/]")  # fmt: skip


def _price_words(known: Prices | None) -> str:
    if known is None:
        return "Ordered by memory: no prices yet (`polyvec rent` fetches them)."
    hours = max(time.time() - at for at in known.fetched_at.values()) / 3600
    return f"Ordered by the lowest rental known, spot included; prices are {hours:.1f} h old."


def _table(*first: str) -> Table:
    table = Table(*first, box=None, header_style="bold", pad_edge=False)
    for name in ("needs", "tokens/s", "texts/s", "time"):
        table.add_column(name, justify="right")
    table.add_column("runs")
    table.add_column("quality")
    return table


def _figures(a: Assessment) -> tuple[str | Text, ...]:
    speed = "" if a.speed is None else _short(a.speed.tokens_per_s)
    rate = "" if a.texts_per_s is None else _short(a.texts_per_s)
    hours = "" if a.hours is None else _duration(a.hours)
    unstated = a.device.memory_gb is None
    words = a.why if a.color == "red" or unstated else _WORDS[a.color]
    need = f"{a.memory.total / 2**30:.1f} GiB"
    return need, speed, rate, hours, Text(f"● {words}", style=a.color), a.quality.words


def _size(device: Device) -> str:
    return "" if device.memory_gb is None else f"{device.memory_gb:,.0f} GiB"


def _count(tokens: float) -> str:
    return f"{tokens / 1e6:,.1f} million" if tokens >= 1e6 else f"{tokens:,.0f}"


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 30 else f"{3600 * hours:.1f} s"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _document(
    facts: ModelFacts,
    work: Work,
    counted: Counted | None,
    judged: list[Assessment],
    rows: list[Ranked],
    known: Prices | None,
) -> dict[str, Any]:
    return {
        "model": {"name": facts.name, "parameters": facts.parameters, "source": facts.source},
        "work": {**asdict(work), "tokens": work.tokens},
        "counted": None if counted is None else asdict(counted),
        "this_machine": [as_document(a) for a in judged],
        "devices": [as_document(r.best) | {"price_per_gpu_h": r.price_per_gpu_h} for r in rows],
        "prices_fetched_at": None if known is None else known.fetched_at,
    }


def as_document(a: Assessment) -> dict[str, Any]:
    """Return a judgement as plain JSON values."""
    found = a.quality.measured
    return {
        "device": asdict(a.device),
        "precision": a.precision,
        "weights": a.source,
        "memory_bytes": a.memory.total,
        "memory_parts": asdict(a.memory),
        "tokens_per_s": None if a.speed is None else a.speed.tokens_per_s,
        "speed_from": None if a.speed is None else a.speed.how,
        "texts_per_s": a.texts_per_s,
        "hours": a.hours,
        "color": a.color,
        "why": a.why,
        "quality": None if found is None else asdict(found) | {"is_own": a.quality.is_own},
    }
