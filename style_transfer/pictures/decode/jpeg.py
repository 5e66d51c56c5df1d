"""JPEG: 8 bits decoded by Pillow, other depths and lossless files by libjpeg-turbo (imagecodecs)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
from typing import BinaryIO, Final

import imagecodecs
import numpy as np

from ...errors import ImageError
from ...registry import INPUT_FORMATS
from ..picture import Mapped, Samples
from ..pil import exif_orientation, exif_profile, parse_exif, samples_of
from .loading import InputFormat, Scope, check_size
from .pillow import exif_metadata, open_pillow

FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers of frame headers (ITU-T T.81, table B.1; T.87 for JPEG-LS)."""
LOSSLESS, SCAN, APP1, APP2, APP14 = 0xC3, 0xDA, 0xE1, 0xE2, 0xEE
ALONE: Final = frozenset([0x01, *range(0xD0, 0xDA)])
"""Markers without a segment."""
UNSUPPORTED: Final = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG"),
    0xCB: "lossless JPEG with arithmetic coding",
    0xF7: "JPEG-LS",
}
END: Final = b"\xff\xd9"
MORE_DATA: Final = b"\x55" * 32 + b"".join(bytes([0xFF, marker]) + b"\x55" * 32 for marker in range(0xD0, 0xD8))
"""Data, also behind each restart marker: a decoder that lacks data uses them, and another ignores them."""


@dataclasses.dataclass
class _Header:
    """What a JPEG file says before its first scan, which begins at `end`; `icc` are parts of a profile by number."""

    frame: int = 0
    precision: int = 0
    width: int = 0
    height: int = 0
    adobe: bool = False
    exif: bytes | None = None
    icc: dict[int, bytes] = dataclasses.field(default_factory=dict)
    icc_parts: int = 0
    end: int = 0

    def add(self, marker: int, body: bytes) -> None:
        """Take over what the segment of a marker says."""
        if marker in FRAMES and len(body) >= 5 and not self.frame:
            self.frame, self.precision = marker, body[0]
            self.height, self.width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        elif marker == APP1 and body.startswith(b"Exif\0\0") and self.exif is None:
            self.exif = body
        elif marker == APP2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            self.icc.setdefault(body[12], body[14:])
            self.icc_parts = max(self.icc_parts, body[13])
        elif marker == APP14 and body.startswith(b"Adobe"):
            self.adobe = True

    def profile(self) -> bytes | None:
        """Return the ICC profile; None without one, empty, hence a broken one, if one of its parts is missing."""
        if len(self.icc) == 1 and self.icc_parts <= 1:  # some programs number the only part 0
            return next(iter(self.icc.values()))
        parts = [self.icc.get(number) for number in range(1, self.icc_parts + 1)]
        return None if not self.icc else b"" if None in parts else b"".join(part for part in parts if part)


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a gray, RGB or CMYK JPEG of 2 to 16 bits; one that lacks only its end marker adds a note."""
    data = stream.read()
    header = _read_header(data)
    check_size(header.width, header.height, name, max_pixels)
    if header.frame in UNSUPPORTED:
        raise ImageError(f"{name}: {UNSUPPORTED[header.frame]} is not supported; save it as baseline JPEG, PNG or TIFF")
    ordinary = header.precision == 8 and header.frame != LOSSLESS
    decoder = functools.partial(_decode_pillow if ordinary else _decode_deep, header=header, name=name, max_pixels=max_pixels)
    if data.find(END, header.end) >= 0:
        raw = decoder(data)
    else:
        data = data.rstrip(b"\xff")  # the first byte of the end marker
        expected = _digest(decoder(data + END))
        raw = decoder(data + MORE_DATA + END)
        if _digest(raw) != expected:
            raise ValueError("the file ends before its last pixels")
        raw.notes.append("JPEG without an end marker, perhaps cut: all pixels could be read")
    raw.icc = header.profile()
    return raw


def _digest(raw: Samples) -> bytes:
    """Return a hash of all samples, so that two decodings can be compared without both in memory."""
    hasher = hashlib.sha256()
    for block in raw.blocks():
        hasher.update(block.tobytes())
    return hasher.digest()


def _read_header(data: bytes) -> _Header:
    """Read the segments before the first scan; raise ValueError without a frame header."""
    header, at = _Header(), 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker in (0, 0xFF) or marker in ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        header.end = at + 2 + length
        if marker == SCAN:
            break
        header.add(marker, data[at + 4 : header.end])
        at = header.end
    if not header.frame:
        raise ValueError("no frame header")
    return header


def _decode_pillow(data: bytes, header: _Header, name: str, max_pixels: int) -> Samples:
    with open_pillow("JPEG", io.BytesIO(data), name, max_pixels) as image:
        raw = samples_of(image, name)
    if raw.space == "cmyk" and not header.adobe:
        # Pillow inverts every CMYK JPEG, but only those with Adobe's marker are stored inverted.
        raw.values = Mapped(raw.values, functools.partial(np.subtract, 255))
    return raw


def _decode_deep(data: bytes, header: _Header, name: str, max_pixels: int) -> Samples:
    values = np.asarray(imagecodecs.jpeg8_decode(data))
    values = values.reshape(header.height, header.width, -1)
    white = 2**header.precision - 1
    if values.shape[2] == 4 and header.adobe:
        values = white - values
    raw = Samples(values, float(white), {1: "gray", 4: "cmyk"}.get(values.shape[2], "rgb"))
    if header.exif is not None:
        load = functools.partial(parse_exif, header.exif)
        raw.orientation, raw.exif_icc = exif_orientation(load), exif_profile(load)
    return raw


SCOPE: Final = Scope(
    samples="gray, RGB or CMYK of 8 or 12 bits, lossless of 2 to 16 bits",
    colour="ICC profile, also in several parts, in any order, before or behind the frame header; else Adobe RGB if EXIF says so",
    orientation="EXIF, else XMP",
    more=(
        "CMYK is inverted if Adobe's marker is present, as Adobe stores it.",
        "A file without its end marker is read with a note if all its pixels can be decoded, else it is refused as truncated.",
        "JPEG-LS, hierarchical JPEG, and lossless JPEG with arithmetic coding are refused by name.",
    ),
)

INPUT_FORMATS.register("JPEG")(InputFormat(rb"\xff\xd8\xff", decode, exif_metadata, scope=SCOPE))
