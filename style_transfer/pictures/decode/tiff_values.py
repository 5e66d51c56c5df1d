"""Values of a TIFF page as gray, RGB or CMYK samples: palettes, min-is-white, CIELAB, YCbCr, the value of white, faxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, Final

import imagecodecs
import numpy as np

from ...errors import ImageError
from ..icc import lab_profile, srgb_profile, transform
from ..picture import Array, Mapped, Stored

MAX_SAMPLE_VALUES: Final = (281, 341)
"""The tags MaxSampleValue and SMaxSampleValue."""
ALL_ONES: Final = frozenset(2**bits - 1 for bits in range(8, 17))
"""The largest integers of 8 to 16 bits."""
BYTE_CODECS: Final[dict[int, Callable[[bytes], Any]]] = {
    1: bytes,
    5: imagecodecs.lzw_decode,
    8: imagecodecs.zlib_decode,
    32773: imagecodecs.packbits_decode,
    32946: imagecodecs.zlib_decode,
}
"""Decoders of compressions that do not know about pixels."""
FAX: Final = frozenset([2, 3, 4])
"""Compressions of ITU-T T.4 and T.6."""


def white_of(page: Any, values: Array, notes: list[str]) -> float:
    """Return the value that means 1.0.

    That is the largest value of the declared bits, or 1 for floats, unless the tag MaxSampleValue has another number of bits, as
    files of cameras with 12 bits have, and no integer is larger.
    """
    floats = values.dtype.kind == "f"
    white = 1.0 if floats or values.dtype.kind == "b" else float(2 ** int(page.bitspersample) - 1)
    for tag in MAX_SAMPLE_VALUES:
        declared = page.tags.valueof(tag)
        top = float(np.max(declared)) if isinstance(declared, int | float | tuple) and declared != () else 0.0
        if top in ALL_ONES and top != white and (floats or (top < white and values.max() <= top)):
            notes.append(f"TIFF with MaxSampleValue {top:.0f}: this value is read as white")
            return top
    return white


def colours_of_palette(page: Any, values: Array, white: float) -> tuple[Stored, float]:
    """Return the colours of a palette's indices, with the alpha channel behind them, and the value that means 1.0.

    Raises IndexError for an index behind the end of the palette.
    """
    table = page.colormap
    if table is None:
        raise ValueError("palette picture without a palette")
    # The palette should have values up to 65535; some programs write 8 bits shifted left by 8, some up to 255.
    top = 255.0 if table.max() <= 255 else 65535.0 if (table & 255).any() else 65280.0
    entries = np.ascontiguousarray(table.T)
    if values[..., 0].max() >= len(entries):
        raise IndexError("index behind the end of the palette")

    def look_up(block: Array) -> Array:
        colours = entries[block[..., 0].astype(np.intp)]
        if block.shape[2] == 1:
            return colours
        return np.concatenate([colours, np.rint(block[..., 1:2] * (top / white)).astype(colours.dtype)], axis=2)

    return Mapped(values, look_up), top


def positive(values: Array, white: float, *, premultiplied: bool) -> Array:
    """Return a min-is-white gray channel as min-is-black, with the alpha channel behind it as it is.

    Gray that was multiplied by alpha stays so: alpha * (white - gray) = alpha * white - stored.
    """
    result: Array = values.astype(np.float32 if white < 1 << 24 else np.float64)
    np.subtract(result[..., 1] if premultiplied else white, result[..., 0], out=result[..., 0])
    return result


def lab_to_srgb(values: Array, *, signed: bool) -> Array:
    """Return CIE L*a*b* (D50) of 8 or 16 bits, with or without alpha, as 16-bit sRGB.

    `signed` is the encoding of CIELAB: the largest integer is L* 100, and a* and b* are signed. Else it is that of ICCLAB: a* and
    b* have an offset of 128, and in 16 bits 0xFF00 is L* 100. Colours outside sRGB are clipped.
    """
    bits = values.dtype.itemsize * 8
    unit = 1 << bits - 8
    top = 255 * unit if bits == 16 and not signed else (1 << bits) - 1
    result = np.empty(values.shape, np.uint16)
    result[..., 3:] = values[..., 3:].astype(np.uint16) * (1 if bits == 16 else 257)
    block = values[..., :3].astype(np.float32)
    block[..., 0] *= np.float32(100 / top)
    if signed:
        block[..., 1:] = np.ascontiguousarray(values[..., 1:3]).view(f"i{bits // 8}")
    block[..., 1:] /= unit
    if not signed:
        block[..., 1:] -= 128
    colours = transform(block, lab_profile(), srgb_profile(), ("lab", "rgb"), 0)
    result[..., :3] = np.rint(np.clip(colours, 0, 1) * 65535)
    return result


def decode_ycbcr(page: Any, name: str) -> Array:
    """Return a YCbCr page of 8 bits, subsampled or not, as RGB (TIFF 6.0, section 21); chrominance is repeated, not interpolated.

    Raises `ImageError` for a layout or a compression that is not supported.
    """
    decompress = BYTE_CODECS.get(int(page.compression))
    if (
        decompress is None
        or page.predictor != 1
        or page.planarconfig != 1
        or page.samplesperpixel != 3
        or page.bitspersample != 8
    ):
        kind = getattr(page.compression, "name", page.compression)
        raise ImageError(f"{name}: YCbCr TIFF with {kind} compression cannot be decoded in this layout; save it as RGB")
    wide, high = page.tags.valueof(530, (2, 2))
    width, length = (page.tilewidth, page.tilelength) if page.is_tiled else (page.imagewidth, page.rowsperstrip)
    across = -(-page.imagewidth // width)
    result = np.empty((page.imagelength, page.imagewidth, 3), np.uint8)
    for number, (start, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        top, left = number // across * length, number % across * width
        part = result[top : top + length, left : left + width]
        rows = length if page.is_tiled else part.shape[0]
        page.parent.filehandle.seek(start)
        data = np.frombuffer(decompress(page.parent.filehandle.read(count)), np.uint8)
        down, along, luma = -(-rows // high), -(-width // wide), wide * high
        # Each block of pixels is stored as its luma, row by row, and its two values of chrominance.
        blocks = data[: down * along * (luma + 2)].reshape(down, along, luma + 2)
        values = np.empty((down * high, along * wide, 3), np.float32)
        values[..., 0] = blocks[..., :luma].reshape(down, along, high, wide).swapaxes(1, 2).reshape(values.shape[:2])
        values[..., 1:] = blocks[..., luma:].repeat(high, 0).repeat(wide, 1)
        with np.errstate(divide="raise", invalid="raise"):  # a damaged file may have fractions of 0
            part[:] = _rgb_of_ycbcr(page, values[: part.shape[0], : part.shape[1]])
    return result


def _rgb_of_ycbcr(page: Any, values: Array) -> Array:
    """Return Y, Cb and Cr as stored in a page as RGB up to 255, rounded and clipped."""
    fractions = page.tags.valueof(532, (0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1))  # ReferenceBlackWhite
    black, white = np.divide(fractions[::2], fractions[1::2]).reshape(3, 2).T.astype(np.float32)
    fractions = page.tags.valueof(529, (299, 1000, 587, 1000, 114, 1000))  # YCbCrCoefficients
    red, green, blue = (float(x) for x in np.divide(fractions[::2], fractions[1::2]))
    y, cb, cr = np.moveaxis((values - black) * (np.array([255, 127, 127], np.float32) / (white - black)), -1, 0)
    r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
    rgb: Array = np.rint(np.stack([r, (y - red * r - blue * b) / green, b], -1).clip(0, 255))
    return rgb


def check_fax(stream: BinaryIO, page: Any, values: Array, notes: list[str]) -> None:
    """Add a note for a fax whose data are corrupt: libtiff refuses them, or decodes them to another picture.

    The decoders of faxes report no errors, they continue with the next line, or leave the rest white.
    """
    if page.compression not in FAX:
        return
    stream.seek(0)
    try:
        other = np.asarray(imagecodecs.tiff_decode(stream.read(), page.index)).astype(bool)
        same = np.array_equal(other.reshape(values.shape), values.astype(bool))
    except (RuntimeError, ValueError):
        same = False
    if not same:
        notes.append("its fax data are corrupt: some lines may be wrong or missing")
