"""Token states to one vector a text: pooling and normalization, in fp32."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from polyvec.model.packing import Packed
from polyvec.spec import Pooling


def pool(states_TD: Tensor, packed: Packed, pooling: Pooling) -> Tensor:
    """Pool packed token states to ``[texts, D]`` float32.

    ``mean`` is over all of a text's tokens, BOS, EOS and prefix included, summed in fp32 and
    divided by at least 1; ``last`` and ``cls`` take the last and the first token. A text without
    tokens gives zeros.
    """
    width = states_TD.shape[-1]
    if not packed.runs:
        return states_TD.new_zeros((0, width), dtype=torch.float32)
    pooled = [
        _pool_block(block.view(run.num_texts, run.length, width), pooling)
        for run, block in zip(packed.runs, packed.by_run(states_TD), strict=True)
    ]
    return torch.cat(pooled)


def _pool_block(block_NLD: Tensor, pooling: Pooling) -> Tensor:
    length = block_NLD.shape[1]
    if pooling == "mean" or length == 0:
        return block_NLD.sum(1, dtype=torch.float32) / max(length, 1)
    return block_NLD[:, -1 if pooling == "last" else 0].float()


def shape_vectors(pooled_ND: Tensor, size: int, unit: bool) -> npt.NDArray[np.float32]:
    """Cut pooled vectors to ``size`` numbers, scale them to length 1 if asked, as numpy's."""
    vectors_ND = pooled_ND[:, :size]
    result: npt.NDArray[np.float32] = (normalize(vectors_ND) if unit else vectors_ND).cpu().numpy()
    return result


def normalize(vectors_ND: Tensor) -> Tensor:
    """Scale rows to length 1; a row of zeros stays zeros."""
    return F.normalize(vectors_ND, dim=-1)
