"""Contrastive losses: by hand, and against sentence-transformers' where they coincide."""

import math
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor
from torch.nn import functional as F

from polyvec.errors import InputError
from polyvec.train.losses import LossSettings, Masks, contrastive_loss, masks_of

B, K, D = 5, 2, 8


def unmasked(queries: int, negatives: int) -> Masks:
    """Return masks of a batch in which nothing is known but what belongs to whom."""
    own = [[f"p{i}"] for i in range(queries)]
    others = [[f"n{i}"] for i in range(queries * negatives)]
    return masks_of(own, own + others, torch.ones((queries, negatives), dtype=torch.bool))


def vectors(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    sizes = ((B, D), (B, D), (B, K, D))
    queries, positives, negatives = (torch.randn(s, generator=draw) for s in sizes)
    return queries, queries + positives, negatives


def test_two_queries_with_three_candidates_equal_hand_computation() -> None:
    # Unit vectors whose cosines are (.8, .6, 0) and (.6, 0, -.8); temperature .5.
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positives = torch.tensor([[0.8, 0.6], [0.8, 0.6]])
    negatives = torch.tensor([[[0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.6, -0.8]]])
    loss = contrastive_loss(
        queries, positives, negatives, unmasked(2, 2), LossSettings(temperature=0.5)
    )
    first = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(1.2) + math.exp(0.0)))
    second = -math.log(math.exp(1.2) / (math.exp(1.2) + math.exp(0.0) + math.exp(-1.6)))
    assert loss.tolist() == pytest.approx([first, second], abs=1e-6)


def test_in_batch_positives_of_the_hand_case_have_one_more_candidate() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positives = torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    none = torch.zeros((2, 0, 2))
    settings = LossSettings(temperature=1.0, hard_negatives=False, in_batch="positives")
    loss = contrastive_loss(queries, positives, none, unmasked(2, 0), settings)
    expected = -math.log(math.exp(0.8) / (math.exp(0.8) + math.exp(0.6)))
    assert loss.tolist() == pytest.approx([expected, expected], abs=1e-6)


def theirs(parts: tuple[Tensor, Tensor, Tensor], **options: Any) -> float:
    queries, positives, negatives = parts
    columns = [queries, positives, *negatives.unbind(1)]
    no_model: Any = None
    loss = MultipleNegativesRankingLoss(no_model, scale=20.0, **options)
    return float(loss.compute_loss_from_embeddings(columns, torch.zeros(0)))


PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"in_batch": "all"}, {}),
    (
        {"in_batch": "all", "same_tower_queries": True},
        {"directions": ("query_to_doc", "query_to_query")},
    ),
    (
        {"in_batch": "all", "same_tower_documents": True},
        {"directions": ("query_to_doc", "doc_to_doc")},
    ),
    (
        {"in_batch": "all", "symmetric": True},
        {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
    ),
]


@pytest.mark.parametrize(("ours", "options"), PAIRS)
def test_equals_sentence_transformers(ours: dict[str, Any], options: dict[str, Any]) -> None:
    parts = vectors()
    settings = LossSettings(temperature=0.05, **ours)
    loss = contrastive_loss(*parts, unmasked(B, K), settings).mean()
    assert float(loss) == pytest.approx(theirs(parts, **options), abs=1e-5)


def test_gemini_style_equals_theirs_with_one_column_of_positives() -> None:
    queries, positives, _ = vectors()
    none = torch.zeros((B, 0, D))
    settings = LossSettings(temperature=0.05, in_batch="positives")
    loss = contrastive_loss(queries, positives, none, unmasked(B, 0), settings).mean()
    assert float(loss) == pytest.approx(theirs((queries, positives, none)), abs=1e-5)


def test_gecko_adds_hard_negatives_other_positives_and_other_queries() -> None:
    queries, positives, negatives = (F.normalize(x, dim=-1) for x in vectors())
    settings = LossSettings(temperature=0.1, in_batch="positives", same_tower_queries=True)
    loss = contrastive_loss(queries, positives, negatives, unmasked(B, K), settings)
    for i in range(B):
        logits = [queries[i] @ positives[i], *(negatives[i] @ queries[i])]
        logits += [queries[i] @ positives[j] for j in range(B) if j != i]
        logits += [queries[i] @ queries[j] for j in range(B) if j != i]
        row = torch.stack(logits) / 0.1
        assert float(loss[i]) == pytest.approx(float(row.logsumexp(0) - row[0]), abs=1e-5)


def test_a_missing_negative_does_not_count() -> None:
    queries, positives, negatives = vectors()
    masks = unmasked(B, K)
    masks.has_negative_BK[0, 1] = False
    loss = contrastive_loss(queries, positives, negatives, masks, LossSettings())
    alone = contrastive_loss(
        queries[:1], positives[:1], negatives[:1, :1], unmasked(1, 1), LossSettings()
    )
    assert float(loss[0]) == pytest.approx(float(alone[0]), abs=1e-5)
    assert bool(loss.isfinite().all())


def test_candidates_that_beat_the_positive_by_the_margin_are_left_out() -> None:
    queries = torch.tensor([[1.0, 0.0]])
    positives = torch.tensor([[0.6, 0.8]])
    negatives = torch.tensor([[[0.8, 0.6], [0.65, 0.76]]])  # .8 and .65 against .6
    masks, margin = unmasked(1, 2), LossSettings(temperature=1.0, false_negative_margin=0.1)
    kept = negatives[:, 1:] / negatives[:, 1:].norm(dim=-1, keepdim=True)
    expected = contrastive_loss(
        queries, positives, kept, unmasked(1, 1), LossSettings(temperature=1.0)
    )
    found = contrastive_loss(queries, positives, negatives, masks, margin)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_rows_of_one_label_and_known_positives_are_no_negatives() -> None:
    labels = [["sport", "id1"], ["sport", "id2"], ["art", "id3"]]
    masks = masks_of(labels, [["sport"], ["sport"], ["art"]], torch.zeros((3, 0), dtype=torch.bool))
    assert masks.known_BM.tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]
    assert masks.same_query_BB.tolist() == masks.known_BM.tolist()
    draw = torch.Generator().manual_seed(1)
    queries, positives = (torch.randn((3, D), generator=draw) for _ in range(2))
    none = torch.zeros((3, 0, D))
    settings = LossSettings(in_batch="positives", hard_negatives=False, temperature=0.5)
    loss = contrastive_loss(queries, positives, none, masks, settings)
    pair = contrastive_loss(queries[[0, 2]], positives[[0, 2]], none[:2], unmasked(2, 0), settings)
    assert float(loss[0]) == pytest.approx(float(pair[0]), abs=1e-6)


def test_matryoshka_is_the_mean_over_cuts() -> None:
    parts = vectors()
    whole = contrastive_loss(*parts, unmasked(B, K), LossSettings())
    queries, positives, negatives = (x[..., :4] for x in parts)
    cut = contrastive_loss(queries, positives, negatives, unmasked(B, K), LossSettings())
    both = contrastive_loss(*parts, unmasked(B, K), LossSettings(matryoshka_dimensions=(4,)))
    torch.testing.assert_close(both, (whole + cut) / 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "loss.temperature is 0.0; it must be above 0"),
        ({"hard_negatives": False}, "compares the positive with nothing"),
        ({"in_batch": "some"}, "loss.in_batch is 'some'; allowed: none, positives, all"),
        ({"weight": -1.0}, "loss.weight is -1.0"),
    ],
)
def test_settings_that_make_no_loss_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LossSettings(**settings)
