"""Contrastive losses, all as one function with switches.

The recipe's (arXiv 2511.07025, section 3.1) is InfoNCE over a query's positive and its own mined
negatives. The switches make the others of the paper's table: other queries' documents (*in-batch*),
other queries (*same tower*), other documents, and masks for candidates that are probably right.

Shape letters: B queries, K own negatives, D numbers in a vector, M documents of the batch
(its B positives, then its B * K negatives), C candidates.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.errors import InputError

InBatch = Literal["none", "positives", "all"]


@dataclass(frozen=True)
class LossSettings:
    """Which candidates a query's positive is compared with."""

    temperature: float = 0.02
    """What cosines are divided by."""
    hard_negatives: bool = True
    """The query's own negatives."""
    in_batch: InBatch = "none"
    """Other queries' documents: none, their positives, or their negatives too."""
    same_tower_queries: bool = False
    """Other queries, by their similarity to the query (Gecko, Qwen3-Embedding)."""
    same_tower_documents: bool = False
    """The batch's other documents, by their similarity to the positive (Qwen3-Embedding)."""
    symmetric: bool = False
    """The mean with the loss of finding the query by its positive among the batch's queries."""
    false_negative_margin: float | None = None
    """Leave out a candidate whose cosine exceeds the positive's by more than this (Qwen3: 0.1)."""
    mask_known: bool = True
    """Leave out a candidate that the query's record names as positive, by text or by id: another
    row of the same label, a second positive, a copy."""
    weight: float = 1.0
    """What the loss is multiplied by; 0 leaves it out, for distillation alone."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Shorter vectors to train too: the loss is the mean over them and the whole."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"loss.temperature is {self.temperature}; it must be above 0.")
        if self.in_batch not in get_args(InBatch):
            allowed = ", ".join(get_args(InBatch))
            raise InputError(f"loss.in_batch is {self.in_batch!r}; allowed: {allowed}.")
        if not self.hard_negatives and self.in_batch == "none" and not self.same_tower:
            raise InputError(
                "The loss compares the positive with nothing: set loss.hard_negatives = true, or "
                "loss.in_batch to 'positives' or 'all'."
            )
        if self.weight < 0:
            raise InputError(f"loss.weight is {self.weight}; it must be 0 or more.")

    @property
    def same_tower(self) -> bool:
        """Whether a text is compared with texts of its own kind."""
        return self.same_tower_queries or self.same_tower_documents

    @property
    def separable(self) -> bool:
        """Whether each query's loss needs no other query's texts."""
        return self.in_batch == "none" and not self.same_tower and not self.symmetric


@dataclass(frozen=True)
class Masks:
    """What is known of a batch's candidates; all bool."""

    has_negative_BK: Tensor
    """Whether a query has its k-th negative."""
    known_BM: Tensor
    """Documents of the batch that are a positive of the query."""
    same_query_BB: Tensor
    """Queries that are the query itself, or share a positive with it."""

    def to(self, device: torch.device) -> "Masks":
        """Return the masks on a device."""
        return Masks(
            self.has_negative_BK.to(device),
            self.known_BM.to(device),
            self.same_query_BB.to(device),
        )


def contrastive_loss(
    queries_BD: Tensor,
    positives_BD: Tensor,
    negatives_BKD: Tensor,
    masks: Masks,
    settings: LossSettings,
) -> Tensor:
    """Return each query's loss, fp32 ``[B]``, of vectors of any length.

    With Matryoshka dimensions it is the mean over the cut vectors' losses and the whole ones'.
    """
    sizes = {*settings.matryoshka_dimensions, queries_BD.shape[-1]}
    losses = [
        _loss(
            _cut(queries_BD, size),
            _cut(positives_BD, size),
            _cut(negatives_BKD, size),
            masks,
            settings,
        )
        for size in sorted(sizes)
    ]
    return torch.stack(losses).mean(0)


def _cut(vectors: Tensor, size: int) -> Tensor:
    return F.normalize(vectors[..., :size].float(), dim=-1)


