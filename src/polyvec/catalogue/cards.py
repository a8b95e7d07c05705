"""Model cards: TOML files in ``cards/``, one a model, each figure with its source.

A card without a figure does not know it; nothing is filled in. Architecture numbers that are
stated give the published parameter count to the last digit where that count is exact; a test
holds it.
"""

import difflib
import importlib.resources
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from polyvec.catalogue.facts import KINDS, TASK_TYPES, Value
from polyvec.errors import InputError, ModelNotFoundError

RUNS = ("llama", "mistral", "qwen2", "qwen3", "bert", "roberta", "xlm-roberta")
"""Networks that polyvec computes itself."""

_TOP = ("name", "family", "provider", "about", "run", "sources", "facts", "scores")
_FACT = ("value", "source", "note")


@dataclass(frozen=True)
class Fact:
    """A figure, and who says so."""

    value: Value
    source: str
    """A document or page, in words or as an address."""
    note: str = ""
    """What a reader has to know of it."""


@dataclass(frozen=True)
class Architecture:
    """A network's numbers, all of them."""

    network: str
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context_tokens: int


@dataclass(frozen=True)
class Card:
    """What is known of one model."""

    name: str
    """As on its hub, such as ``BAAI/bge-m3``; or polyvec's alias."""
    family: str
    provider: str
    about: str
    """One sentence."""
    run: str
    """The name polyvec fetches it by; empty if it does not run it."""
    facts: Mapping[str, Fact]
    scores: Mapping[str, float]
    """Published MMTEB means by task type in percent, where the card states them."""
    scores_source: str = ""

    @property
    def short_name(self) -> str:
        """The name without its owner."""
        return self.name.rpartition("/")[2]

    def value(self, key: str) -> Value | None:
        """Return a figure, or None where it is not known."""
        fact = self.facts.get(key)
        return None if fact is None else fact.value

    def number(self, key: str) -> int | None:
        """Return a figure that is a whole number, or None where it is not known."""
        value = self.value(key)
        return value if isinstance(value, int) else None

    @property
    def architecture(self) -> Architecture | None:
        """The network's numbers, if all of them are known."""
        keys = ("layers", "width", "ffn", "heads", "kv_heads", "head_dim", "vocab")
        numbers = {key: self.number(key) for key in (*keys, "context_tokens")}
        known = {key: number for key, number in numbers.items() if number is not None}
        network = self.value("network")
        if len(known) < len(numbers) or not isinstance(network, str):
            return None
        return Architecture(network=network, **known)


@cache
def cards() -> Mapping[str, Card]:
    """Return every card by its name, in the order of families and then of size.

    Raises:
        InputError: A card is not a right one.
    """
    folder = importlib.resources.files("polyvec.catalogue") / "cards"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    found = [read_card(file.read_text(encoding="utf-8"), file.name) for file in files]
    found.sort(key=lambda card: (card.family.lower(), card.number("parameters") or 10**15))
    named: dict[str, Card] = {}
    for card in found:
        if card.name.lower() in {name.lower() for name in named}:
            raise InputError(f"Two cards are named {card.name}. Each model has one card.")
        named[card.name] = card
    return named


def find(name: str, known: Mapping[str, Card]) -> Card:
    """Find a card by a model's name, with or without its owner, in any case.

    Raises:
        ModelNotFoundError: No card has that name, or several have.
    """
    wanted = name.removeprefix("hf:").lower()
    by_name = {card.name.lower(): card for card in known.values()}
    if wanted in by_name:
        return by_name[wanted]
    same = [card for card in known.values() if card.short_name.lower() == wanted]
    if len(same) == 1:
        return same[0]
    names = [*by_name, *(card.short_name.lower() for card in known.values())]
    near = [c.name for c in same] or difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ModelNotFoundError(
        f"The catalogue has no model {name!r}.{hint} `polyvec catalogue` lists those it has."
    )


def families(known: Iterable[Card]) -> dict[str, list[Card]]:
    """Return cards by family."""
    return _grouped(known, "family")


