"""Package descriptions in Debian, English and translated (the DDTP's work).

A description is a short line and some paragraphs. 183,000 are translated, and their paragraphs are
parallel to the English ones. A translation is used if it is of the English text as it is now: apt
joins the two by the md5 of the English text, and so do we. No licence of the translations is
stated; the English texts are part of free source packages. They are read at run time and are not
to be passed on as a corpus.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyvec.errors import InputError
from polyvec.sources.apt import LANGUAGES, edition, lists, translation_file
from polyvec.sources.split import HeldOut, Split, source_split


@dataclass(frozen=True, slots=True)
class Description:
    """One package's description in one language."""

    package: str
    source: str
    """The source package it is built from; packages of one source share texts."""
    section: str
    """Debian's topic, such as ``games`` or ``science``."""
    language: str
    """``en``, ``de``, ``pt-BR``, ..."""
    short: str
    paragraphs: tuple[str, ...]
    """The long description; lists and tables are paragraphs too."""

    @property
    def long(self) -> str:
        """The paragraphs, with blank lines between."""
        return "\n\n".join(self.paragraphs)

    @property
    def split(self) -> Split:
        """Whether it is held out for tests."""
        return source_split(self.source)


@dataclass(frozen=True)
class Descriptions:
    """Descriptions by language, then by package; English is always there."""

    by_language: Mapping[str, Mapping[str, Description]]
    edition: str
    """Which Debian they are of."""

    @property
    def english(self) -> Mapping[str, Description]:
        """English descriptions by package."""
        return self.by_language["en"]

    def of(self, split: Split) -> "Descriptions":
        """Return one side of the split.

        For ``train`` every description goes that has a short line or a paragraph equal to one that
        is held out, in any language here.
        """
        held_out = self.held_out() if split == "train" else HeldOut()
        chosen = {
            language: {
                package: text
                for package, text in found.items()
                if text.split == split and not any(x in held_out for x in _texts(text))
            }
            for language, found in self.by_language.items()
        }
        return Descriptions(chosen, self.edition)

    def held_out(self) -> HeldOut:
        """Return every short line, paragraph and whole text of the test side."""
        found = (text for texts in self.by_language.values() for text in texts.values())
        return HeldOut(x for text in found if text.split == "test" for x in _texts(text))


def _texts(description: Description) -> tuple[str, ...]:
    return (description.short, *description.paragraphs, description.long)


def descriptions(languages: Sequence[str] = LANGUAGES) -> Descriptions:
    """Read the descriptions in English and the given languages, fetched on first use (36 MB).

    Raises:
        InputError: A language has no translations; the message lists those that have.
        DownloadError, DiskFullError: They cannot be fetched.
    """
    if unknown := sorted(set(languages) - set(LANGUAGES) - {"en"}):
        raise InputError(
            f"Debian's descriptions are not read in {', '.join(unknown)}. Languages: en, "
            f"{', '.join(LANGUAGES)}."
        )
    folder = lists()
    facts = _package_facts(next(folder.glob("*_Packages")))
    md5s = {package: fact["Description-md5"] for package, fact in facts.items()}
    chosen = ("en", *(x for x in languages if x != "en"))
    read = {x: dict(_translations(translation_file(folder, x), x, facts, md5s)) for x in chosen}
    return Descriptions(read, edition(folder))


def _package_facts(path: Path) -> dict[str, dict[str, str]]:
    """Return source, section and md5 of the English text by package."""
    return {
        stanza["Package"]: stanza
        for stanza in read_stanzas(path, ("Package", "Source", "Section", "Description-md5"))
        if "Description-md5" in stanza
    }


def _translations(
    path: Path,
    language: str,
    facts: Mapping[str, Mapping[str, str]],
    md5s: Mapping[str, str],
) -> Iterator[tuple[str, Description]]:
    """Yield (package, description) of the translations that are of the current English text."""
    field = f"Description-{language.replace('-', '_')}"
    for stanza in read_stanzas(path, ("Package", "Description-md5", field)):
        package = stanza["Package"]
        if field not in stanza or md5s.get(package) != stanza["Description-md5"]:
            continue
        short, _, long = stanza[field].partition("\n")
        paragraphs = _paragraphs(long)
        if short.strip() and paragraphs:
            fact = facts[package]
            source = fact.get("Source", package).partition(" ")[0]
            section = fact.get("Section", "").rpartition("/")[2]
            yield (
                package,
                Description(package, source, section, language, short.strip(), paragraphs),
            )


def _paragraphs(long: str) -> tuple[str, ...]:
    """Return a long description's paragraphs: a line with a dot parts them, lines are joined.

    Lines that begin with a second blank are to be shown as they are: lists, tables, code.
    """
    parts = re.split(r"^ ?\.[ \t]*$", long, flags=re.MULTILINE)
    joined = (" ".join(line.strip() for line in part.splitlines()).strip() for part in parts)
    return tuple(text for text in joined if text)


def read_stanzas(path: Path, fields: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the named fields of a Debian control file's stanzas (RFC 822, as deb822(5) has it).

    A field's further lines are kept with their leading blank.
    """
    wanted = set(fields)
    stanza: dict[str, str] = {}
    field = ""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line[0] in " \t":
                if field:
                    stanza[field] += "\n" + line.rstrip("\n")
            elif line == "\n":
                if stanza:
                    yield stanza
                stanza, field = {}, ""
            else:
                name, _, value = line.partition(":")
                field = name if name in wanted else ""
                if field:
                    stanza[field] = value.strip()
    if stanza:
        yield stanza
