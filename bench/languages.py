"""How often `polyvec data check` guesses a text's language right, on Debian's descriptions.

    python bench/languages.py [--texts 200]

Short lines and the first paragraph of long descriptions, in every language that has enough.
"""

import argparse
import random
from collections.abc import Sequence

from polyvec.data.check.languages import languages
from polyvec.sources.descriptions import descriptions

_SAME = {"pt-BR": "pt", "zh-CN": "zh", "zh-TW": "zh", "nb": "no"}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--texts", type=int, default=200)
    count = parser.parse_args().texts
    print("| language | short lines | paragraphs |\n|---|---|---|")
    rights: list[tuple[float, float]] = []
    for language, found in descriptions().by_language.items():
        texts = list(found.values())
        if len(texts) < count:
            continue
        drawn = random.Random(0).sample(texts, count)
        name = _SAME.get(language, language)
        shorts = right([text.short for text in drawn], name)
        longs = right([text.paragraphs[0] for text in drawn if text.paragraphs], name)
        rights.append((shorts, longs))
        print(f"| {language} | {shorts:.1%} | {longs:.1%} |")
    means = [sum(column) / len(rights) for column in zip(*rights, strict=True)]
    print(f"| mean of {len(rights)} | {means[0]:.1%} | {means[1]:.1%} |")


def right(texts: Sequence[str], language: str) -> float:
    """Return the share of texts that are said to be in a language."""
    return sum(guess == language for guess in languages(texts)) / len(texts)


if __name__ == "__main__":
    main()
