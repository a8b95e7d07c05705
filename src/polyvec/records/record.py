"""One training example: a query, what answers it and what does not."""

from dataclasses import dataclass
from typing import Literal, get_args

from polyvec.errors import InputError

Task = Literal["retrieval", "classification", "sts", "bitext"]

SYMMETRIC: frozenset[Task] = frozenset({"sts", "bitext"})
"""Tasks without roles: the instruction stands before every text, positives and negatives too."""

TASK_INSTRUCTIONS: dict[Task, str | None] = {
    "retrieval": None,
    "classification": None,
    "sts": "Retrieve semantically similar text",
    "bitext": "Retrieve parallel sentences",
}
"""What a record without an instruction of its own uses; None is the model's default. The two
strings are those of nvidia/llama-embed-nemotron-8b's loader in mteb."""


@dataclass(frozen=True)
class Record:
    """A query with its positives and negatives, and the task they are an example of.

    The four tasks have the shapes of the paper (arXiv 2511.07025): *retrieval*, the instruction
    stands before the query only; *classification*, the query is a text, the positive its label
    and the negatives are other labels; *sts* and *bitext* are symmetric.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    task: Task = "retrieval"
    instruction: str | None = None
    """The task in a sentence; None is the one of :data:`TASK_INSTRUCTIONS`."""
    source: str = ""
    """The data set it came from."""
    query_id: str | None = None
    positive_ids: tuple[str, ...] = ()
    """Ids of the positives, one each, or none at all."""
    negative_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise InputError(f"task is {self.task!r:.40}; allowed: {', '.join(get_args(Task))}.")
        if not self.query.strip():
            raise InputError("query is empty. Write a text, or leave the row out.")
        if not self.positives:
            raise InputError("there are no positives; at least one is needed.")
        if self.instruction is not None and not self.instruction.strip():
            raise InputError("instruction is empty. Write one, or leave the field out.")
        for name, texts, ids in (
            ("positives", self.positives, self.positive_ids),
            ("negatives", self.negatives, self.negative_ids),
        ):
            _check_texts(name, texts, ids)

    @property
    def symmetric(self) -> bool:
        """Whether the instruction stands before positives and negatives too."""
        return self.task in SYMMETRIC

    @property
    def task_instruction(self) -> str | None:
        """The record's own instruction, else its task's; None is the model's default."""
        return self.instruction or TASK_INSTRUCTIONS[self.task]


def _check_texts(name: str, texts: tuple[str, ...], ids: tuple[str, ...]) -> None:
    for number, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"{name}[{number}] is empty. Write a text, or leave it out.")
    if ids and len(ids) != len(texts):
        raise InputError(
            f"{len(texts)} {name} and {len(ids)} ids of them; give one id for each, or none."
        )
