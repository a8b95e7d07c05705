"""One step's loss and gradients, however many passes and processes it takes.

A loss in which queries see each other's texts needs all vectors at once. If they do not come out of
one pass, they are computed without gradients first, the loss gives each vector's gradient, and each
part runs again to take it on (gradient cache, Gao et al. 2021): memory of one part, the numbers of
one pass. The last part keeps its graph and does not run again. Ranks share the texts of a batch
out, and each computes the whole loss on all vectors, so more ranks change nothing either.

A loss in which they do not is added up part by part, and ranks share the queries out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyvec.train.batches import Batch, Item, Reader, make_batch, pack, plan_chunks
from polyvec.train.losses import LossSettings, contrastive_loss
from polyvec.train.network import Network
from polyvec.train.ranks import Ranks, gradients_stay
from polyvec.train.teacher import Distillation

_TOKENS_OF = 128
"""A bf16 pass on a CPU has a multiple of so many tokens. oneDNN compiles products for each number
of rows it meets and keeps 1,024 of them, about a megabyte each: every step had a number of its own,
and twelve new products (dev/LOG.md)."""


@dataclass(frozen=True)
class StepResult:
    """What a step found."""

    loss: float
    """The mean over all of the step's queries, those of other ranks included."""
    tokens: int
    """Tokens that all ranks passed forward and back."""
    texts: int


