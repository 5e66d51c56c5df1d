"""WebP with 8 bits per channel and quality 95."""

from __future__ import annotations

import functools
from typing import BinaryIO

from ...registry import OUTPUT_FORMATS
from ..icc import written_profile
from ..picture import Array
from ..pil import exif_block, to_pil
from .jpeg import check_with_pillow, encode_with_pillow
from .saving import OutputFormat


def encode(stream: BinaryIO, pixels: Array, dpi: float, metadata: dict[str, str]) -> None:
    """Write a WebP, its metadata in EXIF."""
    options = {"exif": exif_block(dpi, metadata), "icc_profile": written_profile(), "exact": pixels.shape[2] == 4}
    stream.write(encode_with_pillow(to_pil(pixels), "WEBP", quality=95, method=4, **options))


OUTPUT_FORMATS.register(".webp")(
    OutputFormat("WebP", bits=8, alpha=True, encode=encode, check=functools.partial(check_with_pillow, "WEBP"), max_side=16383)
)