def providers(known: Iterable[Card]) -> dict[str, list[Card]]:
    """Return cards by who made them."""
    return _grouped(known, "provider")


def _grouped(known: Iterable[Card], key: str) -> dict[str, list[Card]]:
    groups: dict[str, list[Card]] = {}
    for card in known:
        groups.setdefault(getattr(card, key), []).append(card)
    return dict(sorted(groups.items(), key=lambda item: item[0].lower()))


def read_card(text: str, where: str) -> Card:
    """Read one card.

    Args:
        text: TOML.
        where: Its file, for error messages.

    Raises:
        InputError: It is not TOML; a key is unknown or missing; a value is not an allowed one; a
            figure has no source, or one that the card does not list; or a source is never used.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"The card {where} is not TOML: {error}.") from error
    _check_keys(table, _TOP, where)
    words = {key: _text(table, key, where) for key in ("name", "family", "provider", "about")}
    sources = _sources(table, where)
    used: set[str] = set()
    facts = _facts(_table(table, "facts", where), sources, used, where)
    scores, scores_source = _scores(table, sources, used, where)
    if unused := sorted(set(sources) - used):
        raise InputError(
            f"{where}: the source {unused[0]!r} is of no figure. Name it at one or take it out."
        )
    run = table.get("run", "")
    if not isinstance(run, str):
        raise InputError(f"{where}: `run` is {run!r}; it has to be the name polyvec fetches.")
    return Card(**words, run=run, facts=facts, scores=scores, scores_source=scores_source)


def _sources(table: Mapping[str, Any], where: str) -> dict[str, str]:
    stated = _table(table, "sources", where)
    return {key: _text(stated, key, f"{where}, [sources]") for key in stated}


def _facts(
    stated: Mapping[str, Any], sources: Mapping[str, str], used: set[str], where: str
) -> dict[str, Fact]:
    _check_keys(stated, tuple(KINDS), f"{where}, [facts]")
    facts = {}
    for key, kind in KINDS.items():
        if key not in stated:
            continue
        place = f"{where}, {key}"
        entry = stated[key]
        if not isinstance(entry, dict):
            raise InputError(f"{place} is {entry!r}; write {{ value = ..., source = ... }}.")
        _check_keys(entry, _FACT, place)
        value = kind.read(entry.get("value"))
        if value is None:
            raise InputError(f"{place} is {entry.get('value')!r}; it has to be {kind.allowed}.")
        source = _source(entry, sources, used, place)
        note = _text(entry, "note", place) if "note" in entry else ""
        facts[key] = Fact(value, source, note)
    return facts


def _scores(
    table: Mapping[str, Any], sources: Mapping[str, str], used: set[str], where: str
) -> tuple[dict[str, float], str]:
    if "scores" not in table:
        return {}, ""
    place = f"{where}, [scores]"
    stated = _table(table, "scores", where)
    _check_keys(stated, (*TASK_TYPES, "source"), place)
    scores = {}
    for kind in TASK_TYPES:
        score: object = stated.get(kind)
        if isinstance(score, bool) or not isinstance(score, int | float) or abs(score) > 100:
            raise InputError(f"{place}: {kind} is {score!r}; it has to be a percentage.")
        scores[kind] = float(score)
    return scores, _source(stated, sources, used, place)


def _source(
    entry: Mapping[str, Any], sources: Mapping[str, str], used: set[str], place: str
) -> str:
    key = entry.get("source")
    if key is None:
        raise InputError(f"{place} has no source. State `source`, one of [sources].")
    if not isinstance(key, str) or key not in sources:
        raise InputError(
            f"{place} has the source {key!r}, which [sources] does not list. "
            f"Listed: {', '.join(sources) or 'none'}."
        )
    used.add(key)
    return sources[key]


def _table(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = table.get(key)
    if not isinstance(found, dict):
        raise InputError(f"{where} has no table [{key}].")
    return found


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: `{key}` is {value!r}; it has to be words.")
    return value


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise InputError(
                f"{where} has an unknown key {key!r}; did you mean {near[0]!r}? "
                f"Known: {', '.join(known)}."
            )