class Stepper:
    """Computes gradients of batches; what is done with them is the loop's."""

    def __init__(
        self,
        module: nn.Module,
        network: Network,
        reader: Reader,
        loss: LossSettings,
        distillations: Sequence[Distillation],
        num_negatives: int,
        max_tokens: int,
        ranks: Ranks,
        seed: int,
    ) -> None:
        """Bind what a step needs.

        Args:
            module: What is called: the network, or DDP around it.
            network: The network.
            reader: Tokenizes.
            loss: The contrastive loss.
            distillations: Further losses, from teachers.
            num_negatives: Negatives of a query.
            max_tokens: Tokens of one pass.
            ranks: This process.
            seed: Of dropout.
        """
        self.module, self.network, self.reader = module, network, reader
        self.loss, self.distillations = loss, distillations
        self.num_negatives, self.max_tokens = num_negatives, max_tokens
        self.ranks, self.seed = ranks, seed

    @property
    def joint(self) -> bool:
        """Whether queries see each other's texts."""
        return not self.loss.separable or bool(self.distillations)

    def run(self, items: Sequence[Item], step: int, share: float, last: bool) -> StepResult:
        """Add a batch's gradients to the parameters'.

        Args:
            items: The batch, the same on every rank.
            step: The step's number: seeds dropout.
            share: The batch's part of the step's queries.
            last: Whether no more batches come in this step: ranks then exchange gradients.
        """
        how = self._run_joint if self.joint else self._run_apart
        return how(items, step, share, last)

    def _run_joint(self, items: Sequence[Item], step: int, share: float, last: bool) -> StepResult:
        ranks = self.ranks
        batch = make_batch(items, self.num_negatives)
        order = sorted(range(len(batch.texts)), key=lambda i: len(batch.texts[i].text))
        own = order[ranks.rank :: ranks.world]
        ids = self.reader.ids([batch.texts[i] for i in own])
        lengths = [len(x) for x in ids]
        least = ranks.highest(len(plan_chunks(lengths, self.max_tokens)))
        chunks = plan_chunks(lengths, self.max_tokens, least)
        passes = [self._pass([ids[i] for i in chunk], step, n) for n, chunk in enumerate(chunks)]
        with torch.no_grad():
            cached = [encode() for encode in passes[:-1]]
        with gradients_stay(self.module, len(passes) > 1 or not last):
            kept = passes[-1]()
        own_vectors = _unsorted([*cached, kept.detach()], chunks, len(own))
        counts = [len(order[r :: ranks.world]) for r in range(ranks.world)]
        places = [i for r in range(ranks.world) for i in order[r :: ranks.world]]
        vectors_UD = _scattered(ranks.gather_rows(own_vectors, counts), places)
        loss, gradient_UD = self._loss_of(vectors_UD, batch, share)
        # DDP and FSDP take the mean over ranks, and a rank's gradient is only of its own texts.
        gradients = gradient_UD[own] * ranks.world
        with gradients_stay(self.module, len(passes) > 1 or not last):
            _backward(kept, gradients[chunks[-1]])
        for n, encode in enumerate(passes[:-1]):
            with gradients_stay(self.module, n < len(passes) - 2 or not last):
                _backward(encode(), gradients[chunks[n]])
        tokens = int(ranks.total(sum(lengths)))
        return StepResult(loss, tokens, len(batch.texts))

    def _loss_of(self, vectors_UD: Tensor, batch: Batch, share: float) -> tuple[float, Tensor]:
        """Return the loss on all vectors and its gradient by them, scaled by the batch's share."""
        leaf_UD = vectors_UD.requires_grad_()
        total = leaf_UD.new_zeros(())
        if self.loss.weight:
            masks = batch.masks.to(leaf_UD.device)
            losses_B = contrastive_loss(*batch.vectors(leaf_UD), masks, self.loss)
            total = total + self.loss.weight * losses_B.mean()
        for distillation in self.distillations:
            total = total + distillation(leaf_UD, batch, self.loss)
        (total * share).backward()
        assert leaf_UD.grad is not None
        return total.item() * share, leaf_UD.grad

    def _run_apart(self, items: Sequence[Item], step: int, share: float, last: bool) -> StepResult:
        ranks = self.ranks
        size = sorted(range(len(items)), key=lambda i: _characters(items[i], self.num_negatives))
        own = [items[i] for i in size[ranks.rank :: ranks.world]]
        groups = self._groups(own)
        loss = tokens = texts = 0.0
        for n, group in enumerate(groups):
            weight = share / len(items)
            with gradients_stay(self.module, n < len(groups) - 1 or not last):
                found = self._run_group(group, step, n, weight)
            loss, tokens, texts = loss + found.loss, tokens + found.tokens, texts + found.texts
        loss, tokens, texts = (ranks.total(float(x)) for x in (loss, tokens, texts))
        return StepResult(loss, int(tokens), int(texts))

    def _groups(self, items: Sequence[Item]) -> list[list[Item]]:
        """Cut records, sorted by size, into as many groups on every rank as one needs."""
        lengths = []
        for item in items:
            ids = self.reader.ids(make_batch([item], self.num_negatives).texts)
            lengths.append(sum(map(len, ids)))
        least = self.ranks.highest(len(plan_chunks(lengths, self.max_tokens)))
        plans = plan_chunks(lengths, self.max_tokens, least)
        return [[items[i] for i in plan] for plan in plans]

    def _run_group(
        self, items: Sequence[Item], step: int, number: int, weight: float
    ) -> StepResult:
        if not items:
            _backward(self._pass([], step, number)(), None)
            return StepResult(0.0, 0, 0)
        batch = make_batch(items, self.num_negatives)
        ids = self.reader.ids(batch.texts)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        sorted_UD = self._pass([ids[i] for i in order], step, number)()
        vectors_UD = _scattered(sorted_UD, order)
        losses_B = contrastive_loss(
            *batch.vectors(vectors_UD), batch.masks.to(vectors_UD.device), self.loss
        )
        total = self.loss.weight * losses_B.sum() * weight
        (total * self.ranks.world).backward()
        return StepResult(total.item(), sum(map(len, ids)), len(batch.texts))

    def _pass(self, ids: Sequence[Sequence[int]], step: int, number: int) -> Callable[[], Tensor]:
        """Return a function that encodes texts sorted by length, alike whenever it is called."""
        texts = ids or [[0]]
        packed = pack([*texts, *self._filling(texts)], self.ranks.device)
        seed = hash((self.seed, step, number, self.ranks.rank)) % 2**63

        def encode() -> Tensor:
            torch.manual_seed(seed)
            # Without gradients past DDP, which would prepare to exchange them.
            called = self.module if torch.is_grad_enabled() else self.network
            vectors: Tensor = called(packed)[: len(texts)]
            return vectors if ids else vectors[:0] + vectors.sum() * 0

        return encode

    def _filling(self, texts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return texts of one token, whose vectors nobody takes, up to a round number of tokens."""
        if self.ranks.device.type != "cpu" or self.network.dtype != torch.bfloat16:
            return []
        return [[0]] * (-sum(map(len, texts)) % _TOKENS_OF)


def _backward(vectors: Tensor, gradients: Tensor | None) -> None:
    """Take gradients on; a pass of nothing still takes part, because other ranks wait for it."""
    if gradients is None or not len(gradients):
        vectors.sum().backward()
    else:
        vectors.backward(gradients)


def _unsorted(parts: Sequence[Tensor], chunks: Sequence[Sequence[int]], count: int) -> Tensor:
    """Put chunks' rows back in the order of the texts."""
    places = [place for chunk in chunks for place in chunk]
    assert len(places) == count
    return _scattered(torch.cat(list(parts)), places)


def _scattered(rows_ND: Tensor, places: Sequence[int]) -> Tensor:
    """Return rows so that row i comes to ``places[i]``."""
    back = torch.empty(len(places), dtype=torch.int64)
    back[torch.tensor(places, dtype=torch.int64)] = torch.arange(len(places))
    return rows_ND[back.to(rows_ND.device)]


def _characters(item: Item, num_negatives: int) -> int:
    record = item[0]
    documents = (*record.positives[:1], *record.negatives[:num_negatives])
    return sum(map(len, (record.query, *documents)))
