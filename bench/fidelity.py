"""How well a set of vectors retrieves."""

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


def ndcg(queries: Vectors, documents: Vectors, k: int = 10) -> float:
    """Return mean nDCG@k where document i is the only answer to query i.

    With one relevant document the ideal gain is 1, so nDCG is ``1 / log2(1 + rank)`` for a rank
    up to k, else 0 (Järvelin and Kekäläinen, 2002). A tie counts against the model.
    """
    scores = unit(queries) @ unit(documents).T
    ranks = (scores >= scores.diagonal()[:, None]).sum(axis=1)
    return float(np.where(ranks <= k, 1 / np.log2(1 + ranks), 0).mean())


def unit(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Return the vectors in float64, of length 1; a zero vector stays zero."""
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float64] = wide / np.where(norms > 0, norms, 1)
    return scaled
