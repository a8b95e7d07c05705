"""How a model's weights are held: all in memory, packed in 4-bit or other blocks, or in files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from polyvec.engine.layers import LayerSource, ResidentLayers, StagedLayers
from polyvec.engine.matrices import Matrices
from polyvec.engine.plan import WeightsPlace, WeightsWanted
from polyvec.engine.readers import LayerReader, check_shape, read_checked
from polyvec.engine.tables import ResidentTable, StoredTable, Table
from polyvec.errors import InputError
from polyvec.model.files import ModelFiles
from polyvec.model.held import HeldWeights
from polyvec.model.reading import Watched
from polyvec.model.weights import has_blocks
from polyvec.spec import check_choice


@dataclass(frozen=True)
class Holding:
    """Where the weights of layers are.

    *resident*: arranged in memory, once. *packed*: in memory as a GGUF has them, or, with
    ``four_bits``, rounded to 4 bits; expanded a layer at a time. *streamed*: in their files, read a
    layer at a time. Packed and streamed models read the token table's rows from the file too.
    """

    place: WeightsPlace = "resident"
    four_bits: bool = False

    @property
    def packs(self) -> bool:
        """Whether it pays to let oneDNN arrange a weight."""
        return self.place == "resident"

    def table(
        self,
        files: ModelFiles,
        name: str,
        sizes: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> Table:
        """Open a token table of ``sizes``."""
        if self.place == "resident":
            return ResidentTable(read_checked(files, name, sizes).to(device, dtype))
        check_shape(files, name, sizes)
        return StoredTable(files, name, dtype)

    def source(
        self, files: ModelFiles, read: Callable[[Matrices], LayerReader[Any]]
    ) -> LayerSource[Any]:
        """Open the layers that ``read`` reads."""
        if self.place == "resident":
            return ResidentLayers(read(Matrices(files)))
        watched = Watched(files.weights.files) if self.place == "streamed" else None
        if self.place == "packed" and not self.four_bits:
            files = replace(files, weights=HeldWeights(files.weights))
        layers = StagedLayers(read(Matrices(files, self.four_bits)), watched)
        if self.place == "packed":
            layers.hold()
        return layers


def choices(weights: WeightsWanted, precision: str, files: ModelFiles) -> list[Holding]:
    """Return the ways a model may be held, the fastest first.

    Raises:
        InputError: ``weights`` is another word, or asks for what the precision or files have not.
    """
    check_choice("weights", weights, WeightsWanted)
    blocks = has_blocks(files.weights)
    if precision == "packed":
        if weights not in ("auto", "packed"):
            raise InputError(
                f"weights is {weights!r} and precision 'packed' keeps them packed: leave weights "
                "out, or choose precision 'int8', 'bf16' or 'fp32'."
            )
        return [Holding("packed", four_bits=not blocks)]
    if weights == "packed" and not blocks:
        raise InputError(
            f"weights='packed' keeps a GGUF's 4-bit or other blocks, and {files.path.name} has "
            "none. Use precision='packed' to round its weights to 4 bits (that changes vectors: "
            "docs/quality.md), or weights='streamed'."
        )
    if weights == "auto":
        packed = [Holding("packed")] if blocks else []
        return [Holding("resident"), *packed, Holding("streamed")]
    return [Holding(weights)]
