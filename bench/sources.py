"""What each source of training text holds, by language: pairs, and how many are of four words.

    python bench/sources.py [--samples 0]

Fetches what is not there yet (about 200 MB) and prints a Markdown table, then the seconds.
"""

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence

from polyvec.sources.catalogs import ui_strings
from polyvec.sources.dictionaries import word_pairs
from polyvec.sources.home import home_strings
from polyvec.sources.wordnet import example_definitions, glosses, synonyms, word_definitions

Pairs = Mapping[str, Sequence[tuple[str, str]]]


def main() -> None:
    """Read every source, count and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--samples", type=int, default=0, help="Pairs shown of each language.")
    samples = parser.parse_args().samples
    found: dict[str, Pairs] = {}
    seconds = {}
    for name, read in _readers().items():
        begin = time.monotonic()
        found[name] = read()
        seconds[name] = time.monotonic() - begin
    print(table(found))
    for name, pairs in found.items():
        total = sum(map(len, pairs.values()))
        print(f"{name}: {total:,} pairs, {len(pairs)} languages, {seconds[name]:.1f} s")
        for language, several in pairs.items():
            for pair in random.Random(0).sample(several, min(samples, len(several))):
                print(f"  {language}: {pair[0]} = {pair[1]}")


def _readers() -> dict[str, Callable[[], Pairs]]:
    return {
        "interface": lambda: {x: list(p.items()) for x, p in ui_strings().items()},
        "home": lambda: {x: list(p.items()) for x, p in home_strings().items()},
        "dictionaries": word_pairs,
        "wordnet": _wordnet,
    }


def _wordnet() -> Pairs:
    found = glosses()
    return {
        "en (words)": word_definitions(found),
        "en (examples)": example_definitions(found),
        "en (synonyms)": synonyms(found),
    }


def table(found: Mapping[str, Pairs]) -> str:
    """Return the counts as Markdown: pairs, and in brackets those whose first text is long."""
    lines = [f"| language | {' | '.join(found)} |", "|---|" + "--:|" * len(found)]
    for language in sorted({language for pairs in found.values() for language in pairs}):
        cells = [_cell(pairs.get(language, ())) for pairs in found.values()]
        lines.append(f"| {language} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(pairs: Sequence[tuple[str, str]]) -> str:
    long = sum(len(text.split()) >= 4 for text, _ in pairs)
    return f"{len(pairs):,} ({long:,})" if pairs else ""


if __name__ == "__main__":
    main()
