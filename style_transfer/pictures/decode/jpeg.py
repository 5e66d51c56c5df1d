"""JPEG, decoded by Pillow."""

from __future__ import annotations

import dataclasses
from typing import BinaryIO

from ...registry import INPUT_FORMATS
from ..picture import Samples
from ..pil import samples_of
from .loading import InputFormat
from .pillow import exif_metadata, open_pillow


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a gray, RGB or CMYK JPEG; Pillow refuses truncated ones."""
    with open_pillow("JPEG", stream, name, max_pixels) as image:
        raw = samples_of(image, name)
        if image.mode == "CMYK" and "adobe" not in image.info:
            # Pillow inverts every CMYK JPEG, but only those with Adobe's marker are stored inverted.
            return dataclasses.replace(raw, values=255 - raw.values)
        return raw


INPUT_FORMATS.register("JPEG")(InputFormat(rb"\xff\xd8\xff", decode, exif_metadata))
