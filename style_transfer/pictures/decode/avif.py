"""AVIF: 8 bits decoded by Pillow, more by libavif (imagecodecs), as are files for which Pillow's libavif is too strict."""

from __future__ import annotations

import io
import re
import struct
from fractions import Fraction
from typing import BinaryIO, Final

import imagecodecs
import numpy as np
from PIL import Image

from ...registry import INPUT_FORMATS
from .. import signals
from ..picture import Samples
from ..pil import description_of, pillow_limits_off, samples_of
from .boxes import boxes, item_properties
from .loading import InputFormat, Scope, check_size

UNSPECIFIED: Final = 2
"""The code of H.273 for what a file does not state."""
PROFILES: Final = (b"prof", b"rICC")
"""The types of colour boxes with an ICC profile."""


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode the primary picture of an AVIF of 8 to 12 bits."""
    data = stream.read()
    headers = b"".join(bytes(box) for kind, box in boxes(data) if kind in (b"meta", b"moov"))
    properties, depth = item_properties(data), _depth(headers)
    try:
        with pillow_limits_off(), Image.open(io.BytesIO(data), formats=["AVIF"]) as image:
            check_size(image.width, image.height, name, max_pixels)
            raw = samples_of(image, name) if depth == 8 else description_of(image)  # Pillow reduces more bits to 8
    except OSError:
        raw = Samples.empty()
        raw.notes.append("AVIF that breaks a rule of the format: read without its orientation")
    colours = properties.get(b"colr", [])
    raw.icc = raw.icc or next((box[4:] for box in colours if box[:4] in PROFILES), None)
    if 0 in raw.values.shape:
        _check_sizes(headers, name, max_pixels)
        values = np.asarray(imagecodecs.avif_decode(data, 0))
        raw.values = values = values.reshape(*values.shape[:2], -1)
        raw.white = 255.0 if values.dtype == np.uint8 else float(2**depth - 1)
        raw.space = "gray" if values.shape[2] <= 2 else "rgb"
    _crop(raw, properties.get(b"clap", []))
    codes = next((box[4:8] for box in colours if box[:4] == b"nclx" and len(box) >= 8), None)
    if codes is not None and raw.icc is None:
        _apply_codes(raw, *struct.unpack(">HH", codes))
    return raw


def _depth(headers: bytes) -> int:
    """Return the bits per channel that the codec configuration (av1C) states."""
    at = headers.find(b"av1C")
    flags = headers[at + 6] if at >= 0 and at + 7 <= len(headers) else 0
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _check_sizes(headers: bytes, name: str, max_pixels: int) -> None:
    """Check all sizes of pictures and their parts (ispe); raise ValueError without any."""
    sizes = re.findall(rb"ispe.{4}(.{4})(.{4})", headers, re.DOTALL)
    if not sizes:
        raise ValueError("it has no picture size")
    for width, height in sizes:
        check_size(int.from_bytes(width, "big"), int.from_bytes(height, "big"), name, max_pixels)


def _crop(raw: Samples, apertures: list[bytes]) -> None:
    """Crop samples to the clean aperture (ISO/IEC 14496-12, 12.1.4), which counts before rotation and mirror.

    An aperture that is not of whole pixels within the picture adds a note and is ignored.
    """
    if not apertures:
        return
    try:
        wide, high, right, down = (Fraction(*pair) for pair in struct.iter_unpack(">iI", apertures[0][:32]))
        height, width = raw.values.shape[:2]
        left, top = (width - wide) / 2 + right, (height - high) / 2 + down  # offsets are between the centres
        whole = all(number.denominator == 1 for number in (wide, high, left, top))
        inside = 0 <= left < left + wide <= width and 0 <= top < top + high <= height
    except (ValueError, ZeroDivisionError, struct.error):
        whole = inside = False
    if whole and inside:
        raw.values = raw.values[int(top) : int(top + high), int(left) : int(left + wide)]
    else:
        raw.notes.append("its crop (clap) is not of whole pixels within the picture: ignored")


def _apply_codes(raw: Samples, primaries: int, transfer: int) -> None:
    """Let samples have the colours of codes of H.273, where an unspecified one means sRGB's; unknown codes are a note."""
    if primaries == transfer == UNSPECIFIED:
        return
    signal = signals.from_codes(*(1 if code == UNSPECIFIED else code for code in (primaries, transfer)))
    if signal is None:
        raw.notes.append(f"its colour signal (nclx {primaries}-{transfer}) is not supported: ignored, sRGB assumed")
    else:
        signals.apply(raw, signal)


SCOPE: Final = Scope(
    samples="gray or RGB of 8, 10 or 12 bits",
    colour="ICC profile, else the codes of the container (nclx), PQ and HLG with 203 cd/m2 as white",
    orientation="rotation and mirror of the container, or EXIF",
    alpha="straight",
    more=(
        "A crop of the container (clap) is applied.",
        "A file that breaks a rule of the container, such as alpha without a size, is read with a note, without its orientation.",
    ),
)

INPUT_FORMATS.register("AVIF")(InputFormat(rb".{4}ftypavi[fs]", decode, scope=SCOPE))
