"""scikit-learn, where it is installed."""

from importlib import import_module
from typing import Any

from polyvec.errors import MissingExtraError


def sklearn_module(name: str) -> Any:  # noqa: ANN401 (untyped and optional)
    """Return ``sklearn.NAME``.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return import_module(f"sklearn.{name}")
    except ImportError as error:
        raise MissingExtraError(
            "Classifying and clustering need scikit-learn, which is not installed: "
            "pip install 'polyvec[classify]'."
        ) from error
