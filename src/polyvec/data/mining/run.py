"""Mining from start to end: embed with each teacher, search, choose, write, all resumable.

``OUTPUT.partial/`` holds a file for each part of the records that is done; vectors are in the
cache (:mod:`polyvec.data.mining.vectors`), so a run that was killed goes on where it was.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from polyvec.data.mining.corpus import Corpus
from polyvec.data.mining.part import Done, search_part
from polyvec.data.mining.plan import Plan
from polyvec.data.mining.search import Ints
from polyvec.data.mining.settings import MineSettings
from polyvec.data.mining.tally import Tally
from polyvec.data.mining.teach import Progress, Teacher, embed
from polyvec.data.mining.vectors import VectorStore
from polyvec.engine.peers import Peer
from polyvec.errors import InputError, ResumeError
from polyvec.records.record import Record
from polyvec.records.write import check_record_output, record_line, write_records


@dataclass(frozen=True)
class Mined:
    """What a run did."""

    records: int
    mined: int
    """Records that were given negatives; the others are classification, whose labels stay."""
    without_negatives: int
    """Records that ended without any; left out where the settings say so, otherwise written."""
    corpus: str
    documents: int
    duplicates: int
    """Documents of the corpus passed over because an earlier one has the same text."""
    resumed: int
    """Records an interrupted run had done."""
    embedded: int
    """Texts embedded in this sitting; the others' vectors were in the cache."""
    teachers: list[dict[str, Any]]
    tally: Tally
    samples: list[dict[str, Any]]
    settings: MineSettings

    @property
    def written(self) -> int:
        """Records in the output."""
        left_out = self.settings.drop_without_negatives
        return self.records - self.without_negatives * left_out


def mine(
    records: Sequence[Record],
    corpus: Corpus,
    teachers: Sequence[Callable[[], Peer]],
    output: Path,
    settings: MineSettings,
    store: VectorStore,
    *,
    restart: bool = False,
    device: str = "cpu",
    progress: Progress = lambda *_: None,
) -> Mined:
    """Give records negatives from a corpus and write them, going on where a killed run stopped.

    Args:
        records: Read and checked; classification records keep their labels as they are.
        corpus: Where negatives come from.
        teachers: Open the models that judge, one after another: each is let go when its vectors
            are there.
        output: ``.jsonl`` or ``.jsonl.gz``.
        settings: How negatives are chosen.
        store: Where vectors are kept.
        restart: Throw away what an interrupted run had finished.
        device: Where scores are computed.
        progress: Told of every step.

    Raises:
        InputError: There is nothing to mine, or a text that a teacher cannot embed.
        ResumeError: The partial folder is of another run.
        DiskFullError: There is no room; what was done is kept.
    """
    check_record_output(output)
    if not teachers:
        raise InputError("No teacher was given; at least one is needed.")
    plan = Plan(records, corpus, settings)
    if not plan.mined or not plan.index.rows:
        raise InputError(
            f"There is nothing to mine: {plan.mined} records that are not classification, and "
            f"{plan.index.rows} documents."
        )
    ready = [embed(plan, open_teacher(), store, progress) for open_teacher in teachers]
    folder = output.with_name(output.name + ".partial")
    _check_folder(folder, _made_by(plan, ready, store), restart)
    done, resumed = [], 0
    for part in range(len(plan.parts)):
        path = folder / f"part-{part:06}.npz"
        if path.exists():
            done.append(Done.read(path))
            resumed += len(done[-1].numbers)
        else:
            done.append(search_part(plan, part, ready, device))
            done[-1].write(path)
        progress("search", len(done[-1].numbers), plan.mined)
    mined = _finish(plan, ready, done, output, resumed, store.computed)
    shutil.rmtree(folder)
    return mined


def _finish(
    plan: Plan,
    teachers: Sequence[Teacher],
    done: Sequence[Done],
    output: Path,
    resumed: int,
    embedded: int,
) -> Mined:
    rows = {
        int(number): own[own >= 0]
        for part in done
        for number, own in zip(part.numbers, part.rows, strict=True)
    }
    without_negatives = _write(plan, rows, output)
    tally = Tally.empty(len(teachers), plan.settings.negatives)
    for part in done:
        tally.add_facts(part.facts["tally"])
    return Mined(
        records=len(plan.records),
        mined=plan.mined,
        without_negatives=without_negatives,
        corpus=plan.corpus.name,
        documents=plan.index.rows,
        duplicates=plan.index.duplicates,
        resumed=resumed,
        embedded=embedded,
        teachers=[teacher.facts for teacher in teachers],
        tally=tally,
        samples=_with_texts(plan, [sample for part in done for sample in part.facts["samples"]]),
        settings=plan.settings,
    )


def _write(plan: Plan, rows: dict[int, Ints], output: Path) -> int:
    """Write the records, and return how many have no negatives."""
    bare = 0

    def kept() -> Iterator[Record]:
        nonlocal bare
        for record in plan.written(rows):
            bare += not record.negatives
            if record.negatives or not plan.settings.drop_without_negatives:
                yield record

    write_records(output, kept())
    return bare


def _with_texts(plan: Plan, samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = {x["row"] for s in samples for kind in ("negatives", "rejected") for x in s[kind]}
    texts = {row: document.text for row, document in plan.documents(rows).items()}
    shown = []
    for sample in sorted(samples, key=lambda sample: sample["record"]):
        record = plan.records[sample["record"]]
        parts = {
            kind: [{"text": texts[x["row"]], **x} for x in sample[kind]]
            for kind in ("negatives", "rejected")
        }
        head = {"query": record.query, "positives": list(record.positives)}
        shown.append({**head, **sample, **parts})
    return shown


def _made_by(plan: Plan, teachers: Sequence[Teacher], store: VectorStore) -> dict[str, Any]:
    digest = hashlib.sha256()
    for record in plan.records:
        digest.update(record_line(record))
    return {
        "records": digest.hexdigest()[:16],
        "corpus": plan.index.fingerprint,
        "teachers": [teacher.facts["fingerprint"] for teacher in teachers],
        "vectors": store.stored_type,
        "settings": asdict(plan.settings),
    }


def _check_folder(folder: Path, made_by: dict[str, Any], restart: bool) -> None:
    if restart and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    manifest = folder / "run.json"
    if not manifest.exists():
        manifest.write_bytes(orjson.dumps(made_by, option=orjson.OPT_INDENT_2))
        return
    earlier = orjson.loads(manifest.read_bytes())
    differing = [name for name, value in made_by.items() if earlier.get(name) != value]
    if differing:
        raise ResumeError(
            f"{folder} is of an interrupted run with other {' and '.join(differing)}. Run it again "
            "as it was, or use --restart to throw its work away (vectors are kept)."
        )
