"""PNG with 16 bits per channel, written in strips, which Pillow cannot."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np

from ...registry import OUTPUT_FORMATS
from ..credits import XMP_KEY, xmp_packet
from ..icc import written_profile
from ..picture import Array, check_pixels, in_order, quantize
from .saving import Encoding, OutputFormat

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
STRIP_ROWS: Final = 64
COLOUR_TYPES: Final = {3: 2, 4: 6}
"""The colour type of a PNG by its channels: RGB, RGBA."""


def encode_png(stream: BinaryIO, pixels: Array) -> None:
    """Write (height, width, 3 or 4) pixels in [0, 1] to a stream as a PNG with 16 bits per channel and an sRGB profile."""
    check_pixels(pixels)
    encode(stream, pixels, Encoding())


def encode(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Write a PNG, its metadata as international texts (iTXt)."""
    height, width, channels = pixels.shape
    stream.write(SIGNATURE)
    stream.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)))
    name = b"sRGB" if encoding.profile == written_profile() else b"ICC profile"
    stream.write(_chunk(b"iCCP", name + b"\0\0" + zlib.compress(encoding.profile, 9)))
    per_meter = round(encoding.dpi / 0.0254)
    stream.write(_chunk(b"pHYs", struct.pack(">IIB", per_meter, per_meter, 1)))
    for key, value in encoding.metadata.items():
        stream.write(_chunk(b"iTXt", key.encode("ascii") + b"\0\0\0\0\0" + value.encode("utf-8")))
    if encoding.credits is not None:
        packet = xmp_packet(encoding.dpi, encoding.credits)
        stream.write(_chunk(b"iTXt", XMP_KEY.encode("ascii") + b"\0\0\0\0\0" + packet))
    packer = zlib.compressobj(6)
    packed = itertools.chain(map(packer.compress, filtered_rows(pixels, encoding, np.uint16)), map(packer.flush, [zlib.Z_FINISH]))
    for data in packed:
        for at in range(0, len(data), 1 << 20):
            stream.write(_chunk(b"IDAT", data[at : at + (1 << 20)]))
    stream.write(_chunk(b"IEND", b""))


def check(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Compare the header of a written file, and the checksum of its last data."""
    height, width, channels = pixels.shape
    head = stream.read(26)
    if head[:8] != SIGNATURE or struct.unpack(">IIBB", head[16:26]) != (width, height, 16, COLOUR_TYPES[channels]):
        raise ValueError("the header read back differs from the one written")
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        stream.seek(at)
        length, kind = struct.unpack(">I4s", stream.read(8))
        if kind in (b"IDAT", b"IEND"):
            body = stream.read(length)
            if stream.read(4) != struct.pack(">I", zlib.crc32(kind + body)):
                raise ValueError("the data read back differ from those written")
        at += 12 + length


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filtered_rows(pixels: Array, encoding: Encoding, dtype: type[np.uint8] | type[np.uint16]) -> Iterator[bytes]:
    """Yield blocks of filtered scanlines of 8 or 16 bits.

    Each row has the filter (none, sub, up) with the smallest sum of absolute differences.

    The heuristic is that of the PNG specification (W3C PNG 12.7).
    """
    step = (4 if encoding.cmyk else pixels.shape[2]) * np.dtype(dtype).itemsize
    row_bytes = pixels.shape[1] * step
    above = np.zeros((1, row_bytes), np.uint8)

    def converted(top: int) -> Array:
        strip = quantize(encoding.samples(pixels[top : top + STRIP_ROWS]), dtype)
        return strip.astype(strip.dtype.newbyteorder(">"), order="C", copy=False)

    for strip in in_order(converted, range(0, pixels.shape[0], STRIP_ROWS)):
        rows = strip.view(np.uint8).reshape(-1, row_bytes)
        sub = rows.copy()
        sub[:, step:] -= rows[:, :-step]
        up = rows - np.concatenate([above, rows[:-1]])
        choices = np.stack([rows, sub, up])
        cost = np.abs(choices.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
        best = cost.argmin(axis=0)
        filtered = np.empty((rows.shape[0], 1 + row_bytes), np.uint8)
        filtered[:, 0] = best
        filtered[:, 1:] = choices[best, np.arange(rows.shape[0])]
        yield filtered.tobytes()
        above = rows[-1:]


OUTPUT_FORMATS.register(".png")(OutputFormat("PNG", bits=16, alpha=True, encode=encode, check=check))
