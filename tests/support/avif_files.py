"""AVIF files with properties that encoders do not write."""

from __future__ import annotations

import struct


def with_property(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Return a file of Pillow or imagecodecs of one item, with a property added to it, and the sizes and offsets that follow."""
    box = struct.pack(">I4s", 8 + len(body), kind) + body
    ipma, ipco, iloc = (data.index(name) - 4 for name in (b"ipma", b"ipco", b"iloc"))
    count, at = 0, ipco + 8
    while at < ipma:
        count, at = count + 1, at + _size(data, at)
    properties = ipma + 18  # behind the size, the type, the version, the number of items and the item
    assert data[ipma + 12 : properties] == b"\0\0\0\1\0\1" and data[iloc + 12 : iloc + 16] == b"\x44\0\0\1"
    end = properties + 1 + data[properties]
    grown = bytearray(data)
    grown[end:end] = bytes([0x80 | count + 1])  # essential
    grown[properties] += 1
    grown[ipma:ipma] = box
    for name, more in ((b"meta", len(box) + 1), (b"iprp", len(box) + 1), (b"ipco", len(box))):
        _add(grown, data.index(name) - 4, more)
    _add(grown, grown.index(b"ipma") - 4, 1)
    _add(grown, iloc + 22, len(box) + 1)  # the offset of the item's data
    return bytes(grown)


def _size(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _add(data: bytearray, at: int, more: int) -> None:
    struct.pack_into(">I", data, at, _size(data, at) + more)
