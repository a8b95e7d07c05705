"""Checking records, a file at a time, in memory for keys of texts but not for texts."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polyvec.data.check.findings import Findings, Kind
from polyvec.data.check.languages import languages, script
from polyvec.data.check.lengths import Lengths, Measure
from polyvec.data.check.seen import Keys, Seen, TestTexts, keys_of
from polyvec.records.columns import Columns
from polyvec.records.read import Located, Problem, scan_records
from polyvec.records.record import Record

_SAMPLED_TEXTS = 5_000
"""Of queries and of positives, so many are drawn at random for scripts and languages."""
_WORDS = 60


@dataclass(frozen=True)
class CheckSettings:
    """What is looked at."""

    columns: Columns = field(default_factory=Columns)
    languages: bool = True
    max_length: int | None = None
    """Longer texts are counted; in the unit lengths are measured in."""
    seed: int = 0


@dataclass
class Report:
    """What is in the files, and what is wrong with it."""

    files: list[str]
    records: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    instructions: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    positives: Counter[int] = field(default_factory=Counter)
    negatives: Counter[int] = field(default_factory=Counter)
    repeated_queries: int = 0
    """Records whose query an earlier one has, with another positive: no fault by itself."""
    test_texts: int = 0
    findings: Findings = field(default_factory=Findings)
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    scripts: dict[str, dict[str, int]] = field(default_factory=dict)
    languages: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.findings.clean

    @property
    def label_imbalance(self) -> float | None:
        """How many times as often the most frequent label is as the rarest."""
        return max(self.labels.values()) / min(self.labels.values()) if self.labels else None

    def facts(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        counters = {
            name: {str(key): count for key, count in value.most_common()}
            for name, value in vars(self).items()
            if isinstance(value, Counter)
        }
        plain = {name: value for name, value in vars(self).items() if name not in counters}
        plain["findings"] = {kind: vars(x) for kind, x in self.findings.kinds.items()}
        return {
            "clean": self.clean,
            **plain,
            **counters,
            "label_imbalance": self.label_imbalance,
        }


def check_files(
    paths: Sequence[Path], tests: Sequence[Path], measure: Measure, settings: CheckSettings
) -> Report:
    """Check records against themselves and against test files.

    Args:
        paths: Files of records.
        tests: Files whose queries and documents must not be in them.
        measure: Gives the lengths of texts.
        settings: What is looked at.

    Raises:
        InputError: A file as a whole cannot be read.
        MissingExtraError: Languages are wanted and cannot be guessed.
    """
    if settings.languages:
        languages([])
    check = _Check(measure, settings)
    check.tests.read(tests, settings.columns)
    check.report.test_texts = check.tests.count
    for path in paths:
        check.report.files.append(str(path))
        is_empty = True
        for item in scan_records(path, settings.columns):
            check.add(item)
            is_empty = False
        if is_empty:
            check.report.findings.add("file without a row", str(path), "nothing is in it")
    return check.finished()


class _Check:
    """One pass over records."""

    def __init__(self, measure: Measure, settings: CheckSettings) -> None:
        self.settings = settings
        self.report = Report([])
        self.tests = TestTexts()
        self.pairs, self.queries = Seen(), Seen()
        self.label_of: dict[int, str] = {}
        kinds = ("query", "positive", "negative")
        self.lengths = {kind: Lengths(measure) for kind in kinds}
        self.samples = {kind: _Sample(settings.seed) for kind in kinds[:2]}

    def add(self, item: Located | Problem) -> None:
        """Take a row in."""
        where = f"{item.path}, line {item.line}"
        if isinstance(item, Problem):
            self.report.findings.add("unusable row", where, item.message)
            return
        record = item.record
        self._count(record)
        query = keys_of(record.query)
        documents = [keys_of(text) for text in record.positives]
        self._contradictions(record, query, documents, where)
        self._duplicates(record, query, where)
        self._leaks(record, query, documents, where)

    def _count(self, record: Record) -> None:
        report = self.report
        report.records += 1
        report.tasks[record.task] += 1
        report.sources[record.source] += 1
        report.instructions[record.task_instruction or "(the model's own)"] += 1
        report.positives[len(record.positives)] += 1
        report.negatives[len(record.negatives)] += 1
        self.lengths["query"].add(record.query)
        self.samples["query"].add(record.query)
        if record.task == "classification":
            report.labels[record.positives[0]] += 1
            return
        self.samples["positive"].add(record.positives[0])
        for kind, texts in (("positive", record.positives), ("negative", record.negatives)):
            for text in texts:
                self.lengths[kind].add(text)

    def _contradictions(
        self, record: Record, query: Keys, documents: Sequence[Keys], where: str
    ) -> None:
        add = self.report.findings.add
        for keys, text in zip(documents, record.positives, strict=True):
            if keys.normalized == query.normalized:
                add("pair of one text", where, _short(text), keys.exact == query.exact)
        positives = {keys.normalized: keys.exact for keys in documents}
        for text in record.negatives:
            keys = keys_of(text)
            if keys.normalized in positives:
                same = keys.exact == positives[keys.normalized]
                add("negative that is a positive", where, _short(text), same)
        if record.task == "classification":
            label = self.label_of.setdefault(query.normalized, record.positives[0])
            if label != record.positives[0]:
                words = f"{_short(record.query)} is {label!r} and {record.positives[0]!r}"
                add("label contradicted", where, words)

    def _duplicates(self, record: Record, query: Keys, where: str) -> None:
        pair = keys_of(record.query, *record.positives, record.task_instruction or "")
        match = self.pairs.match(pair)
        if match is not None:
            words = _short(record.query)
            self.report.findings.add("duplicate record", where, words, match == "exact")
        elif self.queries.match(query) is not None:
            self.report.repeated_queries += 1
        self.pairs.add(pair)
        self.queries.add(query)

    def _leaks(self, record: Record, query: Keys, documents: Sequence[Keys], where: str) -> None:
        self._leak("query in a test query", self.tests.queries, query, record.query, where)
        self._leak("query in a test document", self.tests.documents, query, record.query, where)
        if record.task == "classification":
            return
        for keys, text in zip(documents, record.positives, strict=True):
            self._leak("document in a test query", self.tests.queries, keys, text, where)
            self._leak("document in a test document", self.tests.documents, keys, text, where)

    def _leak(self, kind: Kind, texts: Seen, keys: Keys, text: str, where: str) -> None:
        match = texts.match(keys)
        if match is not None:
            self.report.findings.add(kind, where, _short(text), match == "exact")

    def finished(self) -> Report:
        """Return the report, with what is known only at the end."""
        limit = self.settings.max_length
        self.report.lengths = {kind: own.facts(limit) for kind, own in self.lengths.items()}
        for kind, sample in self.samples.items():
            self.report.scripts[kind] = dict(Counter(map(script, sample.texts)).most_common())
            if self.settings.languages:
                counted = Counter(languages(sample.texts))
                self.report.languages[kind] = dict(counted.most_common())
        return self.report


class _Sample:
    """Texts drawn at random from a stream, each as likely as another (reservoir sampling)."""

    def __init__(self, seed: int) -> None:
        self.texts: list[str] = []
        self._random, self._seen = random.Random(seed), 0  # noqa: S311 (no secret)

    def add(self, text: str) -> None:
        """Offer a text."""
        self._seen += 1
        if len(self.texts) < _SAMPLED_TEXTS:
            self.texts.append(text)
        elif (place := self._random.randrange(self._seen)) < _SAMPLED_TEXTS:
            self.texts[place] = text


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= _WORDS else flat[: _WORDS - 3] + "...")
