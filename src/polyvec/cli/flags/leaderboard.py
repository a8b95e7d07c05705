"""Options of ``polyvec leaderboard``."""

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Folders of results in mteb's format, from `polyvec evaluate --benchmark` or mteb "
        "itself. Without any, the published models are ranked.",
        show_default=False,
    ),
]
WithPublished = Annotated[
    bool,
    typer.Option(
        "--published/--only-mine",
        help="Rank seven published models of MMTEB too, on the tasks that your results have.",
    ),
]
AllTasks = Annotated[
    bool,
    typer.Option(
        "--all-tasks",
        help="Also rank on tasks that a model has not run: they earn it nothing, and it has no "
        "means.",
    ),
]
