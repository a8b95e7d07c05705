"""What is written for training: nothing held out, by either script; nothing twice."""

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest

from polyvec.records.record import Record
from polyvec.sources.descriptions import Description, Descriptions
from polyvec.sources.help_pages import HelpPages, Page
from polyvec.sources.split import page_split, source_split
from polyvec.sources.wordnet import Gloss

ROOT = Path(__file__).parents[1]
SCRIPTS = (ROOT / "bench" / "debian_records.py", ROOT / "scripts" / "default_records.py")
SOURCES = {split: next(f"s{i}" for i in range(99) if source_split(f"s{i}") == split)
           for split in ("train", "test")}  # fmt: skip
PAGES = {split: next(f"p{i}" for i in range(99) if page_split(f"p{i}") == split)
         for split in ("train", "test")}  # fmt: skip
LONG = "A held-out description that is much longer than what is trained on. " * 10
LEAKS = {
    "a short line": ("Held out", "Anything else", "Any help text that is long enough"),
    "in capitals": ("HELD  OUT", "Anything else", "Any help text that is long enough"),
    "a paragraph": ("A leak", "Held out body", "Any help text that is long enough"),
    "a beginning": ("A leak", LONG + "Another end.", "Any help text that is long enough"),
    "of the other kind": ("A leak", "The held-out help paragraph", "Any help text, long enough"),
    "in help": ("A leak", "Anything else", "The held-out help paragraph"),
    "in help, of the other kind": ("A leak", "Anything else", "Held out body"),
}


def build(script: Path, packages: Descriptions, pages: HelpPages) -> list[Record]:
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[Record] = module.train_records(packages, pages, random.Random(0))
    if hasattr(module, "broad_records"):
        add_others(module)
        for records in module.broad_records(packages, pages, random.Random(0)).values():
            found += records
    return found


def add_others(module: Any) -> None:
    """Give a script strings, words and meanings, each with a held-out text among them."""
    strings = {"de": {"Held out": "Sonst nichts", "Save this file": "Datei speichern"}}
    words = {"de": [("held out body", "nothing else"), ("Datei", "file")]}
    leak = Gloss(("leak",), "the held-out help paragraph", ("Held  OUT too",), "noun")
    module.ui_strings = module.home_strings = lambda: strings
    module.word_pairs = lambda: words
    module.glosses = lambda: [leak, Gloss(("game",), "a thing to play", ("a fine game",), "noun")]


def described(split: str, language: str, name: str, short: str, long: str) -> Description:
    return Description(name, SOURCES[split], "games", language, short, (long,))


def sources(short: str, long: str, paragraph: str) -> tuple[Descriptions, HelpPages]:
    """Return texts to train on, three of them as given, and held-out ones."""
    english = [
        described("train", "en", "good", "A good game", "Everybody plays it."),
        described("train", "en", "leak", short, long),
        described("test", "en", "held", "Held out", "Held out body"),
        described("test", "en", "held2", "Held out too", LONG),
    ]
    german = [
        described("train", "de", "good", "Ein gutes Spiel", "Alle spielen es."),
        described("train", "de", "leak", "Ein Leck", "Etwas anderes"),
        described("test", "de", "held", "Zurückgehalten", "Zurückgehaltener Text"),
    ]
    packages = {"en": english, "de": german}
    found = {x: {one.package: one for one in ones} for x, ones in packages.items()}
    help_texts = {
        "en-US": {
            "train": {"par_id1": "A paragraph to train on.", "par_id2": paragraph},
            "test": {"par_id3": "The held-out help paragraph"},
        },
        "de": {
            "train": {"par_id1": "Ein Absatz zum Üben.", "par_id2": "Noch ein Absatz."},
            "test": {"par_id3": "Der zurückgehaltene Absatz"},
        },
    }
    pages = {
        language: {
            PAGES[side]: Page(PAGES[side], f"Title {side}", texts) for side, texts in sides.items()
        }
        for language, sides in help_texts.items()
    }
    return Descriptions(found, "made"), HelpPages(pages)


def texts_of(records: list[Record]) -> set[str]:
    found = {text for record in records for text in (record.query, *record.positives)}
    return {" ".join(text.casefold().split()) for text in found}


def held_out_texts() -> set[str]:
    packages, pages = sources("x", "y", "z")
    shown = [*packages.held_out(), *pages.held_out()]
    return {text[:400].strip() for text in shown}


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_no_held_out_text_is_trained_on(leak: tuple[str, str, str], script: Path) -> None:
    found = texts_of(build(script, *sources(*leak)))
    assert not {text.strip() for text in found} & held_out_texts()
    assert {"a good game", "ein gutes spiel", "ein absatz zum üben."} <= found
    if script.stem == "default_records":
        assert {"datei speichern", "datei", "a thing to play", "a fine game"} <= found


def test_a_pair_is_there_once_and_no_text_is_its_own_translation() -> None:
    packages, pages = sources("GNOME", "The desktop.", "A paragraph of some length.")
    german = {**packages.by_language["de"]}
    german["leak"] = described("train", "de", "leak", "Gnome", "Ein Desktop.")
    twins = {"en": packages.english, "de": german, "fr": german}
    records = build(SCRIPTS[0], Descriptions(twins, "made"), pages)
    pairs = [(r.query.casefold(), r.positives[0].casefold()) for r in records]
    assert len(set(pairs)) == len(pairs)
    assert all(query != positive for query, positive in pairs)
    assert ("gnome", "the desktop.") in pairs
