"""A question from files to numbers: known answers, resumed runs, and what is no comparison."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polyvec.errors import InputError, OutputError, ResumeError
from polyvec.evaluate.cache import VectorCache
from polyvec.evaluate.collection import Collection
from polyvec.evaluate.compare import compare
from polyvec.evaluate.question import Question, evaluate_model
from polyvec.evaluate.results import earlier_result, read_result, result_file, write_result
from tests.encoders import Killed, WordCounts

COLLECTION = Collection(
    {"q1": "red fox", "q2": "blue car", "q3": "nothing alike", "q4": "green"},
    {"d1": "a red fox", "d2": "a blue car", "d3": "the red car", "d4": "green", "d5": "dull"},
    {"q1": {"d1": 1}, "q2": {"d2": 1, "d3": 1}, "q3": {"d5": 1}, "q4": {"d4": 1}},
    {"q1": "en", "q2": "en", "q3": "xx", "q4": "xx"},
)
QUESTION = Question(("ndcg@3", "accuracy@1", "recall@3"), resamples=200)


def words(tmp_path: Path, **changes: str) -> VectorCache:
    return VectorCache(tmp_path / "vectors", WordCounts(**changes))  # type: ignore[arg-type]


def test_a_known_answer(tmp_path: Path) -> None:
    result = evaluate_model("words", words(tmp_path), COLLECTION, QUESTION)
    assert result.values("accuracy@1") == [1, 1, 0, 1]
    assert result.values("recall@3") == [1, 1, 0, 1]
    assert result.scores["accuracy@1"]["mean"] == 0.75
    assert result.scores["accuracy@1"]["low"] < 0.75 < result.scores["accuracy@1"]["high"]
    assert result.languages["en"]["accuracy@1"]["mean"] == 1
    assert result.languages["xx"]["accuracy@1"]["mean"] == 0.5
    assert result.languages["xx"]["queries"] == {"count": 2}
    (worst,) = (failure for failure in result.worst if failure["score"] == 0)
    assert worst["text"] == "nothing alike"
    assert worst["wanted"] == [{"id": "d5", "text": "dull", "rank": 5}]
    assert len(worst["found"]) == 3
    assert result.counts == {"queries": 4, "documents": 5, "judgements": 5}
    assert result.about["embedded_texts"] == 9


def test_vectors_cut_to_fewer_numbers(tmp_path: Path) -> None:
    question = replace(QUESTION, dimensions=(64, 1))
    result = evaluate_model("words", words(tmp_path), COLLECTION, question)
    assert result.dimensions["64"]["ndcg@3"] == pytest.approx(result.scores["ndcg@3"]["mean"])
    assert result.dimensions["1"]["ndcg@3"] < result.dimensions["64"]["ndcg@3"]
    with pytest.raises(InputError, match="have 64 numbers; 65 cannot be kept"):
        evaluate_model("w", words(tmp_path), COLLECTION, replace(QUESTION, dimensions=(65,)))


def test_a_document_with_the_querys_own_id_is_left_out_where_asked(tmp_path: Path) -> None:
    same = Collection({"a": "red"}, {"a": "red", "b": "red fox"}, {"a": {"b": 1}})
    for skip, first in ((False, "a"), (True, "b")):
        question = Question(("accuracy@1",), skip_same_id=skip, resamples=10)
        result = evaluate_model("words", words(tmp_path), same, question)
        assert result.queries["a"].retrieved[0][0] == first


def test_a_killed_run_embeds_only_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyvec.evaluate.cache._CHUNK_TEXTS", 2)
    with pytest.raises(KeyboardInterrupt):
        killed = VectorCache(tmp_path / "vectors", Killed(texts=4))
        evaluate_model("words", killed, COLLECTION, QUESTION)
    resumed = words(tmp_path)
    result = evaluate_model("words", resumed, COLLECTION, QUESTION)
    assert resumed.embedded == 9 - 4
    whole = evaluate_model("words", words(tmp_path / "b"), COLLECTION, QUESTION)
    assert result.queries == whole.queries
    assert evaluate_model("words", words(tmp_path), COLLECTION, QUESTION).queries == whole.queries


def test_the_cache_tells_roles_instructions_and_models_apart(tmp_path: Path) -> None:
    cache = words(tmp_path)
    cache.encode(["x"], "query")
    cache.encode(["x"], "query", "find")
    cache.encode(["x"], "query", "")
    cache.encode(["x", "x", "", "  "], "document")
    assert cache.embedded == 4
    assert cache.encode(["", "x"], "document").any(axis=1).tolist() == [False, True]
    other = words(tmp_path, fingerprint="other")
    other.encode(["x"], "query")
    assert (other.embedded, cache.embedded) == (1, 4)
    assert len(list((tmp_path / "vectors").glob("*.sqlite"))) == 2


def test_cached_vectors_are_exact_and_in_order(tmp_path: Path) -> None:
    texts = [f"word{n} " * (n % 5) + "x" for n in range(1_100)]
    first = words(tmp_path).encode(texts, "document")
    again = words(tmp_path)
    assert np.array_equal(again.encode(texts, "document"), first)
    assert again.embedded == 0
    assert np.array_equal(WordCounts().encode_document(texts), first)


def test_a_damaged_or_foreign_cache_is_named(tmp_path: Path) -> None:
    cache = words(tmp_path)
    with pytest.raises(ResumeError, match="holds vectors of"):
        VectorCache(tmp_path / "vectors", WordCounts(dimension=8))
    with sqlite3.connect(cache.path) as connection:
        connection.execute("DROP TABLE vectors")
    connection.close()
    cache.path.write_bytes(b"no database" * 100)
    with pytest.raises(OutputError, match="cannot be used: file is not a database"):
        words(tmp_path)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    result = evaluate_model("a/b c:d", words(tmp_path), COLLECTION, QUESTION)
    path = result_file(tmp_path, result.model)
    write_result(path, result)
    assert path.name.startswith("a-b-c-d-")
    assert read_result(path) == result
    asked = (result.fingerprint, result.collection, QUESTION.facts())
    assert earlier_result(path, *asked) == result
    assert earlier_result(tmp_path / "none.json", *asked) is None


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    result = evaluate_model("words", words(tmp_path), COLLECTION, QUESTION)
    path = result_file(tmp_path, "words")
    write_result(path, result)
    with pytest.raises(ResumeError, match=r"other fingerprint .*\(fingerprint words there, new"):
        earlier_result(path, "new", result.collection, QUESTION.facts())
    other = replace(QUESTION, instruction="x").facts()
    differing = r"other collection and settings .*other now; instruction None there, x now\)"
    with pytest.raises(ResumeError, match=differing):
        earlier_result(path, result.fingerprint, "other", other)
    path.write_text('{"format": "polyvec retrieval result 1", "model": "x"}')
    with pytest.raises(InputError, match=r"is damaged: it lacks .*about, collection"):
        read_result(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="is not a 'polyvec retrieval result 1'"):
        read_result(path)
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        read_result(path)


def many_queries(good: int) -> Collection:
    queries = {f"q{n}": f"word{n}" for n in range(40)}
    documents = {f"d{n}": f"word{n}" if n < good else f"none{n}" for n in range(40)}
    return Collection(queries, documents, {f"q{n}": {f"d{n}": 1} for n in range(40)})


def test_models_are_compared_query_by_query(tmp_path: Path) -> None:
    collection = many_queries(40)
    question = Question(("accuracy@1",), resamples=500)
    encoders = {
        "good": WordCounts(4_096, "good"),
        "bad": WordCounts(2, "bad"),
        "same": WordCounts(4_096, "same"),
    }
    results = [
        evaluate_model(name, VectorCache(tmp_path, encoder), collection, question)
        for name, encoder in encoders.items()
    ]
    rows = compare(results)["accuracy@1"]
    assert rows["same"] == {"difference": 0, "low": 0, "high": 0, "p": 1, "p_holm": 1}
    assert rows["bad"]["high"] < 0
    assert rows["bad"]["p"] == 1 / 501
    assert rows["bad"]["p_holm"] == 2 / 501


def test_results_on_other_texts_are_not_compared(tmp_path: Path) -> None:
    a = evaluate_model("a", words(tmp_path), COLLECTION, QUESTION)
    with pytest.raises(InputError, match="only results on the same texts and judgements"):
        compare([a, replace(a, model="b", collection="other")])
    with pytest.raises(InputError, match="Evaluate them with the same --metric"):
        compare([a, replace(a, model="b", metrics=["mrr@3"])])


def test_questions_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="'ndcg' is no measure"):
        Question(("ndcg",))
    with pytest.raises(InputError, match="At least one measure"):
        Question(())
