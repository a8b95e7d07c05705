"""What a model is and costs, for tables and charts."""

from typing import Any

from polyvec.engine.peers import EmbedderPeer, Peer


def describe(peer: Peer) -> dict[str, Any]:
    """Return what is known of a model beside its vectors; of a server that is little."""
    if not isinstance(peer, EmbedderPeer):
        return {}
    files, embedder = peer.embedder.files, peer.embedder
    return {
        "precision": embedder.precision,
        "parameters": files.architecture.num_parameters,
        "size_bytes": files.size_bytes,
        "max_tokens": embedder.spec.max_tokens,
        "where": embedder.where,
    }
