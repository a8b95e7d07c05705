"""How near a model's vectors are to its source's: run here, in fp32, on a few texts.

A layer is read, used and forgotten, so that a model of any size is measured in little memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyvec.engine.holding import Holding
from polyvec.engine.plan import WeightsPlace
from polyvec.engine.runner import Runner
from polyvec.errors import SpecError
from polyvec.model.files import ModelFiles
from polyvec.model.packing import Packed
from polyvec.model.pooling import normalize, pool
from polyvec.publish.sides import read_probes
from polyvec.spec import LlamaArchitecture, Role

_MAX_TOKENS = 64
_ROLES: tuple[Role, ...] = ("query", "document")


@dataclass(frozen=True)
class Quality:
    """Cosines between a source's vectors and the result's, over texts in both roles."""

    cosine_min: float
    cosine_mean: float
    vectors: int


def measure(source: ModelFiles, result: ModelFiles) -> Quality:
    """Embed short texts in 14 languages with both models, as queries and as documents."""
    texts = [probe.text for probe in read_probes() if probe.kind == "short"][::2]
    ours, theirs = _vectors(source, texts), _vectors(result, texts)
    cosines = (ours * theirs).sum(axis=1).clip(max=1)
    return Quality(float(cosines.min()), float(cosines.mean()), len(cosines))


def check_tokens(source: ModelFiles, result: ModelFiles) -> None:
    """Tokenize the whole probe set with both models.

    Raises:
        SpecError: A text has other tokens.
    """
    texts = [probe.text for probe in read_probes()]
    for role in _ROLES:
        pairs = zip(*(_ids(files, texts, role) for files in (source, result)), strict=True)
        for text, (ours, theirs) in zip(texts, pairs, strict=True):
            if ours != theirs:
                raise SpecError(
                    f"The tokenizer would not survive: as a {role}, {text[:60]!r} is "
                    f"{_shown(ours)} in {source.path} and {_shown(theirs)} in what was written, "
                    "which was thrown away. Export to a folder, which keeps tokenizer.json."
                )


def _shown(ids: Sequence[int]) -> str:
    return f"{list(ids[:12])}{' ...' if len(ids) > 12 else ''}"


def _ids(files: ModelFiles, texts: Sequence[str], role: Role) -> list[list[int]]:
    """Return each text's ids, uncut: the lengths that two files state may differ."""
    spec = replace(files.spec, max_tokens=2**31)
    return files.tokenizer.encode(texts, spec, role).ids


def _vectors(files: ModelFiles, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    limit = min(_MAX_TOKENS, files.spec.max_tokens)
    ids = [own[:limit] for role in _ROLES for own in _ids(files, texts, role)]
    packed = Packed.of(ids, torch.device("cpu"))
    with torch.inference_mode():
        states_TD = _states(files, packed)
        vectors_ND = normalize(pool(states_TD, packed, files.spec.pooling))
    result: npt.NDArray[np.float32] = vectors_ND.numpy()
    return result


def _states(files: ModelFiles, packed: Packed) -> Tensor:
    """Run a model a layer at a time, in the memory of two layers."""
    place: WeightsPlace = "streamed"
    if not isinstance(files.architecture, LlamaArchitecture):  # a BERT is small enough to be loaded
        place = "resident"
    runner = Runner(files, torch.float32, torch.device("cpu"), holding=Holding(place))
    return runner.run([packed])[0]
