"""Records generated, checked, deduplicated and judged until there are enough of them."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from polyvec.data.generate.answers import jsonschema_module
from polyvec.data.generate.chat import httpx_module
from polyvec.data.generate.confirm import confirm
from polyvec.data.generate.journal import Entry, Journal, entry_record, record_facts
from polyvec.data.generate.near import Seen
from polyvec.data.generate.pool import Pool
from polyvec.data.generate.prompts import load_prompt
from polyvec.data.generate.settings import TWO_STEP, GenerateSettings
from polyvec.data.generate.tasks import (
    IDEAS,
    VERDICT,
    Answer,
    Inputs,
    Job,
    idea_prompt,
    judge_prompt,
    make_job,
    make_record,
    read_ideas,
)
from polyvec.engine.peers import Peer
from polyvec.errors import OutputError, RemoteError
from polyvec.records.record import Record
from polyvec.records.write import check_record_output, write_records

_ROUND = 512
"""Records at most between two verdicts of the judge."""


@dataclass
class Status:
    """How far a run is; shown while it goes on, and told at its end."""

    wanted: int
    kept: int = 0
    duplicates: int = 0
    rejected: int = 0
    failed: int = 0
    """Jobs that no model answered rightly."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    resumed: int = 0
    """Answers that an earlier run had already."""
    stopped: str | None = None
    """Why there are fewer than wanted."""
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Answers, how many fitted the schema, how JSON was asked for, why one is asked no more."""
    seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


class Generator:
    """One run: what was answered so far, and who answers.

    Args:
        settings: What to generate.
        output: The records' file; answers are kept beside it in ``OUTPUT.journal.jsonl``.
        inputs: The user's own texts, for kinds that start from them.
        peer: The embedder that judges, if one does.
        restart: Throw away what an earlier run had.
        force: Replace an output that no run of ours made.
        on_status: Told how far it is after every answer.
        on_message: Told what a user should know at once.

    Raises:
        OutputError: The output cannot be written, or exists.
        ResumeError: The journal is of a run with other settings.
        MissingExtraError: A library of the extra ``generate`` is not installed.
    """

    def __init__(
        self,
        settings: GenerateSettings,
        output: Path,
        inputs: Inputs | None = None,
        peer: Peer | None = None,
        restart: bool = False,
        force: bool = False,
        on_status: Callable[[Status], None] | None = None,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        httpx_module(), jsonschema_module()  # before a token is paid for
        self.settings, self.output, self.peer = settings, output, peer
        self.inputs = inputs or Inputs()
        self.on_status, self.on_message = on_status, on_message or (lambda _: None)
        self.prompt = load_prompt(settings.kind, settings.prompts)
        self.judge_prompt = load_prompt("judge", settings.prompts)
        self.seen = Seen(settings.near_duplicate)
        self.status = Status(self._wanted())
        self.ideas: dict[int, list[str]] = {}
        self.done: set[int] = set()
        self.open: dict[int, Record] = {}
        self.kept: dict[int, Record] = {}
        self._pool: Pool | None = None
        self._first = 0
        check_record_output(output)
        path = output.with_name(f"{output.name}.journal.jsonl")
        if output.exists() and not path.exists() and not force:
            raise OutputError(f"{output} exists already; use --force to replace it.")
        self.journal = Journal(path, self._made_by(), restart)
        for entry in self.journal.entries:
            self._replay(entry)

    def _wanted(self) -> int:
        possible = len(self.inputs.records) * len(self.settings.languages)
        if self.settings.kind != "translate":
            return self.settings.count or 0
        return min(self.settings.count or possible, possible)

    def _made_by(self) -> dict[str, Any]:
        texts = f"{self.prompt.ideas}\0{self.prompt.write}\0{self.prompt.options}"
        own = ("kind", "languages", "about", "ideas_per_request", "near_duplicate", "seed")
        facts = {name: getattr(self.settings, name) for name in own}
        digest = hashlib.sha256(texts.encode()).hexdigest()[:16]
        return facts | {"prompts": digest, "input": self.inputs.fingerprint}

    # --- What was answered --------------------------------------------------------------------

    def _replay(self, entry: Entry) -> None:
        """Take an entry of an earlier run, unless what it says is only that a server was lost."""
        self.status.resumed += 1
        if entry["type"] in ("failed", "verdict") and entry.get("lost"):
            self._count_cost(entry)
        else:
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        """Count an entry; the same entries in the same order always give the same records."""
        number = entry["number"]
        self._count_cost(entry)
        if entry["type"] == "ideas":
            self.ideas |= {number: entry["ideas"]} if entry["ideas"] else {}
        elif entry["type"] == "failed":
            self.done.add(number)
            self.status.failed += 1
        elif entry["type"] == "record":
            self._take_record(number, entry_record(entry["record"]))
        elif entry["judge"] == self.settings.judge:
            self._take_verdict(number, entry["kept"])

    def _count_cost(self, entry: Entry) -> None:
        for name in ("prompt_tokens", "answer_tokens", "cost"):
            setattr(self.status, name, getattr(self.status, name) + entry.get(name, 0))

    def _take_record(self, number: int, record: Record) -> None:
        self.done.add(number)
        if not self.seen.add(record.query):
            self.status.duplicates += 1
        elif self.settings.judge is None:
            self.kept[number] = record
        else:
            self.open[number] = record
        self.status.kept = len(self.kept)

    def _take_verdict(self, number: int, kept: bool) -> None:
        record = self.open.pop(number, None)
        if record is not None and kept:
            self.kept[number] = record
        elif record is not None:
            self.status.rejected += 1
        self.status.kept = len(self.kept)

    def _write(self, entry: Entry) -> bool:
        """Keep an entry; return whether to go on."""
        self.journal.append(entry)
        self._take(entry)
        self.status.endpoints = self.pool.facts()
        if self.on_status is not None:
            self.on_status(self.status)
        limit = self.settings.max_cost
        if limit is not None and self.status.cost >= limit:
            self.status.stopped = f"{self.status.cost:.4f} were spent (--max-cost)"
        return self.status.stopped is None

    # --- Rounds -------------------------------------------------------------------------------

    def run(self) -> Status:
        """Generate until there are enough, and write the records.

        Raises:
            RemoteError: No endpoint answers any more; what was answered is kept.
            InputError: A prompt cannot be filled.
            DiskFullError: There is no room; what was answered is kept.
        """
        started = time.monotonic()
        try:
            asyncio.run(self._run())
        except RemoteError as error:
            raise RemoteError(
                f"{error} What was answered is kept in {self.journal.path}; the same command goes "
                "on from there."
            ) from error
        finally:
            self.journal.close()
        records = [self.kept[number] for number in sorted(self.kept)][: self.status.wanted]
        self.status.kept = write_records(self.output, records)
        self.status.seconds = time.monotonic() - started
        return self.status

    async def _run(self) -> None:
        settings = self.settings
        pool = Pool(settings.endpoints, settings.max_asks, settings.seed, self.on_message)
        self.status.endpoints = pool.facts()
        async with pool:
            self._pool = pool
            await self._judge_open()
            while len(self.kept) < self.status.wanted and self.status.stopped is None:
                await self._round()

    @property
    def pool(self) -> Pool:
        """The endpoints, while a run is on."""
        assert self._pool is not None
        return self._pool

    async def _round(self) -> None:
        missing = min(self.status.wanted - len(self.kept), _ROUND)
        numbers = self._next_numbers(missing)
        if not numbers:
            self.status.stopped = f"{len(self.done):,} jobs were done (--max-attempts)"
            return
        if self.settings.kind in TWO_STEP:
            await self._think(1 + max(numbers) // self._jobs_per_request())
        ideas = list(dict.fromkeys(x for n in sorted(self.ideas) for x in self.ideas[n]))
        jobs = (make_job(self.settings, self.prompt, ideas, self.inputs, n) for n in numbers)
        await self.pool.each(jobs, self._do)
        await self._judge_open()

    def _next_numbers(self, missing: int) -> list[int]:
        limit = int(self.status.wanted * self.settings.max_attempts)
        if self.settings.kind == "translate":
            limit = len(self.inputs.records) * len(self.settings.languages)
        while self._first in self.done:
            self._first += 1
        return list(islice((n for n in range(self._first, limit) if n not in self.done), missing))

    def _jobs_per_request(self) -> int:
        return self.settings.ideas_per_request * self.settings.records_per_idea

    async def _think(self, requests: int) -> None:
        """Ask for ideas until so many requests were answered."""
        todo = [number for number in range(requests) if number not in self.ideas]
        await self.pool.each(todo, self._ask_ideas)
        if not self.ideas and self.status.stopped is None:
            raise RemoteError(
                f"No model had an idea in the shape asked for, {len(todo)} request(s) were made. "
                "Use a more able model, or edit the prompts (--write-prompts)."
            )

    async def _ask_ideas(self, number: int) -> bool:
        prompt = idea_prompt(self.settings, self.prompt, number)
        asked = await self.pool.ask(f"ideas/{number}", prompt, IDEAS, lambda a, _: read_ideas(a))
        ideas = asked.value or []
        return self._write({"type": "ideas", "number": number, "ideas": ideas, **asked.facts()})

    async def _do(self, job: Job) -> bool:
        def record(answer: Answer, model: str) -> Entry:
            return record_facts(make_record(self.settings, job, answer, model))

        asked = await self.pool.ask(f"write/{job.number}", job.prompt, job.schema, record)
        entry: Entry = {"type": "failed", "number": job.number, "language": job.language}
        if asked.value is not None:
            entry |= {"type": "record", "record": asked.value}
        return self._write(entry | asked.facts())

    async def _judge_open(self) -> None:
        waiting = dict(self.open)
        if not waiting or self.settings.judge is None:
            return
        if self.peer is None:
            await self.pool.each(waiting.items(), self._ask_verdict)
            return
        options = (self.peer, self.settings.judge_rank, self.settings.min_score)
        for number, verdict in zip(waiting, confirm(list(waiting.values()), *options), strict=True):
            self._write(self._verdict(number, verdict.kept) | {"score": verdict.score})

    async def _ask_verdict(self, item: tuple[int, Record]) -> bool:
        number, record = item
        prompt = judge_prompt(self.settings, self.judge_prompt, record)
        asked = await self.pool.ask(
            f"judge/{number}", prompt, VERDICT, lambda answer, _: answer["correct"]
        )
        return self._write(self._verdict(number, asked.value is True) | asked.facts())

    def _verdict(self, number: int, kept: bool) -> Entry:
        return {"type": "verdict", "number": number, "judge": self.settings.judge, "kept": kept}
