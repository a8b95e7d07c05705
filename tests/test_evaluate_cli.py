"""``polyvec evaluate`` as a user runs it: files in, tables, JSON, a page, and exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

import polyvec
from tests.command import Command, Result
from tests.servers import serving
from tests.tiny import shape, weights, write_model

QUERIES = {"q1": ("the fox", "en"), "q2": ("el zorro", "es"), "q3": ("ленивую", "ru")}
CORPUS = {
    "d1": "the quick brown fox jumps",
    "d2": "el zorro marrón salta",
    "d3": "ленивую собаку",
    "d4": "敏捷的棕色狐狸",
}
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq3\td3\t1\n"


class Setup:
    def __init__(self, run: Command, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.models = [self._model(seed) for seed in (0, 1)]
        queries = [{"_id": k, "text": t, "language": x} for k, (t, x) in QUERIES.items()]
        corpus = [{"_id": k, "title": "", "text": text} for k, text in CORPUS.items()]
        for name, records in (("queries", queries), ("corpus", corpus)):
            (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
        (folder / "qrels").mkdir()
        (folder / "qrels" / "test.tsv").write_text(QRELS)

    def _model(self, seed: int) -> Path:
        config = shape(is_causal=False)
        return write_model(self.folder / f"model{seed}", config, tensors=weights(config, seed))

    def __call__(self, *arguments: Any) -> Result:
        kept = ("-o", self.folder / "out", "--cache", self.folder / "vectors")
        collection = () if "-q" in arguments else ("--beir", self.folder)
        return self.run("evaluate", *arguments, *collection, *kept)


@pytest.fixture
def evaluate(run: Command, tmp_path: Path) -> Setup:
    return Setup(run, tmp_path)


def test_two_models_in_json(evaluate: Setup) -> None:
    options = ("--json", "--metric", "mrr@3", "--metric", "recall@1", "--dimensions", "8")
    result = evaluate(*evaluate.models, *options, "--precision", "fp32")
    assert result.code == 0, result.err
    facts = json.loads(result.out)
    assert facts == json.loads((evaluate.folder / "out" / "comparison.json").read_text())
    assert facts["counts"] == {"queries": 3, "documents": 4, "judgements": 3}
    first = facts["models"][0]
    embedder = polyvec.load(str(evaluate.models[0]), precision="fp32")
    queries = embedder.encode_query([text for text, _ in QUERIES.values()])
    order = (
        -embedder.similarity(queries, embedder.encode_document(list(CORPUS.values())))
    ).argsort()
    expected = [1 / (1 + row.tolist().index(n)) for n, row in enumerate(order)]
    expected = [x if x >= 1 / 3 else 0 for x in expected]
    assert first["scores"]["mrr@3"]["mean"] == pytest.approx(sum(expected) / 3)
    assert set(first["languages"]) == {"en", "es", "ru"}
    assert set(first["dimensions"]) == {"8"}
    assert first["about"]["precision"] == "fp32"
    assert set(facts["compared_with_first"]["mrr@3"]) == {str(evaluate.models[1])}


def test_people_see_tables(evaluate: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    files = [evaluate.folder / name for name in ("queries.jsonl", "corpus.jsonl", "qrels/test.tsv")]
    collection = ("-q", files[0], "-c", files[1], "-r", files[2])
    second, first = evaluate.models
    result = evaluate(first, second, *collection, "--dimensions", "8")
    assert "3 queries, 4 documents" in result.out
    for words in ("95% interval", "p (Holm)", "may be chance", "by language", "ru"):
        assert words in result.out
    assert f"ndcg@10, against {first}" in result.out
    assert f"Worst queries of {first}" in result.out
    assert "wanted (rank " in result.out


def test_a_finished_model_is_kept_and_another_refused(evaluate: Setup) -> None:
    model = evaluate.models[0]
    assert evaluate(model).code == 0
    assert f"{model}: result of an earlier run" in evaluate(model).err
    result = evaluate(model, "--max-tokens", "2")
    assert result.code == 2
    assert "has other fingerprint than this run" in result.err
    assert "--restart" in result.err
    result = evaluate(model, "--max-tokens", "2", "--restart")
    assert result.code == 0
    assert "7 texts are longer than" in result.err


def test_one_model_that_fails_does_not_lose_the_others(evaluate: Setup) -> None:
    result = evaluate(evaluate.models[0], "no-such-model", "--json")
    assert result.code == 1
    assert "no-such-model failed: No model 'no-such-model'" in result.err
    facts = json.loads(result.out)
    assert [row["model"] for row in facts["models"]] == [str(evaluate.models[0])]
    assert "No model" in facts["failed"]["no-such-model"]


def test_precisions_are_compared(evaluate: Setup) -> None:
    precisions = ("--precision", "fp32", "--precision", "bf16")
    facts = json.loads(evaluate(evaluate.models[0], *precisions, "--json").out)
    names = [row["model"] for row in facts["models"]]
    assert names == [f"{evaluate.models[0]} {precision}" for precision in ("fp32", "bf16")]
    prints = {row["fingerprint"] for row in facts["models"]}
    assert len(prints) == 2


def test_a_server_is_a_model_too(evaluate: Setup) -> None:
    embedder = polyvec.load(str(evaluate.models[0]), precision="fp32")
    own = evaluate(evaluate.models[0], "--json", "--precision", "fp32")
    with serving("openai", lambda texts: embedder.encode_document(texts).tolist()) as url:
        served = evaluate(url, "--json", "--query-prefix", _query_prefix(embedder))
    assert served.code == 0, served.err
    scores = [json.loads(r.out)["models"][0]["scores"]["ndcg@10"]["mean"] for r in (own, served)]
    assert scores[0] == pytest.approx(scores[1])


def test_sentence_transformers_scores_are_ours(evaluate: Setup) -> None:
    folder = evaluate.models[0]
    result = evaluate(folder, f"st:{folder}", "--json", "--precision", "fp32")
    assert result.code == 0, result.err
    ours, theirs = (row["scores"] for row in json.loads(result.out)["models"])
    assert ours == theirs


def _query_prefix(embedder: Any) -> str:
    return str(embedder.spec.query_prefix)


def test_a_page_is_written(evaluate: Setup) -> None:
    page = evaluate.folder / "page.html"
    assert evaluate(*evaluate.models, "--html", page).code == 0
    assert "<h2>Languages</h2>" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("m", "m"), "The model m is given twice"),
        (("m", "--missing", "ignore"), "--missing is 'ignore'; allowed: error, drop"),
        (("m", "--metric", "ndcg"), "'ndcg' is no measure"),
        (("m", "-q", "x"), "Give --queries, --corpus and --qrels, or a folder with --beir"),
        (("m", "--split", "dev"), "dev.tsv cannot be read"),
    ],
)
def test_bad_input(evaluate: Setup, arguments: tuple[str, ...], words: str) -> None:
    result = evaluate(*arguments)
    assert result.code == 2
    assert words in result.err


def test_judgements_of_missing_ids(evaluate: Setup) -> None:
    with (evaluate.folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q1\td9\t1\n")
    result = evaluate(evaluate.models[0])
    assert (result.code, "1 documents (d9)" in result.err) == (2, True)
    result = evaluate(evaluate.models[0], "--missing", "drop")
    assert (result.code, "these judgements were dropped" in result.err) == (0, True)


def test_empty_documents_are_said(evaluate: Setup) -> None:
    with (evaluate.folder / "corpus.jsonl").open("a") as file:
        file.write('\n{"_id": "d5", "text": " "}')
    result = evaluate(evaluate.models[0])
    assert result.code == 0
    assert "1 documents have no text" in result.err
