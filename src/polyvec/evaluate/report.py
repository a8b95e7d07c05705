"""Results as one HTML page: models by task type, languages, costs, and what goes wrong."""

from collections.abc import Sequence
from html import escape
from typing import Any

from polyvec.evaluate.charts import Series, mark, scatter, short
from polyvec.evaluate.compare import compare
from polyvec.evaluate.page import heat_cell, page, table
from polyvec.evaluate.results import ModelResult
from polyvec.evaluate.summary import (
    COSTS,
    PRECISIONS,
    Group,
    LanguageMap,
    Row,
    groups_of,
    language_maps,
    question_names,
    rows_of,
)
from polyvec.evaluate.task_results import TaskResults

_SIGNIFICANT_P = 0.05


def report_of(results: Sequence[ModelResult], tasks: Sequence[TaskResults] = ()) -> str:
    """Return the page for results of a person's own questions and of mteb's tasks."""
    rows = rows_of(results, tasks)
    parts = [_types(rows), *_comparisons(results), _languages(rows), _charts(rows)]
    parts += [_failures(result) for result in results]
    parts.append(_made_of(results, tasks))
    return page("polyvec evaluation", [part for part in parts if part])


def _types(rows: Sequence[Row]) -> str:
    types = list(dict.fromkeys(kind for row in rows for kind in row.by_type))
    if len(types) == 1:
        cells = [[row.model, _percent(row.by_type[types[0]])] for row in rows]
        return "<h2>Models</h2>" + table(["model", types[0]], cells, best=True)
    heads = [f"{kind} ({_tasks(rows, kind)})" if _tasks(rows, kind) > 1 else kind for kind in types]
    cells = [
        [row.model, *(_of_type(row, kind, _tasks(rows, kind)) for kind in types)] for row in rows
    ]
    means = [group for group in groups_of(rows) if len(group.types) > 1]
    for group in means:  # at most one
        scores = [group.score(row) for row in rows]
        order = sorted(range(len(rows)), key=lambda n: -(scores[n] or 0.0))
        cells = [[cells[n][0], _percent(scores[n]), *cells[n][1:]] for n in order]
    note = "<p class=soft>In brackets: number of tasks. Scores are times 100.</p>"
    if means:
        note += "<p class=soft>The mean is over the types that every model with tasks has.</p>"
    head = ["model", *(group.title.lower() for group in means), *heads]
    return f"<h2>Models by task type</h2>{table(head, cells, best=True)}{note}"


def _tasks(rows: Sequence[Row], kind: str) -> int:
    return max(row.tasks.get(kind, 0) for row in rows)


def _of_type(row: Row, kind: str, most: int) -> str:
    """Return a model's mean, with the number of tasks where others have more."""
    count = row.tasks.get(kind, most)
    return _percent(row.by_type.get(kind)) + (f" ({count})" if count < most else "")


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{100 * score:.1f}"


def _comparisons(results: Sequence[ModelResult]) -> list[str]:
    groups: dict[str, list[ModelResult]] = {}
    for result in results:
        groups.setdefault(result.collection, []).append(result)
    names = question_names(results)
    return [_scores(group, names[collection]) for collection, group in groups.items()]


def _scores(group: list[ModelResult], name: str) -> str:
    first, *others = group[0].metrics
    counts = group[0].counts
    intro = (
        f"<h2>{escape(name)}</h2><p class=soft>{counts['queries']:,} queries, "
        f"{counts['documents']:,} documents, {counts['judgements']:,} judgements; 95% bootstrap "
        "intervals over queries; scores times 100.</p>"
    )
    rows = [
        [r.model, _interval(r.scores[first]), *(_percent(r.scores[m]["mean"]) for m in others)]
        for r in group
    ]
    return intro + table(["model", first, *others], rows, best=True) + _differences(group)


def _interval(score: dict[str, float]) -> str:
    return f"{100 * score['mean']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _differences(group: list[ModelResult]) -> str:
    if len(group) < 2:
        return ""
    metric = group[0].metrics[0]
    rows = []
    for model, row in compare(group)[metric].items():
        sure = row["p_holm"] < _SIGNIFICANT_P
        tone, word = ("good", "better") if row["difference"] > 0 else ("bad", "worse")
        verdict = (
            f'<td class="n {tone}">{word}</td>' if sure else '<td class="n">may be chance</td>'
        )
        interval = f"{_signed(row['low'])} to {_signed(row['high'])}"
        rows.append(
            [model, f"{_signed(row['difference'])} ({interval})", f"{row['p_holm']:.4f}", verdict]
        )
    heads = ["model", f"{metric}, difference", "p (Holm)", "verdict"]
    return f"<h3>Against {escape(group[0].model)}</h3>{table(heads, rows)}"


def _signed(score: float) -> str:
    """Write a difference times 100; one that rounds to nothing has no sign."""
    words = f"{100 * score:+.1f}"
    return "0.0" if float(words) == 0 else words


