"""A training run, from recipe to model folder."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
from rich.console import Console
from torch import Tensor

from polyvec.errors import InputError, TrainingError
from polyvec.train.checkpoint import (
    checkpoints,
    collect,
    prune,
    read_checkpoint,
    write_checkpoint,
    write_model,
)
from polyvec.train.estimate import (
    Estimate,
    activation_gb,
    available_gb,
    moments_gb,
    state_gb,
    time_step,
)
from polyvec.train.evaluation import HeldOut, evaluate, read_held_out
from polyvec.train.journal import Journal, check_trackers, draw_curves, duration, memory_gb
from polyvec.train.lora import folded, is_adapter, write_adapter
from polyvec.train.optimizer import clip_gradients, learning_rate, set_learning_rate
from polyvec.train.ranks import is_first_process, join_ranks
from polyvec.train.recipe import Recipe
from polyvec.train.setup import OpenTeacher, Ready, prepare
from polyvec.train.step import StepResult


@dataclass(frozen=True)
class Trained:
    """What a run came to."""

    folder: Path
    """Its output."""
    model: Path | None
    """The model folder; None if the run was stopped before its end."""
    steps: int
    """Steps done, those of earlier runs included."""
    loss: float
    """Of the last step."""
    evaluation: dict[str, dict[str, float]]
    """``first``, ``last`` and ``best``: source -> metric."""
    tokens: int
    seconds: float
    """Of training steps, evaluation and checkpoints left out."""
    memory_gb: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens passed forward and back in a second."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass
class _State:
    """What a resumed run must know, beside weights and moments."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    best: str | None = None
    best_value: float = -math.inf
    without_best: int = 0
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        return {k: None if v == -math.inf else v for k, v in vars(self).items() if k != "step"}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> "_State":
        unsaid = {"best_value": -math.inf, "loss": math.nan}  # JSON has no such numbers
        values: dict[str, Any] = {k: unsaid.get(k) if v is None else v for k, v in facts.items()}
        return cls(**values)


def train(
    recipe: Recipe,
    open_teacher: OpenTeacher,
    console: Console | None = None,
    fresh: bool = False,
    estimate_only: bool = False,
    finish: bool = False,
) -> Trained | Estimate:
    """Train a model as a recipe says, going on where an earlier run of it stopped.

    Args:
        recipe: The recipe.
        open_teacher: Opens a model that embeds, by name; asked only if there are teachers.
        console: Where progress goes.
        fresh: Remove an earlier run of the output, whatever its recipe.
        estimate_only: Stop after the estimate and give it back.
        finish: Train no further: make a model of the newest checkpoint.

    Raises:
        InputError: The recipe, or a row of the data, cannot be used, or there is no checkpoint
            to finish with.
        MissingExtraError: A tracker's library is not installed.
        ResumeError: The output holds a run of another recipe.
        TrainingError: Loss or gradients are no numbers any more.
        DiskFullError: There is no room for a checkpoint; those before it are whole.
    """
    if finish and not checkpoints(Path(recipe.output) / "checkpoints"):
        raise InputError(f"{recipe.output} has no checkpoint yet that a model could be made of.")
    if is_first_process() and not (finish or estimate_only):  # only then is one told anything
        check_trackers(recipe.log)
    held_out = read_held_out(recipe.evaluation)  # before a teacher works for hours
    with join_ranks() as ranks:
        console = console if console and ranks.first else Console(quiet=True)
        ready = prepare(recipe, ranks, open_teacher, console, fresh)
        try:
            loop = _Loop(ready, held_out, console)
            return loop.finish() if finish else loop.run(estimate_only)
        finally:
            for records in ready.records.values():
                records.close()


