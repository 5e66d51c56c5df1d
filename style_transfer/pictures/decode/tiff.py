"""TIFF and BigTIFF, decoded by tifffile, since Pillow reduces 16-bit RGB to 8 bits silently."""

from __future__ import annotations

import io
import math
import struct
from typing import Any, BinaryIO, Final

import numpy as np
import tifffile

from ...errors import ImageError
from ...files import shown
from ...registry import INPUT_FORMATS
from ..picture import CHANNELS, Array, Samples
from ..pil import ORIENTATION, parse_description
from .loading import InputFormat, check_size

MAX_PAGES: Final = 1 << 16
MAX_CHANNELS: Final = 32


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode the first page of a TIFF: gray, RGB, palette or CMYK, of unsigned integers or floats."""
    size = stream.seek(0, io.SEEK_END)
    pages = _count_pages(stream, name)
    notes = [f"TIFF with {pages} pages: only the first is used"] if pages > 1 else []
    with tifffile.TiffFile(stream) as file:
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage):
            raise ValueError("its first page cannot be read")
        check_size(page.imagewidth, page.imagelength, name, max_pixels)
        _check_layout(page, size, name, max_pixels)
        space, kind = _colour_space(page, name)
        values = np.asarray(page.asarray())
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            values = np.moveaxis(values.reshape(-1, page.imagelength, page.imagewidth), 0, -1)
        values = values.reshape(page.imagelength, page.imagewidth, -1)
        values, white = _decoded(page, values, kind, name)
        profile = page.iccprofile
        orientation = page.tags.valueof(ORIENTATION)
        alpha = page.extrasamples[:1] in ((1,), (2,)) or not page.extrasamples
        premultiplied = page.extrasamples[:1] == (1,)
    if values.shape[2] > CHANNELS[space] and not alpha:
        notes.append("extra channel (not alpha) ignored")
        values = values[..., : CHANNELS[space]]
    return Samples(values, white, space, profile, orientation, notes, premultiplied)


def metadata(stream: BinaryIO, name: str) -> dict[str, str]:
    """Return the metadata in the ImageDescription of the first page."""
    _count_pages(stream, name)
    with tifffile.TiffFile(stream) as file:
        return parse_description(str(file.pages.first.description))


def _count_pages(stream: BinaryIO, name: str) -> int:
    """Count the pages along their chain; raise `ImageError` for a loop, ValueError for a truncated chain."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(4)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    count_kind, offset_kind, entry_bytes = ("Q", "Q", 20) if big else ("H", "I", 12)

    def read(kind: str) -> int:
        data = stream.read(struct.calcsize(order + kind))
        if len(data) < struct.calcsize(order + kind):
            raise ValueError("a page lies behind the end of the file")
        number: int = struct.unpack(order + kind, data)[0]
        return number

    stream.seek(8 if big else 4)
    offset = read(offset_kind)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ImageError(f"{name}: damaged TIFF: its list of pages is a loop; export it again")
        seen.add(offset)
        if len(seen) > MAX_PAGES:
            raise ImageError(f"{name}: TIFF with more than {MAX_PAGES} pages; save one page by itself")
        stream.seek(min(offset, size))
        stream.seek(min(read(count_kind) * entry_bytes, size), io.SEEK_CUR)
        offset = read(offset_kind)
    if not seen:
        raise ValueError("it has no page")
    stream.seek(0)
    return len(seen)


def _check_layout(page: Any, size: int, name: str, max_pixels: int) -> None:
    """Refuse forged and truncated pages before anything is allocated for them."""
    if page.imagedepth > 1 or page.samplesperpixel > MAX_CHANNELS:
        raise ImageError(f"{name}: TIFF with {page.imagedepth} layers of {page.samplesperpixel} channels; export it as RGB")
    if page.is_tiled and page.tilewidth * page.tilelength > max(max_pixels, 1 << 24):
        raise ImageError(f"{name}: damaged TIFF: tiles of {page.tilewidth} x {page.tilelength} pixels; export it again")
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < math.prod(page.chunked) or len(counts) < len(offsets):
        raise ValueError("the list of strips is too short")
    if any(start + length > size for start, length in zip(offsets, counts, strict=False) if length):
        raise ValueError("a strip lies behind the end of the file")
    if page.compression == 1:
        needed = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
        if sum(counts) < needed:
            raise ValueError("the strips are shorter than the picture")


def _colour_space(page: Any, name: str) -> tuple[str, str]:
    """Return the colour space of a page and the name of its photometric interpretation."""
    kind = getattr(page.photometric, "name", str(page.photometric))
    if kind == "YCBCR" and page.compression == 7:  # the decoder of JPEG strips returns RGB
        return "rgb", "RGB"
    spaces = {"MINISWHITE": "gray", "MINISBLACK": "gray", "PALETTE": "rgb", "RGB": "rgb", "SEPARATED": "cmyk"}
    space = spaces.get(kind)
    channels = 1 if kind == "PALETTE" else CHANNELS[space] if space else 0
    inks = page.tags.valueof(332, 1) if kind == "SEPARATED" else 1  # InkSet: 1 is CMYK
    if space is None or page.samplesperpixel < channels or inks != 1:
        raise ImageError(
            f"{name}: TIFF of the kind {shown(kind)} with {page.samplesperpixel} channels is not supported; save it as RGB"
        )
    return space, kind


def _decoded(page: Any, values: Array, kind: str, name: str) -> tuple[Array, float]:
    """Return values with a palette looked up or an inverted gray scale reversed, and the value that means 1.0.

    That is the largest value of the declared bits, or 1 for floats. Raises `ImageError` for signed integers.
    """
    if values.dtype.kind not in "fbu":
        raise ImageError(f"{name}: TIFF with {values.dtype.name} samples is not supported; save 8 or 16 bits or float")
    white = float(2 ** int(page.bitspersample) - 1) if values.dtype.kind == "u" else 1.0
    if kind == "PALETTE":
        table = page.colormap
        if table is None:
            raise ValueError("palette picture without a palette")
        # The palette should have values up to 65535; some programs write 8 bits shifted left by 8, some up to 255.
        white = 255.0 if table.max() <= 255 else 65535.0 if (table & 255).any() else 65280.0
        return np.ascontiguousarray(table.T)[values[..., 0].astype(np.intp)], white
    if kind == "MINISWHITE":
        positive: Array = values[..., :1].astype(np.float32 if white < 1 << 24 else np.float64)
        return np.subtract(white, positive), white
    return values, white


INPUT_FORMATS.register("TIFF")(InputFormat(rb"II\*\0|MM\0\*|II\+\0|MM\0\+", decode, metadata))
