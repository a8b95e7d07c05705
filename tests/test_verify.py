"""Each diagnosis of ``polyvec verify``, tested by planting that very fault."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, normalizers

from polyvec.engine.embedder import Embedder
from polyvec.engine.remote import connect
from polyvec.errors import InputError
from polyvec.model.files import open_model
from polyvec.model.tokens import Tokenizer
from polyvec.publish.report import html_report
from polyvec.publish.sides import Side, read_probes
from polyvec.publish.verify import Verdict, verify
from tests.command import Command
from tests.servers import serving
from tests.tiny import byte_bpe, edit_json, shape, weights, write_model

PREFIX = "Instruct: Find it\nQuery: "
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(
        tmp_path_factory.mktemp("verify") / "model",
        prompts={"query": PREFIX},
        tokenizer=byte_bpe(bos=True),
        tokenizer_config=NAMES,
    )


@pytest.fixture(scope="module")
def model(folder: Path) -> Embedder:
    return Embedder(open_model(folder), "fp32", "cpu")


def faulty(
    model: Embedder, specials: tuple[bool | None, bool | None] = (None, None), **spec: Any
) -> Embedder:
    return model.varied(replace(model.spec, **spec), model.tokenizer.with_specials(*specials))


def kinds(verdict: Verdict) -> list[str]:
    return [diagnosis.kind for diagnosis in verdict.diagnoses]


def compared(a: Side, b: Side) -> Verdict:
    return verify(a, b, ("A", "B"))


def test_the_probe_set_has_what_it_must() -> None:
    probes = read_probes()
    assert len(probes) >= 40
    assert len({p.language for p in probes} - {""}) >= 12
    wanted = {"short", "long", "code", "right-to-left", "emoji", "combining", "duplicate"}
    assert wanted <= {p.kind for p in probes}
    texts = [p.text for p in probes]
    assert all(texts.count(p.text) == 2 for p in probes if p.kind == "duplicate")
    assert len({p.id for p in probes}) == len(probes)


def test_the_same_model_agrees(model: Embedder) -> None:
    verdict = compared(model, faulty(model))
    assert verdict.agree
    assert verdict.diagnoses == []
    assert verdict.over_long_cosine == pytest.approx(1, abs=1e-6)
    for agreement in verdict.agreements:
        assert agreement.cosine_min == pytest.approx(1, abs=1e-6)
        assert agreement.neighbours_kept == 1
        assert agreement.rank_correlation == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("plant", "expected", "words"),
    [
        (lambda m: faulty(m, pooling="last"), ["pooling"], "B pools by last; the model .* by mean"),
        (lambda m: faulty(m, pooling="cls"), ["pooling"], "B pools by cls"),
        (lambda m: faulty(m, attention="causal"), ["attention"], "B runs causal attention"),
        (lambda m: faulty(m, (False, None)), ["bos-eos"], "B leaves out BOS; the model adds it"),
        (lambda m: faulty(m, (None, True)), ["bos-eos"], "B adds EOS; the model adds none"),
        (lambda m: faulty(m, query_prefix=""), ["prefix-missing"], "For queries, B leaves out"),
        (lambda m: faulty(m, query_prefix=2 * PREFIX), ["prefix-doubled"], "B writes twice"),
        (
            lambda m: faulty(m, document_prefix=PREFIX),
            ["prefix-doubled"],
            "For documents, B writes the query's prefix",
        ),
        (lambda m: faulty(m, max_tokens=77), ["truncated"], "silently read 77 tokens"),
        (lambda m: faulty(m, normalize=False), ["not-normalized"], "lengths [0-9.]+ to [0-9.]+"),
        (
            lambda m: faulty(m, attention="causal", pooling="last"),
            ["attention", "pooling"],
            "B runs causal",
        ),
        (
            lambda m: faulty(m, attention="causal", normalize=False, query_prefix=""),
            ["not-normalized", "attention", "prefix-missing"],
            "not normalized",
        ),
    ],
)
def test_a_planted_fault_is_found(
    model: Embedder, plant: Callable[[Embedder], Embedder], expected: list[str], words: str
) -> None:
    verdict = compared(model, plant(model))
    assert kinds(verdict) == expected
    assert not verdict.agree
    assert any(__import__("re").search(words, d.words) for d in verdict.diagnoses)


def test_a_side_that_reads_more_is_found(model: Embedder) -> None:
    """A server that knows the model's positions and not its own limit, as llama.cpp's."""
    verdict = compared(faulty(model, max_tokens=70), faulty(model, max_tokens=110))
    assert kinds(verdict) == ["truncated"]
    assert "B silently read 110 tokens" in verdict.diagnoses[0].words
    assert "the model reads 70. Cut texts before they are sent" in verdict.diagnoses[0].words


def test_other_tokens_of_some_scripts_are_found(model: Embedder) -> None:
    """As llama.cpp's WordPiece takes vowels off and leaves Korean whole."""
    backend = type(model.tokenizer.backend).from_str(model.tokenizer.backend.to_str())
    indic_and_hangul = Regex("[\u0900-\u0dff\uac00-\ud7a3]")
    backend.normalizer = normalizers.Replace(indic_and_hangul, "x")
    tokenizer = Tokenizer(backend, model.tokenizer.bos_ids)
    verdict = compared(model, model.varied(model.spec, tokenizer))
    assert kinds(verdict) == ["tokenizer"]
    words = verdict.diagnoses[0].words
    assert "B is far off for" in words
    assert " ko" in words
    assert "median cosine 1.00000" in words


