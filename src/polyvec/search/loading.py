"""The model of an index, loaded on this machine: it may lie elsewhere than where it was recorded.

What is recorded is a name: an alias and a package's name mean the same model on every machine, and
a path only where it was made. Whether a model is the one, its fingerprint decides.
"""

from typing import TYPE_CHECKING, Any

from polyvec.errors import ModelNotFoundError
from polyvec.search.rows import IndexInfo

if TYPE_CHECKING:
    from polyvec.engine.embedder import Embedder
    from polyvec.search.store import Store


def load_model(store: "Store", model: str | None = None, **how: Any) -> "Embedder":  # noqa: ANN401
    """Load the model that made an index.

    Args:
        store: The index.
        model: Where that model is on this machine; None is the name that the index has.
        how: What else :func:`polyvec.engine.embedder.load` is told.

    Raises:
        IndexMismatchError: It is another model, or one that has changed since.
        ModelNotFoundError: There is no model of that name here; the message says what to give.
        PolyvecError: It cannot be loaded.
    """
    from polyvec.engine.embedder import load

    name = model or store.info.model
    try:
        embedder = load(name, **how)
    except ModelNotFoundError as error:
        if model is not None:
            raise
        raise _not_here(store.uri, store.info) from error
    store.check_model(embedder.files.fingerprint(), name)
    return embedder


def _not_here(uri: str, info: IndexInfo) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"The index {uri} was made with the model {info.model} (fingerprint {info.fingerprint}), "
        "and this machine has none there. Say where it is here, with --model: it must have the "
        "same fingerprint, whatever its name. Without it the index can be searched by words "
        "(polyvec search --mode text)."
    )
