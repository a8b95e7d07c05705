"""``polyvec train``: a recipe to a model folder."""

from typing import TYPE_CHECKING

from polyvec.cli.flags import train as flags
from polyvec.cli.options import MESSAGES, JsonOption
from polyvec.cli.output import print_json
from polyvec.errors import InputError

if TYPE_CHECKING:
    from polyvec.train.estimate import Estimate
    from polyvec.train.loop import Trained


def train(
    recipe: flags.Recipe,
    changes: flags.Changes = None,
    output: flags.Output = None,
    fresh: flags.Fresh = False,
    estimate: flags.Estimate = False,
    finish: flags.Finish = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model as a recipe says; the same command goes on where a run stopped.

    The output folder has the model (`model/`, and `adapter/` for LoRA), checkpoints, every number
    (`metrics.jsonl`) and curves. Under torchrun it trains on several GPUs or machines.

    Examples:

    - `polyvec train configs/smol-cpu.toml`
    - `polyvec train recipe.toml --set optimizer.lr=1e-5 --set batch.size=128 -o runs/second`
    - `torchrun --nproc-per-node 8 --no-python polyvec train configs/nemotron-8b-stage2.toml`
    """
    from polyvec.engine.peers import open_peer  # these bring torch; only this command needs it
    from polyvec.train.loop import Trained
    from polyvec.train.loop import train as run
    from polyvec.train.ranks import is_first_process
    from polyvec.train.recipe import read_recipe

    if finish and (fresh or estimate):
        raise InputError("--finish makes a model of a run that is there; leave the others out.")
    stated = dict(_change(text) for text in changes or [])
    if output is not None:
        stated["output"] = f"{str(output)!r}"
    result = run(
        read_recipe(recipe, stated),
        open_peer,
        MESSAGES,
        fresh=fresh,
        estimate_only=estimate,
        finish=finish,
    )
    if not is_first_process():
        return
    if as_json:
        print_json(_facts(result))
    elif isinstance(result, Trained):
        _print(result)


def _change(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise InputError(f"--set {text}: write it as section.key=value.")
    return name.strip(), value.strip()


def _facts(result: "Trained | Estimate") -> dict[str, object]:
    facts = dict(vars(result))
    for name in ("folder", "model"):
        if facts.get(name) is not None:
            facts[name] = str(facts[name])
    return facts


def _print(result: "Trained") -> None:
    if result.model is None:
        MESSAGES.print(
            f"Stopped after step {result.steps:,}. The same command goes on from there; with "
            "--finish it makes a model of it as it is."
        )
        return
    for name in ("first", "last", "best"):
        if name in result.evaluation:
            MESSAGES.print(f"{name}: {result.evaluation[name]['mean']:.4f} on held-out records")
    MESSAGES.print(
        f"{result.steps:,} steps, {result.tokens:,} tokens at {result.tokens_per_s:,.0f} a second, "
        f"{result.memory_gb:.1f} GB. Try it: polyvec similarity -m {result.model} ..."
    )
