"""Where the linear maps to teachers' spaces begin: at the best fit to the model as it is.

A map drawn at random would first pull a model that already knows something towards nowhere.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyvec.metrics import unit
from polyvec.records.record import Record
from polyvec.train.batches import Text, document
from polyvec.train.evaluation import embed
from polyvec.train.step import Stepper
from polyvec.train.teacher import Distillation

MAX_TEXTS = 2_048
"""Enough for a map from some hundred dimensions, and seconds of work."""
RIDGE = 1e-3
"""Of the vectors' mean square in a direction: fewer texts than dimensions then have one answer."""


def fit_maps(stepper: Stepper, records: Mapping[str, Sequence[Record]]) -> None:
    """Set every teacher's map to the ridge regression from the model's vectors to the teacher's.

    All ranks must call it together. A map keeps the size that it was drawn with.
    """
    for distillation in stepper.distillations:
        if distillation.map is not None:
            texts = _texts(distillation, records)
            network, reader, ranks = stepper.network, stepper.reader, stepper.ranks
            vectors_ND = torch.from_numpy(
                unit(embed(network, reader, texts, stepper.max_tokens, ranks))
            )
            taught_NE = distillation.teacher.vectors(texts)
            best_ED = _ridge(vectors_ND, taught_NE).to(distillation.map)
            with torch.no_grad():
                best_ED *= distillation.map.norm() / best_ED.norm().clamp_min(1e-12)
                distillation.map.copy_(best_ED)


def _ridge(vectors_ND: Tensor, taught_NE: Tensor) -> Tensor:
    v, t = vectors_ND.double(), taught_NE.double()
    square_DD = v.T @ v
    square_DD += RIDGE * square_DD.diagonal().mean() * torch.eye(len(square_DD), dtype=v.dtype)
    return torch.linalg.solve(square_DD, v.T @ t).T


def _texts(distillation: Distillation, records: Mapping[str, Sequence[Record]]) -> list[Text]:
    """Return texts that the teacher knows, evenly from all records."""
    every = max(1, sum(map(len, records.values())) // (2 * MAX_TEXTS))
    some = (part[row] for part in records.values() for row in range(0, len(part), every))
    taught = (record for record in some if distillation.teaches(record.source))
    of_query = distillation.settings.of == "query"
    texts = list(dict.fromkeys(_text(record, of_query) for record in taught))
    return texts[:: max(1, len(texts) // MAX_TEXTS)]


def _text(record: Record, of_query: bool) -> Text:
    if of_query:
        return Text(record.query, "query", record.task_instruction)
    return document(record, record.positives[0])
