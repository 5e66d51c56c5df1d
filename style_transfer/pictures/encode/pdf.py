"""PDF with one page and one picture of 8 bits per channel, lossless, with the boxes that print shops ask for, and crop marks.

With a CMYK output profile the file is PDF/X-4 (ISO 15930-7): the picture is DeviceCMYK, and the profile is that of the output
intent. Other pictures have an ICC profile of their own, in a file that makes no such claim. PDF is ISO 32000-1. Pictures have 8
bits, since the checks of print shops (Ghent Workgroup) refuse more.
"""

from __future__ import annotations

import dataclasses
import re
import time
import uuid
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final
from xml.sax.saxutils import escape

import numpy as np

from ...geometry.sheet import INCH, Sheet
from ...registry import OUTPUT_FORMATS
from ..credits import Credits, properties
from ..icc import profile_name
from ..picture import Array
from .png import filtered_rows
from .saving import Encoding, OutputFormat

POINTS: Final = 72 / INCH
"""Points in a millimetre."""
LONGEST: Final = 14400
"""The longest side of a page in its units, which are larger than a point where this is not enough (ISO 32000-1, annex C)."""
MARK_LENGTH, MARK_GAP, MARK_WIDTH = 5.0, 3.0, 0.25
"""The length of crop marks and their least distance from the trimmed print in millimetres, and their width in points."""
PRINTER: Final = b"prtr"
"""The class of the profiles that an output intent may have."""
CLAIM: Final = """
<xmp:CreateDate>{0}</xmp:CreateDate><xmp:ModifyDate>{0}</xmp:ModifyDate><xmp:MetadataDate>{0}</xmp:MetadataDate>
<pdfxid:GTS_PDFXVersion>PDF/X-4</pdfxid:GTS_PDFXVersion>"""
"""What only PDF/X asks for; without dates equal pictures are equal files."""
DESCRIPTION: Final = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmlns:pdf="http://ns.adobe.com/pdf/1.3/"
 xmlns:pdfxid="http://www.npes.org/pdfx/ns/id/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/">
<dc:format>application/pdf</dc:format>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li></rdf:Alt></dc:title>
<xmp:CreatorTool>{program}</xmp:CreatorTool>
<xmpMM:DocumentID>uuid:{number}</xmpMM:DocumentID><xmpMM:VersionID>1</xmpMM:VersionID>
<xmpMM:RenditionClass>default</xmpMM:RenditionClass>
<pdf:Producer>{program}</pdf:Producer><pdf:Trapped>False</pdf:Trapped>{claim}{credits}
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
"""XMP with what PDF/X-4 asks for (ISO 15930-7, 6.5)."""
CATALOG, PAGES, PAGE, CONTENT, METADATA, INFO, PICTURE, LENGTH, PROFILE = range(1, 10)
"""The numbers of the objects in the file, in their order."""