def _languages(rows: Sequence[Row]) -> str:
    maps = language_maps(rows)
    tables = [f"<h3>{escape(one.title)}</h3>{_heat(one)}" for one in maps]
    return f"<h2>Languages</h2>{''.join(tables)}" if tables else ""


def _heat(one: LanguageMap) -> str:
    known = [score for row in one.scores for score in row if score is not None]
    body = [
        [language, *(heat_cell(score, min(known), max(known)) for score in row)]
        for language, row in zip(one.languages, one.scores, strict=True)
    ]
    return table(["language", *one.models], body, "heat")


def _charts(rows: Sequence[Row]) -> str:
    groups = [(group, _group_charts(group)) for group in groups_of(rows)]
    drawn = "".join(
        f'<h3>{escape(group.title)}</h3><div class="charts">{charts}</div>'
        for group, charts in groups
        if charts
    )
    legend = "".join(
        f'<li><svg viewBox="0 0 14 14" aria-hidden="true">{mark(n)}</svg>{escape(row.model)}</li>'
        for n, row in enumerate(rows)
    )
    if not drawn:
        return ""
    return f'<h2>Quality and what it costs</h2><ul class="legend">{legend}</ul>{drawn}'


def _group_charts(group: Group) -> str:
    costs = [_against(group, *cost) for cost in COSTS]
    return "".join([_by_dimension(group), _by_precision(group), *costs])


def _figure(
    title: str, series: Sequence[Series], x_title: str, labels: Sequence[str] | None = None
) -> str:
    if len({point for one in series for point in one.points}) < 2:
        return ""
    chart = scatter(series, x_title, "quality", labels)
    return f"<figure><h4>{escape(title)}</h4>{chart}</figure>"


def _by_dimension(group: Group) -> str:
    series = [
        Series(row.model, [(float(size), score) for size, score in group.curve(row).items()])
        for row in group.rows
    ]
    return _figure("Dimension", series, "numbers kept of a vector")


def _by_precision(group: Group) -> str:
    places = [
        float(PRECISIONS.index(row.about["precision"]))
        if row.about.get("precision") in PRECISIONS
        else None
        for row in group.rows
    ]
    return _figure("Precision", _points(group, places), "precision of products", PRECISIONS)


def _against(group: Group, fact: str, title: str, words: str) -> str:
    places = [row.number(fact) for row in group.rows]
    return _figure(title, _points(group, places), words)


def _points(group: Group, places: Sequence[float | None]) -> list[Series]:
    scores = [group.score(row) for row in group.rows]
    return [
        Series(row.model, [] if x is None or y is None else [(x, y)])
        for row, x, y in zip(group.rows, places, scores, strict=True)
    ]


def _failures(result: ModelResult) -> str:
    if not result.worst:
        return ""
    metric = result.metrics[0]
    items = "".join(_failure(failure, metric) for failure in result.worst)
    return f"<h2>Worst queries of {escape(result.model)}</h2>{items}"


def _failure(failure: dict[str, Any], metric: str) -> str:
    wanted = "".join(
        f"<dt>wanted, {_rank(text['rank'])}: {escape(text['id'])}</dt>"
        f"<dd dir=auto>{escape(text['text'])}</dd>"
        for text in failure["wanted"]
    )
    found = "".join(
        f"<dt>found {place}{', relevant' if text['relevant'] else ''}, cosine "
        f"{text['cosine']:.3f}: {escape(text['id'])}</dt><dd dir=auto>{escape(text['text'])}</dd>"
        for place, text in enumerate(failure["found"], 1)
    )
    language = f" · {escape(failure['language'])}" if failure["language"] else ""
    return (
        f"<details><summary><bdi>{escape(failure['text'])}</bdi> <span class=soft>"
        f"{metric} {100 * failure['score']:.0f}{language} · {escape(failure['query'])}</span>"
        f"</summary><dl>{wanted}{found}</dl></details>"
    )


def _rank(rank: int | None) -> str:
    return "not found" if rank is None else f"at rank {rank}"


def _made_of(results: Sequence[ModelResult], tasks: Sequence[TaskResults]) -> str:
    lines = [
        f"<li>{escape(r.model)}: fingerprint <code>{escape(r.fingerprint)}</code>{_costs(r)}, "
        f"collection <code>{r.collection}</code></li>"
        for r in results
    ]
    lines += [
        f"<li>{escape(t.model)}: {len(t.scores)} tasks, revision <code>{escape(t.revision)}</code>"
        "</li>"
        for t in tasks
    ]
    return f"<h2>Made of</h2><ul class=soft>{''.join(lines)}</ul>"


def _costs(result: ModelResult) -> str:
    about = result.about
    words = [f"{about['dimension']} numbers"]
    if about.get("precision"):
        words.append(str(about["precision"]))
    if about.get("parameters"):
        words.append(f"{short(about['parameters'])} parameters")
    if result.texts_per_s is not None:
        words.append(f"{result.texts_per_s:.4g} texts/s")
    if about.get("where"):
        words.append(f"on {about['where']}")
    return escape(", " + ", ".join(words))
