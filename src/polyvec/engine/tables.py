"""A model's token table: in memory, or its rows read when a token needs them."""

from typing import Protocol

import torch
from torch import Tensor

from polyvec.engine.matrices import is_finite, not_numbers
from polyvec.model.files import ModelFiles
from polyvec.model.stored import expanded
from polyvec.model.weights import stored


class Table(Protocol):
    """Rows by token."""

    def rows(self, ids_T: Tensor) -> Tensor:
        """Return the rows of tokens, fp32 ``[T, D]``, rounded to the dtype of the table."""
        ...


class ResidentTable:
    """The whole table in memory."""

    def __init__(self, table_VD: Tensor) -> None:
        self.table_VD = table_VD

    def rows(self, ids_T: Tensor) -> Tensor:
        """Return rows; see :class:`Table`."""
        return self.table_VD[ids_T].float()


class StoredTable:
    """A table that stays in its file: a row is a few kilobytes, the whole a gigabyte."""

    def __init__(self, files: ModelFiles, name: str, dtype: torch.dtype) -> None:
        self.files, self.name, self.dtype = files, name, dtype

    def rows(self, ids_T: Tensor) -> Tensor:
        """Return rows; see :class:`Table`.

        Raises:
            ModelFileError: They cannot be read, or are not finite numbers.
        """
        ids, places_T = ids_T.cpu().unique(return_inverse=True)
        width = self.files.weights.shape(self.name)[1]
        rows_UD = torch.empty(len(ids), width)
        for place, row in enumerate(ids.tolist()):
            own = stored(self.files.weights, self.name, row, row + 1)
            expanded(own, rows_UD[place : place + 1])
        if not is_finite(rows_UD):
            raise not_numbers(self.files, self.name)
        return rows_UD.to(self.dtype).float()[places_T].to(ids_T.device)
