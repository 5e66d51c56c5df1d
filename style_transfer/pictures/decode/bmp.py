"""BMP, decoded by Pillow, except for bit fields, of which Pillow knows a few layouts only."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import BinaryIO, Final

import numpy as np

from ...registry import INPUT_FORMATS
from .. import signals
from ..icc import MAX_ICC_BYTES
from ..picture import Array, Mapped, Samples
from .loading import InputFormat, Scope, check_size
from .pillow import decode_pillow

BIT_FIELDS: Final = (3, 6)
"""Compressions that put masks of the channels into the header, without and with one for alpha."""
CALIBRATED: Final = bytes(4)
"""The colour space type LCS_CALIBRATED_RGB."""
V4_HEADER: Final = 108
V5_HEADER: Final = 124
OS2_HEADER: Final = 64
"""The bytes of the header of OS/2, where the same numbers mean other compressions."""


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a BMP of 1 to 10 bits per channel."""
    head = stream.read(14 + V5_HEADER).ljust(14 + V5_HEADER, b"\0")
    size, _width, _height, _planes, bits, compression = struct.unpack_from("<IiiHHI", head, 14)
    stream.seek(0)
    if bits not in (16, 32) or compression not in BIT_FIELDS or size < 40 or size == OS2_HEADER:
        raw = decode_pillow("BMP", stream, name, max_pixels)
    else:
        raw = _decode_fields(stream, head, name, max_pixels)
    if size >= V4_HEADER:
        _apply_colours(raw, stream, head[14 : 14 + size].ljust(V5_HEADER, b"\0"))
    return raw


def _decode_fields(stream: BinaryIO, head: bytes, name: str, max_pixels: int) -> Samples:
    start, size, width, height, _planes, bits, compression = struct.unpack_from("<IIiiHHI", head, 10)
    check_size(width, abs(height), name, max_pixels)
    masks = [mask for mask in struct.unpack_from("<4I", head, 54)[: 4 if compression == 6 or size >= 56 else 3] if mask]
    row = (width * bits + 31) // 32 * 4
    stream.seek(start)
    data = stream.read(row * abs(height))
    pixels = np.frombuffer(data, np.uint8).reshape(abs(height), row).view(f"<u{bits // 8}")[:, :width]
    function, white = _channels(masks)
    values = Mapped((pixels if height < 0 else pixels[::-1])[..., None], function)
    return Samples(values, white, "rgb", bits=f"{', '.join(str(mask.bit_count()) for mask in masks)} bits")


def _apply_colours(raw: Samples, stream: BinaryIO, header: bytes) -> None:
    """Let samples have the colours that a header of version 4 or 5 describes: by a profile, or by primaries and gamma.

    White is D65, since these headers do not state it. Gammas are exponents or, as ImageMagick writes them, their reciprocals.
    """
    kind, *numbers = struct.unpack_from("<4s9i3I", header, 56)
    if kind == b"DEBM":  # PROFILE_EMBEDDED, "MBED", as an integer
        offset, length = struct.unpack_from("<II", header, 112)
        stream.seek(14 + offset)
        profile = stream.read(length) if length <= MAX_ICC_BYTES else b""
        raw.icc = profile if len(profile) == length else b""
    elif kind == b"BGRs":
        signals.apply(raw, signals.Signal(signals.SRGB))
    elif kind == b"KNIL":  # PROFILE_LINKED
        raw.notes.append("its colour profile is in another file: ignored, sRGB assumed")
    elif kind == CALIBRATED and any(numbers[:9]):
        points = [(x / 2**30, y / 2**30) for x, y in zip(numbers[:9:3], numbers[1:9:3], strict=True)]
        gamma = sum(numbers[9:]) / 3 / 2**16
        try:
            signal = signals.from_numbers([*points, signals.D65], (max(gamma, 1 / gamma) if gamma else None))
        except ValueError:
            raw.notes.append("its primaries or its gamma cannot be right: ignored, sRGB assumed")
        else:
            signals.apply(raw, signal)


def _channels(masks: list[int]) -> tuple[Callable[[Array], Array], float]:
    """Return what selects the channels of masks from integers, and their white: of 8 bits if all masks have 8, else of 16."""
    widths = [mask // (mask & -mask) for mask in masks]
    dtype, white = (np.uint8, 255.0) if set(widths) == {255} else (np.uint16, 65535.0)

    def select(pixels: Array) -> Array:
        values = np.empty((*pixels.shape[:2], len(masks)), dtype)
        for channel, (mask, top) in enumerate(zip(masks, widths, strict=True)):
            field = (pixels[..., 0] & mask) // (mask & -mask)
            values[..., channel] = field if top == white else np.rint(field * (white / top))
        return values

    return select, white


SCOPE: Final = Scope(
    samples="RGB or palette of 1 to 8 bits per channel, and bit fields of any width",
    colour="ICC profile in a header of version 5, or primaries and gamma in one of version 4 or 5",
    alpha="straight",
)

INPUT_FORMATS.register("BMP")(InputFormat(rb"BM", decode, scope=SCOPE))
