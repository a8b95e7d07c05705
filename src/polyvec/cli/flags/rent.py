"""Options of ``polyvec rent``."""

from typing import Annotated

import typer

from polyvec.engine.plan import WeightsPlace
from polyvec.fit.plan import PRECISIONS
from polyvec.fit.prices import PROVIDERS

Precision = Annotated[str, typer.Option("--precision", help=f"One of {', '.join(PRECISIONS)}.")]
Weights = Annotated[
    WeightsPlace | None,
    typer.Option(
        "--weights",
        help="resident, packed or streamed; otherwise resident, or packed for a GGUF.",
        show_default=False,
    ),
]
Tokens = Annotated[float, typer.Option("--tokens", min=1, help="Of a document.")]
Provider = Annotated[
    list[str] | None,
    typer.Option("--provider", help=f"Of {', '.join(PROVIDERS)}; may be given several times."),
]
Spot = Annotated[
    bool | None,
    typer.Option("--spot/--on-demand", help="Only these.", show_default=False),
]
Top = Annotated[int, typer.Option("--top", min=1, help="How many of each kind.")]
Refresh = Annotated[
    bool, typer.Option("--refresh", help="Ask again although prices are under an hour old.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Ask nobody: the cache.")]
TimeoutS = Annotated[float, typer.Option("--timeout-s", min=0.1, help="Seconds for each request.")]
