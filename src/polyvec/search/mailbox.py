"""Mailboxes in mbox format (Thunderbird, Gmail's export, Mutt): every message's text."""

import re
from collections.abc import Callable, Iterator
from email import errors, message_from_bytes, policy
from email.message import EmailMessage
from typing import cast

_FROM_LINE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\r\n]*\r?\n")
"""What a message begins with: after an empty line, as a text's own line may begin with the word."""
_STUFFED = re.compile(rb"^>(?=>*From )", re.MULTILINE)
_HEADER = re.compile(rb"^(?:From|Date|Subject|Message-ID|Received|Return-Path):", re.M | re.I)


def is_mailbox(start: bytes) -> bool:
    """Whether a file's first bytes are a mailbox's, whatever its name."""
    return bool(re.match(rb"From \S+ .*\d\d:\d\d", start)) and _HEADER.search(start) is not None


def mailbox_messages(data: bytes, text_of_html: Callable[[str], str]) -> Iterator[str]:
    """Yield a mailbox's messages as Markdown, the subject as the heading.

    Attachments are left out; a message that is broken gives what can be read of it.

    Args:
        data: The file.
        text_of_html: Reads the messages that have no plain text.
    """
    for message in _messages(data):
        yield _as_markdown(message, text_of_html)


def _messages(data: bytes) -> Iterator[EmailMessage]:
    borders = list(_FROM_LINE.finditer(data))
    for this, after in zip(borders, [*borders[1:], None], strict=True):
        raw = data[this.end() : after.start() if after else len(data)]
        yield message_from_bytes(_STUFFED.sub(b"", raw), policy=policy.default)


def _as_markdown(message: EmailMessage, text_of_html: Callable[[str], str]) -> str:
    subject = _header(message, "subject") or "(no subject)"
    lines = [f"{name.title()}: {_header(message, name)}" for name in ("from", "to", "date")]
    return f"# {subject}\n\n" + "\n".join(lines) + f"\n\n{_body(message, text_of_html)}"


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, IndexError, AttributeError, errors.MessageError):
        return ""  # the standard library stumbles over some malformed addresses and dates


def _body(message: EmailMessage, text_of_html: Callable[[str], str]) -> str:
    """Return a message's text, headings in it no headings of the mailbox."""
    part = message.get_body(("plain", "html"))
    if part is None:
        return ""
    content = _content(cast("EmailMessage", part))
    if part.get_content_subtype() == "html":
        content = text_of_html(content)
    return re.sub(r"^(?=#)", r"\\", content, flags=re.MULTILINE)


def _content(part: EmailMessage) -> str:
    try:
        content = part.get_content()
    except (LookupError, UnicodeError, ValueError):  # a charset that is none
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", errors="replace") if isinstance(payload, bytes) else ""
    return content if isinstance(content, str) else ""
