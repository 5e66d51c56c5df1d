"""PPM, PGM, PBM and PFM: binary PPM and PGM are decoded here, since Pillow reduces 16-bit PPM to 8 bits, others by Pillow."""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np

from ...registry import INPUT_FORMATS
from ..picture import Samples
from .loading import InputFormat, check_size
from .pillow import decode_pillow


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a PBM, PGM, PPM or PFM; binary PGM and PPM at their own depth."""
    kind = stream.read(2)
    if kind not in (b"P5", b"P6"):
        stream.seek(0)
        return decode_pillow("PPM", stream, name, max_pixels)
    width, height, top = (_read_number(stream) for _ in range(3))
    check_size(width, height, name, max_pixels)
    if not 0 < top < 65536:
        raise ValueError(f"largest value {top}")
    channels = 3 if kind == b"P6" else 1
    dtype = np.dtype(">u2" if top > 255 else "u1")
    count = width * height * channels
    start = stream.tell()
    if stream.seek(0, io.SEEK_END) - start < count * dtype.itemsize:
        raise ValueError("the file is shorter than its header says")
    stream.seek(start)
    values = np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(height, width, channels)
    return Samples(np.minimum(values, top), float(top), "rgb" if channels == 3 else "gray")


def _read_number(stream: BinaryIO) -> int:
    """Read a number of the header and the whitespace character behind it, skipping whitespace and comments before it."""
    char = stream.read(1)
    while char.isspace() or char == b"#":
        if char == b"#":
            stream.readline(4096)
        char = stream.read(1)
    digits = b""
    while char.isdigit() and len(digits) < 10:
        digits, char = digits + char, stream.read(1)
    if not digits or not char.isspace():
        raise ValueError("unreadable header")
    return int(digits)


INPUT_FORMATS.register("PPM")(InputFormat(rb"P[1-6fF]", decode))
