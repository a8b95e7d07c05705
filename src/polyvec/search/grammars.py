"""Source code's structure: functions and classes, by tree-sitter's grammars.

The grammars are wheels of their own. kreuzberg's would be downloaded at first use, and a file of a
private folder must not start a download.
"""

import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from polyvec.errors import MissingExtraError

_MODULES = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "java": ("tree_sitter_java", "language"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "bash": ("tree_sitter_bash", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
}
_DEFINITION = re.compile(
    "function|class|method|struct|interface|namespace|enum|trait|impl_item|module|constructor|"
    "type_spec|record"
)
_MOST_DEPTH, _MOST_NESTED = 6, 40


def grammar(file_type: str) -> Any | None:  # noqa: ANN401 (a capsule)
    """Return tree-sitter's grammar of a type of source code, None for other types.

    Raises:
        MissingExtraError: It is not installed.
    """
    if file_type not in _MODULES:
        return None
    module, function = _MODULES[file_type]
    try:
        return getattr(import_module(module), function)()
    except ImportError as error:
        raise MissingExtraError(
            f"Source code is cut by {module.replace('_', '-')}, which is not installed: "
            "pip install 'polyvec[search]'."
        ) from error


def outline(file_type: str, content: str) -> list[tuple[int, int, str]]:
    """Return the definitions of source code as (first character, depth, name), in order.

    A definition's end is an entry without a name at its own depth, so that what follows it is not
    taken for its inside.
    """
    from tree_sitter import Language, Parser

    data = content.encode()
    tree = Parser(Language(grammar(file_type))).parse(data)
    entries = []
    for start, end, depth, name in _definitions(tree.root_node, 1, 1):
        entries += [(start, depth, name), (end, depth, "")]
    entries.sort(key=lambda entry: (entry[0], bool(entry[2]), entry[1]))
    return [
        (place, *entry[1:]) for place, entry in zip(_places(data, entries), entries, strict=True)
    ]


def _places(data: bytes, entries: Iterable[tuple[int, int, str]]) -> Iterator[int]:
    """Turn bytes into characters; the entries are in order."""
    characters, before = 0, 0
    for byte, _, _ in entries:
        characters += len(data[before:byte].decode())
        before = byte
        yield characters


def _definitions(
    node: Any,  # noqa: ANN401
    depth: int,
    nested: int,
) -> Iterator[tuple[int, int, int, str]]:
    """Yield (first byte, last byte, depth, name) of definitions in a node."""
    for child in node.named_children:
        name = _name(child)
        if name:
            yield child.start_byte, child.end_byte, depth, name
        if depth < _MOST_DEPTH and nested < _MOST_NESTED:
            yield from _definitions(child, depth + bool(name), nested + 1)


def _name(node: Any) -> str:  # noqa: ANN401
    """Return what a definition is called; empty where a node defines nothing."""
    if not _DEFINITION.search(node.type) or node.type.endswith("declarator"):
        return ""
    # What Rust implements for has no name but a type; elsewhere a type is what a function returns.
    named = node.child_by_field_name("type" if node.type == "impl_item" else "name")
    declared = node.child_by_field_name("declarator")
    while named is None and declared is not None:  # C: the name stands inside its declarator
        inner = declared.child_by_field_name("declarator")
        named, declared = (declared, None) if inner is None else (None, inner)
    return "" if named is None or named.text is None else " ".join(named.text.decode().split())
