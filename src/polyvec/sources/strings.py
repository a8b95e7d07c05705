"""A program's strings as plain text, and what of them is no text to learn from."""

import re
import unicodedata
from collections.abc import Iterable

_MNEMONIC = re.compile(r"\s*\([_~&]\w\)")
"""A key in brackets after a word whose script is not on the keyboard: ``保存(~S)``."""
_KEY = re.compile(r"(?<!&)[_~&](?=\w)")
_NO_TEXT = re.compile(
    r"[{}<>`\\|]"  # placeholders, markup, code
    r"|%[-#.]?[\w(%]"  # %1, %s, %(name)s, %%
    r"|\$[\w(\[]"  # $ARG1, $(ARG1), $[officename]
    r"|#\w+#|&\w+;|\w_\w"
    r"|\w+://|www\.|\S@\S"
    r"|\]\(|\*\*|^#+ |__"  # Markdown
)
_END = re.compile(r"\s*(\.\.\.|…|[:：])$")


def string_pairs(strings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return translations by English text: cleaned, once each, none that was left in English."""
    pairs: dict[str, str] = {}
    for english, translated in strings:
        text, other = plain_string(english), plain_string(translated)
        if text and other and text.casefold() != other.casefold():
            pairs.setdefault(text, other)
    return pairs


def plain_string(text: str) -> str:
    """Return a string as its reader sees it, NFC, or nothing if it is no plain text.

    Keyboard marks and a closing ``...`` or colon go. What has a placeholder, markup, code or an
    address is no text, nor is what has fewer than two letters.
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    text = _KEY.sub("", _MNEMONIC.sub("", text), count=1)
    if _NO_TEXT.search(text) or sum(map(str.isalpha, text)) < 2:
        return ""
    return _END.sub("", text)
