"""What part of a question a passage says, and what follows for a hybrid search."""

from pathlib import Path

import numpy as np
import pytest

from polyvec.search.retrieve import Searcher, SearchSettings, explain
from polyvec.search.rows import IndexInfo
from polyvec.search.shares import question_shares
from polyvec.search.store import Store
from tests.library import passage


def share(question: str, text: str, *beside: str) -> float:
    return question_shares(question, {"it": text}, beside)["it"]


def test_all_of_it_is_one_and_words_count_by_their_rarity() -> None:
    english = ["The cat sleeps on the sofa.", "The rent is due.", "The door is the blue one."]
    assert share("reset the router", "Reset the router here.", *english) == pytest.approx(1)
    rare, common = (share("the router", text, *english) for text in ("A router.", "The end."))
    assert common < 0.2 < 0.7 < rare
    german = ["Die Katze schläft.", "Die Miete ist fällig.", "Die Tür ist blau."]
    assert share("the router", "The end.", *german) > 0.3, "a word is rare where it is foreign"


def test_by_hand() -> None:
    found = {"a": "one two", "b": "one"}
    idf = {"one": np.log(1 + (3 - 2 + 0.5) / 2.5), "two": np.log(1 + (3 - 1 + 0.5) / 1.5)}
    idf["three"] = np.log(1 + 3.5 / 0.5)
    shares = question_shares("One, two, three!", found, ["four"])
    whole = sum(idf.values())
    assert shares["a"] == pytest.approx((idf["one"] + idf["two"]) / whole)
    assert shares["b"] == pytest.approx(idf["one"] / whole)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("STRASSE", "Die Straße ist lang."),
        ("resume", "Mon résumé."),
        ("re\u0301sume\u0301", "Mon résumé."),
        ("smorrebrod aero", "Smørrebrød på Ærø"),
        ("路由器 复位", "按住路由器的复位按钮"),
        ("ルータ", "ルータを再起動"),
        ("йога", "Йога для всех"),
        ("किताब", "यह हिन्दी की किताब है"),
        ("0x80070057", "error 0x80070057: parameter"),
        ("C++", "C++ is a language"),
    ],
)
def test_words_are_found_as_full_text_search_finds_them(question: str, text: str) -> None:
    assert share(question, text, "something else") == pytest.approx(1)


def test_parts_of_words_are_no_words() -> None:
    shares = question_shares("cat router", {"a": "concatenate", "b": "cat"}, ["router"])
    assert shares["a"] <= shares["b"]


def test_what_full_text_search_found_counts_a_little_whatever_is_seen_here() -> None:
    assert share("naïveté router", "nothing to see", "naivete", "naivete") > 0
    assert share("?!", "whatever") == 1
    assert question_shares("router", {}, ["router"]) == {}


@pytest.fixture
def foreign(tmp_path: Path) -> Searcher:
    """German passages, a stray one of which has a small word of an English question."""
    texts = {
        "netz.txt": "Das Netzwerk neu starten: die Taste zehn Sekunden lang drücken.",
        "zitat.txt": "Ein Zitat: the end.",
        **{f"{n}.txt": f"Seite {n} handelt von etwas anderem." for n in range(6)},
    }
    chunks = [passage(path, 0, text, language="de") for path, text in texts.items()]
    vectors = np.eye(len(chunks), 8, dtype=np.float32) + 0.3
    info = IndexInfo("made-up", "0123456789abcdef", 8, str(tmp_path))
    store = Store.create(str(tmp_path / "index"), info)
    store.put_chunks(chunks, vectors)
    store.refresh()
    near = np.array([1.0, 0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], dtype=np.float32)
    return Searcher(store, lambda _: near)  # the stray passage is the last by meaning


def test_a_stray_word_does_not_push_down_what_meaning_found(foreign: Searcher) -> None:
    question = "how do I restart the network when nothing else helps any more"
    first, *others = foreign.search(question)
    assert first.chunk.path == "netz.txt", "found by meaning alone"
    stray = next(each for each in others if each.chunk.path == "zitat.txt")
    assert (stray.dense_rank, stray.text_rank) == (8, 1)
    here, nowhere = np.log(1 + 7.5 / 1.5), np.log(1 + 8.5 / 0.5)
    assert stray.query_share == pytest.approx(here / (here + 9 * nowhere)), "one word of ten"
    assert 1 / 68 + 1 / 61 > first.score > stray.score, "as first by words it would be first"
    why = "number 1 by words with 6% of the query; score 1/(60+8) + 0.06/(60+1) = 0.0158"
    assert explain(stray).endswith(why)


def test_a_question_that_is_said_whole_counts_whole(foreign: Searcher) -> None:
    found = foreign.search("zitat the end")[0]
    assert (found.chunk.path, found.query_share) == ("zitat.txt", 1.0)
    for mode in ("dense", "text"):
        assert {r.query_share for r in foreign.search("the", SearchSettings(mode))} == {None}
