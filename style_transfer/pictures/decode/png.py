"""PNG, decoded by libpng, since Pillow reduces 16-bit RGB to 8 bits silently."""

from __future__ import annotations

import functools
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

import imagecodecs
import numpy as np

from ...registry import INPUT_FORMATS
from ..icc import MAX_ICC_BYTES
from ..picture import Samples
from ..pil import exif_orientation, parse_exif
from .loading import InputFormat, check_size

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode a PNG of 1 to 16 bits."""
    head = stream.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height = struct.unpack(">II", head[16:24])
    check_size(width, height, name, max_pixels)
    stream.seek(0)
    data = stream.read()
    notes: list[str] = []
    icc: bytes | None = None
    orientation: object = None
    for kind, body in _chunks(data):
        if kind == b"iCCP" and icc is None:
            icc = _unpack_icc(bytes(body))
        elif kind == b"eXIf":
            orientation = exif_orientation(functools.partial(parse_exif, bytes(body)))
        elif kind == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            notes.append("animated PNG: only the first frame is used")
    values = np.asarray(imagecodecs.png_decode(data))
    values = values.reshape(height, width, -1)
    white = 65535.0 if values.dtype == np.uint16 else 255.0
    space = "gray" if values.shape[2] <= 2 else "rgb"
    return Samples(values, white, space, icc, orientation, notes)


def metadata(stream: BinaryIO, name: str) -> dict[str, str]:
    """Return the uncompressed international texts (iTXt) in a PNG."""
    texts = {}
    for kind, body in _chunks(stream.read()):
        key, _, rest = bytes(body).partition(b"\0")
        if kind == b"iTXt" and rest[:1] == b"\0":  # not compressed
            _language, _, rest = rest[2:].partition(b"\0")
            _translated, _, text = rest.partition(b"\0")
            texts[key.decode("latin-1")] = text.decode("utf-8", "replace")
    return texts


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (type, body) of every chunk up to IEND; raise ValueError where the file ends before that."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 12 <= len(view):
        length, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        if at + 12 + length > len(view):
            break
        yield kind, view[at + 8 : at + 8 + length]
        if kind == b"IEND":
            return
        at += 12 + length
    raise ValueError("the file ends before its last chunk")


def _unpack_icc(body: bytes) -> bytes:
    """Return the profile in an iCCP chunk; empty, hence a broken profile, if it is damaged or larger than MAX_ICC_BYTES."""
    _, _, packed = body.partition(b"\0")
    unzip = zlib.decompressobj()
    try:
        profile = unzip.decompress(packed[1:], MAX_ICC_BYTES)
    except zlib.error:
        return b""
    return profile if unzip.eof else b""


INPUT_FORMATS.register("PNG")(InputFormat(re.escape(SIGNATURE), decode, metadata))
