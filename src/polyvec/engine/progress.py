"""A progress bar on standard error: texts, tokens a second, time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_MIN_TEXTS = 256
"""Below this, work is over before a bar is read."""


class _Rate(ProgressColumn):
    """Tokens a second since the start."""

    def render(self, task: Task) -> Text:
        """Show the rate."""
        rate = task.fields["tokens"] / max(task.elapsed or 0.0, 1e-9)
        return Text(f"{rate:,.0f} tokens/s", style="cyan")


@contextmanager
def progress_bar(
    total: int | None, show: bool | None = None, done: int = 0
) -> Iterator[Callable[[int, int], None] | None]:
    """Give a callback for (texts, tokens) finished, or None where no bar is to be shown.

    ``show`` None means: on a terminal, for long work.
    """
    if show is None:
        show = sys.stderr.isatty() and (total is None or total >= _MIN_TEXTS)
    if not show:
        yield None
        return
    columns = (
        TextColumn("{task.completed:,.0f} texts"),
        BarColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), get_time=time.monotonic) as progress:
        task = progress.add_task("embed", total=total, completed=done, tokens=0)

        def advance(texts: int, tokens: int) -> None:
            seen = progress.tasks[0].fields["tokens"]
            progress.update(task, advance=texts, tokens=seen + tokens)

        yield advance
