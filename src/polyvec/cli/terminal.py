"""Texts of strangers, for a terminal: what could steer it or hide is shown and has no effect.

File names, documents, servers and models may have escape sequences, which recolour, retitle,
overwrite and, in some terminals, type; and signs that turn the direction of what follows.
"""

import re

_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
_HIDDEN = [*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029]
"""The second set of controls, signs that turn the direction, separators of lines."""
_LONE_HALVES = range(0xD800, 0xE000)
_SEEN = _PICTURES | dict.fromkeys([*_HIDDEN, *_LONE_HALVES], 0xFFFD)
_SEEN_LINES = {code: sign for code, sign in _SEEN.items() if code not in (0x09, 0x0A)}
_NOT_ESCAPED = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


def visible(text: str) -> str:
    """Return a text on one line: control characters as their pictures (``␛``), or as ``�``.

    As long as the text was, so places in it stay. Joiners, which Persian, Hindi and emoji need,
    are kept.
    """
    return text.translate(_SEEN)


def visible_lines(text: str) -> str:
    """Return a text of several lines like :func:`visible`, with its line ends and tabs."""
    return text.translate(_SEEN_LINES)


def visible_json(document: str) -> str:
    """Return the same JSON, with escapes for what JSON lets through and terminals obey."""
    return _NOT_ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", document)
