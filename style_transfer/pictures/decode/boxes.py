"""Boxes of the ISO base media file format (ISO/IEC 14496-12), of which JPEG 2000 and AVIF files are made."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

FULL: Final = 4
"""The bytes of version and flags, with which some boxes begin."""


def boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the types and contents of the boxes in a file or in a box, up to the first one that is truncated."""
    view, at = memoryview(data), 0
    while at + 8 <= len(view):
        length, head = int.from_bytes(view[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(view[at + 8 : at + 16], "big"), 16
        end = at + length if length else len(view)
        if end < at + head or end > len(view):
            return
        yield bytes(view[at + 4 : at + 8]), view[at + head : end]
        at = end


def child(data: bytes, name: bytes) -> bytes:
    """Return the content of the first box of a type; empty without one."""
    return next((bytes(content) for kind, content in boxes(data) if kind == name), b"")


def item_properties(data: bytes) -> dict[bytes, list[bytes]]:
    """Return the properties of the primary item of a file (ISO/IEC 23008-12, 9.3): their contents in order, by type.

    A property behind the first damaged association is left out.
    """
    meta = child(data, b"meta")[FULL:]
    primary, properties = child(meta, b"pitm"), child(meta, b"iprp")
    number = int.from_bytes(primary[FULL : FULL + (4 if primary[:1] == b"\1" else 2)], "big")
    stored = list(boxes(child(properties, b"ipco")))
    found: dict[bytes, list[bytes]] = {}
    for kind, body in boxes(properties):
        if kind == b"ipma":
            for item, index in _associations(bytes(body)):
                if item == number and 1 <= index <= len(stored):
                    name, content = stored[index - 1]
                    found.setdefault(name, []).append(bytes(content))
    return found


def _associations(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield (item, number of a property from 1) of an item property association box, up to where it is truncated."""
    wide_items, wide_numbers = body[:1] != b"\0", len(body) > 3 and bool(body[3] & 1)
    entry = struct.Struct(">IB" if wide_items else ">HB")
    number = struct.Struct(">H" if wide_numbers else ">B")
    at = FULL + 4
    for _ in range(int.from_bytes(body[FULL:at], "big")):
        if at + entry.size > len(body):
            return
        item, count = entry.unpack_from(body, at)
        at += entry.size
        for _ in range(count):
            if at + number.size > len(body):
                return
            yield item, number.unpack_from(body, at)[0] & (0x7FFF if wide_numbers else 0x7F)  # the highest bit: essential
            at += number.size
