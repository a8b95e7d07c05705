"""The expected peak of memory against the peaks that were measured, each within a tenth."""

import dataclasses

import pytest
import torch

from polyvec.engine.budget import held, needs
from polyvec.engine.holding import Holding
from polyvec.fit.devices import Device
from polyvec.fit.facts import ModelFacts, facts_of, facts_of_card
from polyvec.fit.memory import Memory, Tokens, cpu_memory, tokens_within
from polyvec.fit.plan import assess

CORES = 2
MEASURED = (
    # docs/fit.md: bench/fit.py on 2 cores, fresh processes, 24 November 2026, MB
    ("minilm", "fp32", "resident", 665), ("minilm", "bf16", "resident", 482),
    ("minilm", "int8", "resident", 550), ("minilm", "packed", "packed", 518),
    ("minilm", "bf16", "streamed", 508), ("minilm", "int8", "streamed", 513),
    ("smollm2", "fp32", "resident", 1_191), ("smollm2", "bf16", "resident", 917),
    ("smollm2", "int8", "resident", 718), ("smollm2", "packed", "packed", 568),
    ("smollm2", "bf16", "packed", 585), ("smollm2", "bf16", "streamed", 520),
    ("smollm2", "int8", "streamed", 492),
    ("wide", "bf16", "resident", 3_742), ("wide", "int8", "resident", 3_430),
    ("wide", "packed", "packed", 2_288), ("wide", "bf16", "streamed", 2_400),
    ("wide", "int8", "streamed", 1_925),
)  # fmt: skip
LIMITED = (
    # dev/LOG.md, 25 November 2026: streamed bf16 in a limit of 2 GB; layers, tokens of a batch and
    # in step as the plan of that day had them, MB
    (4, Tokens(1_024, 8_600), 1_664), (32, Tokens(1_024, 8_600), 2_087),
    (32, Tokens(512, 5_400), 1_696),
    # 30 November 2026: without a limit, and again in 2 GB
    (12, Tokens(2_016, 8_064), 1_929), (12, Tokens(512, 7_680), 1_596),
)  # fmt: skip


def _card(name: str) -> ModelFacts:
    from polyvec.catalogue.cards import cards, find

    return facts_of_card(find(name, cards()))


def _with_layers(facts: ModelFacts, layers: int) -> ModelFacts:
    shape = dataclasses.replace(facts.architecture, num_layers=layers)
    return dataclasses.replace(facts, architecture=shape, size_bytes=2 * shape.num_parameters)


def _facts(name: str) -> ModelFacts:
    """Return what was measured: a folder, the GGUF of SmolLM2, four layers of 8B's shape."""
    if name == "minilm":
        return _card("all-MiniLM-L6-v2")
    if name == "smollm2":
        whole = _with_layers(_card("default"), 30)
        return dataclasses.replace(whole, size_bytes=98_000_000, has_blocks=True)
    return _with_layers(_card("llama-embed-nemotron-8b"), 4)


def _expected(name: str, precision: str, place: str) -> Memory:
    facts = _facts(name)
    holding = Holding(place, four_bits=precision == "packed" and not facts.has_blocks)  # type: ignore[arg-type]
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    return cpu_memory(facts, holding, precision, dtype, CORES)


@pytest.mark.parametrize(("name", "precision", "place", "peak_mb"), MEASURED)
def test_within_a_tenth_of_what_was_measured(
    name: str, precision: str, place: str, peak_mb: int
) -> None:
    expected = _expected(name, precision, place)
    assert expected.total / 1e6 == pytest.approx(peak_mb, rel=0.1)


@pytest.mark.parametrize(("layers", "together", "peak_mb"), LIMITED)
def test_32_layers_take_what_malloc_keeps(layers: int, together: Tokens, peak_mb: int) -> None:
    facts = _with_layers(_facts("wide"), layers)
    expected = cpu_memory(facts, Holding("streamed"), "bf16", torch.bfloat16, CORES, together)
    assert expected.total / 1e6 == pytest.approx(peak_mb, rel=0.1)


@pytest.mark.parametrize("memory_bytes", [1_700_000_000, 2_000_000_000, 2_600_000_000])
def test_what_is_expected_in_a_limit_is_below_it(memory_bytes: int) -> None:
    facts, holding = _with_layers(_facts("wide"), 32), Holding("streamed")
    given = (facts, holding, "bf16", torch.bfloat16, CORES)
    together = tokens_within(*given, memory_bytes)
    assert together is not None
    assert 0.75 * memory_bytes < cpu_memory(*given, together).total < memory_bytes


def test_less_than_the_engine_promises_is_refused() -> None:
    facts, holding = _with_layers(_facts("wide"), 32), Holding("streamed")
    need = needs(facts, holding, "bf16", torch.bfloat16, in_use=280_000_000)
    least = need.least(CORES)
    given = (facts, holding, "bf16", torch.bfloat16, CORES)
    assert tokens_within(*given, least - 1) is None
    assert tokens_within(*given, least) is not None


def test_a_small_machine_is_judged_by_what_it_runs_with_a_limit() -> None:
    small = Device("small", "cpu", 2.2, None, None, None, "here", cores=CORES)
    facts = facts_of("llama-embed-nemotron-8b")
    found = assess(facts, small, "bf16", "streamed")
    assert found.color == "yellow"
    assert found.why.endswith("with --memory, in smaller batches")
    assert found.memory.total < 0.9 * 2.2 * 2**30
    tiny = dataclasses.replace(small, memory_gb=1.0)
    assert assess(facts, tiny, "bf16", "streamed").color == "red"


def test_int8_keeps_queries_keys_and_values_in_bf16_but_not_beside_four_bits() -> None:
    """An 8B layer: 218 M weights, of which 4096 x (4096 + 2 x 1024) stay as they are."""
    facts, qkv = _card("llama-embed-nemotron-8b"), 4096 * (4096 + 2 * 1024)
    ways = {
        precision: held(facts, Holding("resident"), precision, torch.bfloat16).layers
        for precision in ("bf16", "int8")
    }
    assert ways["int8"] == ways["bf16"] // 2 + 32 * qkv
    streamed, packed = (
        held(facts, holding, "int8", torch.bfloat16).expanded
        for holding in (Holding("streamed"), Holding("packed", four_bits=True))
    )
    assert streamed - packed == 2 * qkv
