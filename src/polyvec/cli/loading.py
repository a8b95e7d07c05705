"""The options that say which model a command runs, in one place, and the model they ask for."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import polyvec
from polyvec.cli.options import (
    AttentionOption,
    DeviceOption,
    MaxTokensOption,
    MemoryOption,
    ModelOption,
    PoolingOption,
    PrecisionOption,
    WeightsOption,
)
from polyvec.cli.output import announce

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder


@dataclass(frozen=True)
class ModelChoice:
    """Which model, and how it is to run: each field is an option of the command."""

    model: ModelOption = "default"
    precision: PrecisionOption = "auto"
    device: DeviceOption = "auto"
    weights: WeightsOption = "auto"
    memory: MemoryOption = None
    attention: AttentionOption = None
    pooling: PoolingOption = None
    max_tokens: MaxTokensOption = None

    def load(self) -> "Embedder":
        """Load the model and say on standard error what it is.

        Raises:
            PolyvecError: As :func:`polyvec.load`.
        """
        embedder = polyvec.load(
            self.model,
            precision=self.precision,
            device=self.device,
            attention=self.attention,
            pooling=self.pooling,
            max_tokens=self.max_tokens,
            weights=self.weights,
            memory_bytes=self.memory,
        )
        announce(embedder, self.model)
        return embedder


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a model's options in the place of its parameter ``choice``.

    The command line is built from what a function's signature says, so that is what is changed.
    """
    options = fields(ModelChoice)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters: list[inspect.Parameter] = []
    for own in inspect.signature(command).parameters.values():
        parameters += (
            [inspect.Parameter(o.name, kind, default=o.default, annotation=o.type) for o in options]
            if own.name == "choice"
            else [own]
        )

    @wraps(command)
    def run(**values: Any) -> None:  # noqa: ANN401 (whatever the options are)
        choice = ModelChoice(**{option.name: values.pop(option.name) for option in options})
        command(choice=choice, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run
