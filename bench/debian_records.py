"""Training and held-out records of Debian's descriptions and LibreOffice's help, as JSONL.

    python bench/debian_records.py FOLDER

``train.jsonl`` has pairs (a short line or paragraph in another language, the English one; a short
line in any language, the start of the long description; a help page's title, its body), in random
order, and ``held_out.jsonl`` queries of one test each language: a short line in X that must find
the English long description among those of ``DOCUMENTS`` packages (XL of docs/benchmarks.md), and
help paragraphs. Nothing on the held-out side of :mod:`polyvec.sources.split` is trained on, and no
pair of one text, and none twice.
"""

import argparse
import random
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from polyvec.records.record import Record
from polyvec.records.write import write_records
from polyvec.sources.descriptions import Descriptions, descriptions
from polyvec.sources.help_pages import HelpPages, help_pages, parallel_paragraphs
from polyvec.sources.split import HeldOut, plain

MAX_CHARACTERS = 400
A_LANGUAGE = {"paragraph": 2_500, "short": 2_500, "long": 2_500, "cross": 2_500}
"""At most so many pairs of a kind a language: large languages would drown the others."""
QUERIES, DOCUMENTS = 60, 1_000
TEST_LANGUAGES = ("de", "fr", "it", "pl", "ru", "uk", "ja", "ko")


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    packages, pages = descriptions(), help_pages()
    draw = random.Random(0)
    train = train_records(packages, pages, draw)
    print(write_records(folder / "train.jsonl", train), "records to train on")
    tests = list(_tests(packages.of("test"), pages.of("test"), draw))
    print(write_records(folder / "held_out.jsonl", tests), "held out")


def train_records(packages: Descriptions, pages: HelpPages, draw: random.Random) -> list[Record]:
    """Return what may be trained on, in random order.

    Each source leaves its own held-out texts out; here go those of the other, and beginnings that
    are a held-out text's: texts are cut.
    """
    held_out = packages.held_out() | pages.held_out()
    held_out |= HeldOut(_cut(text) for text in held_out)
    found = _train(packages.of("train"), pages.of("train"), draw)
    kept = [x for x in found if x.query not in held_out and x.positives[0] not in held_out]
    chosen = list(_distinct(kept))
    draw.shuffle(chosen)
    return chosen


def _distinct(records: Iterable[Record]) -> Iterator[Record]:
    """Leave out pairs of one text, left as it is by translators, and pairs that are there."""
    seen: set[tuple[str, str]] = set()
    for record in records:
        pair = plain(record.query), plain(record.positives[0])
        if pair[0] != pair[1] and pair not in seen:
            seen.add(pair)
            yield record


def _train(packages: Descriptions, pages: HelpPages, draw: random.Random) -> Iterator[Record]:
    english = packages.english
    for language, found in packages.by_language.items():
        seen: set[str] = set()
        groups: dict[str, list[tuple[str, str]]] = {"short": [], "long": [], "cross": []}
        for package, text in found.items():
            if text.short in seen:
                continue
            seen.add(text.short)
            groups["long"].append((text.short, text.long))
            if language != "en" and package in english:
                groups["short"].append((text.short, english[package].short))
                groups["cross"].append((text.short, english[package].long))
        for kind, pairs in groups.items():
            yield from _records(pairs, A_LANGUAGE[kind], f"{kind}-{language}", draw)
    for language, found_pages in pages.by_language.items():
        if language != "en-US":
            pairs = list(parallel_paragraphs(pages.by_language["en-US"], found_pages).items())
            chosen = [(theirs, ours) for ours, theirs in pairs if len(ours) >= 20]
            yield from _records(chosen, A_LANGUAGE["paragraph"], f"paragraph-{language}", draw)


def _tests(packages: Descriptions, pages: HelpPages, draw: random.Random) -> Iterator[Record]:
    english = packages.english
    by_source = {text.source: package for package, text in sorted(english.items())}
    names = sorted(by_source.values())
    draw.shuffle(names)
    documents = names[:DOCUMENTS]
    for language in TEST_LANGUAGES:
        found = packages.by_language[language]
        asked = [name for name in documents if name in found][:QUERIES]
        source = f"xl-{language}"
        others = tuple(_cut(english[name].long) for name in documents)
        for name in asked:
            right = _cut(english[name].long)
            # Every document stands once as a negative, with the first query.
            rest = tuple(x for x in others if x != right) if name == asked[0] else ()
            yield Record(_plain(found[name].short), (right,), rest, source=source)
    for language in ("de", "ru", "ja", "vi"):
        pairs = parallel_paragraphs(pages.by_language["en-US"], pages.by_language[language])
        chosen = sorted((o, t) for o, t in pairs.items() if 40 <= len(o) <= MAX_CHARACTERS)
        draw.shuffle(chosen)
        yield from _records([(t, o) for o, t in chosen], 150, f"help-{language}", draw)


def _records(
    pairs: list[tuple[str, str]], most: int, source: str, draw: random.Random
) -> Iterator[Record]:
    for query, positive in draw.sample(pairs, min(most, len(pairs))):
        yield Record(_cut(query), (_cut(positive),), source=source)


def _cut(text: str) -> str:
    return _plain(text)[:MAX_CHARACTERS]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text)


if __name__ == "__main__":
    main()
