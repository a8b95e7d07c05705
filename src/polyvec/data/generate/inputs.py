"""The user's own texts that generation starts from."""

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path

from polyvec.data.generate.tasks import Inputs, Passage
from polyvec.data.identity import text_key
from polyvec.engine.rows import Columns, Row, read_rows
from polyvec.errors import InputError
from polyvec.records.read import read_records
from polyvec.records.write import record_line


def read_passages(
    paths: Sequence[Path], columns: Columns, count: int, seed: int, min_characters: int = 1
) -> Inputs:
    """Draw passages from a corpus of any size, reading it once.

    More passages for a larger ``count`` are the same ones and further ones, in the same order.

    Raises:
        InputError: A file cannot be read, or no passage is long enough.
    """
    digest = hashlib.sha256()

    def drawn() -> Iterator[tuple[int, int, Row]]:
        for number, row in enumerate(read_rows(paths, columns)):
            digest.update(f"{row.id}\0{row.text}\0".encode("utf-8", "surrogatepass"))
            if len(row.text.strip()) >= min_characters:
                yield text_key(f"{seed} {number} {row.text}"), number, row

    rows = heapq.nsmallest(count, drawn(), key=lambda place: place[:2])
    if not rows:
        raise InputError(
            f"{', '.join(map(str, paths))}: no passage has {min_characters} characters or more."
        )
    passages = [Passage(row.text, str(row.id)) for _, _, row in rows]
    return Inputs(passages=passages, fingerprint=digest.hexdigest()[:16])


def read_originals(paths: Sequence[Path]) -> Inputs:
    """Read the records to translate.

    Raises:
        InputError: A file or a row cannot be used, or there is none.
    """
    records = [record for path in paths for record in read_records(path)]
    if not records:
        raise InputError(f"{', '.join(map(str, paths))}: there is no record to translate.")
    digest = hashlib.sha256(b"".join(map(record_line, records)))
    return Inputs(records=records, fingerprint=digest.hexdigest()[:16])
