"""TIFF and BigTIFF, decoded by tifffile, since Pillow reduces 16-bit RGB to 8 bits silently."""

from __future__ import annotations

import functools
import io
import math
from typing import Any, BinaryIO, Final

import numpy as np
import tifffile
from PIL import Image

from ...errors import ImageError
from ...files import shown
from ...registry import INPUT_FORMATS
from .. import signals
from ..picture import Array, Mapped, Samples
from ..pil import EXIF_IFD, ORIENTATION, exif_profile, parse_description, xmp_orientation
from .loading import InputFormat, Scope, check_size
from .tiff_pages import read_pages
from .tiff_values import check_fax, colours_of_palette, decode_ycbcr, lab_to_srgb, positive, white_of

MAX_CHANNELS: Final = 32
XMP: Final = 700
WHITE_POINT: Final = 318
PRIMARY_CHROMATICITIES: Final = 319
D65_FRACTIONS: Final = (3127, 10000, 3290, 10000)
YCBCR: Final = 6
JPEG: Final = 7
SPACES: Final = {
    "MINISWHITE": ("gray", 1),
    "MINISBLACK": ("gray", 1),
    "PALETTE": ("rgb", 1),
    "RGB": ("rgb", 3),
    "YCBCR": ("rgb", 3),
    "CIELAB": ("rgb", 3),
    "ICCLAB": ("rgb", 3),
    "SEPARATED": ("cmyk", 4),
}
"""The colour space of the samples and the number of stored colour channels, by photometric interpretation."""


def decode(stream: BinaryIO, name: str, max_pixels: int) -> Samples:
    """Decode the first full-size page of a TIFF, of unsigned integers or floats; the interpretations are those of `SPACES`."""
    size = stream.seek(0, io.SEEK_END)
    pages = read_pages(stream, name)
    notes = [f"TIFF with {pages.count} pages: only the first is used"] if pages.count > 1 else []
    if pages.problem:
        notes.append(f"damaged TIFF ({pages.problem}): its first page is used")
    with tifffile.TiffFile(stream) as file:
        page = file.pages[pages.first]
        if not isinstance(page, tifffile.TiffPage):
            raise ValueError("its first page cannot be read")
        check_size(page.imagewidth, page.imagelength, name, max_pixels)
        _check_layout(page, size, name, max_pixels)
        kind = _photometric(page, name)
        space, colours = SPACES[kind]
        values = decode_ycbcr(page, name) if kind == "YCBCR" else _stored(page, name)
        check_fax(stream, page, values, notes)
        raw = Samples(values, white_of(page, values, notes), space, _profile(page), _orientation(page), notes)
        if raw.values.dtype.kind != "f" and kind != "PALETTE":
            raw.bits = f"{page.bitspersample} bit{'s' * (page.bitspersample != 1)}"
        if EXIF_IFD in page.tags:
            raw.exif_icc = exif_profile(functools.partial(_exif, stream, page))
        if raw.icc is None and space != "cmyk":
            _apply_primaries(raw, page)
        _select_alpha(raw, tuple(page.extrasamples), colours)
        _interpret(raw, page, kind)
    if raw.values.dtype.kind == "f" and raw.icc is None and values.dtype.kind == "f":
        notes.append("floating-point samples without a colour profile: read as sRGB, not as linear light")
    return raw


def _apply_primaries(raw: Samples, page: Any) -> None:
    """Let samples have the primaries of a page's tags, with the exponent 2.2, the default of TIFF 6.0, section 20."""
    values, white = page.tags.valueof(PRIMARY_CHROMATICITIES), page.tags.valueof(WHITE_POINT)
    if values is None:
        return
    try:
        stated = np.concatenate([values, D65_FRACTIONS if white is None else white]).reshape(4, 2, 2).astype(np.float64)
        with np.errstate(divide="raise", invalid="raise"):
            points = [(float(x), float(y)) for x, y in stated[..., 0] / stated[..., 1]]
        signals.apply(raw, signals.from_numbers(points, 2.2))
    except (ArithmeticError, TypeError, ValueError):
        raw.notes.append("its primaries cannot be right: ignored, sRGB assumed")


def _exif(stream: BinaryIO, page: Any) -> Image.Exif:
    """Return the tags of a page as an EXIF block; raise any exception for damaged ones, and for a BigTIFF."""
    block = Image.Exif()
    block.endian = page.parent.byteorder
    block.load_from_fp(stream, page.offset)
    return block


def metadata(stream: BinaryIO, name: str) -> dict[str, str]:
    """Return the metadata in the ImageDescription of the first page."""
    read_pages(stream, name)
    with tifffile.TiffFile(stream) as file:
        return parse_description(str(file.pages.first.description))


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
        channels = 1 if page.photometric == YCBCR else page.samplesperpixel  # others may be subsampled
        needed = page.imagewidth * page.imagelength * channels * page.bitspersample // 8
        if sum(counts) < needed:
            raise ValueError("the strips are shorter than the picture")


