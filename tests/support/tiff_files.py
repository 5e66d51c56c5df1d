"""TIFF files made by hand, with tags, types and chains of directories that no library writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

Tags = dict[int, tuple[str, Any]]

TYPES: Final = {"B": 1, "s": 2, "H": 3, "I": 4, "rational": 5, "b": 6, "f": 11, "d": 12}
STRIP_OFFSETS, STRIP_BYTES, SUBDIRECTORIES = 273, 279, 330


def encode(kind: str, values: Any) -> tuple[int, bytes]:
    """Return the number of values of a type, a key of `TYPES`, and their bytes."""
    if kind == "s":
        return len(values) + 1, values.encode() + b"\0"
    if kind == "rational":
        return len(values), b"".join(struct.pack("<II", *pair) for pair in values)
    return len(values), struct.pack(f"<{len(values)}{kind}", *values)


def directory(tags: Tags, at: int, following: int) -> bytes:
    """Return a directory that stands at an offset, with the values that do not fit into its entries behind it."""
    entries, behind = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        count, data = encode(kind, values)
        if len(data) > 4:
            place = at + 2 + 12 * len(tags) + 4 + len(behind)
            behind += data + bytes(len(data) % 2)
            data = struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, TYPES[kind], count) + data.ljust(4, b"\0")
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following) + behind


def tiff(*pages: tuple[Tags, bytes], following: int = 0, inner: Sequence[tuple[Tags, bytes]] = ()) -> bytes:
    """Return a file of pages, each with its tags and its only strip; `inner` are directories below the first page.

    `following` is the offset behind the last directory of the chain.
    """
    result = b"II*\0" + struct.pack("<I", 8)

    def add(tags: Tags, data: bytes, following: int | None, extra: Tags) -> None:
        nonlocal result
        tags = {**tags, STRIP_BYTES: ("I", [len(data)]), STRIP_OFFSETS: ("I", [0]), **extra}
        size = len(directory(tags, 0, 0))
        tags[STRIP_OFFSETS] = ("I", [len(result) + size])
        end = len(result) + size + len(data) + len(data) % 2
        result += directory(tags, len(result), end if following is None else following) + data + bytes(len(data) % 2)

    below: list[int] = []
    if inner:
        start = len(result)
        result += bytes(4)  # the first directory must not stand where its own offset is unknown
        for tags, data in inner:
            below.append(len(result))
            add(tags, data, 0, {})
        result = result[:4] + struct.pack("<I", len(result)) + result[8:start] + result[start:]
    for number, (tags, data) in enumerate(pages):
        extra: Tags = {SUBDIRECTORIES: ("I", below)} if below and number == 0 else {}
        add(tags, data, following if number == len(pages) - 1 else None, extra)
    return result


def page(width: int, height: int, channels: int, photometric: int, **more: Any) -> Tags:
    """Return the tags of an 8-bit page; `more` has tags by number with a leading "t", such as t274=("H", [6])."""
    return {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8] * channels),
        259: ("H", [1]),
        262: ("H", [photometric]),
        277: ("H", [channels]),
        278: ("I", [height]),
        **{int(name[1:]): value for name, value in more.items()},
    }
