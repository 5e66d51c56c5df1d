"""WebP with 8 bits per channel: quality 95, with colour at half the resolution, as lossy WebP always has it, or lossless."""

from __future__ import annotations

import functools
from typing import Any, BinaryIO

from ...registry import OUTPUT_FORMATS
from ..credits import xmp_packet
from ..picture import Array
from ..pil import to_pil
from .jpeg import check_with_pillow, encode_with_pillow
from .saving import Encoding, OutputFormat


def encode(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Write a WebP, its metadata in EXIF, and its resolution in EXIF and in XMP, since some programs read only the latter."""
    options: dict[str, Any] = {"lossless": encoding.lossless, "exact": encoding.lossless or pixels.shape[2] == 4}
    options |= {"quality": 75 if encoding.lossless else 95, "method": 4}  # without loss the quality is the effort
    options |= {"exif": encoding.exif(), "xmp": xmp_packet(encoding.dpi, encoding.credits)}
    stream.write(encode_with_pillow(to_pil(pixels, encoding.samples), "WEBP", icc_profile=encoding.profile, **options))


OUTPUT_FORMATS.register(".webp")(
    OutputFormat(
        "WebP",
        bits=8,
        alpha=True,
        encode=encode,
        check=functools.partial(check_with_pillow, "WEBP"),
        max_side=16383,
        halves_colour=True,
    )
)
