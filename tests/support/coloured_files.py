"""Files that state their colours without a profile of the usual place: EXIF, TIFF with EXIF, BMP of version 5."""

from __future__ import annotations

import struct


def exif_bytes(space: int, index: str | None) -> bytes:
    """An EXIF block with a ColorSpace and, in an IFD of its own, an interoperability index."""
    entries = [(0xA001, 3, 1, struct.pack("<HH", space, 0))]
    start = 8 + 2 + 12 + 4
    after = start + 2 + 12 * (1 + (index is not None)) + 4
    if index is not None:
        entries.append((0xA005, 4, 1, struct.pack("<I", after)))
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIII", 1, 0x8769, 4, 1, start, 0)
    data += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI", *e[:3]) + e[3] for e in entries) + bytes(4)
    if index is not None:
        data += struct.pack("<HHHI", 1, 1, 2, 4) + index.encode().ljust(4, b"\0") + bytes(4)
    return b"Exif\0\0" + data


def tiff_with_exif(space: int, index: str) -> bytes:
    """A TIFF of 16 x 16 pixels with the colour (100, 200, 90)."""
    pixels, (width, height) = bytes([100, 200, 90] * 256), (16, 16)
    tags = {256: width, 257: height, 258: 8, 262: 2, 273: 0, 277: 3, 278: height, 279: len(pixels), 34665: 0}
    tags[34665] = 8 + 2 + 12 * len(tags) + 4
    block = exif_bytes(space, index)[6 + 26 :]  # its Exif and interoperability IFDs, which lie at 26 there
    block = block.replace(struct.pack("<I", 26 + 30), struct.pack("<I", tags[34665] + 30))
    tags[273] = tags[34665] + len(block)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + block + pixels


def bmp(kind: bytes, numbers: bytes = bytes(48), more: bytes = b"", length: int | None = None) -> bytes:
    """A BMP of version 5 of 4 x 3 pixels with the colour (100, 200, 90), with data behind them that are a profile."""
    header = struct.pack("<IiiHHIIiiII", 124, 4, 3, 1, 24, 0, 36, 2835, 2835, 0, 0) + bytes(16) + kind + numbers
    header += struct.pack("<IIII", 4, 124 + 36, len(more) if length is None else length, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 124 + 36 + len(more), 0, 0, 138) + header + bytes([90, 200, 100] * 12) + more
