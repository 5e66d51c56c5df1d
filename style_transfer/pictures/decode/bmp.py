"""BMP, decoded by Pillow, except for bit fields, of which Pillow knows a few layouts only."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

import numpy as np

from ...registry import INPUT_FORMATS
from ..icc import MAX_ICC_BYTES
from ..picture import Array, Samples
from .loading import InputFormat, Scope, check_size
from .pillow import decode_pillow

BIT_FIELDS: Final = (3, 6)
"""Compressions that put masks of the channels into the header, without and with one for alpha."""
OS2_HEADER: Final = 64
"""The bytes of the header of OS/2, where the same numbers mean other compressions."""


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a BMP of 1 to 10 bits per channel."""
    head = stream.read(70).ljust(70, b"\0")
    start, size, width, height, _planes, bits, compression = struct.unpack_from("<IIiiHHI", head, 10)
    stream.seek(0)
    if bits not in (16, 32) or compression not in BIT_FIELDS or size < 40 or size == OS2_HEADER:
        raw = decode_pillow("BMP", stream, name, max_pixels)
        raw.icc = _profile(stream, size)
        return raw
    check_size(width, abs(height), name, max_pixels)
    masks = [mask for mask in struct.unpack_from("<4I", head, 54)[: 4 if compression == 6 or size >= 56 else 3] if mask]
    row = (width * bits + 31) // 32 * 4
    stream.seek(start)
    data = stream.read(row * abs(height))
    pixels = np.frombuffer(data, np.uint8).reshape(abs(height), row).view(f"<u{bits // 8}")[:, :width]
    values, white = _channels(pixels if height < 0 else pixels[::-1], masks)
    return Samples(
        values, white, "rgb", _profile(stream, size), bits=f"{', '.join(str(mask.bit_count()) for mask in masks)} bits"
    )


def _profile(stream: BinaryIO, size: int) -> bytes | None:
    """Return the profile that a header of version 5, of `size` bytes, says to be in the file; empty if it is not all there."""
    stream.seek(14)
    head = stream.read(124)
    if size < 124 or len(head) < 124 or head[56:60] != b"DEBM":  # PROFILE_EMBEDDED, "MBED", as an integer
        return None
    offset, length = struct.unpack_from("<II", head, 112)
    stream.seek(14 + offset)
    found = stream.read(length) if length <= MAX_ICC_BYTES else b""
    return found if len(found) == length else b""


def _channels(pixels: Array, masks: list[int]) -> tuple[Array, float]:
    """Return the channels that masks select from integers, of 8 bits if all masks have 8, else scaled to 16, and their white."""
    widths = [mask // (mask & -mask) for mask in masks]
    dtype, white = (np.uint8, 255.0) if set(widths) == {255} else (np.uint16, 65535.0)
    values = np.empty((*pixels.shape, len(masks)), dtype)
    for channel, (mask, top) in enumerate(zip(masks, widths, strict=True)):
        field = (pixels & mask) // (mask & -mask)
        values[..., channel] = field if top == white else np.rint(field * (white / top))
    return values, white


SCOPE: Final = Scope(
    samples="RGB or palette of 1 to 8 bits per channel, and bit fields of any width",
    colour="ICC profile in a header of version 5",
    alpha="straight",
)

INPUT_FORMATS.register("BMP")(InputFormat(rb"BM", decode, scope=SCOPE))
