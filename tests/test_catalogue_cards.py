"""Model cards: every figure has a source, and wrong cards are refused in words."""

from collections.abc import Callable

import pytest

from polyvec.catalogue.cards import RUNS, Architecture, Card, cards, families, find, read_card
from polyvec.catalogue.facts import KINDS, TASK_TYPES
from polyvec.errors import InputError, ModelNotFoundError

GOOD = """
name = "org/model"
family = "Family"
provider = "Org"
about = "A model."

[sources]
page = "https://example.org"

[facts]
dimension = { value = 384, source = "page" }
released = { value = 2025-01-31, source = "page" }
matryoshka = { value = [64, 128], source = "page", note = "measured by us" }
"""
ALL = list(cards().values())


@pytest.mark.parametrize("card", ALL, ids=lambda card: card.short_name)
def test_a_card_is_whole(card: Card) -> None:
    assert card.about.endswith(".")
    assert card.number("dimension") is not None
    for key, fact in card.facts.items():
        assert len(fact.source) > 10, key
        assert KINDS[key].label
    cuts = card.value("matryoshka")
    if isinstance(cuts, tuple):
        assert max(cuts) <= (card.number("dimension") or 0)
    if card.value("licence") is not None:
        assert card.value("commercial_use") is not None or "Gemma" in str(card.value("licence"))
    shape = card.architecture
    if shape is not None:
        assert shape.heads % shape.kv_heads == 0
    if card.run and card.value("network") is not None:
        assert card.value("network") in RUNS


def test_the_models_of_the_issue_are_there() -> None:
    for name in (
        "llama-embed-nemotron-8b",
        "bge-m3",
        "e5-mistral-7b-instruct",
        "default",
        "Qwen/qwen3-embedding-8b",
        "hf:BAAI/bge-m3",
    ):
        assert find(name, cards())
    assert len(ALL) >= 30


@pytest.mark.parametrize(
    "card", [c for c in ALL if c.architecture and c.number("parameters")], ids=lambda c: c.name
)
def test_the_architecture_gives_the_published_parameter_count(card: Card) -> None:
    shape, stated = card.architecture, card.number("parameters")
    assert shape is not None
    assert stated is not None
    counted = _BY_NETWORK[shape.network](shape)
    if stated % 1_000_000:  # an exact count, not a rounded one
        # EmbeddingGemma has two dense layers after the pooling, which are not of the network.
        extra = 2 * 768 * 3072 if card.short_name == "embeddinggemma-300m" else 0
        assert counted + extra == stated
    else:
        assert counted == pytest.approx(stated, rel=0.004)


def _decoder(shape: Architecture, *, bias: bool = False, head_norm: bool = False) -> int:
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.width * 2 * (query + key) + 3 * shape.width * shape.ffn + 2 * shape.width
    layer += (query + 2 * key) * bias + 2 * shape.head_dim * head_norm
    return shape.vocab * shape.width + shape.layers * layer + shape.width


def _gemma(shape: Architecture) -> int:
    return _decoder(shape, head_norm=True) + 2 * shape.layers * shape.width


def _encoder(shape: Architecture, spare_positions: int, num_types: int) -> int:
    rows = shape.vocab + shape.context_tokens + spare_positions + num_types
    layer = 4 * shape.width**2 + 2 * shape.width * shape.ffn + 9 * shape.width + shape.ffn
    pooler = shape.width**2 + shape.width
    return (rows + 2) * shape.width + shape.layers * layer + pooler


def _bert(shape: Architecture) -> int:
    spare = 512 - shape.context_tokens  # all-MiniLM reads 256 of its 512 positions
    return _encoder(shape, spare, num_types=2)


_BY_NETWORK: dict[str, Callable[[Architecture], int]] = {
    "llama": _decoder,
    "mistral": _decoder,
    "qwen2": lambda shape: _decoder(shape, bias=True),
    "qwen3": lambda shape: _decoder(shape, head_norm=True),
    "gemma3": _gemma,
    "bert": _bert,
    "xlm-roberta": lambda shape: _encoder(shape, spare_positions=2, num_types=1),
}


def test_stated_scores_are_those_of_the_published_board() -> None:
    scored = {card.short_name: card.scores for card in ALL if card.scores}
    assert scored["Qwen3-Embedding-4B"]["Retrieval"] == 69.60
    assert len(scored) >= 6
    assert all(list(scores) == list(TASK_TYPES) for scores in scored.values())


def test_a_good_card_is_read() -> None:
    card = read_card(GOOD, "good.toml")
    assert card.value("matryoshka") == (64, 128)
    assert card.facts["matryoshka"].note == "measured by us"
    assert card.facts["dimension"].source == "https://example.org"
    assert card.architecture is None
    assert card.number("released") is None
    assert card.run == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dimension", "dimensoin", "unknown key 'dimensoin'; did you mean 'dimension'?"),
        ('name = "org/model"', "", "`name` is None"),
        ('{ value = 384, source = "page" }', "{ value = 384 }", "dimension has no source"),
        ('384, source = "page"', '384, source = "book"', "'book', which [sources] does not list"),
        ("384", "0", "has to be a whole number above 0"),
        ("384", "true", "has to be a whole number above 0"),
        ("{ value = 384", "{ valeu = 384", "unknown key 'valeu'; did you mean 'value'?"),
        ('{ value = 384, source = "page" }', "384", "dimension is 384; write { value"),
        ("2025-01-31", '"soon"', "has to be a date"),
        ("[64, 128]", "[128, 64]", "growing whole numbers"),
        ("[facts]", '[scores]\nsource = "page"\nSTS = 3.0\n[facts]', "BitextMining is None"),
        ("[facts]", 'book = "a book"\n[facts]', "the source 'book' is of no figure"),
        ("[facts]", "[facts", "is not TOML"),
        ("[sources]", "[sauces]", "unknown key 'sauces'; did you mean 'sources'?"),
        ("about", "run = 3\nabout", "`run` is 3"),
    ],
)
def test_a_wrong_card_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_card(GOOD.replace(old, new, 1), "wrong.toml")
    assert said in str(caught.value)
    assert "wrong.toml" in str(caught.value)


def test_a_model_that_is_not_there_has_neighbours() -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model 'bge-m4'\. Did you mean bge-m3"):
        find("bge-m4", cards())


def test_families_hold_every_model_once() -> None:
    groups = families(ALL)
    assert sum(map(len, groups.values())) == len(ALL)
    assert {card.short_name for card in groups["Llama-Embed-Nemotron"]} == {
        "llama-embed-nemotron-8b",
        "llama-nemotron-embed-1b-v2",
    }