class _Loop:
    def __init__(self, ready: Ready, held_out: list[HeldOut], console: Console) -> None:
        self.ready, self.held_out, self.console = ready, held_out, console
        self.recipe, self.ranks = ready.recipe, ready.ranks
        self.state = _State()
        if ready.checkpoint is not None:
            self.state = _State.of(ready.checkpoint.state)
        self._stop = False

    def run(self, estimate_only: bool) -> Trained | Estimate:
        ready, state = self.ready, self.state
        if state.step == 0 or estimate_only:
            estimate = self._estimate()
            if estimate_only:
                return estimate
        else:
            self.console.print(f"Going on after step {state.step:,} of {ready.steps:,}.")
        journal = self._journal()
        try:
            if state.step == 0:
                self._evaluate(journal)
            with self._stopping():
                while state.step < ready.steps and not self._is_to_stop():
                    self._step(journal)
        finally:
            if journal is not None:
                journal.close()
        return self._finish()

    def finish(self) -> Trained:
        """Make a model of the newest checkpoint."""
        self.ready = self.ready.ending_at(self.state.step)
        return self._finish()

    def _journal(self) -> Journal | None:
        if not self.ranks.first:
            return None
        steps, start = self.ready.steps, self.state.step
        return Journal(self.ready.folder, self.recipe.log, steps, start, self.console)

    def _step(self, journal: Journal | None) -> None:
        state, settings = self.state, self.recipe
        began = time.monotonic()
        found, norm, rate = self._update()
        spent = time.monotonic() - began
        state.step += 1
        state.loss, state.tokens = found.loss, state.tokens + found.tokens
        state.seconds += spent
        entry = {
            "step": state.step,
            "loss": found.loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "tokens": found.tokens,
            "texts": found.texts,
            "cut_share": round(self.ready.stepper.reader.cut_share, 4),
            "tokens_per_s": round(found.tokens / spent, 1),
            "memory_gb": round(memory_gb(self.ranks.device), 3),
        }
        last = state.step == self.ready.steps
        if journal is not None:
            journal.write(entry)
            if state.step % settings.log.every_steps == 0 or last:
                journal.progress(state.step, entry)
        every = settings.evaluation.every_steps
        if last or (every and state.step % every == 0):
            self._evaluate(journal)
        if last or state.step % settings.checkpoint.every_steps == 0:
            self._save()

    def _update(self) -> tuple[StepResult, float, float]:
        """Take one optimizer step; return what it found, the gradient's length and the rate."""
        ready, step = self.ready, self.state.step
        rate = learning_rate(step, ready.steps, self.recipe.optimizer)
        set_learning_rate(ready.optimizer, rate)
        batches = ready.items(step)
        loss, tokens, texts = 0.0, 0, 0
        for number, items in enumerate(batches):
            last = number == len(batches) - 1
            seed = step * len(batches) + number
            part = ready.stepper.run(items, seed, 1 / len(batches), last)
            loss, tokens, texts = loss + part.loss, tokens + part.tokens, texts + part.texts
        own = ready.stepper.network.parameters()
        norm = clip_gradients(own, self.recipe.optimizer.max_gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"Step {step + 1}: the loss is {loss} and the gradient's length {norm}. Take a "
                "lower optimizer.lr, a longer warm-up or precision fp32; the checkpoints before "
                "are whole."
            )
        ready.optimizer.step()
        ready.optimizer.zero_grad(set_to_none=True)
        return StepResult(loss, tokens, texts), norm, rate

    def _evaluate(self, journal: Journal | None) -> None:
        if not self.held_out:
            return
        settings, state = self.recipe.evaluation, self.state
        stepper = self.ready.stepper
        self.ready.network.eval()
        scores = evaluate(
            self.ready.network,
            stepper.reader,
            self.held_out,
            settings.metric,
            stepper.max_tokens,
            self.ranks,
        )
        self.ready.network.train()
        state.evaluation.setdefault("first", scores)
        state.evaluation["last"] = scores
        if journal is not None:
            journal.write({"step": state.step, "evaluation": scores})
            first = {"mean": scores["mean"]} | scores
            shown = "  ".join(f"{name} {value:.3f}" for name, value in list(first.items())[:8])
            self.console.print(f"step {state.step:,}  {settings.metric}: {shown}")
        self._note_best(scores)

    def _note_best(self, scores: dict[str, float]) -> None:
        state = self.state
        if scores["mean"] <= state.best_value:
            state.without_best += 1
            return
        state.best_value, state.without_best = scores["mean"], 0
        state.evaluation["best"] = scores
        if state.step:
            state.best = f"step-{state.step:08}"
            self._save()

    def _save(self) -> None:
        ready = self.ready
        folder = ready.folder / "checkpoints"
        facts = self.state.facts()
        write_checkpoint(
            folder, self.state.step, ready.parameters, ready.optimizer, facts, self.ranks
        )
        if self.ranks.first:
            prune(folder, self.recipe.checkpoint.keep, self.state.best)
            if self.recipe.log.plot:
                draw_curves(ready.folder)

    def _is_to_stop(self) -> bool:
        patience = self.recipe.evaluation.patience
        if patience and self.state.without_best >= patience:
            self.console.print(f"No better evaluation {patience} times: stopping early.")
            self.ready = self.ready.ending_at(self.state.step)
            return True
        return bool(self.ranks.highest(int(self._stop)))

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """End after the step that is running when asked to, with a checkpoint; at once if twice."""

        def note(number: int, frame: FrameType | None) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True
            self.console.print("Stopping after this step; once more stops at once.")

        signals = (signal.SIGINT, signal.SIGTERM)
        before = {}
        with suppress(ValueError):  # not the main thread: whoever runs us stops us
            before = {number: signal.signal(number, note) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _finish(self) -> Trained:
        ready, state = self.ready, self.state
        done = state.step >= ready.steps
        newest = checkpoints(ready.folder / "checkpoints")
        if not newest or newest[-1].name != f"step-{state.step:08}":
            self._save()
        model = self._write_models() if done else None
        result = Trained(
            ready.folder,
            model,
            state.step,
            state.loss,
            state.evaluation,
            state.tokens,
            state.seconds,
            memory_gb(self.ranks.device),
        )
        if done and self.ranks.first:
            facts = {**vars(result), "folder": str(result.folder), "model": str(model)}
            facts["tokens_per_s"] = result.tokens_per_s
            raw = orjson.dumps(facts, option=orjson.OPT_INDENT_2)
            (ready.folder / "result.json").write_bytes(raw)
        return result

    def _write_models(self) -> Path:
        """Write the adapter, if there is one, and the whole model."""
        ready, recipe = self.ready, self.recipe
        state = self._final_weights()
        path = ready.folder / "model"
        if self.ranks.first:
            names = [name for name, _ in ready.network.named_parameters() if not is_adapter(name)]
            if recipe.model.train == "lora":
                adapter = ready.folder / "adapter"
                adapter.mkdir(exist_ok=True)
                write_adapter(adapter, state, recipe.lora, recipe.model.base)
                state = folded(state, names, ready.files.weights, recipe.lora)
            write_model(path, ready.files, state, names, recipe.loss.matryoshka_dimensions)
            self.console.print(f"Wrote {path}")
        self.ranks.barrier()
        return path

    def _final_weights(self) -> dict[str, Tensor]:
        best = self.state.best
        if self.recipe.checkpoint.model == "best" and best:
            weights = read_checkpoint(self.ready.folder / "checkpoints" / best).weights
        else:
            weights = collect(self.ready.parameters, self.ranks)
        return {name: tensor for name, tensor in weights.items() if not name.startswith("distill.")}

    def _estimate(self) -> Estimate:
        """Say what the run will need, and warn where memory will not do."""
        ready, batch = self.ready, self.recipe.batch
        weights = state_gb(ready.network, ready.parallel, self.ranks)
        passes = activation_gb(ready.network, batch.max_tokens)
        free = available_gb(self.ranks.device)
        if weights + passes > free:
            self.console.print(
                f"[yellow]warning:[/] the run may need {weights + passes:.1f} GB and {free:.1f} GB "
                "are free. Lower batch.max_tokens, set model.gradient_checkpointing, or train lora."
            )
        first = ready.items(0)
        found, spent = time_step(ready.stepper, first[0], len(first))
        tokens = found.tokens * len(first)
        estimate = Estimate(
            weights,
            free,
            memory_gb(self.ranks.device) + moments_gb(ready.network, ready.parallel, self.ranks),
            tokens,
            tokens / spent,
            spent * ready.steps,
        )
        share = ready.stepper.reader.cut_share
        if share > 0:
            self.console.print(
                f"{share:.1%} of the first batch's texts are longer than model.max_query_tokens or "
                "max_document_tokens and lose their end."
            )
        self.console.print(
            f"{ready.steps:,} steps of {batch.size} queries, about {tokens:,} tokens each: "
            f"{estimate.tokens_per_s:,.0f} tokens/s, {duration(estimate.seconds)} in all, "
            f"about {estimate.peak_gb:.1f} GB"
        )
        return estimate
