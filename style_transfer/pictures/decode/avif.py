"""AVIF, decoded by Pillow, or by imagecodecs where Pillow's libavif is too strict."""

from __future__ import annotations

import re
from typing import BinaryIO, Final

import imagecodecs
import numpy as np

from ...registry import INPUT_FORMATS
from .. import signals
from ..picture import Samples
from .loading import InputFormat, Scope, check_size
from .pillow import decode_pillow


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode an AVIF at 8 bits, with a note if it has more."""
    head = stream.read(65536)
    stream.seek(0)
    try:
        raw = decode_pillow("AVIF", stream, name, max_pixels)
    except OSError:
        return _decode_leniently(stream, head, name, max_pixels)
    signal = _signal(head)
    if raw.icc is None and signal is not None:
        signals.apply(raw, signal)
    if _bits(head) > 8:
        raw.bits = f"{_bits(head)} bits, read with 8"
        raw.notes.append("AVIF with more than 8 bits per channel is read with 8 bits; use 16-bit PNG or TIFF")
    return raw


def _signal(head: bytes) -> signals.Signal | None:
    """Return the signal that a colour box (colr) of codes (nclx) states, None without one and for sRGB."""
    match = re.search(rb"colrnclx(..)(..)", head, re.DOTALL)
    if match is None:
        return None
    signal = signals.from_codes(*(int.from_bytes(code, "big") for code in match.groups()))
    return None if signal == signals.Signal(signals.SRGB) else signal


def _bits(head: bytes) -> int:
    """Return the bits per channel that the codec configuration (av1C) states."""
    at = head.find(b"av1C")
    flags = head[at + 6] if at >= 0 and at + 7 <= len(head) else 0
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _decode_leniently(stream: BinaryIO, head: bytes, name: str, max_pixels: int) -> Samples:
    """Decode a file that breaks a rule of the container, such as alpha without a size property of its own."""
    sizes = re.findall(rb"ispe.{4}(.{4})(.{4})", head, re.DOTALL)
    if not sizes:
        raise ValueError("it has no picture size")
    for width, height in sizes:
        check_size(int.from_bytes(width, "big"), int.from_bytes(height, "big"), name, max_pixels)
    stream.seek(0)
    values = np.asarray(imagecodecs.avif_decode(stream.read(), 0))
    values = values.reshape(*values.shape[:2], -1)
    white = 255.0 if values.dtype == np.uint8 else float(2 ** _bits(head) - 1)
    note = "AVIF that breaks a rule of the format: read without its colour profile and orientation"
    return Samples(values, white, "gray" if values.shape[2] <= 2 else "rgb", notes=[note])


SCOPE: Final = Scope(
    samples="gray or RGB of 8 bits; 10 and 12 bits are reduced to 8, with a note",
    colour="ICC profile, else the codes of the container (nclx), PQ and HLG with 203 cd/m2 as white",
    orientation="rotation and mirror of the container, or EXIF",
    alpha="straight",
    more=("A file that breaks a rule of the container, such as alpha without a size, is read with a note, without its profile.",),
)

INPUT_FORMATS.register("AVIF")(InputFormat(rb".{4}ftypavi[fs]", decode, scope=SCOPE))
