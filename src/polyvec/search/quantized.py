"""The index of the vectors: from when on there is one, and how much of it a search looks at.

RaBitQ in LanceDB's partitions: one bit a number, whose best are compared again by whole vectors.
``bench/search_tune.py`` measures what is decided here.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lancedb.index import IvfRq

QUANTIZE_FROM_NUMBERS = 5_000_000
"""Rows times dimension. Below, comparing with every vector takes 20 ms at most, at 4 to 5 ns a
number; 5,000 vectors of 4,096 took 106 ms so, and 10 ms by an index that took a second to make."""
COMPARED_NUMBERS = 1_250_000
"""What a search reads of whole vectors, about: 5 MB, or 300 vectors of 4,096 numbers."""
_LEAST_FACTOR, _MOST_FACTOR, _MOST_COMPARED = 3, 10, 100


def is_quantized(rows: int, dimension: int) -> bool:
    """Return whether so many vectors get an index."""
    return rows * dimension >= QUANTIZE_FROM_NUMBERS


def refine_factor(limit: int, dimension: int) -> int:
    """Return how many candidates are compared by whole vectors for each that is wanted.

    Ten, as short vectors need (of 576 numbers, without comparing again, 72 of 100 are found); three
    where vectors are long, bits say more, and a thousand reads would cost more than the rest.

    Args:
        limit: How many are wanted.
        dimension: Numbers of a vector.
    """
    most = max(_MOST_FACTOR, -(-_MOST_COMPARED // limit))
    return min(max(COMPARED_NUMBERS // (limit * dimension), _LEAST_FACTOR), most)


def vector_index() -> "IvfRq":
    """Return LanceDB's settings of the index."""
    from lancedb.index import IvfRq

    return IvfRq(distance_type="cosine")
