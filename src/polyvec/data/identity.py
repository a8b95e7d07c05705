"""When two texts count as the same."""

import hashlib
import unicodedata


def normalized(text: str) -> str:
    """Return a text without what readers pass over: width, case, runs of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_key(text: str) -> int:
    """Return 64 bits that stand for a text in its normalized form."""
    return exact_key(normalized(text))


def exact_key(text: str) -> int:
    """Return 64 bits that stand for a text as it is."""
    raw = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")