def test_rounding_is_told_from_faults(folder: Path, model: Embedder, tmp_path: Path) -> None:
    rounded = {k: v + 0.02 * v.std() * v.sign() for k, v in weights(shape(is_causal=False)).items()}
    other = write_model(
        tmp_path / "rounded",
        prompts={"query": PREFIX},
        tokenizer=byte_bpe(bos=True),
        tokenizer_config=NAMES,
        tensors=rounded,
    )
    verdict = compared(model, Embedder(open_model(other), "fp32", "cpu"))
    assert kinds(verdict) == ["precision"]
    assert "differs only as rounding does" in verdict.diagnoses[0].words


def test_other_weights_are_unknown(model: Embedder, tmp_path: Path) -> None:
    tensors = weights(shape(is_causal=False), seed=7)
    other = write_model(tmp_path / "other", tokenizer=byte_bpe(bos=True), tensors=tensors)
    assert kinds(compared(model, Embedder(open_model(other), "fp32", "cpu"))) == ["unknown"]


def test_other_lengths_are_an_error(model: Embedder, tmp_path: Path) -> None:
    config = shape(is_causal=False, hidden_size=24, num_attention_heads=2)
    other = Embedder(open_model(write_model(tmp_path / "other", config)), "fp32", "cpu")
    with pytest.raises(InputError, match=r"A gives 48 numbers a text and B gives 24"):
        compared(model, other)


@pytest.mark.parametrize("dialect", ["openai", "ollama", "tei", "cohere"])
def test_a_right_server_agrees(model: Embedder, dialect: str) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return model.embed(texts, "document").vectors.tolist()

    with serving(dialect, embed) as url:
        address = f"cohere+{url}?model=m" if dialect == "cohere" else url
        assert compared(model, connect(address)).agree
        assert compared(connect(address), model).agree


def test_a_server_that_runs_it_causal_is_found_out(model: Embedder) -> None:
    wrong = faulty(model, attention="causal", max_tokens=50)

    def embed(texts: list[str]) -> list[list[float]]:
        return wrong.embed(texts, "document").vectors.tolist()

    with serving("ollama", embed) as url:
        assert kinds(compared(model, connect(url))) == ["attention", "truncated"]


def test_two_servers_can_be_compared(model: Embedder) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        return [[len(text) + 1.0, 2.0, 3.0] for text in texts]

    with serving("tei", embed) as a, serving("openai", embed) as b:
        verdict = compared(connect(a), connect(b))
    assert kinds(verdict) == ["not-normalized", "not-normalized"]
    assert verdict.over_long_cosine == pytest.approx(1)


def test_the_report_is_one_page_with_every_text(model: Embedder) -> None:
    page = html_report(compared(model, faulty(model, pooling="last")))
    assert page.startswith("<!doctype html>")
    assert "The vectors differ" in page
    assert "B pools by last" in page
    assert "&lt;div class=&quot;card&quot;&gt;" in page
    assert "<script" not in page
    assert page.count("<tr>") >= len(read_probes())


def test_the_command(run: Command, folder: Path, tmp_path: Path) -> None:
    good = run("verify", folder, folder)
    assert good.code == 0
    assert "The vectors agree" in good.out
    wrong = write_model(
        tmp_path / "wrong", prompts={"query": PREFIX}, pooling="cls", tokenizer=byte_bpe(bos=True)
    )
    edit_json(wrong / "tokenizer_config.json", **NAMES)
    bad = run("verify", folder, wrong, "--json", "--html", tmp_path / "report.html")
    facts = json.loads(bad.out)
    assert bad.code == 3
    assert [d["kind"] for d in facts["diagnoses"]] == ["pooling"]
    assert np.isfinite(facts["agreements"][0]["cosine_mean"])
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
