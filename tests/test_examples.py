"""The sample texts are what the README says of them."""

import json
import re
import unicodedata
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read(name: str) -> list[dict[str, str]]:
    lines = (ROOT / "examples" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_samples_are_in_many_languages_and_scripts() -> None:
    texts = read("queries") + read("documents")
    languages = {text["language"] for text in texts}
    letters = {c for text in texts for c in text["text"] if c.isalpha()}
    scripts = {unicodedata.name(c).split()[0] for c in letters}
    assert len(languages) >= 12
    assert len(scripts) >= 6
    said = re.search(r"embeds texts in (\d+) languages", (ROOT / "README.md").read_text())
    assert said is not None
    assert int(said[1]) == len(languages)


def test_every_query_has_its_document() -> None:
    documents = {document["id"] for document in read("documents")}
    assert {query["relevant"] for query in read("queries")} == documents
