"""Parts of a page that needs nothing else: no scripts, no fonts, no network."""

from collections.abc import Sequence
from html import escape

_LIGHT = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#b8860b", "#be185d", "#0e7490", "#525252")
_DARK = ("#6db3ff", "#ff9d66", "#5fd38a", "#c99bff", "#f0c64a", "#ff8fc0", "#5fd0e6", "#b8b8b8")

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1f; --soft: #5b5b66; --line: #d8d8e0;
  --card: #f6f6f9; --heat: #0b6bcb; --good: #15803d; --bad: #b3261e; LIGHT }
@media (prefers-color-scheme: dark) { :root { --paper: #131318; --ink: #ececf1; --soft: #a7a7b4;
  --line: #34343f; --card: #1d1d25; --heat: #4b9bff; --good: #5fd38a; --bad: #ff8a80; DARK } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; background: var(--paper); color: var(--ink);
  max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; } h4 { font-size: .95rem; margin: 0 0 .3rem; }
p { margin: .4rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid var(--line);
  vertical-align: bottom; }
th { font-size: .9rem; } th:first-child, td:first-child { position: sticky; left: 0;
  background: var(--paper); min-width: 9rem; max-width: 14rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { th:first-child, td:first-child { min-width: 7rem; max-width: 8.5rem; }
  th, td { padding: .3rem .45rem; } body { padding: .7rem; } }
td.n, th.n { text-align: right; } td.n { white-space: nowrap; } .best { font-weight: 700; }
.heat td.n { text-align: center; min-width: 4rem; border-color: var(--paper); }
.heat th.n { text-align: center; min-width: 5.5rem; max-width: 9rem; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
.charts figure { margin: 0; max-width: 40rem; background: var(--card); border-radius: .5rem;
  padding: .7rem; }
svg { width: 100%; height: auto; display: block; } svg text { font: 13px system-ui, sans-serif;
  fill: var(--ink); } svg .grid { stroke: var(--line); fill: none; }
svg .line { fill: none; stroke-width: 2; opacity: .8; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; list-style: none; padding: 0;
  font-size: .9rem; } .legend svg { width: 14px; height: 14px; display: inline-block;
  vertical-align: -2px; margin-right: .35rem; } .legend li { overflow-wrap: anywhere; }
details { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; margin: .5rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; } dl { margin: .5rem 0 0; }
dt { font-size: .85rem; color: var(--soft); margin-top: .5rem; } dd { margin: 0;
  overflow-wrap: anywhere; } code { font-size: .85rem; overflow-wrap: anywhere; }
SERIES
@media print { details { break-inside: avoid; } }
"""


def page(title: str, body: Sequence[str], style: str = "") -> str:
    """Return a whole page; ``style`` is CSS beside that of every page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}{style}</style></head>"
        f"<body><h1>{escape(title)}</h1>{''.join(body)}</body></html>"
    )


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "", best: bool = False
) -> str:
    """Return a table: the first column is words, the others are numbers.

    Args:
        head: The columns' names.
        rows: Cells; ready-made ones start with ``<td``.
        kind: A class of the table.
        best: Make the highest number of each column bold.
    """
    names = "".join(
        f"<th{' class=n' if n else ''} scope=col>{escape(name)}</th>" for n, name in enumerate(head)
    )
    highest = [_highest([row[n] for row in rows]) if best and n else None for n in range(len(head))]
    body = "".join(
        "<tr>" + "".join(_cell(cell, n, highest[n]) for n, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table class="{kind}"><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def heat_cell(score: float | None, low: float, high: float) -> str:
    """Return a cell whose colour grows with the score; the number stays readable in any light."""
    if score is None:
        return '<td class="n">–</td>'
    share = (score - low) / max(high - low, 1e-9)
    return (
        f'<td class="n" style="background:color-mix(in srgb,var(--heat) {4 + 46 * share:.0f}%,'
        f'var(--paper))">{100 * score:.1f}</td>'
    )


def _cell(cell: str, number: int, highest: str | None) -> str:
    if cell.startswith("<td"):
        return cell
    first = "n best" if cell == highest else "n"
    return f'<td class="{first}">{escape(cell)}</td>' if number else f"<td>{escape(cell)}</td>"


def _highest(cells: Sequence[str]) -> str | None:
    numbers = [(float(cell.split()[0]), cell) for cell in cells if cell[:1].isdigit()]
    return max(numbers)[1] if len(numbers) > 1 else None


def _style() -> str:
    light, dark = (
        " ".join(f"--s{n}: {colour};" for n, colour in enumerate(colours))
        for colours in (_LIGHT, _DARK)
    )
    series = " ".join(
        f".s{n} {{ fill: var(--s{n}); fill-opacity: .75; stroke: var(--s{n}); }} "
        f".l{n} {{ stroke: var(--s{n}); }}"
        for n in range(len(_LIGHT))
    )
    return _STYLE.replace("LIGHT", light).replace("DARK", dark).replace("SERIES", series)
