"""The offline benchmark's sets, on descriptions and pages made here."""

from collections.abc import Sequence

import numpy as np
import pytest

from polyvec.evaluate import offline_sets as sets
from polyvec.sources.descriptions import Description, Descriptions
from polyvec.sources.help_pages import HelpPages, Page
from polyvec.sources.split import page_split, source_split

HELD_OUT = [f"s{i}" for i in range(400) if source_split(f"s{i}") == "test"]
PAGES = [f"p{i}" for i in range(400) if page_split(f"p{i}") == "test"]


def _text(source: str, language: str, short: str, section: str = "games") -> Description:
    return Description(f"{source}-bin", source, section, language, short, (f"About {short}.",))


def _descriptions(sources: Sequence[str], languages: Sequence[str]) -> Descriptions:
    texts = {
        language: {
            f"{source}-bin": _text(source, language, f"{source} in {language}")
            for source in sources
        }
        for language in ("en", *languages)
    }
    return Descriptions(texts, "test")


@pytest.fixture
def tests() -> Descriptions:
    return _descriptions(HELD_OUT[:30], [*sets.LANGUAGES]).of("test")


def test_the_pool_has_one_package_a_source_and_the_most_translated_first(
    tests: Descriptions,
) -> None:
    english = dict(tests.english)
    first = HELD_OUT[0]
    english["twin"] = Description("twin", first, "games", "en", "Twin", ("Twin.",))
    english["echo"] = Description("echo", "other", "games", "en", f"{first} in en", ("Echo.",))
    found = sets.pool(Descriptions({**tests.by_language, "en": english}, "test"))
    assert len(found) == 30
    assert not {"twin", "echo"} & set(found)


def test_queries_left_in_english_are_not_asked(tests: Descriptions) -> None:
    german = dict(tests.by_language["de"])
    name = f"{HELD_OUT[0]}-bin"
    german[name] = tests.english[name]
    found = sets.shorts(Descriptions({**tests.by_language, "de": german}, "test"))
    assert len(found["de"].queries) == 29
    assert len(found["fr"].queries) == 30
    assert found["de"].documents[name] == f"{HELD_OUT[0]} in en"
    assert all(found["de"].right[x] == x for x in found["de"].queries)


def test_long_descriptions_are_the_documents_and_bm25_leaves_what_is_hard() -> None:
    texts = {f"d{i}": f"word{i} common" for i in range(20)}
    easy = {"d3": "word3"}
    search = sets.Search(easy | {"d4": "nothing shared"}, texts, {"d3": "d3", "d4": "d4"})
    assert sets.bm25_ranks(search).tolist() == [0, 19]  # a tie is a miss
    assert list(sets.hard({"de": search})["de"].queries) == ["d4"]


def test_words_are_pairs_of_characters_where_none_are_written_apart() -> None:
    assert sets.words("Grüße, World 42") == ["grüße", "world", "42"]
    assert sets.words("日本語 字") == ["日本", "本語", "字"]


def test_bm25_gives_zeros_for_a_query_without_words() -> None:
    assert not sets.bm25_scores(("...",), ("a b", "c d")).any()
    assert np.argmax(sets.bm25_scores(("d",), ("a b", "c d"))) == 1


def test_help_pairs_are_the_same_paragraphs_in_every_language() -> None:
    def page(name: str, language: str) -> Page:
        texts = {
            f"par_id{i}": f"Paragraph {i} of {name} in {language}, quite long." for i in (1, 2)
        }
        texts["par_id3"] = "left in English everywhere"
        texts["par_id4"] = f"no {language}"  # too short
        return Page(name, name, texts)

    languages = ("en-US", *sets.HELP_LANGUAGES)
    pages = HelpPages({x: {name: page(name, x) for name in PAGES[:3]} for x in languages})
    found = sets.help_pairs(pages)
    assert set(found) == set(sets.HELP_LANGUAGES)
    assert len(found["de"].english) == 6
    assert found["de"].english == found["ja"].english
    assert [x.replace(" in de", " in en-US") for x in found["de"].other] == found["de"].english


def test_sections_are_learned_from_sources_that_are_not_held_out() -> None:
    train = [f"s{i}" for i in range(400) if source_split(f"s{i}") == "train"]
    languages = sets.SECTION_LANGUAGES[1:]
    texts = _descriptions([*HELD_OUT[:8], *train[:50]], languages)
    examples = sets.section_examples(texts.of("train"))
    assert set(examples.labels) == {"games"}
    assert len(examples.texts) == sets.EXAMPLES_EACH
    asked = sets.section_tests(texts.of("test"))
    assert {len(found.texts) for found in asked.values()} == {8}
    assert not set(examples.texts) & {x for found in asked.values() for x in found.texts}
    few = sets.section_tests(_descriptions(HELD_OUT[:4], languages).of("test"))
    assert few["en"].texts == []  # under five is no measure
