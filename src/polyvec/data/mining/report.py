"""The audit of a mining run: what was dropped and why, scores, and samples to read."""

import html
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from polyvec.data.mining.run import Mined
from polyvec.data.mining.tally import BIN_EDGES

_KINDS = (("positives", "#2a78d6"), ("negatives", "#3a9d5d"), ("rejected", "#d9534f"))
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;vertical-align:top}"
    "tr:nth-child(even){background:#8881}.n{text-align:right;font-variant-numeric:tabular-nums}"
    "article{border-top:1px solid #8886;margin-top:1em}.rejected{color:#b52b27}"
    "p{margin:.2em 0}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}"
)


def facts(mined: Mined) -> dict[str, Any]:
    """Return the whole report as plain values, for JSON."""
    tally = mined.tally.facts()
    teachers = [
        {**own, **counts} for own, counts in zip(mined.teachers, tally["teachers"], strict=True)
    ]
    named = (
        *("records", "mined", "without_negatives", "written", "corpus"),
        *("documents", "duplicates", "resumed", "embedded"),
    )
    return {
        **{name: getattr(mined, name) for name in named},
        "settings": asdict(mined.settings),
        "negatives_a_record": tally["negatives_a_record"],
        "excluded_documents": tally["excluded_documents"],
        "vetoed": tally["vetoed"],
        "bin_edges": [round(float(edge), 2) for edge in BIN_EDGES],
        "teachers": teachers,
        "samples": mined.samples,
    }


def table(mined: Mined) -> list[tuple[str, str]]:
    """Return the report's figures as (what, how many), for people."""
    tally, settings = mined.tally, mined.settings
    counts = tally.negatives_a_record
    bare = "left out" if settings.drop_without_negatives else "written as they are"
    short = int(counts[:-1].sum())
    rows = [
        ("records", f"{mined.records:,}"),
        ("  mined", f"{mined.mined:,}"),
        ("  classification, left as they are", f"{mined.records - mined.mined:,}"),
        ("documents in the corpus", f"{mined.documents:,}"),
        ("  further copies of a text, passed over", f"{mined.duplicates:,}"),
        ("negatives found", f"{int(counts @ np.arange(len(counts))):,}"),
        (f"  records with fewer than {settings.negatives}", f"{short:,}"),
        ("  records with none found", f"{int(counts[0]):,}"),
        (f"records without any negative, {bare}", f"{mined.without_negatives:,}"),
        ("dropped", ""),
        ("  a positive's text or id, or the query's text", f"{tally.excluded_documents:,}"),
    ]
    for own, teacher in zip(mined.teachers, tally.teachers, strict=True):
        share = teacher.queries_with_rejected / tally.queries
        least = "at least " * (settings.search == "approximate")
        near = f"{least}{teacher.rejected_documents:,}, of {share:.1%} of the records"
        rows += [
            (f"  too near the positive, says {own['name']}", near),
            (
                f"positive nearest of all, says {own['name']}",
                f"{teacher.positive_first / tally.queries:.1%}",
            ),
            ("  among the nearest ten", f"{teacher.positive_in_ten / tally.queries:.1%}"),
        ]
        rows += [(f"  mean cosine of {kind}", _mean(getattr(teacher, kind))) for kind, _ in _KINDS]
        if teacher.neighbours_checked:
            found = teacher.neighbours_found / teacher.neighbours_checked
            rows.append(("  found of what exact search finds", f"{found:.1%}"))
    if len(mined.teachers) > 1:
        rows.append(("  found by one teacher, dropped by another", f"{tally.vetoed:,}"))
    return rows


def page(mined: Mined) -> str:
    """Return the report as one HTML page."""
    cells = "".join(
        f"<tr><td>{html.escape(name).replace('  ', '&emsp;')}</td><td class=n>{value}</td></tr>"
        for name, value in table(mined)
    )
    drawings = "".join(
        f"<h2>{html.escape(own['name'])}</h2>{_drawing(teacher)}"
        for own, teacher in zip(mined.teachers, mined.tally.teachers, strict=True)
    )
    settings = ", ".join(f"{name} {value}" for name, value in asdict(mined.settings).items())
    samples = "".join(map(_sample, mined.samples))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Mining</title><style>{_STYLE}"
        f"</style><h1>Hard negatives from {html.escape(mined.corpus)}</h1>"
        f"<p>{html.escape(settings)}</p><table>{cells}</table>{drawings}"
        f"<h2>{len(mined.samples)} records</h2><p>Read these: a document in red was dropped for "
        "being too near the positive. If one is plainly no answer, the margin is too wide; if a "
        f"negative is plainly one, it is too narrow.</p>{samples}</html>"
    )


def _mean(counts: Any) -> str:  # noqa: ANN401 (an array of counts)
    total = int(counts.sum())
    if not total:
        return "-"
    centres = (BIN_EDGES[:-1] + BIN_EDGES[1:]) / 2
    return f"{float(counts @ centres) / total:.2f}"


def _drawing(teacher: Any) -> str:  # noqa: ANN401 (a tally)
    """Draw the histograms of a teacher's cosines over each other."""
    parts: list[str] = []
    for kind, colour in _KINDS:
        counts = getattr(teacher, kind)
        heights = counts / max(int(counts.max()), 1)
        points = " ".join(f"{6 * i},{100 - 90 * h:.1f}" for i, h in enumerate(heights))
        parts.append(
            f"<polyline points='0,100 {points} 594,100' fill='{colour}' fill-opacity='.25' "
            f"stroke='{colour}'/><text x='4' y='{14 + 14 * len(parts)}' fill='{colour}' "
            f"font-size='12'>{kind}: {int(counts.sum()):,}, mean {_mean(counts)}</text>"
        )
    ticks = "".join(
        f"<text x='{300 + 300 * tick - 10}' y='115' font-size='11' fill='#888'>{tick:+.1f}</text>"
        for tick in (-1, -0.5, 0, 0.5, 0.95)
    )
    return f"<svg viewBox='0 0 600 120' width='100%'>{''.join(parts)}{ticks}</svg>"


def _sample(sample: dict[str, Any]) -> str:
    scores = _numbers(sample["positive_scores"])
    lines = [f"<p>+ {scores} {html.escape(text)}</p>" for text in sample["positives"]]
    lines += [
        f"<p>&minus; {_numbers(x['scores'])} {html.escape(x['text'])}</p>"
        for x in sample["negatives"]
    ]
    lines += [
        f"<p class=rejected>&times; {_numbers([x['score']])} {html.escape(x['text'])}</p>"
        for x in sample["rejected"]
    ]
    query = html.escape(sample["query"])
    return f"<article><p><b>{query}</b> (record {sample['record']})</p>{''.join(lines)}</article>"


def _numbers(scores: Sequence[float]) -> str:
    return " ".join(f"{score:.3f}" for score in scores)
