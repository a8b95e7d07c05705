"""Fewer results that say the same: maximal marginal relevance."""

import numpy as np

from polyvec.search.rows import Vectors


def diverse_order(relevance: Vectors, vectors_ND: Vectors, diversity: float) -> list[int]:
    """Return all indices in the order of maximal marginal relevance.

    Each next one has the greatest ``(1 - diversity) * relevance - diversity * s``, where ``s`` is
    its highest cosine to one already chosen (Carbonell and Goldstein, SIGIR 1998, whose lambda is
    ``1 - diversity``). Relevance is scaled to 0..1 first, so that it and cosines weigh alike.

    Args:
        relevance: ``float32 [N]``, higher is better.
        vectors_ND: Of the same items.
        diversity: 0 is the order of relevance, 1 looks at difference alone (after the first).
    """
    if not len(relevance):
        return []
    spread = float(relevance.max() - relevance.min()) or 1.0
    scaled = (relevance - relevance.min()) / spread
    lengths = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    unit_ND = vectors_ND / np.where(lengths > 0, lengths, 1)
    nearest = np.zeros(len(relevance), dtype=np.float32)
    left = list(range(len(relevance)))
    order = [left.pop(int(np.argmax(scaled)))]
    while left:
        np.maximum(nearest, unit_ND @ unit_ND[order[-1]], out=nearest)
        gains = (1 - diversity) * scaled[left] - diversity * nearest[left]
        order.append(left.pop(int(np.argmax(gains))))
    return order
