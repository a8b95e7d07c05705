"""Parts of the catalogue's page: a card, the overview, the comparison, the lists."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol

from polyvec.catalogue.cards import Card, families, providers
from polyvec.catalogue.facts import KINDS
from polyvec.gallery.radar import Scale, radar
from polyvec.gallery.scores import SHORT, Scores, peers_of
from polyvec.gallery.words import (
    BYTES,
    NOT_KNOWN,
    commands,
    compared,
    figure,
    size,
    weights,
    why_not,
)

_MAIN_FIGURES = (
    "parameters",
    "dimension",
    "matryoshka",
    "context_tokens",
    "languages",
    "licence",
    "commercial_use",
    "released",
    "base_model",
    "weights",
)


class Extra(Protocol):
    """Who knows more of a model than its card: where it runs, what renting costs."""

    def part(self, card: Card) -> str:
        """Return HTML that stands in the card."""
        ...

    def rows(self, card: Card) -> list[tuple[str, str]]:
        """Return rows of the comparison, the same names for every model."""
        ...


def slug(card: Card) -> str:
    """Return the card's place in the page."""
    return card.short_name.lower().replace(".", "-")


def link(card: Card) -> str:
    """Return a link to the card."""
    return f'<a href="#{slug(card)}">{escape(card.short_name)}</a>'


def article(
    card: Card,
    cards: Mapping[str, Card],
    scores: Mapping[str, Scores],
    scale: Scale,
    extra: Extra | None,
) -> str:
    """Return a model's card."""
    marks = _Marks(card)
    main = "".join(marks.row(key) for key in KINDS if key in _MAIN_FIGURES)
    inner = "".join(marks.row(key) for key in KINDS if key not in _MAIN_FIGURES)
    rooms = {name: weights(card, name) for name in BYTES}
    room = ", ".join(f"{name} {words}" for name, words in rooms.items())
    if NOT_KNOWN in rooms.values():
        room = NOT_KNOWN
    return (
        f'<article id="{slug(card)}"><h3>{escape(card.short_name)}</h3>'
        f'<p class="soft">{escape(card.name)} · {escape(card.provider)} · family '
        f"{escape(card.family)}</p><p>{escape(card.about)}</p>"
        f'<div class="halves"><dl class="figures">{main}'
        f"<dt>weights take about</dt><dd>{escape(room)}</dd>"
        f"</dl>{_scored(card, cards, scores, scale)}</div>"
        f"{_run(card)}{extra.part(card) if extra else ''}"
        f"<details><summary>Network and sources of {escape(card.short_name)}</summary>"
        f'<dl class="figures">{inner}</dl>{marks.sources()}</details>'
        f'<p class="soft"><a href="#overview">Back to the overview</a></p></article>'
    )


