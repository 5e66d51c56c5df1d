"""AVIF, decoded by Pillow."""

from __future__ import annotations

from typing import BinaryIO

from ...registry import INPUT_FORMATS
from ..picture import Samples
from .loading import InputFormat
from .pillow import decode_pillow


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode an AVIF at 8 bits, with a note if it has more."""
    raw = decode_pillow("AVIF", stream, name, max_pixels)
    stream.seek(0)
    head = stream.read(65536)
    at = head.find(b"av1C")  # the codec configuration; 0x40 means 10 or 12 bits
    if at >= 0 and at + 7 <= len(head) and head[at + 6] & 0x40:
        raw.notes.append("AVIF with more than 8 bits per channel is read with 8 bits; use 16-bit PNG or TIFF")
    return raw


INPUT_FORMATS.register("AVIF")(InputFormat(rb".{4}ftypavi[fs]", decode))
