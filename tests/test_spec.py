"""What a model is: templates word for word, and refusals of facts that contradict each other."""

from dataclasses import replace
from typing import Any

import pytest

from polyvec.errors import InputError, SpecError
from polyvec.spec import (
    DEFAULT_INSTRUCTION,
    INSTRUCT_PREFIX,
    LlamaArchitecture,
    Rope,
    Spec,
    spec_facts,
)
from tests.tiny import shape, weights

SPEC = Spec(
    attention="bidirectional",
    pooling="mean",
    normalize=True,
    query_prefix=INSTRUCT_PREFIX,
    document_prefix="",
    default_instruction=DEFAULT_INSTRUCTION,
    add_bos=True,
    add_eos=True,
    dimension=48,
    max_tokens=20,
)
FIXED = replace(SPEC, query_prefix="query: ", document_prefix="passage: ", default_instruction="")
BARE = replace(SPEC, query_prefix="", default_instruction="")

# --- Templates --------------------------------------------------------------------------------


def test_a_query_is_written_in_the_familys_template() -> None:
    text = SPEC.render("who?", "query", "Find the person")
    assert text == "Instruct: Find the person\nQuery: who?"


def test_a_query_without_an_instruction_gets_the_models_own() -> None:
    text = SPEC.render("who?", "query")
    assert text == (
        "Instruct: Given a question, retrieve passages that answer the question\nQuery: who?"
    )


def test_a_template_without_a_space_at_its_end_keeps_none() -> None:
    spec = replace(SPEC, query_prefix="Instruct: {instruction}\nQuery:")
    assert spec.render("who?", "query", "Find") == "Instruct: Find\nQuery:who?"


def test_a_document_stays_as_it_is() -> None:
    assert SPEC.render("It is him.", "document") == "It is him."


def test_fixed_prefixes_are_written_before_both_roles() -> None:
    assert FIXED.render("who?", "query") == "query: who?"
    assert FIXED.render("him", "document") == "passage: him"


def test_braces_in_a_text_are_left_alone() -> None:
    text = SPEC.render("{instruction} {0}", "query", "Find {x}")
    assert text == "Instruct: Find {x}\nQuery: {instruction} {0}"


def test_a_model_without_a_prefix_takes_an_instruction_in_the_familys_template() -> None:
    assert BARE.render("who?", "query") == "who?"
    assert BARE.render("who?", "query", "Find") == "Instruct: Find\nQuery: who?"


def test_a_fixed_prefix_takes_no_instruction() -> None:
    expected = r"writes 'query: ' before every query and takes no instruction; given: 'Find'"
    with pytest.raises(InputError, match=expected):
        FIXED.render("who?", "query", "Find")


def test_documents_take_no_instruction() -> None:
    with pytest.raises(InputError, match=r"instruction was given for documents.*Leave it out"):
        SPEC.render("him", "document", "Find")


def test_an_unknown_role_names_the_two() -> None:
    with pytest.raises(InputError, match=r"role is 'passage'; allowed: query, document"):
        SPEC.render("him", "passage")  # type: ignore[arg-type]


# --- Facts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [("attention", "full", "bidirectional, causal"), ("pooling", "max", "mean, last, cls")],
)
def test_an_unknown_fact_names_the_known_ones(name: str, value: str, allowed: str) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(SpecError, match=rf"{name} is '{value}'; allowed: {allowed}"):
        replace(SPEC, **changes)


@pytest.mark.parametrize("max_tokens", [2, 1, 0, -5])
def test_no_room_beside_bos_and_eos_is_refused(max_tokens: int) -> None:
    with pytest.raises(SpecError, match=rf"max_tokens is {max_tokens}, which leaves no room .*BOS"):
        replace(SPEC, max_tokens=max_tokens)


def test_room_for_one_token_is_enough() -> None:
    assert replace(SPEC, max_tokens=3).max_tokens == 3


def test_facts_are_plain_json_in_the_order_of_the_fields() -> None:
    facts = spec_facts(replace(SPEC, matryoshka_dimensions=(8, 16)))
    assert list(facts)[:3] == ["attention", "pooling", "normalize"]
    assert facts["matryoshka_dimensions"] == [8, 16]


# --- Dimensions -------------------------------------------------------------------------------


def test_the_full_dimension_is_always_given() -> None:
    assert SPEC.check_dimensions(None) == SPEC.check_dimensions(48) == 48


def test_a_model_that_is_not_matryoshka_is_not_cut() -> None:
    expected = r"dimensions=16 was asked for, but this model is not Matryoshka: its 48 numbers"
    with pytest.raises(InputError, match=expected):
        SPEC.check_dimensions(16)


@pytest.mark.parametrize("dimensions", [0, -1, 12, 64])
def test_a_dimension_it_was_not_trained_for_names_the_others(dimensions: int) -> None:
    spec = replace(SPEC, matryoshka_dimensions=(8, 16))
    expected = rf"dimensions={dimensions} was asked for; this model has 8, 16, 48\."
    with pytest.raises(InputError, match=expected):
        spec.check_dimensions(dimensions)


def test_a_trained_dimension_is_given() -> None:
    assert replace(SPEC, matryoshka_dimensions=(8, 16)).check_dimensions(16) == 16


# --- Architecture -----------------------------------------------------------------------------


def _architecture(**changes: Any) -> LlamaArchitecture:
    facts: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 48,
        "num_layers": 3,
        "num_heads": 6,
        "num_kv_heads": 2,
        "head_dim": 8,
        "intermediate_size": 72,
        "vocab_size": 384,
        "norm_eps": 1e-5,
        "rope": Rope(10000.0),
        "max_positions": 128,
    } | changes
    return LlamaArchitecture(**facts)


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, True])
def test_a_size_is_a_positive_whole_number(value: object) -> None:
    with pytest.raises(SpecError, match=rf"num_layers is {value!r}; it must be a positive whole"):
        _architecture(num_layers=value)


@pytest.mark.parametrize("value", [0, -1, "9"])
def test_a_sliding_window_is_a_positive_whole_number(value: object) -> None:
    with pytest.raises(SpecError, match=rf"sliding_window is {value!r}; it must be a positive"):
        _architecture(sliding_window=value)


def test_query_heads_are_a_multiple_of_key_heads() -> None:
    with pytest.raises(SpecError, match=r"6 query heads cannot share 4 key/value heads"):
        _architecture(num_kv_heads=4)


def test_heads_of_odd_size_cannot_be_rotated() -> None:
    with pytest.raises(SpecError, match=r"head_dim is 7; rotary positions need an even number"):
        _architecture(head_dim=7)


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_parameters_are_counted(model_type: str) -> None:
    config = shape(model_type)
    counted = _architecture(
        model_type=model_type, head_dim=config.get("head_dim", 8), qk_norm=model_type == "qwen3"
    )
    assert counted.num_parameters == sum(t.numel() for t in weights(config).values())


@pytest.mark.parametrize("instruction", ["", "  "])
def test_an_empty_instruction_is_refused(instruction: str) -> None:
    with pytest.raises(InputError, match=r"which says no task. Leave it out for the model's own"):
        SPEC.prefix("query", instruction)
