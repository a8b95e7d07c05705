"""A verdict as one HTML page that needs nothing else: no scripts, no fonts, no network."""

from html import escape

from polyvec.publish.verify import Agreement, Verdict

_STYLE = """
:root { color-scheme: light dark; --good: #1a7f4b; --bad: #b3261e; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.verdict { font-size: 1.6rem; font-weight: 700; margin: .2rem 0 1rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; white-space: nowrap; }
.text { max-width: 34rem; overflow-wrap: anywhere; }
li { margin: .4rem 0; }
"""


def html_report(verdict: Verdict) -> str:
    """Return the page for a verdict."""
    word, tone = ("agree", "good") if verdict.agree else ("differ", "bad")
    title = f"{verdict.a} and {verdict.b} {word}"
    parts = [
        f"<p>{escape(verdict.a)} against {escape(verdict.b)}</p>",
        f'<p class="verdict {tone}">The vectors {word}</p>',
        _diagnoses(verdict),
        "<h2>How near</h2>",
        _table(_AGREEMENT_HEAD, [_agreement_cells(x) for x in verdict.agreements]),
        f"<p>Over-long text: cosine {verdict.over_long_cosine:.5f}. Cosines must be at least "
        f"{verdict.min_cosine} to agree.</p>",
        "<h2>Each text</h2>",
        _table(_TEXT_HEAD, [_text_cells(text) for text in _worst_first(verdict)]),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>polyvec verify</h1>{''.join(parts)}</body></html>"
    )


_AGREEMENT_HEAD = (
    ("role", False), ("mean cosine", True), ("lowest cosine", True), ("lowest text", False),
    ("nearest text kept", True), ("rank correlation", True),
)  # fmt: skip
_TEXT_HEAD = (("id", False), ("document", True), ("query", True), ("text", False))


def _diagnoses(verdict: Verdict) -> str:
    if not verdict.diagnoses:
        return ""
    items = "".join(f"<li><b>{d.kind}</b>: {escape(d.words)}</li>" for d in verdict.diagnoses)
    return f"<h2>Diagnosis</h2><ul>{items}</ul>"


def _agreement_cells(agreement: Agreement) -> list[str]:
    return [
        agreement.role,
        f"{agreement.cosine_mean:.5f}",
        f"{agreement.cosine_min:.5f}",
        agreement.worst,
        f"{agreement.neighbours_kept:.1%}",
        f"{agreement.rank_correlation:.4f}",
    ]


def _worst_first(verdict: Verdict) -> list[dict[str, object]]:
    return sorted(verdict.texts, key=lambda text: min(text["document"], text["query"]))


def _text_cells(text: dict[str, object]) -> list[str]:
    return [
        str(text["id"]), f"{text['document']:.5f}", f"{text['query']:.5f}", str(text["text"]),
    ]  # fmt: skip


def _table(head: tuple[tuple[str, bool], ...], rows: list[list[str]]) -> str:
    names = "".join(f"<th{_class(number)}>{escape(name)}</th>" for name, number in head)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_class(number)}{'' if name != 'text' else ' dir=auto'}>{escape(cell)}</td>"
            for cell, (name, number) in zip(cells, head, strict=True)
        )
        + "</tr>"
        for cells in rows
    )
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def _class(number: bool) -> str:
    return ' class="n"' if number else ""
