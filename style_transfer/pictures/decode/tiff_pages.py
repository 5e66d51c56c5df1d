"""The directories of a TIFF file, read without a library: which page is the picture, and whether the file is a camera raw."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from ...errors import ImageError
from .loading import RAW_REFUSED

MAX_PAGES: Final = 1 << 16
MAX_PARSED, MAX_ENTRIES = 256, 1024
"""The most directories of the chain, and entries of each, that are read; behind those the chain is only followed."""
MAX_SUBDIRECTORIES: Final = 64
MAX_VALUES: Final = 64
"""The most values of a tag that are read."""
SUBFILE, PHOTOMETRIC, SUBDIRECTORIES, DNG_VERSION = 254, 262, 330, 50706
REDUCED, MASK = 1, 4
"""Bits of NewSubfileType: a smaller version of another picture, a transparency mask of another picture."""
SENSOR_DATA: Final = frozenset([32803, 34892])
"""Photometric interpretations of camera raw data: colour filter array, and LinearRaw of DNG."""
INTEGERS: Final = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of unsigned integers: struct's letter by TIFF's number."""


@dataclass(frozen=True)
class Pages:
    """The pages of a TIFF: how many full-size pictures, the number of the first one, and a problem behind it, or ""."""

    count: int
    first: int
    problem: str


@dataclass
class _Directory:
    """Tags with unsigned integers, and the offset of the next directory: None if the file ends before it, 0 behind the last."""

    tags: dict[int, tuple[int, ...]] = field(default_factory=dict)
    following: int | None = None

    @property
    def is_picture(self) -> bool:
        return not self.tags.get(SUBFILE, (0,))[0] & (REDUCED | MASK)

    @property
    def is_raw(self) -> bool:
        return DNG_VERSION in self.tags or self.tags.get(PHOTOMETRIC, (0,))[0] in SENSOR_DATA


def read_pages(stream: BinaryIO, name: str) -> Pages:
    """Return what the directories of a file say; those behind the first one may be broken.

    Raises `ImageError` for a camera raw file, recognized by its first bytes, by its tags, or by having only pages of reduced
    size; ValueError if the first directory cannot be read.
    """
    reader = _Reader(stream)
    pages: list[_Directory] = []
    problem = ""
    for page in reader.chain():
        if isinstance(page, str):
            problem = page
        else:
            pages.append(page)
    if not pages:
        raise ValueError(problem or "it has no page")
    inner = [offset for page in pages for offset in page.tags.get(SUBDIRECTORIES, ())]
    parts = [*pages, *(page for page in map(reader.attempt, inner[:MAX_SUBDIRECTORIES]) if page is not None)]
    stream.seek(0)
    pictures = [number for number, page in enumerate(pages) if page.is_picture]
    if reader.is_raw or not pictures or any(part.is_raw for part in parts):
        raise ImageError(f"{name}: {RAW_REFUSED}")
    return Pages(len(pictures), pictures[0], problem)


class _Reader:
    """Reads directories of one TIFF or BigTIFF file."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        head = stream.read(12)
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = head[2:4] in (b"+\0", b"\0+")
        self.is_raw = head[8:10] == b"CR" or head[8:12] in (b"IIII", b"MMMM")  # Canon CR2, Phase One IIQ

    def chain(self) -> Iterator[_Directory | str]:
        """Yield the directories of the chain, and a text for what breaks it."""
        seen: set[int] = set()
        offset = self._number_at(8 if self.big else 4, "Q" if self.big else "I")
        while offset:
            if offset in seen:
                yield "its list of pages is a loop"
                return
            if len(seen) == MAX_PAGES:
                yield f"it has more than {MAX_PAGES} pages"
                return
            seen.add(offset)
            page = self.attempt(offset, MAX_ENTRIES if len(seen) <= MAX_PARSED else 0)
            if page is None:
                yield f"page {len(seen)} cannot be read"
                return
            yield page
            offset = page.following
        if offset is None:
            yield "its list of pages has no end"

    def attempt(self, offset: int, most: int = MAX_ENTRIES) -> _Directory | None:
        """Return the directory at an offset, with so many of its entries; None if it lies behind the end of the file."""
        count = self._number_at(offset, "Q" if self.big else "H")
        start, width = offset + (8 if self.big else 2), 20 if self.big else 12
        if count is None or start + count * width > self.size:
            return None
        self.stream.seek(start)
        entries = self.stream.read(min(count, most) * width)
        found = _Directory(following=self._number_at(start + count * width, "Q" if self.big else "I"))
        for at in range(0, len(entries), width):
            (tag,) = struct.unpack_from(self.order + "H", entries, at)
            if tag in (SUBFILE, PHOTOMETRIC, SUBDIRECTORIES, DNG_VERSION):
                found.tags[tag] = self._values(entries[at : at + width]) or (0,)
        return found

    def _values(self, entry: bytes) -> tuple[int, ...]:
        """Return the first unsigned integers of an entry; empty for other types."""
        kind, count = struct.unpack_from(self.order + ("HQ" if self.big else "HI"), entry, 2)
        letter = INTEGERS.get(kind, "")
        form = f"{self.order}{min(count, MAX_VALUES)}{letter}"
        if not letter or not count:
            return ()
        data = entry[12:] if self.big else entry[8:]
        if count * struct.calcsize(letter) > len(data):
            self.stream.seek(min(struct.unpack(self.order + ("Q" if self.big else "I"), data)[0], self.size))
            data = self.stream.read(struct.calcsize(form))
        return struct.unpack_from(form, data) if len(data) >= struct.calcsize(form) else ()

    def _number_at(self, offset: int, letter: str) -> int | None:
        """Return a number of the file; None behind its end."""
        self.stream.seek(min(offset, self.size))
        data = self.stream.read(struct.calcsize(letter))
        return struct.unpack(self.order + letter, data)[0] if len(data) == struct.calcsize(letter) else None
