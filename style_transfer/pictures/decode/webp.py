"""WebP: still pictures decoded by libwebp (imagecodecs) in the memory of their samples, animations by Pillow."""

from __future__ import annotations

import io
from typing import BinaryIO, Final

import imagecodecs
from PIL import Image

from ...registry import INPUT_FORMATS
from ..picture import Samples
from ..pil import description_of, pillow_limits_off, samples_of
from .loading import InputFormat, Scope, check_size
from .pillow import exif_metadata


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a WebP, after a check of its header, since Pillow allocates the canvas on opening."""
    head = stream.read(30)
    if len(head) < (25 if head[12:16] == b"VP8L" else 30):
        raise ValueError("no header")
    chunk = head[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_size(width, height, name, max_pixels)
    stream.seek(0)
    data = stream.read()
    with pillow_limits_off(), Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
        check_size(image.width, image.height, name, max_pixels)
        raw = description_of(image)
        if not getattr(image, "is_animated", False):
            try:
                raw.values, raw.white = imagecodecs.webp_decode(data), 255.0
            except imagecodecs.WebpError:
                pass  # Pillow's error says what is wrong
            else:
                return raw
        return samples_of(image, name)


SCOPE: Final = Scope(
    samples="RGB of 8 bits, lossy or lossless",
    colour="ICC profile, else Adobe RGB if EXIF says so",
    orientation="EXIF, else XMP",
    alpha="straight",
    more=("Of an animation the first frame is read, with a note.",),
)

INPUT_FORMATS.register("WebP")(InputFormat(rb"RIFF.{4}WEBP", decode, exif_metadata, scope=SCOPE))