def _loss(
    queries_BD: Tensor,
    positives_BD: Tensor,
    negatives_BKD: Tensor,
    masks: Masks,
    settings: LossSettings,
) -> Tensor:
    positive_B1 = (queries_BD * positives_BD).sum(-1, keepdim=True)
    limit = settings.false_negative_margin
    ceiling_B1 = None if limit is None else (positive_B1 + limit).detach()
    parts = [positive_B1]
    for scores_BC, allowed_BC in _candidates(
        queries_BD, positives_BD, negatives_BKD, masks, settings
    ):
        kept = allowed_BC if ceiling_B1 is None else allowed_BC & (scores_BC <= ceiling_B1)
        parts.append(scores_BC.masked_fill(~kept, -torch.inf))
    losses_B = _negative_log_share(torch.cat(parts, 1) / settings.temperature)
    if not settings.symmetric:
        return losses_B
    return (losses_B + _backward_loss(queries_BD, positives_BD, masks, settings)) / 2


def _candidates(
    queries_BD: Tensor,
    positives_BD: Tensor,
    negatives_BKD: Tensor,
    masks: Masks,
    settings: LossSettings,
) -> list[tuple[Tensor, Tensor]]:
    """Return cosines of candidates beside the positive, and which of them count."""
    found = []
    if settings.hard_negatives:
        own_BK = torch.einsum("bd,bkd->bk", queries_BD, negatives_BKD)
        found.append((own_BK, masks.has_negative_BK))
    if settings.separable:
        return found
    documents_MD = torch.cat((positives_BD, negatives_BKD.flatten(0, 1)))
    others_BM = other_documents(masks, settings)
    if settings.in_batch != "none":
        found.append((queries_BD @ documents_MD.T, others_BM))
    if settings.same_tower_documents:
        found.append((positives_BD @ documents_MD.T, others_BM))
    if settings.same_tower_queries:
        found.append((queries_BD @ queries_BD.T, _other_queries(masks, settings)))
    return found


def other_documents(masks: Masks, settings: LossSettings) -> Tensor:
    """Return which documents of the batch count for which query, its own left out, ``[B, M]``."""
    others_BB = ~torch.eye(len(masks.known_BM), dtype=torch.bool, device=masks.known_BM.device)
    with_negatives = settings.in_batch == "all" or (
        settings.in_batch == "none" and settings.same_tower_documents
    )
    of_others = others_BB[:, :, None] & masks.has_negative_BK[None] & with_negatives
    allowed_BM = torch.cat((others_BB, of_others.flatten(1)), 1)
    return allowed_BM & ~masks.known_BM if settings.mask_known else allowed_BM


def _other_queries(masks: Masks, settings: LossSettings) -> Tensor:
    if settings.mask_known:
        return ~masks.same_query_BB
    return ~torch.eye(len(masks.same_query_BB), dtype=torch.bool, device=masks.known_BM.device)


def _backward_loss(
    queries_BD: Tensor, positives_BD: Tensor, masks: Masks, settings: LossSettings
) -> Tensor:
    """Return the loss of finding each query by its positive among the batch's queries."""
    scores_BB = positives_BD @ queries_BD.T
    own_B1 = scores_BB.diagonal()[:, None]
    allowed_BB = _other_queries(masks, settings)
    if settings.false_negative_margin is not None:
        allowed_BB = allowed_BB & (scores_BB <= (own_B1 + settings.false_negative_margin).detach())
    others_BB = scores_BB.masked_fill(~allowed_BB, -torch.inf)
    return _negative_log_share(torch.cat((own_B1, others_BB), 1) / settings.temperature)


def _negative_log_share(logits_BC: Tensor) -> Tensor:
    """Return ``-log softmax`` of the first column."""
    return logits_BC.logsumexp(1) - logits_BC[:, 0]


def masks_of(
    positives: Sequence[Collection[str]],
    documents: Sequence[Collection[str]],
    has_negative_BK: Tensor,
) -> Masks:
    """Find what is known of a batch's candidates.

    Args:
        positives: All keys (texts and ids) of each query's positives.
        documents: The M documents' keys; none for a negative that is not there.
        has_negative_BK: Whether a query has its k-th negative.
    """
    known_BM = torch.zeros((len(positives), len(documents)), dtype=torch.bool)
    columns: dict[str, list[int]] = {}
    for place, names in enumerate(documents):
        for key in names:
            columns.setdefault(key, []).append(place)
    owners: dict[str, list[int]] = {}
    for row, keys in enumerate(positives):
        for key in keys:
            known_BM[row, columns.get(key, [])] = True
            owners.setdefault(key, []).append(row)
    same_BB = torch.eye(len(positives), dtype=torch.bool)
    for rows in owners.values():
        same_BB[torch.tensor(rows)[:, None], torch.tensor(rows)] = True
    return Masks(has_negative_BK, known_BM, same_BB)
