"""The queue without HTTP and without a model: an engine that computes when it is told to."""

import itertools
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyvec.errors import PolyvecError
from polyvec.serve.batcher import MAX_CREDIT_TOKENS, URGENT_SHARE, Batcher, Done, Ids, Lane, Rows
from polyvec.serve.failures import EngineError, WorkerLostError


@dataclass
class Started:
    texts: list[list[int]]
    lane: Lane
    states: bool
    done: Done
    finished: bool = False

    @property
    def tokens(self) -> int:
        return sum(map(len, self.texts))

    def finish(self, error: PolyvecError | None = None) -> None:
        """Answer each text with a vector that says which text it is."""
        self.finished = True
        rows: Rows = [np.array([text[0], len(text)], dtype=np.float32) for text in self.texts]
        self.done(rows if error is None else error)


@dataclass(eq=False)
class ManualEngine:
    max_batch_tokens: int = 100
    batches: list[Started] = field(default_factory=list)

    def start(self, texts: Sequence[Ids], lane: Lane, states: bool, done: Done) -> None:
        self.batches.append(Started([list(text) for text in texts], lane, states, done))


def text(number: int, length: int) -> list[int]:
    return [number] * length


def finish_all(engine: ManualEngine) -> None:
    for number in itertools.count():
        if number == len(engine.batches):
            return
        if not engine.batches[number].finished:
            engine.batches[number].finish()


def test_a_batch_holds_texts_of_several_jobs_up_to_the_budget() -> None:
    engine, batcher = ManualEngine(), Batcher()
    first = batcher.submit(engine, [text(0, 50)], "bulk")
    jobs = [batcher.submit(engine, [text(n, 30)], "bulk") for n in range(1, 6)]
    assert [b.tokens for b in engine.batches] == [50]  # nothing else had come yet
    engine.batches[0].finish()
    assert [b.tokens for b in engine.batches] == [50, 90]
    assert first.future.result(0)[0].tolist() == [0, 50]
    assert not jobs[0].future.done()
    finish_all(engine)
    assert [job.future.result(0)[0][0] for job in jobs] == [1, 2, 3, 4, 5]
    assert batcher.queued_tokens("bulk") == 0


def test_a_jobs_rows_come_back_in_its_order() -> None:
    engine, batcher = ManualEngine(), Batcher()
    lengths = [3, 99, 7, 40, 40, 1]
    job = batcher.submit(engine, [text(n, length) for n, length in enumerate(lengths)], "bulk")
    finish_all(engine)
    assert [row.tolist() for row in job.future.result(0)] == [[n, x] for n, x in enumerate(lengths)]
    assert all(b.texts == sorted(b.texts, key=len, reverse=True) for b in engine.batches)


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    engine, batcher = ManualEngine(), Batcher()
    batcher.submit(engine, [text(0, 300), text(1, 10)], "bulk")
    finish_all(engine)
    assert [b.tokens for b in engine.batches] == [300, 10]


def test_a_short_job_starts_while_bulk_work_runs() -> None:
    engine, batcher = ManualEngine(), Batcher()
    batcher.submit(engine, [text(0, 100)] * 50, "bulk")
    job = batcher.submit(engine, [text(9, 5)], "urgent")
    assert [b.lane for b in engine.batches] == ["bulk", "urgent"]
    engine.batches[1].finish()
    assert job.future.done()
    assert len(engine.batches) == 2  # the next bulk batch waits for the first


def test_one_batch_a_lane_runs_at_a_time_and_short_jobs_gather_meanwhile() -> None:
    engine, batcher = ManualEngine(), Batcher()
    for number in range(10):
        batcher.submit(engine, [text(number, 8)], "urgent")
    assert len(engine.batches) == 1
    engine.batches[0].finish()
    assert [len(b.texts) for b in engine.batches] == [1, 9]


def test_bulk_work_gets_its_share_however_many_short_jobs_come() -> None:
    engine, batcher = ManualEngine(), Batcher()
    bulk = batcher.submit(engine, [text(0, 100)] * 400, "bulk")
    urgent_tokens = bulk_tokens = 0
    for _ in range(3000):
        while batcher.queued_jobs("urgent") < 20:
            batcher.submit(engine, [text(1, 20)], "urgent")
        # The engine runs an urgent batch, if there is one, before it goes on with bulk work.
        batch = next((b for b in engine.batches if b.lane == "urgent"), engine.batches[0])
        engine.batches.remove(batch)
        urgent_tokens += batch.tokens * (batch.lane == "urgent")
        bulk_tokens += batch.tokens * (batch.lane == "bulk")
        batch.finish()
        if bulk.future.done():
            break
    assert bulk.future.done()
    overtaken = urgent_tokens - URGENT_SHARE * bulk_tokens
    assert 0 < overtaken <= MAX_CREDIT_TOKENS + engine.max_batch_tokens


def test_without_bulk_work_short_jobs_need_no_credit() -> None:
    engine, batcher = ManualEngine(), Batcher()
    jobs = [batcher.submit(engine, [text(n, 90)], "urgent") for n in range(500)]
    finish_all(engine)
    assert all(job.future.done() for job in jobs)


