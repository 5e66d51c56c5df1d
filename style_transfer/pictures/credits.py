"""What a photograph says of itself in EXIF, IPTC and XMP: author, title, copyright, date and place.

Only these are carried over to a result: no thumbnail, orientation, camera settings or history of editing, which would be wrong
there. Where the three disagree XMP counts, then IPTC, then EXIF, as the newer ones have more room and Unicode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, cast
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import Image, IptcImagePlugin
from PIL.ImageFile import ImageFile

from .pil import pillow_limits_off

XMP_KEY: Final = "XML:com.adobe.xmp"
"""The keyword of an XMP packet among the texts of a PNG."""
MAX_XMP_BYTES: Final = 1 << 20
MAX_TEXT: Final = 2000
"""The most characters of a text."""
NAMESPACES: Final = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/", "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/", "exif": "http://ns.adobe.com/exif/1.0/",
}  # fmt: skip
XMP_NAMES: Final = {
    "author": ("dc:creator",),
    "title": ("dc:title",),
    "description": ("dc:description",),
    "copyright": ("dc:rights",),
    "date": ("photoshop:DateCreated", "exif:DateTimeOriginal", "xmp:CreateDate"),
    "latitude": ("exif:GPSLatitude",),
    "longitude": ("exif:GPSLongitude",),
}
"""The XMP properties of each field, the first one found counts (XMP specification, part 2; IPTC photo metadata)."""
IPTC: Final = {"author": (2, 80), "title": (2, 5), "description": (2, 120), "copyright": (2, 116), "date": (2, 55)}
"""IPTC-IIM's numbers of record and data set."""
ARTIST, COPYRIGHT, DESCRIPTION, ORIGINAL_DATE, EXIF_IFD, GPS_IFD = 0x013B, 0x8298, 0x010E, 0x9003, 0x8769, 0x8825
TOOL_TEXTS: Final = ("OLYMPUS DIGITAL CAMERA", "SONY DSC")
"""What cameras write as a description of every photograph."""


@dataclass(frozen=True)
class Credits:
    """Author, title, description and copyright of a photograph, its date in ISO 8601, and its place as XMP has it: 52,31.2N."""

    author: str = ""
    title: str = ""
    description: str = ""
    copyright: str = ""
    date: str = ""
    latitude: str = ""
    longitude: str = ""

    def without_place(self) -> Credits:
        """Return the same without the place."""
        return replace(self, latitude="", longitude="")

    @property
    def found(self) -> list[str]:
        """The names of the fields that are not empty."""
        return [name for name, value in vars(self).items() if value]

    @property
    def exif_texts(self) -> dict[int, bytes]:
        """Author and copyright by their EXIF tags, as far as there are any."""
        texts = {ARTIST: self.author.encode(), COPYRIGHT: self.copyright.encode()}
        return {tag: text for tag, text in texts.items() if text}

    @property
    def exif_date(self) -> str:
        """The date as EXIF has it, or an empty text if it has no time."""
        day, _, time = self.date.partition("T")
        return f"{day.replace('-', ':')} {time[:8]}" if len(day) == 10 and len(time) >= 8 else ""


def read_credits(path: str | Path) -> Credits:
    """Return what a picture file says of itself; empty for a file without any, or of a kind that Pillow does not open."""
    found: dict[str, str] = {}
    try:
        with pillow_limits_off(), Image.open(path) as image:
            readers: list[Callable[[Image.Image], Mapping[str, str]]] = [_from_xmp, _from_iptc, _from_exif]
            for read in readers:
                with contextlib.suppress(Exception):  # Pillow and ElementTree raise many types for damaged blocks
                    for name, text in read(image).items():
                        if name not in found and (clean := " ".join(text.replace("\0", " ").split())[:MAX_TEXT]):
                            found[name] = clean
    except (OSError, ValueError, SyntaxError):
        return Credits()
    return Credits(**found)


def _from_xmp(image: Image.Image) -> dict[str, str]:
    data = image.info.get("xmp") or image.info.get(XMP_KEY) or b""
    data = data.encode("utf-8") if isinstance(data, str) else data
    if not data or len(data) > MAX_XMP_BYTES or b"<!" in data:  # a document type can define entities that grow without end
        return {}
    tree = ElementTree.fromstring(data.strip(b"\0 \n"))
    return {name: text for name, keys in XMP_NAMES.items() if (text := next(_properties(tree, keys), ""))}


