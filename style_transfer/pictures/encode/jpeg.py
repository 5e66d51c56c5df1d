"""JPEG with 8 bits per channel, quality 95, without chroma subsampling; and encoding with Pillow."""

from __future__ import annotations

import dataclasses
import functools
import io
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import Image

from ...registry import OUTPUT_FORMATS
from ..credits import xmp_packet
from ..picture import Array
from ..pil import pillow_limits_off, to_pil
from .saving import Encoding, OutputFormat

MAX_EXIF_BYTES: Final = 65_000
"""One APP1 segment has room for 65533 bytes."""


def encode(stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Write a JPEG, its metadata in EXIF; if they are too long, only `Software`."""
    exif = encoding.exif()
    if len(exif) > MAX_EXIF_BYTES:
        exif = dataclasses.replace(
            encoding, metadata={k: v[:1000] for k, v in encoding.metadata.items() if k == "Software"}
        ).exif()
    density = (max(1, round(encoding.dpi)),) * 2  # JFIF has whole numbers only; EXIF has the exact one
    options = {"dpi": density, "exif": exif, "icc_profile": encoding.profile}
    if encoding.credits is not None:
        options["xmp"] = xmp_packet(encoding.dpi, encoding.credits)
    stream.write(encode_with_pillow(to_pil(pixels, encoding.samples), "JPEG", quality=95, subsampling=0, **options))


def encode_jpeg(pixels: Array, quality: int = 95) -> bytes:
    """Return (height, width, 3) pixels, uint8 or floats in [0, 1], as a JPEG (4:4:4, no profile) for a live view.

    Pixels with a fourth channel, alpha, are composited on white.
    """
    if pixels.shape[2] == 4:
        white = 255 if pixels.dtype == np.uint8 else 1
        alpha = pixels[..., 3:] / np.float32(white)
        composite = pixels[..., :3] * alpha + white * (1 - alpha)
        pixels = np.rint(composite).astype(np.uint8) if white == 255 else composite
    image = Image.fromarray(pixels) if pixels.dtype == np.uint8 else to_pil(pixels)
    return encode_with_pillow(image, "JPEG", quality=quality, subsampling=0)


def encode_with_pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode a picture in memory, since Pillow's encoders do not notice a full disk when they write to a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def check_with_pillow(kind: str, stream: BinaryIO, pixels: Array, encoding: Encoding) -> None:
    """Raise ValueError or Pillow's exception unless a file of the format `kind` can be decoded and has the size of the pixels."""
    with pillow_limits_off(), Image.open(stream, formats=[kind]) as image:
        if image.size != (pixels.shape[1], pixels.shape[0]):
            raise ValueError(f"read back as {image.width} x {image.height}")
        image.load()


OUTPUT_FORMATS.register(".jpg", ".jpeg")(
    OutputFormat(
        "JPEG",
        bits=8,
        alpha=False,
        encode=encode,
        check=functools.partial(check_with_pillow, "JPEG"),
        max_side=65535,
        lossless=False,
    )
)
