"""Options of ``polyvec precision``."""

from pathlib import Path
from typing import Annotated

import typer

from polyvec.engine.quality import LEAST_TEXTS

MOST_TEXTS = 2_000

Files = Annotated[
    list[Path],
    typer.Argument(
        help=f"Texts as the model is to embed, {LEAST_TEXTS} at least, none twice; of more "
        f"than {MOST_TEXTS:,} the first count. - is standard input.",
        show_default=False,
    ),
]