def _properties(tree: ElementTree.Element, keys: tuple[str, ...]) -> Iterator[str]:
    """Yield the texts of properties, each an attribute of a description, or an element with a text or a list of texts."""
    for key in keys:
        prefix, _, name = key.partition(":")
        tag = f"{{{NAMESPACES[prefix]}}}{name}"
        for about in tree.iter(f"{{{NAMESPACES['rdf']}}}Description"):
            if about.get(tag):
                yield about.get(tag, "")
            for element in about.findall(tag):
                items = [item.text or "" for item in element.iter(f"{{{NAMESPACES['rdf']}}}li")]
                # creators are a list, and other texts are the same in several languages
                text = ", ".join(filter(None, items)) if name == "creator" else next(iter(items), element.text or "")
                if text.strip():
                    yield text


def _from_iptc(image: Image.Image) -> dict[str, str]:
    data: Mapping[Any, Any] = IptcImagePlugin.getiptcinfo(cast(ImageFile, image)) or {}
    found = {}
    for name, number in IPTC.items():
        values = data.get(number) or []
        texts = [_decoded(value) for value in (values if isinstance(values, list) else [values])]
        found[name] = ", ".join(texts)
    day = found["date"]
    found["date"] = f"{day[:4]}-{day[4:6]}-{day[6:8]}" if len(day) == 8 and day.isdecimal() else ""
    return found


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _from_exif(image: Image.Image) -> dict[str, str]:
    exif = image.getexif()
    names = {"author": ARTIST, "copyright": COPYRIGHT, "description": DESCRIPTION}
    found = {name: _repaired(str(exif.get(tag, ""))) for name, tag in names.items()}
    if found["description"].strip().startswith(("{", *TOOL_TEXTS)):  # of this program, or of a camera
        found["description"] = ""
    day, _, time = str(exif.get_ifd(EXIF_IFD).get(ORIGINAL_DATE, "")).strip("\0 ").partition(" ")
    if len(day) == 10 and day[:4].isdecimal():
        found["date"] = day.replace(":", "-") + (f"T{time}" if time else "")
    gps = exif.get_ifd(GPS_IFD)
    for name, side, place in (("latitude", 1, 2), ("longitude", 3, 4)):
        if side in gps and place in gps:
            degrees, minutes, seconds = (float(part) for part in gps[place])
            total = degrees + minutes / 60 + seconds / 3600
            found[name] = f"{int(total)},{(total - int(total)) * 60:.6f}{str(gps[side])[:1]}"
    return found


def _repaired(text: str) -> str:
    """Return a text that Pillow read as Latin-1, as the UTF-8 that it more often is."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def xmp_packet(dpi: float, credits: Credits | None = None) -> bytes:
    """Return an XMP packet with a resolution, a fraction of pixels per inch (XMP specification, part 2, 3.6), and credits."""
    fraction = Fraction(dpi).limit_denominator(10_000)
    density = f"{fraction.numerator}/{fraction.denominator}"
    facts = f' tiff:XResolution="{density}" tiff:YResolution="{density}" tiff:ResolutionUnit="2"'
    lists = properties(credits) if credits is not None else ""
    spaces = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items() if prefix != "rdf")
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{NAMESPACES["rdf"]}"><rdf:Description rdf:about=""{spaces}{facts}>{lists}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def properties(credits: Credits) -> str:
    """Return the XMP elements of credits, with the prefixes of `NAMESPACES`."""
    result = ""
    if credits.author:
        result += f"<dc:creator><rdf:Seq><rdf:li>{escape(credits.author)}</rdf:li></rdf:Seq></dc:creator>"
    for name in ("title", "description", "copyright"):
        if text := getattr(credits, name):
            tag = XMP_NAMES[name][0]
            result += f'<{tag}><rdf:Alt><rdf:li xml:lang="x-default">{escape(text)}</rdf:li></rdf:Alt></{tag}>'
    for name in ("date", "latitude", "longitude"):
        if text := getattr(credits, name):
            result += f"<{XMP_NAMES[name][0]}>{escape(text)}</{XMP_NAMES[name][0]}>"
    return result
