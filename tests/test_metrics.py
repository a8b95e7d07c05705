"""Measures equal trec_eval's, search equals a full sort, and chance is what theory says."""

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from polyvec.errors import InputError
from polyvec.metrics import (
    bootstrap_interval,
    holm,
    nearest,
    permutation_test,
    query_metrics,
    run_metrics,
    unit,
)

DOCUMENTS = [f"d{n}" for n in range(12)]
OURS_TO_TREC = {
    "ndcg@5": "ndcg_cut_5", "ndcg@100": "ndcg_cut_100", "recall@3": "recall_3",
    "precision@5": "P_5", "mrr@1000": "recip_rank", "map@5": "map_cut_5", "map@1000": "map",
    "accuracy@1": "success_1", "accuracy@5": "success_5",
}  # fmt: skip


@given(
    st.lists(st.sampled_from(DOCUMENTS), unique=True, min_size=1),
    st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-1, 3), min_size=1),
)
def test_measures_are_trec_evals(ranking: list[str], relevance: dict[str, int]) -> None:
    measures = {"ndcg_cut.5,100", "recall.3", "P.5", "recip_rank", "map_cut.5", "map", "success"}
    evaluator = pytrec_eval.RelevanceEvaluator({"q": relevance}, measures)
    theirs = evaluator.evaluate({"q": {d: float(-n) for n, d in enumerate(ranking)}})["q"]
    ours = query_metrics(ranking, relevance, tuple(OURS_TO_TREC))
    for name, trec in OURS_TO_TREC.items():
        assert ours[name] == pytest.approx(theirs[trec], abs=1e-9), name


def test_a_query_without_a_ranking_scores_zero_and_counts() -> None:
    values = run_metrics({"a": ["x"]}, {"a": {"x": 1}, "b": {"x": 1}}, ("recall@1", "mrr@10"))
    assert values["recall@1"].tolist() == values["mrr@10"].tolist() == [1, 0]


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "ndcg@x", "bleu@4", "@10"])
def test_unknown_measures_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="Give one of ndcg, recall, precision, mrr, map, accuracy"):
        query_metrics(["a"], {"a": 1}, (name,))


def test_a_document_ranked_twice_is_refused() -> None:
    with pytest.raises(InputError, match="'b' is ranked twice"):
        query_metrics(["a", "b", "c", "b"], {"a": 1})


@pytest.mark.parametrize("k", [1, 7, 100_000])
def test_search_is_a_stable_full_sort(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    monkeypatch.setattr("polyvec.metrics._DOCUMENTS_A_BLOCK", 16)
    monkeypatch.setattr("polyvec.metrics._QUERIES_A_BLOCK", 5)
    random = np.random.default_rng(0)
    # Small whole numbers: exact products, and hundreds of ties across the blocks' edges.
    queries = random.integers(-2, 3, (13, 4)).astype(np.float32)
    documents = random.integers(-2, 3, (70, 4)).astype(np.float32)
    rows, scores = nearest(queries, documents, k)
    expected = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k]
    assert rows.tolist() == expected.tolist()
    assert scores.tolist() == np.take_along_axis(queries @ documents.T, expected, 1).tolist()


def test_search_keeps_float32_exactly() -> None:
    random = np.random.default_rng(1)
    queries, documents = (random.normal(size=(n, 8)).astype(np.float32) for n in (3, 50))
    rows, scores = nearest(queries, documents, 50)
    full = queries @ documents.T
    assert np.array_equal(scores, np.take_along_axis(full, rows, axis=1))
    assert (np.diff(scores, axis=1) <= 0).all()


def test_search_refuses_what_it_cannot_compare() -> None:
    one = np.ones((1, 2), np.float32)
    with pytest.raises(InputError, match=r"of one width are needed: \(\(1, 2\), \(1, 3\)\)"):
        nearest(one, np.ones((1, 3), np.float32), 1)
    with pytest.raises(InputError, match="no document"):
        nearest(one, np.ones((0, 2), np.float32), 1)
    with pytest.raises(InputError, match="NaN or infinity"):
        nearest(one, np.full((1, 2), np.nan, np.float32), 1)
    with pytest.raises(InputError, match="k is 0"):
        nearest(one, one, 0)


def test_unit_vectors() -> None:
    scaled = unit(np.array([[3, 4], [0, 0]], np.float32))
    assert scaled.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


def test_the_interval_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(2).normal(0.5, 0.2, 2_000)
    mean, low, high = bootstrap_interval(values)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - error, abs=0.1 * error)
    assert high == pytest.approx(mean + error, abs=0.1 * error)
    assert bootstrap_interval(values) == (mean, low, high)  # seeded
    assert bootstrap_interval(values, seed=1) != (mean, low, high)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        _, low, high = bootstrap_interval(random.binomial(1, 0.4, 200), resamples=400)
        covered += low <= 0.4 <= high
    assert 0.91 <= covered / 300 <= 0.99


def test_an_exact_p_value() -> None:
    # Of the 2**5 ways to give five differences of one size their signs, two are as extreme.
    assert permutation_test([0] * 5, [1] * 5) == 2 / 32
    assert permutation_test([1, 2, 3], [1, 2, 3]) == 1
    assert permutation_test([0, 0, 0], [1, -1, 0]) == 1


def test_a_sampled_p_value_is_near_the_exact_one() -> None:
    random = np.random.default_rng(4)
    a, b = random.normal(0, 1, 12), random.normal(0.5, 1, 12)
    exact, sampled = permutation_test(a, b), permutation_test(a, b, rounds=4_000)
    assert exact != sampled
    assert sampled == pytest.approx(exact, abs=0.03)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    random = np.random.default_rng(5)
    ps = [permutation_test(random.normal(size=30), random.normal(size=30), 500) for _ in range(300)]
    assert np.mean(np.array(ps) <= 0.05) <= 0.09
    assert 0.4 <= np.mean(ps) <= 0.6


def test_paired_tests_need_pairs() -> None:
    with pytest.raises(InputError, match="2 and 1 values"):
        permutation_test([1, 2], [1])
    with pytest.raises(InputError, match="at least one value"):
        bootstrap_interval([])


def test_holm_is_the_textbook_example() -> None:
    # Holm 1979 in https://en.wikipedia.org/wiki/Holm-Bonferroni_method: alphas .05/4, /3, /2, /1
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
