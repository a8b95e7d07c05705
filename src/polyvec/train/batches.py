"""Records to what a step computes: texts, each once, and who is whose positive or negative."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from polyvec.model.packing import Packed
from polyvec.model.tokens import Tokenizer
from polyvec.records.mixture import Draw
from polyvec.records.record import Record
from polyvec.spec import Role, Spec
from polyvec.train.losses import Masks, masks_of

Item = tuple[Record, Draw]


class Text(NamedTuple):
    """A text as the model reads it; equal ones are encoded once."""

    text: str
    role: Role
    instruction: str | None


@dataclass(frozen=True)
class Batch:
    """A step's texts and how they belong together."""

    texts: tuple[Text, ...]
    query_B: Tensor
    """Each query's row among the texts."""
    positive_B: Tensor
    negative_BK: Tensor
    """Each negative's row; 0 where there is none (see the masks)."""
    masks: Masks
    sources: tuple[str, ...]
    """Each record's source."""

    def vectors(self, vectors_UD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries ``[B, D]``, positives ``[B, D]`` and negatives ``[B, K, D]``."""
        rows = (self.query_B, self.positive_B, self.negative_BK)
        queries, positives, negatives = (vectors_UD[row.to(vectors_UD.device)] for row in rows)
        return queries, positives, negatives


def make_batch(items: Sequence[Item], num_negatives: int) -> Batch:
    """Arrange records: positives are taken in turn, visit by visit, and negatives in order.

    Negatives move on by ``num_negatives`` each visit, so that a list longer than that is used up.
    """
    rows: dict[Text, int] = {}

    def row(text: Text) -> int:
        return rows.setdefault(text, len(rows))

    negative_BK = torch.zeros((len(items), num_negatives), dtype=torch.int64)
    has_BK = torch.zeros((len(items), num_negatives), dtype=torch.bool)
    queries, positives = [], []
    positive_keys, negative_keys = [], []
    for number, (record, draw) in enumerate(items):
        queries.append(row(Text(record.query, "query", record.task_instruction)))
        place = draw.visit % len(record.positives)
        positives.append(row(document(record, record.positives[place])))
        positive_keys.append(_keys(record, record.positives, record.positive_ids, place))
        for k in range(num_negatives):
            chosen = _negative(record, draw.visit, k, num_negatives)
            negative_keys.append(
                set()
                if chosen is None
                else _keys(record, record.negatives, record.negative_ids, chosen)
            )
            if chosen is not None:
                negative_BK[number, k] = row(document(record, record.negatives[chosen]))
                has_BK[number, k] = True
    known = [_positive_keys(record) for record, _ in items]
    masks = masks_of(known, [*positive_keys, *negative_keys], has_BK)
    sources = tuple(record.source for record, _ in items)
    return Batch(
        tuple(rows), torch.tensor(queries), torch.tensor(positives), negative_BK, masks, sources
    )


def document(record: Record, text: str) -> Text:
    """Return a positive or negative as the model reads it: a query too, in a symmetric task."""
    if record.symmetric:
        return Text(text, "query", record.task_instruction)
    return Text(text, "document", None)


def _negative(record: Record, visit: int, k: int, num_negatives: int) -> int | None:
    """Return which of the record's negatives is its k-th this time."""
    have = len(record.negatives)
    if k >= have:
        return None
    return k if have <= num_negatives else (visit * num_negatives + k) % have


def _keys(record: Record, texts: Sequence[str], ids: Sequence[str], place: int) -> set[str]:
    keys = {texts[place]}
    if ids:
        keys.add(_id_key(record, ids[place]))
    return keys


def _positive_keys(record: Record) -> set[str]:
    return {*record.positives, *(_id_key(record, name) for name in record.positive_ids)}


def _id_key(record: Record, name: str) -> str:
    """Ids are a source's own; the NUL keeps them apart from texts."""
    return f"\0{record.source}\0{name}"


class Reader:
    """Tokenizes a batch's texts, cut to the recipe's lengths."""

    def __init__(self, tokenizer: Tokenizer, specs: dict[Role, Spec]) -> None:
        self.tokenizer, self.specs = tokenizer, specs
        self.read = self.cut = 0
        """Texts so far, and how many of them were too long."""

    @property
    def cut_share(self) -> float:
        """Which share of the texts so far was too long and lost its end."""
        return self.cut / self.read if self.read else 0.0

    def ids(self, texts: Sequence[Text]) -> list[list[int]]:
        """Return token ids, text by text; a text that is too long loses its end."""
        found: list[list[int]] = [[]] * len(texts)
        groups: dict[tuple[Role, str | None], list[int]] = {}
        for place, text in enumerate(texts):
            groups.setdefault((text.role, text.instruction), []).append(place)
        for (role, instruction), places in groups.items():
            part = [texts[place].text for place in places]
            tokens = self.tokenizer.encode(part, self.specs[role], role, instruction)
            self.read, self.cut = self.read + len(part), self.cut + len(tokens.cut)
            for place, ids in zip(places, tokens.ids, strict=True):
                found[place] = ids
        return found


def plan_chunks(lengths: Sequence[int], max_tokens: int, at_least: int = 1) -> list[list[int]]:
    """Share texts out among chunks of at most ``max_tokens``, neighbours of like length.

    Texts of one length are side by side, so that attention over them is one call. There are at
    least ``at_least`` chunks, some perhaps empty; a text over the limit is a chunk of its own.
    """
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    chunks: list[list[int]] = [[]]
    tokens = 0
    limit = max(1, min(max_tokens, -(-sum(lengths) // at_least)))
    for place in order:
        full = tokens + lengths[place] > max_tokens or (tokens >= limit and at_least > len(chunks))
        if chunks[-1] and full:
            chunks.append([])
            tokens = 0
        chunks[-1].append(place)
        tokens += lengths[place]
    chunks += [[] for _ in range(at_least - len(chunks))]
    return chunks


def pack(ids: Sequence[Sequence[int]], device: torch.device) -> Packed:
    """Pack texts that are sorted by length."""
    return Packed.of(ids, device)
