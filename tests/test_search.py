"""Searching an index: rankings and their fusion, explained scores, snippets, and the command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from polyvec.errors import IndexMismatchError, InputError
from polyvec.search.diversity import diverse_order
from polyvec.search.fuse import fuse
from polyvec.search.retrieve import Searcher, SearchSettings, explain, open_searcher, place
from polyvec.search.rows import IndexInfo
from polyvec.search.snippets import matches, snippet
from polyvec.search.store import Store
from polyvec.search.where import Where, asked
from tests.command import Command
from tests.library import FILES, PASSAGES, Indexed, index_files, make_searcher, passage
from tests.live import write_tiny


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return make_searcher(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    return index_files(tmp_path_factory.mktemp("indexed"), write_tiny)


# --- Fusion and diversity ---------------------------------------------------------------------


def test_reciprocal_rank_fusion_by_hand() -> None:
    fused = fuse([["a", "b", "c"], ["c", "d"]])
    assert [item.key for item in fused] == ["c", "a", "b", "d"]
    assert fused[0].ranks == (3, 1)
    assert fused[0].score == pytest.approx(1 / 63 + 1 / 61)
    assert fused[2].shares == (1 / 62, 0.0)


def test_a_place_may_count_for_less() -> None:
    fused = fuse([["a", "b"], ["b", "c"]], [{}, {"b": 0.01, "c": 0.5}])
    assert [item.key for item in fused] == ["a", "b", "c"]
    assert fused[1].shares == (1 / 62, 0.01 / 61)
    assert fused[2].score == pytest.approx(0.5 / 62)


def test_diversity_puts_what_is_alike_last() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0, 1]], dtype=np.float32)
    relevance = np.array([1.0, 0.9, 0.5], dtype=np.float32)
    assert diverse_order(relevance, vectors, 0.0) == [0, 1, 2]
    assert diverse_order(relevance, vectors, 0.5) == [0, 2, 1]
    assert diverse_order(relevance[:0], vectors[:0], 0.5) == []


def test_diversity_is_maximal_marginal_relevance() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((12, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = np.linspace(1, 0, 12, dtype=np.float32)
    chosen = diverse_order(relevance, vectors, 0.4)
    for n in range(1, 12):  # the definition, written out
        gains = {}
        for i in set(range(12)) - set(chosen[:n]):
            alike = max(0.0, *(float(vectors[i] @ vectors[j]) for j in (*chosen[:n], chosen[0])))
            gains[i] = 0.6 * relevance[i] - 0.4 * alike
        assert gains[chosen[n]] == pytest.approx(max(gains.values()), abs=1e-6)


# --- Searching --------------------------------------------------------------------------------


def test_hybrid_has_both_rankings_and_says_why(searcher: Searcher) -> None:
    first = searcher.search("reset router")[0]
    assert first.chunk.path == "manuals/router.md"
    assert (first.dense_rank, first.text_rank) == (1, 1)
    assert first.score == pytest.approx(2 / 61)
    assert first.query_share == 1.0
    words = explain(first)
    assert words.startswith(
        f"cosine {first.cosine:.3f}, number 1 by meaning; BM25 {first.bm25:.2f}"
    )
    assert words.endswith("score 1/(60+1) + 1/(60+1) = 0.0328")


def test_meaning_crosses_languages_where_words_do_not(searcher: Searcher) -> None:
    dense = searcher.search("router", SearchSettings("dense"))
    text = searcher.search("router", SearchSettings("text"))
    assert "zh/路由.txt" in {r.chunk.path for r in dense[:4]}
    assert "zh/路由.txt" not in {r.chunk.path for r in text}
    assert dense[0].score == dense[0].cosine
    assert [r.bm25 for r in text] == [r.score for r in text]
    assert "not found" not in explain(text[0])


def test_words_alone_need_no_model(searcher: Searcher) -> None:
    words = Searcher(searcher.store, None)
    assert words.search("复位", SearchSettings("text"))[0].chunk.path == "zh/路由.txt"
    with pytest.raises(InputError, match="without a model"):
        words.search("复位")


def test_copies_are_one_result(searcher: Searcher) -> None:
    found = searcher.search("holiday", SearchSettings("text"))
    assert [(r.chunk.path, r.also_in) for r in found] == [
        ("copy/holiday.txt", ("travel/holiday.txt",))
    ]


def test_every_hybrid_result_has_a_cosine(searcher: Searcher) -> None:
    found = searcher.search("Gustave", SearchSettings(candidates=1, limit=1))
    assert found[0].cosine is not None


def test_filters_hold_in_every_mode(searcher: Searcher) -> None:
    german = Where(languages=["de"])
    for mode in ("hybrid", "dense", "text"):
        found = searcher.search("WLAN Passwort", SearchSettings(mode), german)
        assert [r.chunk.path for r in found] == ["de/netz.pdf"]


def test_grouping_keeps_a_documents_passages_together(searcher: Searcher) -> None:
    found = searcher.search("router WLAN", SearchSettings(per_document=2, limit=2))
    paths = [r.chunk.path for r in found]
    assert len(set(paths)) == 2
    assert paths == sorted(paths, key=paths.index), "a document's passages are neighbours"
    assert paths.count("manuals/router.md") == 2
    single = searcher.search("router WLAN", SearchSettings(per_document=1, limit=3))
    assert len({r.chunk.path for r in single}) == len(single) == 3


def test_diversity_changes_the_order_of_a_search(searcher: Searcher) -> None:
    plain = searcher.search("router reset", SearchSettings("dense", limit=8))
    other = searcher.search("router reset", SearchSettings("dense", limit=8, diversity=0.8))
    assert {r.chunk.text for r in plain} == {r.chunk.text for r in other}
    assert plain[0].chunk == other[0].chunk
    assert other[1].cosine is not None
    assert plain[1].cosine is not None
    assert other[1].cosine < plain[1].cosine


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": "fuzzy"}, "hybrid, dense, text"),
        ({"limit": 0}, "1 is the least"),
        ({"diversity": 1.5}, "from 0 to 1"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SearchSettings(**given)  # type: ignore[arg-type]


def test_places_in_words() -> None:
    by_path = {chunk.path: chunk for chunk in PASSAGES}
    assert place(by_path["de/netz.pdf"]) == "page 3"
    assert place(by_path["zh/路由.txt"]) == "lines 1-5"


# --- Snippets ---------------------------------------------------------------------------------


def marked(text: str, query: str) -> list[str]:
    return [text[start:end] for start, end in matches(text, query)]


def test_words_are_marked_whatever_their_case_and_accents() -> None:
    assert marked("Die Kündigung und KUNDIGUNG, kund", "kündigung") == ["Kündigung", "KUNDIGUNG"]
    assert marked("vectors, vector; invector", "vector") == ["vectors", "vector"]
    assert marked("cats and cat", "cat") == ["cat"]
    assert marked("STRASSE straße İstanbul", "straße istanbul") == ["straße", "İstanbul"]


def test_parts_of_runs_are_marked_where_words_have_no_spaces() -> None:
    assert marked("按住路由器的复位按钮", "路由器怎么复位") == ["路由器", "复位"]
    assert marked("รีเซ็ตเราเตอร์", "เราเตอร์") == ["เราเตอร์"]


def test_small_words_are_marked_only_where_there_are_no_others() -> None:
    assert marked("it is in the router", "is it in router") == ["router"]
    assert marked("it is", "is") == ["is"]


def test_a_snippet_is_where_the_words_are() -> None:
    text = "nothing here. " * 60 + "The reset button\n\n  is behind the router. " + "More. " * 60
    found = snippet(text, "reset router", 120)
    assert found.cut_before
    assert found.cut_after
    assert len(found.text) <= 120
    assert "reset button is behind the router." in found.text
    assert [found.text[a:b] for a, b in found.marks] == ["reset", "router"]
    plain = snippet(text, "quantum", 50)
    assert (plain.start, plain.marks, plain.cut_before) == (0, (), False)


# --- The command ------------------------------------------------------------------------------


def test_the_command_finds_and_explains(run: Command, indexed: Indexed) -> None:
    done = run("search", "reset button router", "--index", indexed.uri, "--explain")
    assert done.code == 0
    assert "router.md" in done.out
    assert "lines " in done.out or "line " in done.out
    assert "number 1 by words" in done.out


def test_the_command_gives_json(run: Command, indexed: Indexed) -> None:
    done = run("search", "Eiffel", "--index", indexed.uri, "--json", "--mode", "text")
    answer = json.loads(done.out)
    assert answer["root"] == str(indexed.root.resolve())
    first = answer["results"][0]
    assert first["path"] == "paris.txt"
    assert first["line_start"] in (1, 2)
    assert [first["snippet"]["text"][a:b] for a, b in first["snippet"]["marks"]] == ["Eiffel"]
    assert first["text_rank"] == 1
    assert first["cosine"] is None


def test_filters_of_the_command(run: Command, indexed: Indexed) -> None:
    flags = ("--index", indexed.uri, "--json", "--mode", "text")
    named = run("search", "router", *flags, "--path", "*.md")
    assert {r["path"] for r in json.loads(named.out)["results"]} == {"router.md"}
    old = run("search", "router", *flags, "--before", "2001-01-01")
    assert json.loads(old.out)["results"] == []
    for stated in ("html", ".HTM"):
        html = run("search", "router", *flags, "--type", stated)
        assert {r["path"] for r in json.loads(html.out)["results"]} == {"hostile.html"}
    assert asked([], ["MD"], ["EN"]) == Where([], ["markdown"], ["en"])


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--type", "pfd", "Did you mean pdf? Known: asciidoc, "),
        ("--language", "german", "'german' is no language's code; write two letters"),
        ("--path", "/etc/passwd", "starts from the machine's root"),
        ("--path", "C:\\notes", "starts from the machine's root"),
        ("--path", "../x", "leads out of the indexed folder"),
    ],
)
def test_filters_that_would_find_nothing_are_refused(
    run: Command, indexed: Indexed, flag: str, value: str, words: str
) -> None:
    done = run("search", "router", "--index", indexed.uri, "--mode", "text", flag, value)
    assert (done.code, words in done.err) == (2, True), done.err


def test_words_that_are_not_indexed_yet_are_said(run: Command, tmp_path: Path) -> None:
    info = IndexInfo("none", "0123456789abcdef", 5, str(tmp_path))
    store = Store.create(str(tmp_path / "index"), info)
    store.put_chunks([passage("a.txt", 0, "the router")], np.ones((1, 5), dtype=np.float32))
    early = run("search", "router", "--mode", "text", "--index", store.uri)
    assert (early.code, "no word was looked for" in early.err) == (0, True)
    store.refresh()
    done = run("search", "router", "--mode", "text", "--index", store.uri)
    assert ("a.txt" in done.out, done.err) == (True, "")


def test_markup_in_documents_stays_text(run: Command, indexed: Indexed) -> None:
    done = run("search", "markup", "--index", indexed.uri, "--mode", "text")
    assert "[bold red]markup" in done.out
    assert "\x1b]" not in done.out


def test_errors_of_the_command(
    run: Command, indexed: Indexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYVEC_INDEXES", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    none = run("search", "x")
    assert none.code == 1
    assert "There is no index yet" in none.err
    assert "polyvec index FOLDER" in none.err
    missing = run("search", "x", "--index", tmp_path / "gone")
    assert "is no index, no folder with one and no index's name" in missing.err
    assert not (tmp_path / "gone").exists()
    day = run("search", "x", "--since", "yesterday", "--index", indexed.uri)
    assert (day.code, "2026-03-01" in day.err) == (2, True)
    mode = run("search", "x", "--mode", "best", "--index", indexed.uri)
    assert "allowed: hybrid, dense, text" in mode.err
    empty = run("search", " ", "--index", indexed.uri)
    assert "The query is empty" in empty.err


def test_a_model_that_has_changed_is_refused(tmp_path: Path) -> None:
    mine = index_files(tmp_path, write_tiny)
    import shutil

    shutil.rmtree(mine.model)
    write_tiny(Path(mine.model), seed=5)
    with pytest.raises(IndexMismatchError, match="--migrate"):
        open_searcher(mine.uri)
    assert open_searcher(mine.uri, "text").search("router", SearchSettings("text"))
    assert len(FILES) == 4


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_the_command_ends_when_it_has_answered(indexed: Indexed, mode: str) -> None:
    """In a process of its own: the store's threads must not keep it from ending."""
    command = [sys.executable, "-m", "polyvec", "search", "router", "--mode", mode]
    done = subprocess.run(
        [*command, "--index", indexed.uri], capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, b"router.md" in done.stdout) == (0, True), done.stderr
