"""Files of pictures made by hand, and checks of what is read from them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from style_transfer import pictures
from style_transfer.errors import ImageError
from support.profiles import Array


def noise(height: int, width: int, channels: int = 3, dtype: Any = np.uint16, seed: int = 0) -> Array:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype=dtype, endpoint=True)


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pil_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: Array, *chunks: tuple[bytes, bytes]) -> bytes:
    """Encode samples with libpng and put chunks behind the header."""
    data = bytes(imagecodecs.png_encode(samples))
    return data[:33] + b"".join(png_chunk(*c) for c in chunks) + data[33:]


def iccp(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"test\0\0" + zlib.compress(profile)


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    found, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def stored_as(upright: Array, orientation: int) -> Array:
    """Lay an upright picture out as EXIF 2.32 says: where row 0 and column 0 of the file belong."""
    height, width = upright.shape[:2]
    place = {
        1: lambda r, c: (r, c),  # row 0 is the top, column 0 the left
        2: lambda r, c: (r, width - 1 - c),  # top, right
        3: lambda r, c: (height - 1 - r, width - 1 - c),  # bottom, right
        4: lambda r, c: (height - 1 - r, c),  # bottom, left
        5: lambda r, c: (c, r),  # left, top
        6: lambda r, c: (c, width - 1 - r),  # right, top
        7: lambda r, c: (height - 1 - c, width - 1 - r),  # right, bottom
        8: lambda r, c: (height - 1 - c, r),  # left, bottom
    }[orientation]
    rows, columns = (height, width) if orientation < 5 else (width, height)
    return np.array([[upright[place(r, c)] for c in range(columns)] for r in range(rows)])


def close(actual: Array, expected: Array, tolerance: float) -> None:
    np.testing.assert_allclose(actual, np.broadcast_to(expected, actual.shape), rtol=0, atol=tolerance)


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(ImageError, match=match) as caught:
        pictures.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable() and path.name.isprintable() <= (path.name in message)
