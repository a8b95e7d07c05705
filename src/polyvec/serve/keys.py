"""API keys: kept as hashes, compared in constant time."""

import hashlib
import hmac
import re
from pathlib import Path

from polyvec.errors import InputError

_PREFIX = "sha256:"
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
MIN_KEY_CHARACTERS = 16
"""A key is compared by a fast hash, which is safe only for keys nobody can guess."""


class Keys:
    """The keys a server lets in. Only their hashes are kept."""

    def __init__(self, hashes: list[bytes]) -> None:
        self._hashes = hashes

    def allows(self, authorization: str) -> bool:
        """Return whether an ``Authorization`` header has one of the keys (``Bearer KEY``)."""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        # Every hash is compared, so that the time says nothing about which one was near.
        matches = [hmac.compare_digest(digest, known) for known in self._hashes]
        return scheme.lower() == "bearer" and any(matches)


def read_keys(file: Path) -> Keys:
    """Read keys, one a line, each plain or as ``sha256:<hex>``; ``#`` begins a comment.

    Raises:
        InputError: The file cannot be read, has no key, or one that is too short.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The API keys in {file} cannot be read: {error}.") from error
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise InputError(f"{file} has no API key; write one a line, plain or as sha256:<hex>.")
    return Keys([_hash(line, number, file) for number, line in enumerate(lines, 1)])


def _hash(line: str, number: int, file: Path) -> bytes:
    if line.startswith(_PREFIX):
        if not _HASH.fullmatch(line):
            raise InputError(f"Key {number} in {file} begins with sha256: and is no hash in hex.")
        return bytes.fromhex(line.removeprefix(_PREFIX))
    if len(line) < MIN_KEY_CHARACTERS:
        raise InputError(
            f"Key {number} in {file} has {len(line)} characters; {MIN_KEY_CHARACTERS} are the "
            "least. Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return hashlib.sha256(line.encode()).digest()