def _photometric(page: Any, name: str) -> str:
    """Return the name of a page's photometric interpretation. Raises `ImageError` for one that is not supported."""
    kind = getattr(page.photometric, "name", str(page.photometric))
    if kind == "YCBCR" and page.compression == JPEG:  # the decoder of JPEG strips returns RGB
        kind = "RGB"
    channels = SPACES[kind][1] if kind in SPACES else MAX_CHANNELS + 1
    inks = page.tags.valueof(332, 1) if kind == "SEPARATED" else 1  # InkSet: 1 is CMYK
    if page.samplesperpixel < channels or inks != 1:
        raise ImageError(
            f"{name}: TIFF of the kind {shown(kind)} with {page.samplesperpixel} channels is not supported; save it as RGB"
        )
    if kind in ("CIELAB", "ICCLAB") and page.dtype not in ("uint8", "uint16"):
        raise ImageError(f"{name}: TIFF of the kind {kind} with {page.dtype} samples is not supported; save it as RGB")
    return kind


def _stored(page: Any, name: str) -> Array:
    """Return the samples of a page as they are stored, (height, width, channels). Raises `ImageError` for signed integers."""
    values = np.asarray(page.asarray())
    if values.dtype.kind not in "fbu":
        raise ImageError(f"{name}: TIFF with {values.dtype.name} samples is not supported; save 8 or 16 bits or float")
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        values = np.moveaxis(values.reshape(-1, page.imagelength, page.imagewidth), 0, -1)
    return values.reshape(page.imagelength, page.imagewidth, -1)


def _profile(page: Any) -> bytes | None:
    """Return the ICC profile of a page; empty, hence a broken profile, if its tag has another type; None without one."""
    profile = page.iccprofile
    return profile if profile is None or isinstance(profile, bytes) else b""


def _orientation(page: Any) -> object:
    """Return the orientation of a page, or else that of its XMP packet."""
    value, packet = page.tags.valueof(ORIENTATION), page.tags.valueof(XMP)
    return xmp_orientation(packet) if value is None and isinstance(packet, bytes) else value


def _select_alpha(raw: Samples, extra: tuple[int, ...], colours: int) -> None:
    """Keep the colour channels and alpha: the first extra channel that is declared so, or the first if none is declared."""
    surplus = raw.values.shape[2] - colours
    alpha = next((number for number, kind in enumerate(extra[:surplus]) if kind in (1, 2)), None if extra else 0)
    raw.premultiplied = alpha is not None and extra[alpha : alpha + 1] == (1,)
    if surplus and alpha is None:
        raw.notes.append("extra channel (not alpha) ignored")
        raw.values = np.asarray(raw.values)[..., :colours]
    elif surplus and alpha:
        raw.values = np.asarray(raw.values)[..., [*range(colours), colours + alpha]]


def _interpret(raw: Samples, page: Any, kind: str) -> None:
    """Convert the samples of kinds of pages that are not gray, RGB or CMYK as they are stored."""
    values = np.asarray(raw.values)
    if kind == "PALETTE":
        raw.values, raw.white = colours_of_palette(page, values, raw.white)
    elif kind == "MINISWHITE":
        raw.values = Mapped(values, functools.partial(positive, white=raw.white, premultiplied=raw.premultiplied))
    elif kind in ("CIELAB", "ICCLAB"):
        raw.values = Mapped(values, functools.partial(lab_to_srgb, signed=kind == "CIELAB"))
        raw.white, raw.icc, raw.signal = 65535.0, None, "CIELAB"
    elif kind == "YCBCR" and raw.icc is None:
        raw.signal = "YCbCr, sRGB assumed"


SCOPE: Final = Scope(
    samples="gray (also min-is-white), RGB, palette, CMYK, CIELAB or YCbCr of 1 to 32 bits, or 16- to 64-bit floating point",
    colour="ICC profile, else primaries (tags WhitePoint and PrimaryChromaticities), else Adobe RGB if EXIF says so; CIELAB "
    "(D50) and YCbCr by their definition in TIFF",
    orientation="the tag Orientation of any type, else XMP",
    alpha="straight, or multiplied (ExtraSamples 1): then colours are divided by it, whether alpha is kept or not",
    more=(
        "The first page of full size is read; of several there is a note. Pages with a smaller version or a mask are skipped.",
        "A list of pages that is damaged behind the first page is a note.",
        "Floating point has white at 1, or at MaxSampleValue if that is the largest value of 8 to 16 bits; without a profile "
        "it is read as sRGB, with a note. A file with most values above white is refused, with the factor to divide by.",
        "Integers whose MaxSampleValue has fewer bits than they are read with that value as white, with a note.",
        "Subsampled YCbCr is read uncompressed or with LZW, deflate or PackBits, or as JPEG. Corrupt fax data are a note.",
        "Signed integers, ITU CIELAB, inks other than CMYK and pictures in layers are refused by name.",
    ),
)

INPUT_FORMATS.register("TIFF")(InputFormat(rb"II\*\0|MM\0\*|II\+\0|MM\0\+", decode, metadata, scope=SCOPE))
