"""GIF, decoded by Pillow."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from ...registry import INPUT_FORMATS
from ..picture import Samples
from .loading import InputFormat, Scope, check_size
from .pillow import decode_pillow

EXTENSION, IMAGE = 0x21, 0x2C
"""The first bytes of blocks (GIF89a, sections 20 to 26)."""


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode the first image of a GIF; its size is checked before Pillow fills the screen that the header describes."""
    check_size(*_size(stream), name, max_pixels)
    stream.seek(0)
    return decode_pillow("GIF", stream, name, max_pixels)


def _size(stream: BinaryIO) -> tuple[int, int]:
    """Return the width and the height of the screen, extended to hold the first image. Raises struct.error for a cut file."""
    width, height, flags = struct.unpack("<6xHHB2x", stream.read(13))
    stream.seek(3 << (flags & 7) + 1 if flags & 0x80 else 0, 1)  # the global colour table
    while (block := stream.read(1)) == bytes([EXTENSION]):
        stream.seek(1, 1)  # its label
        while length := stream.read(1)[0]:
            stream.seek(length, 1)
    if block == bytes([IMAGE]):
        left, top, across, down = struct.unpack("<4H", stream.read(8))
        width, height = max(width, left + across), max(height, top + down)
    return width, height


SCOPE: Final = Scope(
    samples="palette of 8 bits",
    alpha="a transparent colour",
    more=("Of an animation the first frame is read, with a note.",),
)

INPUT_FORMATS.register("GIF")(InputFormat(rb"GIF8[79]a", decode, scope=SCOPE))
