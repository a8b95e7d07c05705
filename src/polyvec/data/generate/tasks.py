"""What each kind asks for, and how an answer becomes a record."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from polyvec.data.generate.answers import Schema, list_schema, object_schema, text_schema
from polyvec.data.generate.prompts import Prompt
from polyvec.data.generate.settings import GenerateSettings, Kind
from polyvec.data.identity import text_key
from polyvec.errors import InputError
from polyvec.records.record import Record

Answer = Mapping[str, Any]

IDEAS: Schema = object_schema(ideas=list_schema(1))
VERDICT: Schema = object_schema(correct={"type": "boolean"})
_SCHEMAS: dict[Kind, Schema] = {
    "retrieval": object_schema(query=text_schema(), positive=text_schema(), negative=text_schema()),
    "classification": object_schema(
        text=text_schema(), label=text_schema(maxLength=200), misleading_labels=list_schema(1, 10)
    ),
    "sts": object_schema(
        text=text_schema(), same_meaning=text_schema(), other_meaning=text_schema()
    ),
    "bitext": object_schema(
        text=text_schema(), translation=text_schema(), wrong_translation=text_schema()
    ),
    "questions": object_schema(query=text_schema()),
}
_CLAIMS: dict[Kind, str] = {
    "retrieval": "The second text answers the first. The task is: {idea}",
    "classification": "The second is the right label of the first text. The task is: {idea}",
    "sts": "The two texts mean the same.",
    "bitext": "The second text is a faithful translation of the first.",
    "questions": "The second text answers the first.",
    "translate": "The second text is what somebody looks for who writes the first.",
}


_NUMBER = re.compile(r"^\s*(?:\d+[.):]|[-*])\s+")


@dataclass(frozen=True)
class Passage:
    """One of the user's own texts."""

    text: str
    id: str


@dataclass(frozen=True)
class Inputs:
    """What kinds without ideas start from."""

    passages: Sequence[Passage] = ()
    records: Sequence[Record] = ()
    fingerprint: str = ""


@dataclass(frozen=True)
class Job:
    """One record to be written."""

    number: int
    prompt: str
    schema: Schema
    language: str
    idea: str = ""
    passage: Passage | None = None
    original: Record | None = None


def idea_prompt(settings: GenerateSettings, prompt: Prompt, number: int) -> str:
    """Return the prompt of a request for ideas."""
    draw = _draw(settings, "ideas", number)
    return prompt.fill(prompt.ideas, draw, count=settings.ideas_per_request, about=_about(settings))


def read_ideas(answer: Answer) -> list[str]:
    """Return the ideas of an answer; numbers that a model put before them are no part of them."""
    bare = (_NUMBER.sub("", idea).strip() for idea in answer["ideas"])
    return [idea for idea in bare if idea]


def make_job(
    settings: GenerateSettings,
    prompt: Prompt,
    ideas: Sequence[str],
    inputs: Inputs,
    number: int,
) -> Job:
    """Return a job by its number: the same number is the same job, whatever was done before."""
    draw, languages = _draw(settings, "write", number), settings.languages
    language, slots = languages[number % len(languages)], {"about": _about(settings)}
    if settings.kind == "translate":
        original = inputs.records[number // len(languages)]
        texts = _texts(original)
        schema = object_schema(**{name: _same_shape(value) for name, value in texts.items()})
        slots["texts"] = orjson.dumps(texts).decode()
        filled = prompt.fill(prompt.write, draw, language=language, **slots)
        return Job(number, filled, schema, language, original=original)
    if settings.kind == "questions":
        passage = inputs.passages[number % len(inputs.passages)]
        filled = prompt.fill(prompt.write, draw, language=language, passage=passage.text, **slots)
        return Job(number, filled, _SCHEMAS["questions"], language, passage=passage)
    if settings.kind == "bitext":
        slots["other_language"] = draw.choice([x for x in languages if x != language])
    idea = draw.choice(ideas)
    filled = prompt.fill(prompt.write, draw, language=language, idea=idea, **slots)
    return Job(number, filled, _SCHEMAS[settings.kind], language, idea)


def make_record(settings: GenerateSettings, job: Job, answer: Answer, model: str) -> Record:
    """Turn an answer that fits the schema into a record.

    Raises:
        InputError: A text is blank, or stands where another one should.
    """
    made = _WRITERS[settings.kind](job, answer)
    if settings.kind != "translate":  # whose originals may be so
        _check_distinct(made)
    return replace(
        made,
        query_id=f"{settings.kind}-{settings.seed}-{job.number}",
        source=f"generated-{settings.kind}:{model}",
    )


def _check_distinct(record: Record) -> None:
    texts = (record.query, *record.positives, *record.negatives)
    if len({text_key(text) for text in texts}) < len(texts):
        raise InputError("two of query, positive and negatives are the same text")


def _retrieval(job: Job, answer: Answer) -> Record:
    texts = (answer["positive"],), (answer["negative"],)
    return Record(answer["query"], *texts, "retrieval", job.idea)


def _classification(job: Job, answer: Answer) -> Record:
    right = answer["label"]
    wrong = (x for x in answer["misleading_labels"] if x.casefold() != right.casefold())
    return Record(answer["text"], (right,), tuple(dict.fromkeys(wrong)), "classification", job.idea)


def _sts(_: Job, answer: Answer) -> Record:
    return Record(answer["text"], (answer["same_meaning"],), (answer["other_meaning"],), "sts")


def _bitext(_: Job, answer: Answer) -> Record:
    texts = (answer["translation"],), (answer["wrong_translation"],)
    return Record(answer["text"], *texts, "bitext")


def _questions(job: Job, answer: Answer) -> Record:
    assert job.passage is not None
    return Record(answer["query"], (job.passage.text,), positive_ids=(job.passage.id,))


def _translate(job: Job, answer: Answer) -> Record:
    """Only texts change; the ids of their originals are not theirs any more."""
    assert job.original is not None
    return replace(
        job.original,
        query=answer["query"],
        positives=tuple(answer["positives"]),
        negatives=tuple(answer.get("negatives", ())),
        positive_ids=(),
        negative_ids=(),
    )


_WRITERS: dict[Kind, Callable[[Job, Answer], Record]] = {
    "retrieval": _retrieval,
    "classification": _classification,
    "sts": _sts,
    "bitext": _bitext,
    "questions": _questions,
    "translate": _translate,
}


def judge_prompt(settings: GenerateSettings, prompt: Prompt, record: Record) -> str:
    """Return the prompt that asks whether a record's positive is one."""
    claim = _CLAIMS[settings.kind].format(idea=record.instruction or "")
    draw = random.Random(settings.seed)  # noqa: S311
    return prompt.fill(
        prompt.write, draw, claim=claim, query=record.query, positive=record.positives[0]
    )


def _texts(record: Record) -> dict[str, Any]:
    texts: dict[str, Any] = {"query": record.query, "positives": list(record.positives)}
    return texts | ({"negatives": list(record.negatives)} if record.negatives else {})


def _same_shape(value: str | list[str]) -> Schema:
    return text_schema() if isinstance(value, str) else list_schema(len(value), len(value))


def _about(settings: GenerateSettings) -> str:
    return f"Keep to this subject: {settings.about}" if settings.about else ""


def _draw(settings: GenerateSettings, step: str, number: int) -> random.Random:
    return random.Random(f"{settings.seed}/{settings.kind}/{step}/{number}")  # noqa: S311
