"""The reference libraries, run on a folder."""

from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AutoModel


class Reference:
    """transformers' own model of a folder, fp32."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def states(self, ids: Sequence[int]) -> Tensor:
        """Return the last hidden state of one text, alone: ``[T, D]``."""
        with torch.inference_mode():
            result: Tensor = self.model(torch.tensor([list(ids)]), use_cache=False)[0][0]
        return result


def sentence_transformer(folder: Path) -> SentenceTransformer:
    """Load a folder in sentence-transformers on the CPU, fp32."""
    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
