"""Documents of many formats, built in code: small, but real files of their kinds."""

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from html import escape

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
SLIDES = "http://schemas.openxmlformats.org/presentationml/2006/main"
SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "application/vnd.openxmlformats-officedocument"


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """Return a zip file of named texts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _types(overrides: Mapping[str, str]) -> str:
    parts = "".join(
        f'<Override PartName="{name}" ContentType="{kind}"/>' for name, kind in overrides.items()
    )
    return (
        f'<?xml version="1.0"?><Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{parts}</Types>'
    )


def _relations(targets: Mapping[str, tuple[str, str]]) -> str:
    parts = "".join(
        f'<Relationship Id="{name}" Type="{LINKS}/{kind}" Target="{target}"/>'
        for name, (kind, target) in targets.items()
    )
    start = f'<?xml version="1.0"?><Relationships xmlns="{_PACKAGE}/relationships">'
    return f"{start}{parts}</Relationships>"


def docx(paragraphs: Sequence[tuple[str, str]]) -> bytes:
    """Return a Word file of (style, text) paragraphs; a style is ``Heading1`` or empty."""
    body = "".join(_paragraph(style, text) for style, text in paragraphs)
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{n}"><w:name w:val="heading {n}"/>'
        f'<w:pPr><w:outlineLvl w:val="{n - 1}"/></w:pPr></w:style>'
        for n in (1, 2, 3)
    )
    return zipped(
        {
            "[Content_Types].xml": _types(
                {
                    "/word/document.xml": f"{_OFFICE}.wordprocessingml.document.main+xml",
                    "/word/styles.xml": f"{_OFFICE}.wordprocessingml.styles+xml",
                }
            ),
            "_rels/.rels": _relations({"r1": ("officeDocument", "word/document.xml")}),
            "word/_rels/document.xml.rels": _relations({"r1": ("styles", "styles.xml")}),
            "word/styles.xml": f'<w:styles xmlns:w="{WORD}">{styles}</w:styles>',
            "word/document.xml": (
                f'<?xml version="1.0"?><w:document xmlns:w="{WORD}"><w:body>{body}</w:body>'
                "</w:document>"
            ),
        }
    )


def _paragraph(style: str, text: str) -> str:
    styled = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{styled}</w:pPr><w:r><w:t>{escape(text)}</w:t></w:r></w:p>"


def pptx(slides: Sequence[tuple[str, str]]) -> bytes:
    """Return a presentation of (title, text) slides."""

    def shape(number: int, kind: str, text: str) -> str:
        return (
            f'<p:sp><p:nvSpPr><p:cNvPr id="{number}" name="{kind}"/><p:cNvSpPr/>'
            f'<p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr><p:spPr/>'
            f"<p:txBody><a:bodyPr/><a:p><a:r><a:t>{escape(text)}</a:t></a:r></a:p></p:txBody></p:sp>"
        )

    names = f'xmlns:a="{DRAWING}" xmlns:r="{LINKS}" xmlns:p="{SLIDES}"'
    files = {
        f"ppt/slides/slide{n}.xml": (
            f'<?xml version="1.0"?><p:sld {names}><p:cSld><p:spTree><p:nvGrpSpPr>'
            '<p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>'
            f"{shape(2, 'title', title)}{shape(3, 'body', text)}</p:spTree></p:cSld></p:sld>"
        )
        for n, (title, text) in enumerate(slides, 1)
    }
    ids = "".join(f'<p:sldId id="{255 + n}" r:id="r{n}"/>' for n in range(1, len(slides) + 1))
    kinds = {f"/{name}": f"{_OFFICE}.presentationml.slide+xml" for name in files}
    main = f"{_OFFICE}.presentationml.presentation.main+xml"
    return zipped(
        {
            "[Content_Types].xml": _types({"/ppt/presentation.xml": main, **kinds}),
            "_rels/.rels": _relations({"r1": ("officeDocument", "ppt/presentation.xml")}),
            "ppt/_rels/presentation.xml.rels": _relations(
                {f"r{n}": ("slide", f"slides/slide{n}.xml") for n in range(1, len(slides) + 1)}
            ),
            "ppt/presentation.xml": (
                f'<?xml version="1.0"?><p:presentation {names}><p:sldIdLst>{ids}</p:sldIdLst>'
                "</p:presentation>"
            ),
            **files,
        }
    )


def xlsx(rows: Sequence[Sequence[str | float]], sheet: str = "Budget") -> bytes:
    """Return a workbook of one sheet."""

    def cell(row: int, column: int, value: str | float) -> str:
        place = f"{chr(65 + column)}{row}"
        if isinstance(value, str):
            return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return f'<c r="{place}"><v>{value}</v></c>'

    lines = "".join(
        f'<row r="{r}">{"".join(cell(r, c, value) for c, value in enumerate(row))}</row>'
        for r, row in enumerate(rows, 1)
    )
    kind = f"{_OFFICE}.spreadsheetml"
    return zipped(
        {
            "[Content_Types].xml": _types(
                {
                    "/xl/workbook.xml": f"{kind}.sheet.main+xml",
                    "/xl/worksheets/sheet1.xml": f"{kind}.worksheet+xml",
                }
            ),
            "_rels/.rels": _relations({"r1": ("officeDocument", "xl/workbook.xml")}),
            "xl/_rels/workbook.xml.rels": _relations(
                {"r1": ("worksheet", "worksheets/sheet1.xml")}
            ),
            "xl/workbook.xml": (
                f'<?xml version="1.0"?><workbook xmlns="{SHEETS}" xmlns:r="{LINKS}"><sheets>'
                f'<sheet name="{sheet}" sheetId="1" r:id="r1"/></sheets></workbook>'
            ),
            "xl/worksheets/sheet1.xml": (
                f'<?xml version="1.0"?><worksheet xmlns="{SHEETS}"><sheetData>{lines}</sheetData>'
                "</worksheet>"
            ),
        }
    )


def epub(chapters: Sequence[tuple[str, str]], title: str = "A Book") -> bytes:
    """Return a book of (heading, text) chapters."""
    items = "".join(
        f'<item id="c{n}" href="c{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    pages = {
        f"OEBPS/c{n}.xhtml": (
            '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title>'
            f"</head><body><h1>{escape(heading)}</h1><p>{escape(text)}</p></body></html>"
        )
        for n, (heading, text) in enumerate(chapters)
    }
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": (
                '<?xml version="1.0"?><container version="1.0" '
                'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
                '<rootfile full-path="OEBPS/book.opf" '
                'media-type="application/oebps-package+xml"/></rootfiles>'
                "</container>"
            ),
            "OEBPS/book.opf": (
                '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" '
                'unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
                f'<dc:title>{escape(title)}</dc:title><dc:identifier id="id">x</dc:identifier>'
                f"<dc:language>en</dc:language></metadata><manifest>{items}</manifest>"
                f"<spine>{spine}</spine></package>"
            ),
            **pages,
        }
    )


def odt(paragraphs: Sequence[str]) -> bytes:
    """Return an OpenDocument text."""
    office = "urn:oasis:names:tc:opendocument:xmlns"
    body = "".join(f"<text:p>{escape(text)}</text:p>" for text in paragraphs)
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": (
                f'<?xml version="1.0"?><office:document-content xmlns:office="{office}:office:1.0" '
                f'xmlns:text="{office}:text:1.0"><office:body><office:text>{body}</office:text>'
                "</office:body></office:document-content>"
            ),
        }
    )


def pdf(pages: Sequence[Sequence[str]], encrypt: Mapping[str, bytes] | None = None) -> bytes:
    """Return a PDF of pages of lines; ``encrypt`` is what :func:`encryption` gives."""
    count = len(pages)
    objects: list[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>"
        % (b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(count)), count),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        shown = b" T* ".join(b"(%s) Tj" % _escaped(line) for line in lines)
        content = b"BT /F1 12 Tf 72 720 Td 16 TL %s ET" % shown
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * number),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        ]
    extra = b""
    if encrypt:
        objects.append(encrypt["dictionary"])
        extra = b" /Encrypt %d 0 R /ID [<%s> <%s>]" % (len(objects), encrypt["id"], encrypt["id"])
    return _assembled(objects, extra)


def _escaped(line: str) -> bytes:
    return (
        line.encode("latin-1").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
    )


def _assembled(objects: Sequence[bytes], extra: bytes) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer << /Size %d /Root 1 0 R%s >>\n" % (len(objects) + 1, extra)
    out += b"startxref\n%d\n%%%%EOF\n" % start
    return bytes(out)


def encryption() -> Mapping[str, bytes]:
    """Return the dictionary of a PDF that asks for a password no one has (random /O and /U)."""
    owner, user = b"a1" * 32, b"5c" * 32
    dictionary = b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -44 >>" % (owner, user)
    return {"dictionary": dictionary, "id": b"00112233445566778899aabbccddeeff"}


def mail(subject: str, text: str) -> bytes:
    """Return a message with a text and an HTML part."""
    from email.message import EmailMessage

    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "a@example.org", "b@example.org"
    message["Date"] = "Tue, 03 Mar 2026 12:00:00 +0000"
    message.set_content(text)
    message.add_alternative(f"<p>{escape(text)}</p>", subtype="html")
    return message.as_bytes()


def mailbox(messages: Sequence[tuple[str, str]]) -> bytes:
    """Return an mbox file of (subject, text) messages."""
    parts = []
    for subject, text in messages:
        raw = re.sub(rb"(?m)^(>*From )", rb">\1", mail(subject, text))
        parts.append(b"From a@example.org Tue Mar  3 12:00:00 2026\n" + raw)
    return b"\n".join(parts)


def notebook(cells: Sequence[tuple[str, str]]) -> bytes:
    """Return a Jupyter notebook of (kind, source) cells."""
    made = []
    for kind, source in cells:
        cell: dict[str, object] = {"cell_type": kind, "metadata": {}, "source": source}
        if kind == "code":
            cell |= {"outputs": [], "execution_count": None}
        made.append(cell)
    whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made}
    return json.dumps(whole).encode()
