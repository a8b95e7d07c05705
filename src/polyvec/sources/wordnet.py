"""WordNet 3.0: what English words mean, with examples, from Debian's package ``wordnet-base``.

117,659 sets of synonyms with a definition each. Its licence lets one use, copy and change it
without fee if the notice stays (Princeton University 2006).
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from polyvec.errors import DownloadError
from polyvec.sources.apt import packages
from polyvec.sources.deb import files

_FOLDER = "usr/share/wordnet/data."
_EXAMPLE = re.compile(r'(?:^|[;:,]\s*)"([^"]+)"')
_MARKER = re.compile(r"\((a|p|ip)\)$")
"""Where an adjective may stand (wndb(5WN))."""


@dataclass(frozen=True)
class Gloss:
    """A meaning and the words that have it."""

    lemmas: tuple[str, ...]
    """Synonyms, the most frequent first."""
    definition: str
    examples: tuple[str, ...]
    part_of_speech: str
    """``noun``, ``verb``, ``adj`` or ``adv``."""


def glosses() -> list[Gloss]:
    """Read all meanings, fetched on first use (6.5 MB).

    Raises:
        DownloadError, DiskFullError: They cannot be fetched, or the package is broken.
    """
    package = packages(["wordnet-base"])["wordnet-base"]
    found: list[Gloss] = []
    for name, content in files(package, _FOLDER):
        try:
            found += _glosses(content.decode(), name.removeprefix(_FOLDER))
        except (ValueError, IndexError) as error:
            raise DownloadError(
                f"{name} in {package} is broken ({error}); delete it to fetch it anew."
            ) from error
    return found


def word_definitions(found: Sequence[Gloss], max_words: int = 3) -> list[tuple[str, str]]:
    """Return (words with commas between, definition); the words are one meaning's synonyms."""
    return [(", ".join(gloss.lemmas[:max_words]), gloss.definition) for gloss in found]


def example_definitions(found: Sequence[Gloss]) -> list[tuple[str, str]]:
    """Return (example sentence, definition of the word it shows)."""
    return [(example, gloss.definition) for gloss in found for example in gloss.examples]


def synonyms(found: Sequence[Gloss]) -> list[tuple[str, str]]:
    """Return (most frequent word, another one) of each meaning with several, once each."""
    pairs = ((gloss.lemmas[0], other) for gloss in found for other in gloss.lemmas[1:])
    return list(dict.fromkeys(pairs))


def _glosses(text: str, part: str) -> Iterator[Gloss]:
    """Parse a data file as wndb(5WN) has it; lines that begin with a blank are its licence."""
    for line in unicodedata.normalize("NFC", text).splitlines():
        if line.startswith(" "):
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split(" ")
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        lemmas = tuple(_MARKER.sub("", word).replace("_", " ") for word in words)
        first = _EXAMPLE.search(gloss)
        definition = (gloss[: first.start()] if first else gloss).strip(" ;:,")
        if definition and lemmas:
            examples = tuple(x.strip() for x in _EXAMPLE.findall(gloss))
            yield Gloss(lemmas, definition, examples, part)
