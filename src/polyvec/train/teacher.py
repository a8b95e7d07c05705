"""What a model learns from another: a teacher's vectors, kept in a folder, and the losses.

Shape letters: U texts of a batch, D the model's dimension, E the teacher's, B queries,
C candidates.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import orjson
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyvec.errors import InputError, ResumeError
from polyvec.spec import Role
from polyvec.train.batches import Batch, Text
from polyvec.train.losses import LossSettings, other_documents
from polyvec.train.recipe import DistillSettings

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[Text]], Vectors]
"""Texts of one role to the teacher's vectors, ``float32 [n, E]``."""

_VECTORS, _KEYS, _FACTS = "vectors.f16", "keys.bin", "teacher.json"
_KEY_BYTES, _CHUNK = 16, 512


class TeacherVectors:
    """A teacher's vectors of texts, as float16 in a folder; more can be added at any time.

    Vectors are appended before their keys, and what has no key is written over: a killed run loses
    a chunk at most.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self.folder, self.dimension = folder, dimension
        self._rows = self._read_keys()

    @classmethod
    def make(cls, folder: Path, fingerprint: str, dimension: int) -> "TeacherVectors":
        """Open a teacher's folder, or begin one.

        Raises:
            ResumeError: The folder holds another teacher's vectors.
        """
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"fingerprint": fingerprint, "dimension": dimension}
        path = folder / _FACTS
        if path.is_file() and orjson.loads(path.read_bytes()) != facts:
            raise ResumeError(
                f"{folder} holds another teacher's vectors ({path.read_text()}); this one is "
                f"{facts}. Give another folder, or remove that one."
            )
        path.write_bytes(orjson.dumps(facts))
        return cls(folder, dimension)

    @classmethod
    def open(cls, folder: Path) -> "TeacherVectors":
        """Open a folder of vectors that is there.

        Raises:
            InputError: It is none.
        """
        try:
            facts = orjson.loads((folder / _FACTS).read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise InputError(f"{folder} is no folder of a teacher's vectors: {error}.") from error
        return cls(folder, int(facts["dimension"]))

    def _read_keys(self) -> dict[bytes, int]:
        path, width = self.folder / _KEYS, 2 * self.dimension
        raw = path.read_bytes() if path.is_file() else b""
        vectors = self.folder / _VECTORS
        size = vectors.stat().st_size // width if vectors.is_file() else 0
        count = min(len(raw) // _KEY_BYTES, size)
        for place, length in ((path, count * _KEY_BYTES), (vectors, count * width)):
            place.touch()
            with place.open("r+b") as file:
                file.truncate(length)
        keys = (raw[i * _KEY_BYTES : (i + 1) * _KEY_BYTES] for i in range(count))
        return {key: row for row, key in enumerate(keys)}

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self, texts: Iterable[Text], encode: Encode, done: Callable[[int], None] = lambda _: None
    ) -> None:
        """Embed the texts that are not there yet; ``done`` is told how many at a time."""
        pending: dict[bytes, Text] = {}
        for text in texts:
            key = _key(text)
            if key not in self._rows and key not in pending:
                pending[key] = text
            if len(pending) == _CHUNK:
                self._append(pending, encode)
                done(len(pending))
                pending = {}
        self._append(pending, encode)
        done(len(pending))

    def _append(self, texts: dict[bytes, Text], encode: Encode) -> None:
        for role in get_args(Role):
            part = {key: text for key, text in texts.items() if text.role == role}
            if not part:
                continue
            vectors_NE = encode(list(part.values()))
            with (self.folder / _VECTORS).open("ab") as file:
                file.write(np.ascontiguousarray(vectors_NE, np.float16).tobytes())
            with (self.folder / _KEYS).open("ab") as file:
                file.write(b"".join(part))
            self._rows |= {key: len(self._rows) + i for i, key in enumerate(part)}

    def vectors(self, texts: Sequence[Text]) -> Tensor:
        """Return the vectors of texts, fp32 ``[n, E]``.

        Raises:
            InputError: One is not there.
        """
        rows = [self._rows.get(_key(text), -1) for text in texts]
        if -1 in rows:
            text = texts[rows.index(-1)]
            raise InputError(
                f"{self.folder} has no vector of the {text.role} {text.text!r:.80}: the teacher "
                "did not see these records. Add them, or take the source out of distill.sources."
            )
        stored = np.memmap(
            self.folder / _VECTORS, np.float16, "r", shape=(len(self._rows), self.dimension)
        )
        return torch.from_numpy(stored[rows].astype(np.float32))


def _key(text: Text) -> bytes:
    digest = hashlib.blake2b(f"{text.role}\0{text.text}".encode(), digest_size=_KEY_BYTES)
    return digest.digest()


class Distillation(nn.Module):
    """The loss of one teacher. Its linear map to the teacher's space is trained and thrown away."""

    def __init__(
        self, settings: DistillSettings, teacher: TeacherVectors, dimension: int, seed: int
    ) -> None:
        super().__init__()
        self.settings, self.teacher = settings, teacher
        self.map: nn.Parameter | None = None  # ``maps.fit_maps`` says where it begins
        if settings.vectors_weight:
            draw = torch.Generator().manual_seed(seed)
            first = torch.randn((teacher.dimension, dimension), generator=draw)
            self.map = nn.Parameter(first / dimension**0.5)

    def forward(self, vectors_UD: Tensor, batch: Batch, loss: LossSettings) -> Tensor:
        """Return the weighted loss of a batch."""
        chosen = [i for i, s in enumerate(batch.sources) if self.teaches(s)]
        if not chosen:
            return vectors_UD.sum() * 0
        taught_UE = self._taught(batch, chosen).to(vectors_UD.device)
        rows_B = torch.tensor(chosen, device=vectors_UD.device)
        total = vectors_UD.new_zeros(())
        if self.map is not None:
            total = total + self.settings.vectors_weight * self._vectors_loss(
                vectors_UD, taught_UE, batch, rows_B
            )
        if self.settings.scores_weight:
            total = total + self.settings.scores_weight * self._scores_loss(
                vectors_UD, taught_UE, batch, loss, rows_B
            )
        return total

    def _taught(self, batch: Batch, chosen: Sequence[int]) -> Tensor:
        """Return the teacher's vectors of the texts that the chosen records need, zeros of others.

        Where only the vectors of one side are learned, the teacher need not know the other.
        """
        rows = torch.tensor(chosen)
        parts = [batch.query_B[rows], batch.positive_B[rows], batch.negative_BK[rows].flatten()]
        if not self.settings.scores_weight:
            parts = {"own": parts[:2], "query": parts[:1], "positive": parts[1:2]}[self.settings.of]
        needed = torch.cat(parts).unique()
        taught_UE = torch.zeros((len(batch.texts), self.teacher.dimension))
        taught_UE[needed] = self.teacher.vectors([batch.texts[i] for i in needed.tolist()])
        return taught_UE

    def teaches(self, source: str) -> bool:
        """Return whether records of a source are taught."""
        return not self.settings.sources or source in self.settings.sources

    def _vectors_loss(
        self, vectors_UD: Tensor, taught_UE: Tensor, batch: Batch, rows_B: Tensor
    ) -> Tensor:
        """Return the mean ``1 - cosine`` over the texts of the rows, each text once."""
        device = vectors_UD.device
        queries, positives = batch.query_B.to(device)[rows_B], batch.positive_B.to(device)[rows_B]
        targets = {
            "own": (queries, positives),
            "query": (queries, queries),
            "positive": (positives, positives),
        }[self.settings.of]
        learners, targets_N = torch.cat((queries, positives)), torch.cat(targets)
        assert self.map is not None
        mapped = F.linear(vectors_UD[learners], self.map)
        return (1 - F.cosine_similarity(mapped, taught_UE[targets_N], dim=-1)).mean()

    def _scores_loss(
        self,
        vectors_UD: Tensor,
        taught_UE: Tensor,
        batch: Batch,
        loss: LossSettings,
        rows_B: Tensor,
    ) -> Tensor:
        """Return KL(teacher's shares of candidates, the model's), the mean over queries."""
        allowed = _own_and_other(batch, loss, vectors_UD.device)
        ours = _scores(vectors_UD, batch) / loss.temperature
        theirs = _scores(taught_UE, batch) / self.settings.temperature
        logs = [x.masked_fill(~allowed, -torch.inf).log_softmax(1) for x in (ours, theirs)]
        shares = logs[1].exp()
        terms_BC = torch.where(shares > 0, shares * (logs[1] - logs[0]), torch.zeros_like(shares))
        return terms_BC.sum(1)[rows_B].mean()


def _scores(vectors_UD: Tensor, batch: Batch) -> Tensor:
    """Return cosines of queries and [positives, negatives], ``[B, B + B * K]``."""
    queries, positives, negatives = batch.vectors(F.normalize(vectors_UD, dim=-1))
    return queries @ torch.cat((positives, negatives.flatten(0, 1))).T


def _own_and_other(batch: Batch, loss: LossSettings, device: torch.device) -> Tensor:
    """Return which documents are a query's candidates: its own, and others as the loss has them."""
    masks = batch.masks.to(device)
    same_BB = torch.eye(len(masks.known_BM), dtype=torch.bool, device=device)
    own = torch.cat((same_BB, (same_BB[:, :, None] & masks.has_negative_BK[None]).flatten(1)), 1)
    return own if loss.in_batch == "none" else own | other_documents(masks, loss)
