"""How negatives are chosen."""

from dataclasses import dataclass
from typing import Literal

from polyvec.data.mining.choose import Sampling
from polyvec.data.mining.margin import DEFAULT_PERC, Margin, check_margin
from polyvec.errors import InputError
from polyvec.spec import check_choice

Search = Literal["exact", "approximate"]


@dataclass(frozen=True)
class MineSettings:
    """How negatives are chosen."""

    negatives: int = 4
    """How many a record gets at most; 4 as in the paper's fine-tuning."""
    margin: Margin = "perc"
    margin_value: float = DEFAULT_PERC
    depth: int = 100
    """How many documents under the threshold are looked at for each record and teacher."""
    skip: int = 0
    """How many of the nearest of them are passed over."""
    sampling: Sampling = "top"
    keep_negatives: bool = False
    """Whether a record's own negatives stay, in front of mined ones."""
    drop_without_negatives: bool = False
    """Whether records that end without any negative are left out: there are losses that learn
    nothing from those."""
    seed: int = 0
    search: Search = "exact"
    """``approximate`` asks a graph of neighbours instead of every document."""
    samples: int = 20
    """Records of the report that are shown in full."""

    def __post_init__(self) -> None:
        check_margin(self.margin, self.margin_value)
        check_choice("sampling", self.sampling, Sampling)
        check_choice("search", self.search, Search)
        if self.negatives < 1 or self.skip < 0 or self.samples < 0:
            raise InputError(
                f"negatives must be at least 1, skip and samples at least 0; given: "
                f"{self.negatives}, {self.skip}, {self.samples}."
            )
        if self.depth < self.skip + self.negatives:
            raise InputError(
                f"depth is {self.depth}; to pass over {self.skip} documents and take "
                f"{self.negatives} it must be at least {self.skip + self.negatives}."
            )