class _Objects:
    """Writes numbered objects to a stream, and the table of their places at the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.at = stream, 0
        self.places: list[int] = []
        self.write(b"%PDF-1.6\n%\xe2\xe3\xcf\xd3\n")

    def write(self, data: bytes) -> None:
        self.stream.write(data)
        self.at += len(data)

    def add(self, body: str | bytes, data: bytes | None = None) -> None:
        """Write the next object, a stream if there are `data`; `body` has its dictionary without << and >>, or another value."""
        self.begin()
        head = body if isinstance(body, bytes) else body.encode("latin-1")
        if data is None:
            self.write(head + b"\nendobj\n")
        else:
            self.write(b"<< " + head + b" /Length %d >>\nstream\n" % len(data) + data + b"\nendstream\nendobj\n")

    def begin(self) -> None:
        self.places.append(self.at)
        self.write(b"%d 0 obj\n" % len(self.places))

    def end(self, number: str) -> None:
        """Write the table of places and the trailer."""
        table = b"".join(b"%010d 00000 n \n" % place for place in self.places)
        start, count = self.at, len(self.places) + 1
        trailer = f"trailer\n<< /Size {count} /Root {CATALOG} 0 R /Info {INFO} 0 R /ID [<{number}> <{number}>] >>\n"
        self.write(b"xref\n0 %d\n0000000000 65535 f \n" % count + table + trailer.encode() + b"startxref\n%d\n%%%%EOF\n" % start)


def encode(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Write a PDF; its metadata are in the document information."""
    height, width = pixels.shape[:2]
    dpi = encoding.dpi
    sheet = encoding.sheet or Sheet(width / dpi * INCH, height / dpi * INCH, 0.0, dpi)
    claims = encoding.cmyk and encoding.profile[12:16] == PRINTER
    number = uuid.uuid5(uuid.NAMESPACE_URL, repr((pixels.shape, sheet, sorted(encoding.metadata.items()))))
    objects = _Objects(stream)
    intent = ""
    if claims:
        name = _text(profile_name(encoding.profile))
        intent = (
            f" /OutputIntents [<< /Type /OutputIntent /S /GTS_PDFX /OutputConditionIdentifier {name} /Info {name}"
            f" /DestOutputProfile {PROFILE} 0 R >>]"
        )
    objects.add(f"<< /Type /Catalog /Pages {PAGES} 0 R /Metadata {METADATA} 0 R{intent} >>")
    objects.add(f"<< /Type /Pages /Kids [{PAGE} 0 R] /Count 1 >>")
    page, content = _page(sheet, crop_marks=encoding.crop_marks, cmyk=encoding.cmyk)
    objects.add(page)
    objects.add("", content.encode())
    xmp, info = _about(encoding, number, claims=claims)
    objects.add("/Type /Metadata /Subtype /XML", xmp)
    objects.add(info)
    objects.begin()
    channels = 4 if encoding.cmyk else 3
    space = "/DeviceCMYK" if encoding.cmyk else f"[/ICCBased {PROFILE} 0 R]"
    head = (
        f"<< /Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace {space} /BitsPerComponent 8"
        f" /Filter /FlateDecode /DecodeParms << /Predictor 15 /Colors {channels} /Columns {width} >> /Length {LENGTH} 0 R >>"
    )
    objects.write(head.encode() + b"\nstream\n")
    start = objects.at
    for data in _packed(pixels, encoding):
        objects.write(data)
    length = objects.at - start
    objects.write(b"\nendstream\nendobj\n")
    objects.add(str(length))
    objects.add(f"/N {channels} /Filter /FlateDecode", zlib.compress(encoding.profile, 9))
    objects.end(number.hex)


def _packed(pixels: Array, encoding: Encoding) -> Iterator[bytes]:
    """Yield the data of the picture."""
    packer = zlib.compressobj(6)
    for rows in filtered_rows(pixels, encoding, np.uint8):
        yield packer.compress(rows)
    yield packer.flush()


