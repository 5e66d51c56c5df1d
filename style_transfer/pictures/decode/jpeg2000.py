"""JPEG 2000: 8 bits decoded by Pillow, more by OpenJPEG (imagecodecs), and the ICC profile, which Pillow ignores."""

from __future__ import annotations

import dataclasses
import io
from typing import BinaryIO, Final

import imagecodecs
import numpy as np

from ...errors import ImageError
from ...registry import INPUT_FORMATS
from ..picture import Samples
from ..pil import samples_of
from .boxes import boxes, child
from .loading import InputFormat, Scope
from .pillow import open_pillow

CODESTREAM: Final = b"\xff\x4f\xff\x51"
LARGE: Final = 20_000_000
DENSEST: Final = 4096
"""Pixels in a byte, more than which no large picture holds; deflate reaches 1032 bytes in one at most."""


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a JPEG 2000 file (JP2) or codestream of 1 to 16 bits."""
    data = stream.read()
    _check_content(data, name)
    # Pillow allocates as many bytes as a box claims to have; read from memory, a box ends with the data.
    with open_pillow("JPEG2000", io.BytesIO(data), name, max_pixels) as image:
        raw = samples_of(image, name)
    header = child(data, b"jp2h")
    colours = [bytes(box) for kind, box in boxes(header) if kind == b"colr"]
    # A method, 2 or 3 for a profile, a precedence and an approximation, one byte each (ISO 15444-1, I.5.3.3).
    icc = next((box[3:] for box in colours if box[:1] in (b"\2", b"\3")), None)
    definitions = child(header, b"cdef")
    # A count, then a number, a type and a use of each channel, two bytes each; type 2 is alpha that colours are multiplied by.
    premultiplied = b"\0\2" in (definitions[at : at + 2] for at in range(4, len(definitions), 6))
    raw = dataclasses.replace(raw, icc=raw.icc or icc, premultiplied=premultiplied)
    depth = _depth(data)
    if depth is None:
        return raw
    raw.values = np.empty((0, 0, 0))  # frees Pillow's samples of 8 bits
    # The decoder applies a profile itself, unless it gets the codestream only.
    values = np.asarray(imagecodecs.jpeg2k_decode(data[data.find(CODESTREAM) :] if icc is not None else data))
    raw.values, raw.white = values.reshape(*values.shape[:2], -1), float(2**depth - 1)
    raw.space = "gray" if raw.values.shape[2] <= 2 else "cmyk" if raw.space == "cmyk" else "rgb"
    return raw


def _check_content(data: bytes, name: str) -> None:
    """Raise `ImageError` for a large picture of next to no data: OpenJPEG allocates whole tiles before it reads any."""
    at = data.find(CODESTREAM) + 8
    if at < 8 or at + 16 > len(data):
        return
    right, bottom, left, top = (int.from_bytes(data[place : place + 4], "big") for place in range(at, at + 16, 4))
    width, height = right - left, bottom - top
    if width * height > max(LARGE, DENSEST * len(data)):
        raise ImageError(f"{name}: {width} x {height} pixels in {len(data)} bytes cannot be a picture; save it as PNG or TIFF")


def _depth(data: bytes) -> int | None:
    """Return the bits of a channel of a file of more than 8 bits and at most 4 channels; None for other files."""
    at = data.find(CODESTREAM)
    if at < 0 or at + 43 > len(data):
        return None
    channels, depth = int.from_bytes(data[at + 40 : at + 42], "big"), data[at + 42]
    # The byte is bits - 1; 0x80 means signed.
    return None if depth & 0x80 or not 8 <= depth <= 15 or channels > 4 else depth + 1


SCOPE: Final = Scope(
    samples="gray, RGB or CMYK of 1 to 16 bits",
    colour="ICC profile",
    alpha="straight, or multiplied (type 2 in `cdef`): then colours are divided by it",
)

INPUT_FORMATS.register("JPEG2000")(InputFormat(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", decode, scope=SCOPE))
