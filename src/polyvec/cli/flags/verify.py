"""Options of ``polyvec verify``."""

from pathlib import Path
from typing import Annotated

import typer

TrustedModel = Annotated[
    str, typer.Argument(help="The model you trust: alias, folder, .gguf, address.")
]
DoubtedModel = Annotated[
    str, typer.Argument(help="The one in question: alias, folder, .gguf, address.")
]
MinCosine = Annotated[
    float, typer.Option("--min-cosine", min=0, max=1, help="What still counts as agreeing.")
]
Html = Annotated[Path | None, typer.Option("--html", help="Write a report page.")]