def _page(sheet: Sheet, *, crop_marks: bool, cmyk: bool) -> tuple[str, str]:
    """Return the dictionary of the page and its content."""
    gap = max(sheet.bleed, MARK_GAP)
    edge = gap + MARK_LENGTH if crop_marks else sheet.bleed  # from the trimmed print to the edge of the page, in mm
    whole = POINTS * (max(sheet.width, sheet.height) + 2 * edge)
    unit = max(1, -(-whole // LONGEST))
    scale = POINTS / unit

    def box(margin: float) -> str:
        """Return the rectangle so far outside of the trimmed print."""
        low = edge - margin
        corners = low, low, edge + sheet.width + margin, edge + sheet.height + margin
        return "[" + " ".join(f"{corner * scale:.5f}" for corner in corners) + "]"

    boxes = f"/MediaBox {box(edge)} /BleedBox {box(sheet.bleed)} /TrimBox {box(0.0)}"
    width, height = ((side + 2 * sheet.bleed) * scale for side in (sheet.width, sheet.height))
    corner = (edge - sheet.bleed) * scale
    content = f"q {width:.5f} 0 0 {height:.5f} {corner:.5f} {corner:.5f} cm /Picture Do Q\n"
    spaces = ""
    if crop_marks:
        other, none, full = ("/DeviceCMYK", "0 0 0 0", "1 1 1 1") if cmyk else ("/DeviceGray", "1", "0")
        tint = f"<< /FunctionType 2 /Domain [0 1] /C0 [{none}] /C1 [{full}] /N 1 >>"
        spaces = f" /ColorSpace << /Registration [/Separation /All {other} {tint}] >>"
        content += f"q /Registration CS 1 SCN {MARK_WIDTH / unit:.5f} w\n{_marks(sheet, edge, gap, scale)}S Q\n"
    larger = f" /UserUnit {unit:g}" if unit > 1 else ""
    resources = f"<< /XObject << /Picture {PICTURE} 0 R >>{spaces} >>"
    page = f"<< /Type /Page /Parent {PAGES} 0 R {boxes}{larger} /Resources {resources} /Contents {CONTENT} 0 R >>"
    return page, content


def _marks(sheet: Sheet, edge: float, gap: float, scale: float) -> str:
    """Return the paths of the eight crop marks; `edge` is the distance of the trimmed print from the edge of the page in mm."""
    lines = []
    for x, outwards in ((edge, -1), (edge + sheet.width, 1)):
        for y, upwards in ((edge, -1), (edge + sheet.height, 1)):
            for dx, dy in ((outwards, 0), (0, upwards)):
                ends = [(x + dx * far, y + dy * far) for far in (gap, gap + MARK_LENGTH)]
                (x1, y1), (x2, y2) = ((a * scale, b * scale) for a, b in ends)
                lines.append(f"{x1:.5f} {y1:.5f} m {x2:.5f} {y2:.5f} l\n")
    return "".join(lines)


def _about(encoding: Encoding, number: uuid.UUID, *, claims: bool) -> tuple[bytes, str]:
    """Return the XMP and the document information of a file, which agree."""
    program, credits = encoding.metadata.get("Software", "style_transfer"), encoding.credits or Credits()
    title = credits.title or "Picture"
    info = f"<< /Title {_text(title)} /Creator {_text(program)} /Producer {_text(program)}"
    if credits.author:
        info += f" /Author {_text(credits.author)}"
    claim = ""
    if claims:
        now = time.gmtime()
        claim = CLAIM.format(time.strftime("%Y-%m-%dT%H:%M:%SZ", now))
        date = time.strftime("(D:%Y%m%d%H%M%SZ)", now)
        info += f" /CreationDate {date} /ModDate {date}"
    shown = properties(dataclasses.replace(credits, title=""))
    xmp = DESCRIPTION.format(title=escape(title), program=escape(program), number=number, claim=claim, credits=shown)
    for name, value in encoding.metadata.items():
        if name != "Software":
            info += f" /{re.sub('[^A-Za-z0-9]', '_', name)} {_text(value)}"
    return xmp.encode("utf-8"), info + " /Trapped /False >>"


def _text(text: str) -> str:
    """Return a text string: ASCII as it is, and others in UTF-16."""
    if text.isascii() and text.isprintable():
        return "(" + re.sub(r"([\\()])", r"\\\1", text) + ")"
    return "<" + ("\ufeff" + text).encode("utf-16-be").hex() + ">"


def check(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Compare the places of all objects with the table at the end, and unpack the picture, whose checksum is in its data."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 1024))
    tail = stream.read()
    found = re.search(rb"startxref\n(\d+)\n%%EOF\n$", tail)
    if found is None:
        raise ValueError("the end read back differs from the one written")
    stream.seek(int(found[1]))
    places = [int(place) for place in re.findall(rb"(\d{10}) 00000 n ", stream.read())]
    for number, place in enumerate(places, 1):
        stream.seek(place)
        if stream.read(16).split(b"\n")[0] != b"%d 0 obj" % number:
            raise ValueError(f"object {number} read back is not where the table has it")
    stream.seek(places[LENGTH - 1])
    remaining = int(stream.read(64).split(b"\n")[1])
    stream.seek(places[PICTURE - 1])
    stream.seek(places[PICTURE - 1] + stream.read(1024).index(b"\nstream\n") + 8)
    unpacker, count = zlib.decompressobj(), 0
    while remaining:
        data = stream.read(min(remaining, 1 << 20))
        remaining -= len(data) or remaining
        count += len(unpacker.decompress(data))
    height, width = pixels.shape[:2]
    if not unpacker.eof or count != height * (1 + width * (4 if encoding.cmyk else 3)):
        raise ValueError("the picture read back differs from the one written")


OUTPUT_FORMATS.register(".pdf")(OutputFormat("PDF", bits=8, alpha=False, encode=encode, check=check, cmyk=True, readable=False))
