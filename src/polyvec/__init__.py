"""polyvec: texts in any language to vectors, the same vectors whichever way they are made."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder, load

__version__ = "0.1.0"
__all__ = ["Embedder", "__version__", "load"]


def __getattr__(name: str) -> object:
    # torch takes a second to import, so `import polyvec` waits for the first use of it.
    if name in ("Embedder", "load"):
        return getattr(import_module("polyvec.engine.embedder"), name)
    raise AttributeError(f"module 'polyvec' has no attribute {name!r}")
