"""``polyvec rank``: the order is the similarity's, whatever the chunks."""

import json
from pathlib import Path

import pytest

import polyvec
from tests.command import Command
from tests.tiny import write_model

TEXTS = ["the quick brown fox", "敏捷的棕色狐狸", "ленивую собаку", "the lazy dog", "the lazy dog"]
PROMPTS = {"query": "Instruct: Find it\nQuery: "}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("rank") / "tiny", prompts=PROMPTS)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    return tmp_path / "t.txt"


@pytest.mark.parametrize("chunk", [2, 100])
def test_the_order_is_the_similaritys(
    run: Command, model: Path, texts: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyvec.cli.rank._CHUNK_ROWS", chunk)
    options = ("-m", model, "--precision", "fp32", "--json")
    result = json.loads(run("rank", "a dog", texts, *options, "-k", "0").out)
    embedder = polyvec.load(str(model), precision="fp32")
    scores = embedder.similarity(embedder.encode_query(["a dog"]), embedder.encode_document(TEXTS))
    order = [row["id"] for row in result["results"]]
    assert order == (-scores[0].round(6)).argsort(kind="stable").tolist()
    best = result["results"][0]
    assert best["similarity"] == pytest.approx(float(scores.max()), abs=1e-5)
    assert best["where"] == f"{texts}, line {order[0] + 1}"
    shorter = json.loads(run("rank", "a dog", texts, *options, "-k", "2").out)
    assert shorter["results"] == result["results"][:2]


def test_equal_texts_keep_their_order(run: Command, model: Path, texts: Path) -> None:
    result = json.loads(run("rank", "x", texts, "-m", model, "-k", "0", "--json").out)
    order = [row["id"] for row in result["results"]]
    assert order.index(4) == order.index(3) + 1


def test_people_see_places(run: Command, model: Path, texts: Path) -> None:
    lines = run("rank", "the fox", texts, "-m", model, "-k", "3").out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]


def test_standard_input_columns_and_a_floor(run: Command, model: Path) -> None:
    stdin = "".join(json.dumps({"key": f"k{n}", "body": t}) + "\n" for n, t in enumerate(TEXTS))
    columns = ("--text-column", "body", "--id-column", "key", "--format", "jsonl")
    arguments = ("rank", "the fox", "-", *columns, "-m", model, "--json")
    results = json.loads(run(*arguments, stdin=stdin).out)["results"]
    assert {row["id"] for row in results} == {"k0", "k1", "k2", "k3", "k4"}
    floor = results[1]["similarity"] - 1e-4
    few = json.loads(run(*arguments, "--min-similarity", str(floor), stdin=stdin).out)["results"]
    assert few == [row for row in results if row["similarity"] >= floor]
    assert len(few) < 5


def test_bad_input(run: Command, model: Path, texts: Path, tmp_path: Path) -> None:
    result = run("rank", " ", texts, "-m", model)
    assert (result.code, "The query is empty" in result.err) == (2, True)
    (tmp_path / "e.txt").write_text("")
    result = run("rank", "x", tmp_path / "e.txt", "-m", model)
    assert (result.code, "no text to rank" in result.err) == (2, True)
    assert run("rank", "x", tmp_path / "none.txt", "-m", model).code == 2
