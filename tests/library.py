"""A small folder of documents in several languages and its index, made with a tiny model."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from polyvec.search.retrieve import Searcher
from polyvec.search.rows import Chunk, Document, IndexInfo, Vectors
from polyvec.search.store import Store

HOSTILE = (
    '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script> '
    "[bold red]markup[/] \u202eredrum\u202c & &amp; router"
)
WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)

TOPICS = ("router", "paris", "holiday", "cat")
"""The axes of the vectors of the made index: each text is about one or two."""
WORDS = {
    "router": "router wlan netzwerk 路由器",
    "paris": "paris tour eiffel 巴黎",
    "holiday": "holiday urlaub vacances",
    "cat": "cat katze chat 猫",
}


def about(text: str) -> Vectors:
    """Return a text's vector ``float32 [5]``: which topics it has words of, and a constant."""
    low = text.casefold()
    counts = [sum(word in low for word in WORDS[topic].split()) for topic in TOPICS]
    vector = np.array([*counts, 0.2], dtype=np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def passage(path: str, ordinal: int, text: str, **facts: Any) -> Chunk:
    """Return a chunk with the facts that matter to no test filled in."""
    known: dict[str, Any] = {
        "chunk_id": f"{path}-{ordinal}", "source_id": path, "document_id": path,
        "text_id": f"text of {text}", "path": path, "title": path.rsplit("/", 1)[-1],
        "heading": "", "page": None, "line_start": 1 + 10 * ordinal, "line_end": 5 + 10 * ordinal,
        "language": "en", "file_type": "text", "modified_at": WHEN, "ordinal": ordinal,
        "text": text,
    }  # fmt: skip
    return Chunk(**(known | facts))


PASSAGES = (
    passage("manuals/router.md", 0, "Hold the reset button of the router for ten seconds.",
            heading="Manual > Reset", file_type="markdown"),
    passage("manuals/router.md", 1, "The router shows a green light when the WLAN is ready.",
            heading="Manual > Lights", file_type="markdown"),
    passage("de/netz.pdf", 0, "Das WLAN-Passwort steht auf der Rückseite.", page=3,
            line_start=None, line_end=None, language="de", file_type="pdf"),
    passage("zh/路由.txt", 0, "按住路由器的复位按钮十秒钟。", language="zh"),
    passage("travel/paris.txt", 0, "Paris has a tower that Gustave Eiffel built in 1889."),
    passage("travel/holiday.txt", 0, "Every employee has 30 days of holiday a year.",
            modified_at=datetime(2024, 1, 1, tzinfo=UTC)),
    passage("copy/holiday.txt", 0, "Every employee has 30 days of holiday a year."),
    passage("bad/hostile.html", 0, HOSTILE, title="<b>title</b>", heading="<i>head</i>",
            file_type="html"),
)  # fmt: skip


def document(path: str, root: Path) -> Document:
    return Document(path, path, 10, 0, "text", path, "indexed", "", 1, 10, WHEN)


def make_store(folder: Path, root: Path | None = None) -> Store:
    """Write the passages into an index, with vectors by :func:`about`."""
    info = IndexInfo("made-up", "0123456789abcdef", 5, str(root or folder / "root"))
    store = Store.create(str(folder / "index"), info)
    store.put_chunks(PASSAGES, np.stack([about(chunk.embedded_text) for chunk in PASSAGES]))
    store.put_documents([document(p, folder) for p in {c.path for c in PASSAGES}])
    store.refresh()
    return store


def make_searcher(folder: Path) -> Searcher:
    return Searcher(make_store(folder), about)


@dataclass
class Indexed:
    """A real folder, indexed with a real (tiny) model."""

    root: Path
    uri: str
    model: str


FILES = {
    "router.md": "# Router\n\n## Reset\n\nHold the reset button of the router for ten seconds.\n\n"
    "## Lights\n\nA green light means that the network is ready.\n",
    "paris.txt": "Paris is the capital of France.\nIts tower was built by Gustave Eiffel.\n",
    "zh.txt": "按住路由器的复位按钮十秒钟。\n",
    "hostile.html": f"<html><body><p>{HOSTILE.replace('<', '&lt;')}</p></body></html>",
}


def index_files(
    folder: Path,
    write_model: Callable[[Path], Path],
    add_files: Callable[[Path], None] | None = None,
) -> Indexed:
    """Write files and a model under a folder, and index the files."""
    from polyvec.engine.embedder import load
    from polyvec.search.index import open_index, update
    from polyvec.search.settings import ReadSettings

    root = folder / "files"
    root.mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text, encoding="utf-8")
    if add_files is not None:
        add_files(root)
    model = str(write_model(folder / "model"))
    embedder = load(model, precision="fp32")
    from polyvec.search.rows import ChunkSettings

    uri = str(folder / "index")
    store = open_index(root, embedder, model, uri, ChunkSettings(48, 4))
    update(store, embedder, ReadSettings(), None)
    return Indexed(root, uri, model)
