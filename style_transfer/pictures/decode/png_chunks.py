"""Chunks of PNG files: the walk through them, and the texts and profiles packed in them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Final

from ..icc import MAX_ICC_BYTES

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES: Final = 4 << 20
DECODED: Final = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"])
"""The chunks that decide the values of samples."""
_RAW_PROFILE: Final = re.compile(rb"\n(\w+)\n\s*(\d+)\n([0-9a-fA-F\s]+)$")


def chunks(data: bytearray) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (type, body) of every chunk up to IEND; raise ValueError where the file ends before that."""
    for at, length in _places(data):
        yield bytes(data[at + 4 : at + 8]), memoryview(data)[at + 8 : at + 8 + length]


def hide_others(data: bytearray) -> None:
    """Give chunks that are not `DECODED` a type that is ignored, since libpng refuses some and prints warnings about others."""
    for at, length in _places(data):
        if bytes(data[at + 4 : at + 8]) not in DECODED:
            data[at + 4 : at + 8] = b"skIp"  # ancillary, private
            end = at + 8 + length
            data[end : end + 4] = zlib.crc32(memoryview(data)[at + 4 : end]).to_bytes(4, "big")


def _places(data: bytearray) -> Iterator[tuple[int, int]]:
    """Yield the offset and the length of every chunk up to IEND; raise ValueError where the file ends before that."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        yield at, length
        if data[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + length
    raise ValueError("the file ends before its last chunk")


def unpack(packed: bytes, most: int) -> bytes:
    """Return deflated data; empty if they are damaged or have more bytes than `most`."""
    unzip = zlib.decompressobj()
    try:
        data = unzip.decompress(packed, most)
    except zlib.error:
        return b""
    return data if unzip.eof else b""


def icc_of(body: memoryview) -> bytes:
    """Return the profile in an iCCP chunk; empty, hence a broken profile, if it is damaged or larger than MAX_ICC_BYTES."""
    return unpack(bytes(body).partition(b"\0")[2][1:], MAX_ICC_BYTES)


def text_of(kind: bytes, body: memoryview) -> tuple[str, bytes]:
    """Return the keyword and the text of a tEXt, zTXt or iTXt chunk; an empty text if it is damaged or too long."""
    key, _, text = bytes(body).partition(b"\0")
    packed = kind == b"zTXt"
    if packed:
        text = text[1:]  # the method of compression, always 0
    elif kind == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].partition(b"\0")[2].partition(b"\0")[2]
    return key.decode("latin-1"), unpack(text, MAX_TEXT_BYTES) if packed else text


def raw_profile(text: bytes) -> bytes | None:
    """Return the data in a text "Raw profile type ...", as ImageMagick writes it: a name, a length, hexadecimal digits."""
    match = _RAW_PROFILE.search(text.strip(b" \0\r"))
    digits = b"".join(match[3].split()) if match else b""
    data = bytes.fromhex(digits.decode("ascii")) if digits and len(digits) % 2 == 0 else b""
    return data if match and len(data) == int(match[2]) else None
