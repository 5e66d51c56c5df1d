"""Decoding by Pillow, one of its decoders at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

from ..picture import Samples
from ..pil import DESCRIPTION, parse_description, pillow_limits_off, samples_of
from .loading import check_size


@contextlib.contextmanager
def open_pillow(kind: str, stream: BinaryIO, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture with Pillow's decoder of the format `kind` and no other, check its size, and decode it."""
    with pillow_limits_off(), Image.open(stream, formats=[kind]) as image:
        check_size(image.width, image.height, name, max_pixels)
        image.load()
        yield image


def decode_pillow(kind: str, stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a picture with Pillow's decoder of the format `kind`."""
    with open_pillow(kind, stream, name, max_pixels) as image:
        return samples_of(image, name)


def exif_metadata(stream: BinaryIO, name: str) -> dict[str, str]:
    """Return the metadata in the EXIF ImageDescription of a JPEG or WebP."""
    with pillow_limits_off(), Image.open(stream, formats=["JPEG", "WEBP"]) as image:
        return parse_description(str(image.getexif().get(DESCRIPTION, "")))
