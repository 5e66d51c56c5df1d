"""Formats that Pillow decodes at full depth: JPEG, WebP, AVIF, GIF, BMP and TGA."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

from ...registry import INPUT_FORMATS
from ..picture import Samples
from ..pil import DESCRIPTION, parse_description, pillow_limits_off, samples_of
from .loading import InputFormat, check_size


@contextlib.contextmanager
def open_pillow(kind: str, stream: BinaryIO, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture with Pillow's decoder of the format `kind` and no other, check its size, and decode it."""
    with pillow_limits_off(), Image.open(stream, formats=[kind]) as image:
        check_size(image.width, image.height, name, max_pixels)
        image.load()
        yield image


def decode_pillow(kind: str, stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a picture with Pillow's decoder of the format `kind`."""
    with open_pillow(kind, stream, name, max_pixels) as image:
        return samples_of(image, name)


def exif_metadata(stream: BinaryIO, name: str) -> dict[str, str]:
    """Return the metadata in the EXIF ImageDescription of a JPEG or WebP."""
    with pillow_limits_off(), Image.open(stream, formats=["JPEG", "WEBP"]) as image:
        return parse_description(str(image.getexif().get(DESCRIPTION, "")))


def decode_jpeg(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a gray, RGB or CMYK JPEG; Pillow refuses truncated ones."""
    with open_pillow("JPEG", stream, name, max_pixels) as image:
        raw = samples_of(image, name)
        if image.mode == "CMYK" and "adobe" not in image.info:
            # Pillow inverts every CMYK JPEG, but only those with Adobe's marker are stored inverted.
            return dataclasses.replace(raw, values=255 - raw.values)
        return raw


def decode_webp(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a WebP, after a check of its header, since Pillow allocates the canvas on opening."""
    head = stream.read(30)
    if len(head) < 30:
        raise ValueError("no header")
    chunk = head[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_size(width, height, name, max_pixels)
    stream.seek(0)
    return decode_pillow("WEBP", stream, name, max_pixels)


def decode_avif(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode an AVIF at 8 bits, with a note if it has more."""
    raw = decode_pillow("AVIF", stream, name, max_pixels)
    stream.seek(0)
    head = stream.read(65536)
    at = head.find(b"av1C")  # the codec configuration; 0x40 means 10 or 12 bits
    if at >= 0 and at + 7 <= len(head) and head[at + 6] & 0x40:
        raw.notes.append("AVIF with more than 8 bits per channel is read with 8 bits; use 16-bit PNG or TIFF")
    return raw


INPUT_FORMATS.register("JPEG")(InputFormat(rb"\xff\xd8\xff", decode_jpeg, exif_metadata))
INPUT_FORMATS.register("WebP")(InputFormat(rb"RIFF.{4}WEBP", decode_webp, exif_metadata))
INPUT_FORMATS.register("AVIF")(InputFormat(rb".{4}ftypavi[fs]", decode_avif))
INPUT_FORMATS.register("GIF")(InputFormat(rb"GIF8[79]a", functools.partial(decode_pillow, "GIF")))
INPUT_FORMATS.register("BMP")(InputFormat(rb"BM", functools.partial(decode_pillow, "BMP")))
INPUT_FORMATS.register("TGA")(InputFormat(None, functools.partial(decode_pillow, "TGA"), suffix=".tga"))