class _Marks:
    """Numbers a card's sources in the order in which its figures name them."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._sources: list[str] = []

    def row(self, key: str) -> str:
        words = escape(figure(self._card, key))
        fact = self._card.facts.get(key)
        label = escape(KINDS[key].label)
        if fact is None:
            return f'<dt>{label}</dt><dd class="soft">{NOT_KNOWN}</dd>'
        if fact.source not in self._sources:
            self._sources.append(fact.source)
        number = self._sources.index(fact.source) + 1
        place = f"{slug(self._card)}-source-{number}"
        note = f' <span class="soft">({escape(fact.note)})</span>' if fact.note else ""
        mark = f'<sup><a href="#{place}" aria-label="source {number}">{number}</a></sup>'
        return f"<dt>{label}</dt><dd>{words}{mark}{note}</dd>"

    def sources(self) -> str:
        rows = "".join(
            f'<li id="{slug(self._card)}-source-{n}">{escape(source)}</li>'
            for n, source in enumerate(self._sources, start=1)
        )
        return f'<p class="soft">Sources</p><ol class="sources">{rows}</ol>'


def _scored(
    card: Card, cards: Mapping[str, Card], scores: Mapping[str, Scores], scale: Scale
) -> str:
    own = scores.get(card.name)
    if own is None:
        return '<p class="soft noscore">Published MMTEB scores by task type: not known.</p>'
    others = peers_of(card, cards, scores)
    shapes = [(cards[name].short_name, scores[name]) for name in (card.name, *others)]
    drawn = radar(shapes, scale)
    head = "".join(f'<th scope="col" class="n">{escape(name)}</th>' for name, _ in shapes)
    rows = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f'<td class="n">{one.by_type[kind]:.1f}</td>' for _, one in shapes)
        + "</tr>"
        for kind, name in SHORT.items()
    )
    means = "".join(f'<td class="n">{one.mean:.2f}</td>' for _, one in shapes)
    return (
        f"<figure>{drawn}{legend([name for name, _ in shapes])}"
        f'<details><summary>The numbers</summary><div class="wide" tabindex="0" role="region" '
        f'aria-label="Scores of {escape(card.short_name)} and its peers"><table><thead><tr>'
        f'<th scope="col">MMTEB, %</th>{head}</tr></thead><tbody>{rows}<tr><th scope="row">mean of '
        f'types</th>{means}</tr></tbody></table></div><p class="soft">{escape(own.source)}</p>'
        "</details></figure>"
    )


def legend(names: Sequence[str]) -> str:
    """Say which colour is which model."""
    items = "".join(
        f'<li><span class="swatch r{n}"></span><span>{escape(name)}</span></li>'
        for n, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _run(card: Card) -> str:
    lines = commands(card)
    if not lines:
        return f'<p class="soft">{escape(why_not(card))}</p>'
    return (
        f'<pre tabindex="0" aria-label="Commands"><code>{escape(chr(10).join(lines))}</code></pre>'
    )


_COLUMNS = (
    ("model", ""),
    ("parameters", "n"),
    ("dimensions", "n"),
    ("longest text", "n"),
    ("languages", "n"),
    ("commercial use", ""),
    ("released", ""),
    ("MMTEB", "n"),
    ("retrieval", "n"),
)


def overview(cards: Sequence[Card], scores: Mapping[str, Scores]) -> str:
    """Return the table of all models: those with the best mean first, the others by size."""
    ordered = sorted(cards, key=lambda card: _order(card, scores))
    head = "".join(
        f'<th scope="col" class="{kind}" data-sort="{kind or "t"}">{name}</th>'
        for name, kind in _COLUMNS
    )
    rows = "".join(_overview_row(card, scores.get(card.name)) for card in ordered)
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="All models">'
        f'<table id="models"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _order(card: Card, scores: Mapping[str, Scores]) -> tuple[float, int]:
    own = scores.get(card.name)
    return (-own.mean if own else 0.0, -(card.number("parameters") or 0))


def _overview_row(card: Card, own: Scores | None) -> str:
    numbers = [card.number(key) for key in ("parameters", "dimension", "context_tokens")]
    numbers.append(card.number("languages"))
    shown = [NOT_KNOWN if n is None else f"{n:,}" for n in numbers]
    if numbers[0] is not None:
        shown[0] = size(numbers[0])
    allowed, released = figure(card, "commercial_use"), figure(card, "released")
    means = [own.mean, own.by_type["Retrieval"]] if own else [None, None]
    cells = [_cell(words, n) for words, n in zip(shown, numbers, strict=True)]
    cells += [_cell(allowed, allowed, "t"), _cell(released, released, "t")]
    cells += [_cell(NOT_KNOWN if m is None else f"{m:.1f}", m) for m in means]
    words = escape(f"{card.name} {card.provider} {card.family}".lower(), quote=True)
    return (
        f'<tr data-words="{words}" data-allowed="{escape(allowed)}" '
        f'data-runs="{"yes" if card.run else "no"}"><th scope="row" data-value="'
        f'{escape(card.short_name.lower())}">{link(card)}</th>{"".join(cells)}</tr>'
    )


def _cell(words: str, value: float | str | None, kind: str = "n") -> str:
    unknown = words == NOT_KNOWN
    shown = f'<span class="soft">{NOT_KNOWN}</span>' if unknown else escape(words)
    stated = "" if unknown else escape(str(value), quote=True)
    return f'<td class="{kind}" data-value="{stated}">{shown}</td>'


def comparison(
    cards: Sequence[Card],
    scores: Mapping[str, Scores],
    scale: Scale,
    chosen: tuple[Card, Card],
    extra: Extra | None,
) -> str:
    """Return two models beside each other, and what the script needs to show any other two."""
    pickers = "".join(
        f'<label>{label} <select id="{key}">{_options(cards, one)}</select></label>'
        for label, key, one in zip(("Model", "and"), ("left", "right"), chosen, strict=True)
    )
    rows = "".join(
        f'<tr{_same(cells)}><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in compared(list(chosen), extra.rows if extra else None)
    )
    head = "".join(f'<th scope="col">{escape(card.short_name)}</th>' for card in chosen)
    shapes = [(card.short_name, scores[card.name]) for card in chosen if card.name in scores]
    return (
        f'<p class="pickers" hidden>{pickers}</p><div class="halves"><figure id="both">'
        f"{radar(shapes, scale)}{legend([card.short_name for card in chosen])}"
        f'<p class="soft" id="unscored" role="status"></p></figure>'
        '<div class="wide" tabindex="0" role="region" aria-label="Two models compared">'
        f'<table id="pair"><thead><tr><th scope="col">figure</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div>"
        f'<script type="application/json" id="facts">{_facts(cards, scores, scale, extra)}</script>'
    )


def _same(cells: Sequence[str]) -> str:
    return ' class="same"' if len(set(cells)) == 1 else ""


def _options(cards: Sequence[Card], chosen: Card) -> str:
    ordered = sorted(cards, key=lambda card: card.short_name.lower())
    return "".join(
        f'<option value="{slug(card)}"{" selected" if card is chosen else ""}>'
        f"{escape(card.short_name)}</option>"
        for card in ordered
    )


def _facts(
    cards: Sequence[Card], scores: Mapping[str, Scores], scale: Scale, extra: Extra | None
) -> str:
    more = extra.rows if extra else None
    facts = {
        slug(card): {
            "name": card.short_name,
            "cells": [cells[0] for _, cells in compared([card], more)],
            "path": scale.path(scores[card.name].by_type) if card.name in scores else "",
            "said": ", ".join(
                f"{name} {scores[card.name].by_type[kind]:.1f}" for kind, name in SHORT.items()
            )
            if card.name in scores
            else "",
        }
        for card in cards
    }
    return json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")


def lists(cards: Sequence[Card]) -> str:
    """Return the families and the providers, each with its models."""
    return (
        f'<h2 id="families">Families</h2>{_list(families(cards))}'
        f'<h2 id="providers">Providers</h2>{_list(providers(cards))}'
    )


def _list(groups: Mapping[str, Sequence[Card]]) -> str:
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{', '.join(link(card) for card in group)}</dd>"
        for name, group in groups.items()
    )
    return f'<dl class="groups">{rows}</dl>'
