"""Clusters: known groups are found, described by their centres, and compared with labels."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from sklearn.metrics import v_measure_score

from polyvec.errors import InputError
from polyvec.evaluate.clusters import Method, cluster_texts
from tests.command import Command
from tests.test_classify import blobs
from tests.tiny import write_model


def unequal(noise: float = 0.2) -> tuple[Any, list[str]]:
    vectors, labels = blobs(3, 20, noise)
    keep = [*range(20), *range(20, 35), *range(40, 50)]
    return vectors[keep], [labels[n] for n in keep]


@pytest.mark.parametrize("method", get_args(Method))
def test_known_groups_are_found(method: Method) -> None:
    vectors, labels = unequal()
    found = cluster_texts(vectors, method, labels=labels)
    assert found.sizes == [20, 15, 10]
    assert found.clusters == [int(label[1]) for label in labels]  # numbered by size
    assert found.agreement == pytest.approx(
        {"v_measure": 1, "homogeneity": 1, "completeness": 1, "adjusted_rand": 1}
    )
    assert found.silhouette is not None
    assert found.silhouette > 0.8
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first = unit[:20]
    nearest = np.argsort(-(first @ first.mean(axis=0)))[:3]
    assert found.representatives[0] == nearest.tolist()


def test_the_number_can_be_stated() -> None:
    vectors, labels = unequal()
    found = cluster_texts(vectors, count=2, labels=labels, shown=1)
    assert len(found.sizes) == len(found.representatives) == 2
    assert found.agreement["v_measure"] == pytest.approx(v_measure_score(labels, found.clusters))
    assert found.agreement["v_measure"] < 1


def test_hdbscan_leaves_out_what_belongs_to_none() -> None:
    vectors, _ = unequal()
    stray = np.random.default_rng(9).normal(size=(4, 16)).astype(np.float32)
    found = cluster_texts(np.concatenate([vectors, stray]), "hdbscan", min_size=8)
    assert found.sizes == [20, 15, 10]
    assert found.clusters[-4:] == [-1] * 4
    only = cluster_texts(stray, "hdbscan", min_size=4)
    assert (only.clusters, only.sizes, only.silhouette) == ([-1] * 4, [], None)


def test_options_that_make_no_sense() -> None:
    vectors, labels = unequal()
    for options, words in (
        ({"count": 45}, "--clusters is 45; with 45 texts it is 2 to 44"),
        ({"method": "hdbscan", "count": 2}, "leave --clusters out"),
        ({"method": "hdbscan", "min_size": 46}, "--min-size is 46"),
        ({"labels": labels[1:]}, "45 texts have 44 labels"),
    ):
        with pytest.raises(InputError, match=words):
            cluster_texts(vectors, **options)
    with pytest.raises(InputError, match="at least 3"):
        cluster_texts(vectors[:2])


def test_agglomerative_refuses_what_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyvec.evaluate.clusters._MAX_PAIRED_TEXTS", 44)
    with pytest.raises(InputError, match=r"at most 44 texts; given: 45. Take --method kmeans"):
        cluster_texts(unequal()[0], "agglomerative")


def test_the_silhouette_of_many_texts_is_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = unequal()
    whole = cluster_texts(vectors, count=3).silhouette
    monkeypatch.setattr("polyvec.evaluate.clusters._MAX_JUDGED_TEXTS", 30)
    sampled = cluster_texts(vectors, count=3).silhouette
    assert sampled is not None
    assert whole != sampled
    assert sampled == pytest.approx(whole, abs=0.05)


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    write_model(tmp_path / "m")
    fox, dog = "the quick brown fox jumps", "собаку ленивую лиса"
    rows = [(f"{fox} {n}", "fox") for n in range(8)] + [(f"{dog} {n}", "dog") for n in range(6)]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_groups_of_a_file(run: Command, setup: Path) -> None:
    options = ("-m", setup / "m", "--label-column", "label", "-o", setup / "g.jsonl")
    result = run("cluster", setup / "t.jsonl", *options, "-n", "2")
    assert result.code == 0, result.err
    assert "cluster 0, 8 texts" in result.out
    assert "the quick brown fox" in result.out
    assert "v measure 1.000" in result.out
    lines = [json.loads(line) for line in (setup / "g.jsonl").read_text().splitlines()]
    assert [line["cluster"] for line in lines] == [0] * 8 + [1] * 6
    facts = json.loads(run("cluster", setup / "t.jsonl", "-m", setup / "m", "--json").out)
    assert facts["clusters"][0]["size"] == 8
    assert facts["agreement"] == {}


def test_bad_input(run: Command, setup: Path) -> None:
    base = ("cluster", setup / "t.jsonl", "-m", setup / "m")
    result = run(*base, "--method", "dbscan")
    assert (result.code, "--method is 'dbscan'; allowed: kmeans" in result.err) == (2, True)
    (setup / "g.jsonl").write_text("")
    result = run(*base, "-o", setup / "g.jsonl")
    assert (result.code, "use --force" in result.err) == (2, True)
