"""Mailboxes: messages apart, headers and text decoded, broken ones no worse than others."""

from polyvec.search.mailbox import is_mailbox, mailbox_messages
from tests import office

BORDER = b"From a@example.org Tue Mar  3 12:00:00 2026\n"


def read(data: bytes) -> str:
    return "\n\n".join(mailbox_messages(data, lambda html: f"read of {len(html)} characters"))


def test_each_message_is_under_its_subject() -> None:
    said = read(office.mailbox([("Lunch", "At noon."), ("Flug", "Um 6:40 von Gate B12.")]))
    assert said.index("# Lunch\n\nFrom: a@example.org") < said.index("At noon.")
    assert said.index("At noon.") < said.index("# Flug") < said.index("Um 6:40")
    assert "<p>" not in said


def test_a_text_may_have_lines_that_begin_with_from() -> None:
    texts = ["From now on\n\nFrom here they stay.", ">From is quoted\n# no heading"]
    said = read(office.mailbox([("One", texts[0]), ("Two", texts[1])]))
    assert "From now on\n\nFrom here they stay." in said
    assert ">From is quoted\n\\# no heading" in said
    assert said.count("\n# ") + said.startswith("# ") == 2


def test_encoded_words_and_letters_are_decoded() -> None:
    raw = (
        BORDER + b"Subject: =?utf-8?B?RmzDvGdl?= \n =?iso-8859-1?Q?_f=FCr_zwei?=\n"
        b"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable"
        b"\n\nGr=FC=DFe aus K=F6ln\n"
    )
    said = read(raw)
    assert said.startswith("# Flüge für zwei\n")
    assert "Grüße aus Köln" in said


def test_html_is_read_where_there_is_no_plain_text() -> None:
    raw = BORDER + b"Subject: x\nContent-Type: text/html; charset=utf-8\n\n<p>hello</p>\n"
    assert "read of 13 characters" in read(raw)


def test_broken_messages_cost_nothing_else() -> None:
    broken = [
        b"Subject: a\nContent-Type: text/plain; charset=no-such\n\nBody one\n",
        b"Subject: b\nContent-Type: multipart/mixed; boundary=x\n\nno part at all\n",
        b"From: <<<>>>@\nTo: =?utf-8?B?!!!?=, ,,;\nDate: never\nSubject: c\n\nBody three\n",
        b"\xff\xfe\x00 no header\n",
        b"Subject: \xff\xfe raw\nContent-Transfer-Encoding: base64\n\n$$$$\n",
        b"",
        b"Subject: last\n\nBody last\n",
    ]
    said = read(b"\n".join(BORDER + one for one in broken))
    assert said.count("\n# ") + 1 == len(broken)
    for words in ("Body one", "Body three", "# last", "Body last"):
        assert words in said


def test_a_mailbox_is_known_by_its_first_bytes() -> None:
    assert is_mailbox(office.mailbox([("Lunch", "x")]))
    assert is_mailbox(b"From - Tue Mar 03 12:00:00 2026\r\nX-Mozilla-Status: 0001\r\nFrom: a@b\r\n")
    assert not is_mailbox(b"From the beginning at 12:00 it was clear.\nSubject matter is hard.\n")
    assert not is_mailbox(office.mail("Lunch", "x"))
