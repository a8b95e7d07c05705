"""The catalogue as one page: its style and script are in it, and it asks for nothing else."""

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from html import escape

import polyvec
from polyvec.catalogue.cards import Card
from polyvec.errors import InputError
from polyvec.evaluate.page import page
from polyvec.gallery.parts import Extra, article, comparison, lists, overview
from polyvec.gallery.radar import Scale
from polyvec.gallery.scores import all_scores

_PREFERRED = ("nvidia/llama-embed-nemotron-8b", "BAAI/bge-m3")
"""Compared until others are chosen."""


def catalogue_page(
    cards: Mapping[str, Card],
    extra: Extra | None = None,
    beside: Mapping[str, str] | None = None,
) -> str:
    """Return the page of models.

    Args:
        cards: Two or more models, by name.
        extra: More of each card, such as where it runs and what renting costs.
        beside: Pages to link to: what each is called, to its address.

    Raises:
        InputError: There are fewer than two models.
    """
    if len(cards) < 2:
        raise InputError("A page of the catalogue compares models; give two or more, or none.")
    scores = all_scores(cards.values())
    scale = Scale(scores)
    every = list(cards.values())
    chosen = _chosen(every)
    articles = "".join(article(card, cards, scores, scale, extra) for card in every)
    pair = comparison(every, scores, scale, chosen, extra)
    body = [
        _introduction(len(every), len(scores), beside or {}),
        f'<h2 id="overview">Overview</h2>{_FILTERS}{overview(every, scores)}',
        f'<h2 id="compare">Two models compared</h2>{pair}',
        lists(every),
        f'<h2 id="cards">Cards</h2>{articles}',
        f'<p class="soft">polyvec {polyvec.__version__}</p></main>',
        f"<script>{_file('catalogue.js')}</script>",
    ]
    return page("Embedding models", body, style=_file("catalogue.css"))


def policy_hashes(text: str) -> tuple[str, str]:
    """Return what a Content-Security-Policy calls the page's style and its script by."""
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    if style is None or script is None:
        raise InputError("The page has no style or no script of its own.")
    return _hash(style[1]), _hash(script[1])


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _chosen(every: Sequence[Card]) -> tuple[Card, Card]:
    preferred = [card for name in _PREFERRED for card in every if card.name == name]
    first, second, *_ = [*preferred, *(card for card in every if card not in preferred)]
    return first, second


def _file(name: str) -> str:
    return (importlib.resources.files("polyvec.gallery") / name).read_text(encoding="utf-8")


def _introduction(models: int, scored: int, beside: Mapping[str, str]) -> str:
    links = " ".join(f'<a href="{escape(to)}">{escape(name)}</a>' for name, to in beside.items())
    server = f'<nav aria-label="Server">{links}</nav>' if beside else ""
    return server + (
        '<nav aria-label="Page"><a href="#overview">Overview</a> <a href="#compare">Compare</a> '
        '<a href="#families">Families</a> <a href="#providers">Providers</a> '
        '<a href="#cards">Cards</a></nav><main>'
        f"<p>{models} embedding models, and what is stated of them. Each figure names its source; "
        "what nobody states is shown as not known. Scores by task type of MTEB(Multilingual, v2) "
        f"are published for {scored} of them. In a radar each axis runs from the lowest to the "
        f"highest of those {scored}, so that differences show: compare shapes, and read the "
        "numbers for their size.</p>"
    )


_FILTERS = (
    '<p class="filters" hidden><label>Find <input id="find" type="search" autocomplete="off">'
    "</label> "
    '<label><input id="allowed" type="checkbox"> commercial use allowed</label> '
    '<label><input id="runs" type="checkbox"> polyvec runs it</label> '
    '<span id="found" class="soft" role="status"></span></p>'
)