def test_a_large_job_takes_turns_with_others() -> None:
    engine, batcher = ManualEngine(), Batcher()
    large = batcher.submit(engine, [text(0, 50)] * 100, "bulk")
    small = batcher.submit(engine, [text(1, 50)] * 4, "bulk")
    for number in range(5):
        engine.batches[number].finish()
    assert small.future.done()
    assert not large.future.done()


def test_a_job_that_is_nearly_done_is_finished_first() -> None:
    engine, batcher = ManualEngine(), Batcher()
    jobs = [batcher.submit(engine, [text(n, 60)] * 2, "bulk") for n in range(6)]
    done = []
    for number in itertools.count():
        if number == len(engine.batches):
            break
        engine.batches[number].finish()
        done.append([job.future.done() for job in jobs])
    assert all(state == sorted(state, reverse=True) for state in done)


def test_two_models_do_not_share_a_batch() -> None:
    one, two, batcher = ManualEngine(), ManualEngine(), Batcher()
    batcher.submit(one, [text(0, 10)], "bulk")
    jobs = [batcher.submit(engine, [text(1, 10)], "bulk") for engine in (two, one, two)]
    one.batches[0].finish()
    assert [b.tokens for b in two.batches] == [20]
    two.batches[0].finish()
    one.batches[1].finish()
    assert all(job.future.done() for job in jobs)


def test_states_and_vectors_do_not_share_a_batch() -> None:
    engine, batcher = ManualEngine(), Batcher()
    batcher.submit(engine, [text(0, 10)], "bulk")
    batcher.submit(engine, [text(1, 10)], "bulk", states=True)
    batcher.submit(engine, [text(2, 10)], "bulk")
    finish_all(engine)
    assert [(b.states, b.tokens) for b in engine.batches] == [(False, 10), (True, 10), (False, 10)]


def test_a_cancelled_job_costs_nothing_more() -> None:
    engine, batcher = ManualEngine(), Batcher()
    job = batcher.submit(engine, [text(0, 60)] * 10, "bulk")
    other = batcher.submit(engine, [text(1, 60)], "bulk")
    batcher.cancel(job)
    with pytest.raises(CancelledError):
        job.future.result(0)
    assert batcher.queued_tokens("bulk") == 60
    finish_all(engine)
    assert sum(b.tokens for b in engine.batches) == 120  # one text of it had been started
    assert other.future.done()


def test_an_error_of_the_engine_is_the_error_of_the_jobs_in_the_batch() -> None:
    engine, batcher = ManualEngine(), Batcher()
    first = batcher.submit(engine, [text(0, 60)] * 3, "bulk")
    second = batcher.submit(engine, [text(1, 60)], "bulk")
    engine.batches[0].finish(EngineError("no memory"))
    with pytest.raises(EngineError, match="no memory"):
        first.future.result(0)
    finish_all(engine)
    assert second.future.done()
    assert sum(b.tokens for b in engine.batches) == 120


def test_an_engine_that_is_lost_fails_what_waits_for_it_and_nothing_else() -> None:
    one, two, batcher = ManualEngine(), ManualEngine(), Batcher()
    lost = [batcher.submit(one, [text(n, 60)], "bulk") for n in range(3)]
    kept = batcher.submit(two, [text(3, 60)], "bulk")
    error = WorkerLostError("gone")
    batcher.fail(one, error)
    one.batches[0].finish(error)
    for job in lost:
        with pytest.raises(WorkerLostError):
            job.future.result(0)
    two.batches[0].finish()
    assert kept.future.done()


def test_it_says_how_long_the_queue_takes() -> None:
    engine, batcher = ManualEngine(), Batcher()
    assert batcher.wait_s() == 1.0  # nothing is known yet
    batcher.submit(engine, [text(0, 100)] * 3, "bulk")
    engine.batches[0].finish()
    assert batcher.tokens_per_s > 0
    assert batcher.wait_s() == pytest.approx(100 / batcher.tokens_per_s)


LENGTHS = st.lists(st.integers(1, 150), min_size=1, max_size=8)


@given(st.lists(st.tuples(LENGTHS, st.sampled_from(["urgent", "bulk"])), max_size=12))
def test_every_text_is_computed_once_and_no_batch_is_over_the_budget(
    jobs: list[tuple[list[int], Lane]],
) -> None:
    engine, batcher = ManualEngine(), Batcher()
    number = itertools.count()
    submitted = []
    for lengths, lane in jobs:
        texts = [text(next(number), length) for length in lengths]
        submitted.append((batcher.submit(engine, texts, lane), texts))
    finish_all(engine)
    for job, texts in submitted:
        assert [row.tolist() for row in job.future.result(0)] == [[t[0], len(t)] for t in texts]
    computed = [t[0] for batch in engine.batches for t in batch.texts]
    assert sorted(computed) == list(range(len(computed)))
    assert all(b.tokens <= 100 or len(b.texts) == 1 for b in engine.batches)
    assert batcher.queued_tokens("urgent") == batcher.queued_tokens("bulk") == 0
