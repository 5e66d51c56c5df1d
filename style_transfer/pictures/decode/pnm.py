"""PBM, PGM and PPM, binary and text, and PFM, decoded here, since Pillow reduces 16 bits to 8 and reads gray PFM only."""

from __future__ import annotations

import io
import re
from typing import BinaryIO, Final

import numpy as np

from ...registry import INPUT_FORMATS
from ..picture import Array, Samples
from .loading import InputFormat, Scope, check_size

CHANNELS: Final = {b"P1": 1, b"P2": 1, b"P3": 3, b"P4": 1, b"P5": 1, b"P6": 3, b"Pf": 1, b"PF": 3}
TEXT_BYTES: Final = 1 << 24
"""How much of a text file is converted at once."""
SPACE: Final = b" \t\n\v\f\r"


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a PBM, PGM, PPM or PFM of up to 16 bits, or floating point."""
    kind = stream.read(2)
    width, height = _read_number(stream), _read_number(stream)
    check_size(width, height, name, max_pixels)
    shape = (height, width, CHANNELS[kind])
    space = "gray" if shape[2] == 1 else "rgb"
    if kind in (b"Pf", b"PF"):
        note = "floating-point samples without a colour profile: read as sRGB, not as linear light"
        return Samples(_read_floats(stream, shape), 1.0, space, notes=[note])
    if kind in (b"P1", b"P4"):
        bits = _read_text(stream, shape, 1, digits=True) if kind == b"P1" else _read_bits(stream, shape)
        return Samples(np.subtract(1, bits, out=bits), 1.0, space)  # 1 is black
    top = _read_number(stream)
    if not 0 < top < 65536:
        raise ValueError(f"largest value {top}")
    if kind in (b"P2", b"P3"):
        values = _read_text(stream, shape, top)
    else:
        values = np.frombuffer(_read_bytes(stream, shape, 2 if top > 255 else 1), ">u2" if top > 255 else "u1").reshape(shape)
    return Samples(values if top in (255, 65535) else np.minimum(values, top, out=values), float(top), space)


def _read_bytes(stream: BinaryIO, shape: tuple[int, int, int], width: int) -> bytearray:
    """Read samples of `width` bytes; raise ValueError, before anything is allocated, if the file is too short."""
    count, start = shape[0] * shape[1] * shape[2] * width, stream.tell()
    if stream.seek(0, io.SEEK_END) - start < count:
        raise ValueError("the file is shorter than its header says")
    stream.seek(start)
    data = bytearray(count)
    stream.readinto(data)  # type: ignore[attr-defined]  # files have it
    return data


def _read_bits(stream: BinaryIO, shape: tuple[int, int, int]) -> Array:
    """Read packed bits, whose rows begin at a byte."""
    row = -(-shape[1] // 8)
    packed = np.frombuffer(_read_bytes(stream, (shape[0], row, 1), 1), np.uint8).reshape(shape[0], row)
    return np.unpackbits(packed, axis=1, count=shape[1]).reshape(shape)


def _read_floats(stream: BinaryIO, shape: tuple[int, int, int]) -> Array:
    """Read floats from the bottom row up; the scale in the header multiplies them, and is negative for little endian."""
    text = stream.readline(64).strip()
    scale = float(text)
    if not np.isfinite(scale) or not scale:
        raise ValueError(f"scale {scale}")
    values = np.frombuffer(_read_bytes(stream, shape, 4), "<f4" if scale < 0 else ">f4").reshape(shape)[::-1]
    with np.errstate(over="ignore"):  # infinite values are refused later
        return values if abs(scale) == 1 else values * np.float32(abs(scale))


def _read_text(stream: BinaryIO, shape: tuple[int, int, int], top: int, *, digits: bool = False) -> Array:
    """Read numbers separated by whitespace, with comments, by blocks; `digits` are single digits, separated or not."""
    start = stream.tell()
    values = np.empty(shape[0] * shape[1] * shape[2], np.uint8 if top < 256 else np.uint16)
    if stream.seek(0, io.SEEK_END) - start < len(values):
        raise ValueError("the file is shorter than its header says")
    stream.seek(start)
    filled, rest = 0, b""
    while filled < len(values) and (more := stream.read(TEXT_BYTES)):
        block = rest + more
        end = len(block) if len(more) < TEXT_BYTES else max(block.rfind(b"\n"), block.rfind(b"\r")) + 1 or block.rfind(b" ") + 1
        block, rest = re.sub(rb"#[^\r\n]*", b"", block[:end]), block[end:]
        if block.translate(None, SPACE + b"0123456789"):
            raise ValueError("not a number")
        if digits:
            numbers = np.frombuffer(block.translate(None, SPACE), np.uint8) - 48
        else:
            numbers = np.fromstring(block.decode("ascii"), np.int64, sep=" ")
        numbers = numbers[: len(values) - filled] if block.strip() else numbers[:0]
        values[filled : filled + len(numbers)] = np.minimum(numbers, top)
        filled += len(numbers)
    if filled < len(values):
        raise ValueError("the file is shorter than its header says")
    return values.reshape(shape)


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


SCOPE: Final = Scope(
    samples="PBM, PGM and PPM of 1 to 16 bits, binary and text; PFM, gray and colour, in floating point",
    more=("PFM is read as sRGB, with a note, and multiplied by the scale in its header.",),
)

INPUT_FORMATS.register("PPM")(InputFormat(rb"P[1-6fF]", decode, scope=SCOPE))
