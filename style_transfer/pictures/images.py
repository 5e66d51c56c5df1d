"""Picture files: the one module that reads and writes them.

Inside the program a picture is float32 sRGB in [0, 1], shape (height, width, 3). `load` brings a file there
and `save` brings it back; nothing passes through 8 bits on the way unless the file itself has only 8 bits
(AVIF is the exception: it is read at 8 bits, with a note).

Who decodes what. PNG goes through libpng (imagecodecs) and TIFF through tifffile, since Pillow reduces 16-bit
RGB to 8 bits without a word. The other formats go through Pillow, which refuses truncated files, with the one
format that the file's first bytes announce, so that no surprising decoder ever starts. Sizes are checked from
the header, before anything is decoded or allocated.

Colour. Embedded ICC profiles are converted to sRGB by LittleCMS with floating-point input and output (its
16-bit path is wrong by up to 0.08 in the darks), relative colorimetric with black point compensation, then
clipped to [0, 1]. A picture without a profile is taken as sRGB. Colours that sRGB cannot hold are clipped.

Writing goes to a temporary file in the same folder, which replaces the old file only when it is complete and
on disk.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import logging
import math
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ImageError, OutputError, SettingsError, StyleTransferError, near_miss
from ..files.atomic import check_target, reason, replacing, shown

Array = npt.NDArray[Any]

DEFAULT_MAX_PIXELS: Final = 500_000_000
MIN_DPI: Final = 0.1  # PNG counts whole pixels per metre
MAX_DPI: Final = 65535  # JPEG has 16 bits for it

_BLOCK_PIXELS: Final = 1 << 20  # colour is converted in blocks of about this many pixels
_STRIP_ROWS: Final = 64
# Classic TIFF has 32-bit offsets; the margin is for deflate's overhead, the profile and the tags.
_CLASSIC_TIFF_BYTES = (1 << 32) - (1 << 25)
_MAX_ICC_BYTES: Final = 16 << 20
_MAX_TIFF_PAGES: Final = 1 << 16
_MAX_CHANNELS: Final = 32
_JPEG_EXIF_BYTES: Final = 65_000  # one APP1 segment holds 65533 bytes
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS: Final = {3: 2, 4: 6}
"""The colour type of a PNG by its channels: RGB, RGBA."""
_ORIENTATION: Final = 0x0112
_RELATIVE: Final = 1  # ICC rendering intent: relative colorimetric
_BLACK_POINT: Final = 0x2000  # LittleCMS flag: black point compensation
_RAW_CAMERA: Final = frozenset([".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw"])

_silent = logging.NullHandler()  # keeps the decoders' logs off the terminal unless the program asks for them
_pillow_lock = threading.Lock()  # guards Pillow's global pixel limit and Python's global warning filters


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    `pixels`: float32, shape (height, width, 3), sRGB in [0, 1], contiguous, upright.
    `notes`: one-line warnings for the user; they do not repeat the file's name.
    `alpha`: float32, shape (height, width), opacity in [0, 1], if it was asked for and is not 1 everywhere.
    """

    pixels: npt.NDArray[np.float32]
    notes: tuple[str, ...] = ()
    alpha: npt.NDArray[np.float32] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass
class _Raw:
    """Samples as a decoder gave them, before orientation and colour conversion.

    `samples`: (height, width, channels), any numeric type; the first 1 (gray), 3 (rgb) or 4 (cmyk)
    channels are colour, the one behind them is alpha if there is one. `white`: the sample value that means 1.0. CMYK
    counts ink: `white` is full ink. `premultiplied`: whether colours are stored times alpha.
    """

    samples: Array
    white: float
    space: str
    icc: bytes | None = None
    orientation: object = None
    notes: list[str] = field(default_factory=list)
    premultiplied: bool = False


_CHANNELS: Final = {"gray": 1, "rgb": 3, "cmyk": 4}
_ICC_SPACES: Final = {b"GRAY": "gray", b"RGB ": "rgb", b"CMYK": "cmyk"}


# ---------------------------------------------------------------------------------------------------- loading


def load(
    path: str | Path, *, proof: str | Path | None = None, max_pixels: int = DEFAULT_MAX_PIXELS, alpha: bool = False
) -> Picture:
    """Read a picture file.

    Reads PNG, JPEG, TIFF, WebP, BMP, GIF, PPM/PGM/PBM, TGA, JPEG 2000 and AVIF, told apart by content
    and not by name (TGA, which has no signature, by name). The first frame or page counts. Alpha is ignored, and
    colour used as stored, unless `alpha` asks for it: then it comes with the picture, and colours stored times alpha are
    divided by it.

    `proof` is a CMYK ICC profile file: the pixels are shown as that printing condition would print them
    (sRGB to CMYK relative colorimetric with black point compensation, and back relative colorimetric).
    `max_pixels` is the largest width x height accepted.

    Raises ImageError for a file that cannot be used, SettingsError for a bad `proof`.
    """
    proof_profile = None if proof is None else _read_proof(proof)
    name = shown(path)
    raw = _decode_file(Path(path), name, max_pixels)
    return _develop(raw, name, proof_profile, keep_alpha=alpha)


def from_pil(image: Image.Image, *, alpha: bool = False) -> Picture:
    """Convert a PIL picture by the rules of `load`: its ICC profile and EXIF orientation are applied.

    Modes I;16 and I count to 65535; mode F is taken to be in [0, 1]. Raises ImageError for a mode that
    cannot be read (LAB), for NaN, for what is no PIL picture, and for a damaged file behind the picture.
    """
    name = "PIL picture"
    if not isinstance(image, Image.Image):
        raise ImageError(f"a PIL picture is wanted, not {type(image).__name__}; Image.open or Image.fromarray makes one")
    if not image.width or not image.height:
        raise ImageError(f"{name}: {image.width} x {image.height} has no pixels")
    try:
        with _pillow():
            raw = _from_pillow(image, name, alpha)
    except (OSError, SyntaxError, ValueError) as error:  # a lazily opened file that turns out to be damaged
        raise ImageError(f"{name}: cannot be decoded ({reason(error)})") from error
    return _develop(raw, name, None, keep_alpha=alpha)


def to_pil(pixels: Array) -> Image.Image:
    """Return (height, width, 3 or 4) pixels in [0, 1] as an 8-bit RGB or RGBA PIL picture, rounded and clipped.

    Raises OutputError for a wrong shape or NaN.
    """
    _check_pixels(pixels)
    result = np.empty(pixels.shape, np.uint8)
    for rows in _row_blocks(pixels.shape):
        result[rows] = quantize(pixels[rows], np.uint8)
    return Image.fromarray(result)


def _decode_file(path: Path, name: str, max_pixels: int) -> _Raw:
    """Check that `path` is a plain file, find its format from its first bytes, and decode it."""
    _check_input(path, name)
    for library in ("tifffile", "imagecodecs"):
        logging.getLogger(library).addHandler(_silent)
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
            stream.seek(0)
            kind, decode = _recognize(head, path.suffix.lower(), name)
            try:
                raw = decode(stream, name, max_pixels)
                if not raw.samples.size or raw.samples.shape[2] < _CHANNELS[raw.space]:
                    raise ValueError("no pixels in it")
                return raw
            except (StyleTransferError, MemoryError):
                raise
            except Exception as error:  # decoders raise whatever they like on damaged files
                raise ImageError(f"{name}: damaged or truncated {kind} ({reason(error)}); export it again") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {reason(error)}") from error


def _check_input(path: Path, name: str) -> None:
    """Raise ImageError unless `path` is a regular file with something in it. Never opens it."""
    try:
        info = path.stat()
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageError(f"{name}: cannot be read: {reason(error)}") from error
    if stat.S_ISDIR(info.st_mode):
        raise ImageError(f"{name}: is a folder, not a picture")
    if not stat.S_ISREG(info.st_mode):
        raise ImageError(f"{name}: is not a regular file; save the picture to a file first")
    if info.st_size == 0:
        raise ImageError(f"{name}: is empty (0 bytes)")


_Decoder = Callable[[BinaryIO, str, int], _Raw]


def _recognize(head: bytes, suffix: str, name: str) -> tuple[str, _Decoder]:
    """Return the format's name and its decoder, or raise ImageError saying what the file looks like."""
    if suffix in _RAW_CAMERA:
        raise ImageError(f"{name}: camera raw is not read; develop it to a 16-bit TIFF first")
    if head.startswith(_PNG_SIGNATURE):
        return "PNG", _decode_png
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF", _decode_tiff
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP", _decode_webp
    if head[:2] in (b"P5", b"P6"):
        return "PPM", _decode_ppm
    pillow = None
    if head.startswith(b"\xff\xd8\xff"):
        pillow = "JPEG"
    elif head[:6] in (b"GIF87a", b"GIF89a"):
        pillow = "GIF"
    elif head[:2] == b"BM":
        pillow = "BMP"
    elif head[:2] in (b"P1", b"P2", b"P3", b"P4", b"Pf", b"PF"):
        pillow = "PPM"
    elif head.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        pillow = "JPEG2000"
    elif head[4:12] in (b"ftypavif", b"ftypavis"):
        pillow = "AVIF"
    elif (foreign := _foreign(head)) is not None:
        raise ImageError(f"{name}: {foreign}")
    elif suffix == ".tga":
        pillow = "TGA"
    if pillow is None:
        raise ImageError(f"{name}: is not a picture format that is read; save it as PNG, TIFF or JPEG")
    return pillow, functools.partial(_decode_pillow, pillow)


def _foreign(head: bytes) -> str | None:
    """Say what a file that is no picture of ours looks like and what to do about it."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the picture itself; run 'git lfs pull'"
    if b"<svg" in text and text.startswith(b"<"):
        return "looks like SVG; export it as PNG first"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "looks like HTML, a web page and not the picture; download the picture itself"
    if head.startswith(b"%PDF"):
        return "looks like PDF; export the page as TIFF or PNG first"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "looks like EPS or PostScript; export it as TIFF or PNG first"
    if head.startswith(b"\xd7\xcd\xc6\x9a") or head[40:44] == b" EMF":
        return "looks like a Windows metafile; export it as PNG first"
    if head[4:8] == b"ftyp":
        return "looks like HEIC or a video; save it as JPEG, PNG or TIFF first"
    if head.startswith(b"8BPS"):
        return "looks like a Photoshop file; save it as TIFF first"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "looks like JPEG XL; convert it to PNG or TIFF first"
    if head.startswith(b"PK\x03\x04"):
        return "looks like a ZIP archive; unpack it first"
    return None


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise ImageError(f"{name}: {width} x {height} pixels: the picture has no pixels")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} pixels is {width * height:,}, above the limit of {max_pixels:,}; "
            f"if the file is to be trusted, raise the limit with --max-pixels {width * height}"
        )


# PNG


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (type, body) of every chunk up to IEND; raise ValueError where the file ends before that."""
    view, at = memoryview(data), len(_PNG_SIGNATURE)
    while at + 12 <= len(view):
        length, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        if at + 12 + length > len(view):
            break
        yield kind, view[at + 8 : at + 8 + length]
        if kind == b"IEND":
            return
        at += 12 + length
    raise ValueError("the file ends before its last chunk")


def _decode_png(stream: BinaryIO, name: str, max_pixels: int) -> _Raw:
    import imagecodecs

    head = stream.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise ValueError("no header")
    width, height = struct.unpack(">II", head[16:24])
    _check_size(width, height, name, max_pixels)
    stream.seek(0)
    data = stream.read()
    notes: list[str] = []
    icc: bytes | None = None
    orientation: object = None
    for kind, body in _png_chunks(data):
        if kind == b"iCCP" and icc is None:
            icc = _unpack_icc(bytes(body))
        elif kind == b"eXIf":
            orientation = _exif_orientation(bytes(body))
        elif kind == b"acTL" and int.from_bytes(body[:4], "big") > 1:
            notes.append("animated PNG: only the first frame is used")
    samples = np.asarray(imagecodecs.png_decode(data))
    samples = samples.reshape(height, width, -1)
    white = 65535.0 if samples.dtype == np.uint16 else 255.0
    space = "gray" if samples.shape[2] <= 2 else "rgb"
    return _Raw(samples, white, space, icc, orientation, notes)


def _unpack_icc(body: bytes) -> bytes:
    """Return the profile in a PNG iCCP chunk; empty (hence broken) if it does not unpack to a sane size."""
    _, _, packed = body.partition(b"\0")
    unzip = zlib.decompressobj()
    try:
        profile = unzip.decompress(packed[1:], _MAX_ICC_BYTES)
    except zlib.error:
        return b""
    return profile if unzip.eof else b""


def _exif_orientation(exif: bytes) -> object:
    """Return the orientation tag of an EXIF block, None without one, "damaged" for an unreadable block."""
    block = Image.Exif()
    try:
        block.load(exif)
        return block.get(_ORIENTATION)
    except Exception:  # Pillow raises SyntaxError, struct.error, KeyError, ... here
        return "damaged"


# TIFF


def _tiff_pages(stream: BinaryIO, name: str) -> int:
    """Count the pages along their chain; raise ImageError for a loop, ValueError for a cut chain."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    count_format, offset_format = order + ("Q" if big else "H"), order + ("Q" if big else "I")
    entry_bytes = 20 if big else 12
    count_bytes, offset_bytes = struct.calcsize(count_format), struct.calcsize(offset_format)
    at = head[8:16] if big else head[4:8]
    (offset,) = struct.unpack(offset_format, at)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ImageError(f"{name}: damaged TIFF: its list of pages runs in a loop; export it again")
        seen.add(offset)
        if len(seen) > _MAX_TIFF_PAGES:
            raise ImageError(f"{name}: TIFF with more than {_MAX_TIFF_PAGES} pages; save one page by itself")
        if offset + count_bytes > size:
            raise ValueError("a page lies behind the end of the file")
        stream.seek(offset)
        (count,) = struct.unpack(count_format, stream.read(count_bytes))
        if offset + count_bytes + count * entry_bytes + offset_bytes > size:
            raise ValueError("a page lies behind the end of the file")
        stream.seek(count * entry_bytes, io.SEEK_CUR)
        (offset,) = struct.unpack(offset_format, stream.read(offset_bytes))
    if not seen:
        raise ValueError("it has no page")
    stream.seek(0)
    return len(seen)


def _decode_tiff(stream: BinaryIO, name: str, max_pixels: int) -> _Raw:
    import tifffile

    size = stream.seek(0, io.SEEK_END)
    pages = _tiff_pages(stream, name)
    notes = [f"TIFF with {pages} pages: only the first is used"] if pages > 1 else []
    with tifffile.TiffFile(stream) as file:
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage):
            raise ValueError("its first page cannot be read")
        _check_size(page.imagewidth, page.imagelength, name, max_pixels)
        _check_tiff_layout(page, size, name, max_pixels)
        space, kind = _tiff_space(page, name)
        samples = np.asarray(page.asarray())
        if page.planarconfig == 2 and page.samplesperpixel > 1:
            samples = np.moveaxis(samples.reshape(-1, page.imagelength, page.imagewidth), 0, -1)
        samples = samples.reshape(page.imagelength, page.imagewidth, -1)
        white = _tiff_white(page, samples.dtype, name)
        if kind == "PALETTE":
            table = page.colormap
            if table is None:
                raise ValueError("palette picture without a palette")
            # The palette should count to 65535; some writers shift 8 bits up by 8, some count to 255.
            white = 255.0 if table.max() <= 255 else 65535.0 if (table & 255).any() else 65280.0
            samples = np.ascontiguousarray(table.T)[samples[..., 0].astype(np.intp)]
        elif kind == "MINISWHITE":
            positive: Array = samples[..., :1].astype(np.float32 if white < 1 << 24 else np.float64)
            samples = np.subtract(white, positive)
        profile = page.iccprofile
        orientation = page.tags.valueof(_ORIENTATION)
        alpha = page.extrasamples[:1] in ((1,), (2,)) or not page.extrasamples
        premultiplied = page.extrasamples[:1] == (1,)
    if samples.shape[2] > _CHANNELS[space] and not alpha:
        notes.append("extra channel (not alpha) ignored")
        samples = samples[..., : _CHANNELS[space]]
    return _Raw(samples, white, space, profile, orientation, notes, premultiplied)


def _check_tiff_layout(page: Any, size: int, name: str, max_pixels: int) -> None:
    """Refuse forged and truncated pages before anything is allocated for them."""
    if page.imagedepth > 1 or page.samplesperpixel > _MAX_CHANNELS:
        raise ImageError(f"{name}: TIFF with {page.imagedepth} layers of {page.samplesperpixel} channels; export it as RGB")
    if page.is_tiled and page.tilewidth * page.tilelength > max(max_pixels, 1 << 24):
        raise ImageError(f"{name}: damaged TIFF: tiles of {page.tilewidth} x {page.tilelength} pixels")
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) < math.prod(page.chunked) or len(counts) < len(offsets):
        raise ValueError("the list of strips is too short")
    if any(start + length > size for start, length in zip(offsets, counts, strict=False) if length):
        raise ValueError("a strip lies behind the end of the file")
    if page.compression == 1:
        needed = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
        if sum(counts) < needed:
            raise ValueError("the strips are shorter than the picture")


def _tiff_space(page: Any, name: str) -> tuple[str, str]:
    """Return the colour space of a page and the name of its photometric interpretation."""
    kind = getattr(page.photometric, "name", str(page.photometric))
    if kind == "YCBCR" and page.compression == 7:  # the decoder of JPEG strips returns RGB
        return "rgb", "RGB"
    spaces = {"MINISWHITE": "gray", "MINISBLACK": "gray", "PALETTE": "rgb", "RGB": "rgb", "SEPARATED": "cmyk"}
    space = spaces.get(kind)
    channels = 1 if kind == "PALETTE" else _CHANNELS[space] if space else 0
    inks = page.tags.valueof(332, 1) if kind == "SEPARATED" else 1  # InkSet: 1 is CMYK
    if space is None or page.samplesperpixel < channels or inks != 1:
        raise ImageError(
            f"{name}: TIFF of the kind {shown(kind)} with {page.samplesperpixel} channels is not read; save it as RGB"
        )
    return space, kind


def _tiff_white(page: Any, dtype: np.dtype[Any], name: str) -> float:
    """Return the sample value that means 1.0: the largest of the declared bits, or 1 for floats."""
    if dtype.kind in "fb":
        return 1.0
    if dtype.kind != "u":
        raise ImageError(f"{name}: TIFF with {dtype.name} samples is not read; save 8 or 16 bits or float")
    return float(2 ** int(page.bitspersample) - 1)


# WebP, PPM, and what Pillow reads


def _decode_webp(stream: BinaryIO, name: str, max_pixels: int) -> _Raw:
    """Check the header here (Pillow allocates the canvas on opening), then let Pillow decode."""
    head = stream.read(30)
    if len(head) < 30:
        raise ValueError("no header")
    chunk = head[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    elif chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_size(width, height, name, max_pixels)
    stream.seek(0)
    return _decode_pillow("WEBP", stream, name, max_pixels)


def _decode_ppm(stream: BinaryIO, name: str, max_pixels: int) -> _Raw:
    """Read binary PGM and PPM at their own depth (Pillow reduces 16-bit PPM to 8 bits)."""
    kind = stream.read(2)
    values: list[int] = []
    while len(values) < 3:
        char = stream.read(1)
        while char.isspace() or char == b"#":
            if char == b"#":
                stream.readline(4096)
            char = stream.read(1)
        digits = b""
        while char.isdigit() and len(digits) < 10:
            digits, char = digits + char, stream.read(1)
        if not digits or not char.isspace():
            raise ValueError("unreadable header")
        values.append(int(digits))
    width, height, top = values
    _check_size(width, height, name, max_pixels)
    if not 0 < top < 65536:
        raise ValueError(f"largest value {top}")
    channels = 3 if kind == b"P6" else 1
    dtype = np.dtype(">u2" if top > 255 else "u1")
    count = width * height * channels
    start = stream.tell()
    if stream.seek(0, io.SEEK_END) - start < count * dtype.itemsize:
        raise ValueError("the file is shorter than its header says")
    stream.seek(start)
    samples = np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(height, width, channels)
    return _Raw(np.minimum(samples, top), float(top), "rgb" if channels == 3 else "gray")


@contextlib.contextmanager
def _pillow() -> Iterator[None]:
    """Lift Pillow's own pixel limit (ours replaces it) and silence its warnings (our notes replace them)."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode_pillow(kind: str, stream: BinaryIO, name: str, max_pixels: int) -> _Raw:
    data = b""
    if kind == "JPEG2000":
        # Pillow reads boxes as long as they claim to be, which allocates that much; memory ends where it ends.
        stream = io.BytesIO(data := stream.read())
    with _pillow(), Image.open(stream, formats=[kind]) as image:
        _check_size(image.width, image.height, name, max_pixels)
        deep, icc = _jpeg2000(data) if data else (None, None)
        image.load()
        raw = _from_pillow(image, name)
        raw.icc = raw.icc or icc
        if kind == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
            # Pillow inverts every CMYK JPEG; only those with Adobe's marker are stored inverted.
            raw.samples = 255 - raw.samples
    if deep is not None:
        raw.samples, raw.white = deep
        raw.space = "gray" if raw.samples.shape[2] <= 2 else "cmyk" if raw.space == "cmyk" else "rgb"
    if kind == "AVIF" and _deep_avif(stream):
        raw.notes.append("AVIF with more than 8 bits per channel is read with 8 bits; use 16-bit PNG or TIFF")
    return raw


def _jpeg2000(data: bytes) -> tuple[tuple[Array, float] | None, bytes | None]:
    """Return what Pillow leaves of a JPEG 2000 file: samples of more than 8 bits, with their white, and the ICC profile."""
    header = next((box for kind, box in _boxes(data) if kind == b"jp2h"), b"")
    colours = [box for kind, box in _boxes(header) if kind == b"colr"]
    # a method, 2 or 3 for a profile, a precedence and an approximation, a byte each (ISO 15444-1, I.5.3.3)
    icc = next((box[3:] for box in colours if box[:1] in (b"\2", b"\3")), None)
    return _deep_jpeg2000(data, stored=icc is not None), icc


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kinds and contents of the boxes in a JPEG 2000 file, or in one of them, as far as they are whole."""
    at = 0
    while at + 8 <= len(data):
        length, head = int.from_bytes(data[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        end = at + length if length else len(data)
        if end < at + head or end > len(data):
            return
        yield data[at + 4 : at + 8], data[at + head : end]
        at = end


def _deep_jpeg2000(data: bytes, *, stored: bool) -> tuple[Array, float] | None:
    """Decode a JPEG 2000 file of more than 8 bits, which Pillow would reduce; None for the others.

    With `stored` samples come as they are stored: the decoder gets no profile, which it would apply itself.
    """
    import imagecodecs

    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or at + 43 > len(data):
        return None
    channels, depth = int.from_bytes(data[at + 40 : at + 42], "big"), data[at + 42]
    if depth & 0x80 or not 8 <= depth <= 15 or channels > 4:  # the byte holds bits - 1; 0x80 means signed
        return None
    samples = np.asarray(imagecodecs.jpeg2k_decode(data[at:] if stored else data))
    return samples.reshape(*samples.shape[:2], -1), float(2 ** (depth + 1) - 1)


def _deep_avif(stream: BinaryIO) -> bool:
    """Say whether an AVIF file's codec configuration (av1C box) declares 10 or 12 bits."""
    stream.seek(0)
    head = stream.read(65536)
    at = head.find(b"av1C")
    return at >= 0 and at + 7 <= len(head) and bool(head[at + 6] & 0x40)


def _from_pillow(image: Image.Image, name: str, alpha: bool = False) -> _Raw:
    """Return the samples, profile and orientation of a PIL picture; a transparent colour becomes `alpha` if that is asked for."""
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a photograph with its preview
        notes.append(f"animated {image.format or 'picture'}: only the first frame is used")
    icc = image.info.get("icc_profile")
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises SyntaxError, struct.error, KeyError, ... on damaged EXIF
        orientation = "damaged"
    mode = image.mode
    if mode in ("P", "PA", "HSV", "YCbCr"):
        transparent = mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if transparent else "RGB")
    elif mode in ("RGBa", "La"):
        image = image.convert(mode[:-1] + "A")
    elif mode in ("L", "RGB") and "transparency" in image.info and alpha:
        image = image.convert("RGBA")
    elif mode in ("L", "RGB") and "transparency" in image.info:
        notes.append("transparent colour ignored; colours are used as stored")
    elif mode == "RGBX":
        image = image.convert("RGB")
    if image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16"):
        space = "gray"
    elif image.mode in ("RGB", "RGBA", "CMYK"):
        space = "cmyk" if image.mode == "CMYK" else "rgb"
    else:
        raise ImageError(f"{name}: PIL mode {image.mode} is not read; convert it to RGB")
    samples = np.asarray(image)
    white = {"1": 1.0, "F": 1.0}.get(image.mode, 65535.0 if image.mode.startswith("I") else 255.0)
    return _Raw(samples.reshape(image.height, image.width, -1), white, space, icc, orientation, notes)


# ------------------------------------------------------------------------------------- orientation and colour


def _upright(samples: Array, orientation: object, notes: list[str]) -> Array:
    """Return a view of (height, width, channels) `samples` turned as EXIF orientation 1 to 8 asks."""
    turns: dict[object, Callable[[Array], Array]] = {
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
        8: np.rot90,
    }
    if orientation is None or orientation == 1:
        return samples
    if isinstance(orientation, int) and orientation in turns:
        return turns[orientation](samples)
    if orientation == "damaged":
        notes.append("its EXIF data are damaged: orientation unknown, used as stored")
    else:
        notes.append(f"EXIF orientation {shown(str(orientation))[:20]} does not exist: used as stored")
    return samples


@functools.cache
def _srgb_profile() -> bytes:
    """Return an sRGB ICC profile whose bytes are always the same (LittleCMS stamps the time into it)."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + profile[36:]


def _is_our_srgb(profile: bytes) -> bool:
    """Say whether `profile` is the sRGB profile of `save`, whatever its date."""
    ours = _srgb_profile()
    return profile[:24] == ours[:24] and profile[36:] == ours[36:]


def _transform(values: Array, source: bytes, target: bytes, spaces: tuple[str, str], flags: int) -> Array:
    """Convert float32 (rows, columns, channels) in [0, 1] between two ICC profiles; floats in and out.

    `values` and the result are not clipped. CMYK counts ink in [0, 1]. Raises imagecodecs.CmsError.
    """
    import imagecodecs

    inside, outside = spaces
    # LittleCMS counts floating-point ink in percent.
    values = values[..., 0] if inside == "gray" else values * np.float32(100) if inside == "cmyk" else values
    result = imagecodecs.cms_transform(
        np.ascontiguousarray(values, dtype=np.float32),
        source,
        target,
        colorspace=inside,
        outcolorspace=outside,
        outdtype=np.float32,
        intent=_RELATIVE,
        flags=flags,
    )
    return result / np.float32(100) if outside == "cmyk" else result


def _usable_profile(icc: bytes | None, space: str, notes: list[str]) -> tuple[bytes, str] | None:
    """Return (profile, its colour space) to convert `space` samples with, or None to take them as sRGB."""
    if icc is None:
        return None
    owner = _ICC_SPACES.get(bytes(icc[16:20]))
    broken = None
    if not 132 <= len(icc) <= _MAX_ICC_BYTES or icc[36:40] != b"acsp":
        broken = "its embedded colour profile is broken"
    elif owner != space and not (owner == "rgb" and space == "gray"):
        kind = shown(icc[16:20].decode("latin-1")).strip()
        broken = f"its embedded colour profile is for {kind}, not for {space.upper()}"
    elif owner == "rgb" and _is_our_srgb(icc):
        return None
    else:
        trial = np.full((1, 1, _CHANNELS[owner]), 0.5, np.float32)
        try:
            result = _transform(trial, icc, _srgb_profile(), (owner, "rgb"), _BLACK_POINT)
            if np.isfinite(result).all():
                return icc, owner
        except (RuntimeError, ValueError):  # imagecodecs.CmsError is a RuntimeError
            pass
        broken = "its embedded colour profile is broken"
    notes.append(f"{broken}: ignored, {'plain CMYK' if space == 'cmyk' else 'sRGB'} assumed")
    return None


def _alpha_of(raw: _Raw, name: str) -> npt.NDArray[np.float32] | None:
    """Return the alpha of raw samples, not upright, in [0, 1]; None if there is none or all is opaque."""
    count = _CHANNELS[raw.space]
    if raw.samples.shape[2] <= count or not raw.samples[..., count].min() < raw.white:
        return None
    alpha = (raw.samples[..., count] / raw.white).astype(np.float32)
    if not np.isfinite(alpha).all():
        raise ImageError(f"{name}: contains NaN or infinite values; repair it where it was made")
    return alpha.clip(0, 1)


def _straight(samples: Array, alpha: Array) -> Array:
    """Return colours (height, width, channels) that were stored times `alpha` without it; nothing where it is 0."""
    safe = np.where(alpha > 0, alpha, 1)[..., None]
    return np.where(alpha[..., None] > 0, samples / safe, 0).astype(np.float32)


def _develop(raw: _Raw, name: str, proof: bytes | None, *, keep_alpha: bool = False) -> Picture:
    """Turn raw samples upright and into float32 sRGB, block by block."""
    notes = raw.notes
    count = _CHANNELS[raw.space]
    samples = raw.samples
    alpha = None
    if samples.shape[2] > count and samples[..., count].min() < raw.white:
        if keep_alpha:
            alpha = _alpha_of(raw, name)
        else:
            notes.append("alpha channel ignored; colours are used as stored")
    if alpha is not None:
        if raw.premultiplied:
            samples = np.minimum(_straight(samples[..., :count], alpha), raw.white)
        alpha = np.ascontiguousarray(_upright(alpha[..., None], raw.orientation, [])[..., 0])
    samples = _upright(samples[..., :count], raw.orientation, notes)
    profile = _usable_profile(raw.icc, raw.space, notes)
    if raw.space == "cmyk" and profile is None and raw.icc is None:
        notes.append("CMYK without a colour profile: converted by a plain formula, colours are approximate")
    pixels = np.empty((*samples.shape[:2], 3), np.float32)
    precision: type[np.floating[Any]] = np.float64 if samples.dtype.itemsize > 2 else np.float32
    low, high = 0.0, 1.0
    for rows in _row_blocks(pixels.shape):
        block = np.divide(samples[rows], raw.white, dtype=precision).astype(np.float32, copy=False)
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        if not (math.isfinite(low) and math.isfinite(high) and np.isfinite(block).all()):
            raise ImageError(f"{name}: contains NaN or infinite values; repair it where it was made")
        pixels[rows] = np.clip(_to_srgb(block, raw.space, profile), 0, 1)
        if proof is not None:
            pixels[rows] = np.clip(_soft_proof(pixels[rows], proof), 0, 1)
    if low < -1e-6 or high > 1 + 1e-6:
        notes.append(f"values from {low:.4g} to {high:.4g}: clipped to 0 ... 1")
    return Picture(pixels, tuple(notes), alpha)


def _to_srgb(block: npt.NDArray[np.float32], space: str, profile: tuple[bytes, str] | None) -> Array:
    """Convert float32 samples of `space` to sRGB, through the profile if there is one. Not clipped."""
    if profile is not None:
        icc, owner = profile
        if owner == "rgb" and space == "gray":
            block = np.repeat(block, 3, axis=2)
        return _transform(block, icc, _srgb_profile(), (owner, "rgb"), _BLACK_POINT)
    if space == "cmyk":
        ink: Array = np.clip(block, 0, 1)
        light: Array = (1 - ink[..., :3]) * (1 - ink[..., 3:])
        return light
    return block


def _row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield slices over the rows of a (height, width, ...) array, each of about _BLOCK_PIXELS pixels."""
    rows = max(1, _BLOCK_PIXELS // max(1, shape[1]))
    for top in range(0, shape[0], rows):
        yield slice(top, min(top + rows, shape[0]))


def _soft_proof(block: Array, profile: bytes) -> Array:
    """Return sRGB pixels as the CMYK `profile` would print them. The black of the ink is kept as it is."""
    ink = _transform(block, _srgb_profile(), profile, ("rgb", "cmyk"), _BLACK_POINT)
    return _transform(np.clip(ink, 0, 1), profile, _srgb_profile(), ("cmyk", "rgb"), 0)


def _read_proof(path: str | Path) -> bytes:
    """Read and try out the profile of --proof. Raises SettingsError."""
    name = shown(path)
    try:
        info = Path(path).stat()
        if not stat.S_ISREG(info.st_mode) or not 132 <= info.st_size <= 8 * _MAX_ICC_BYTES:
            raise SettingsError(f"--proof {name}: is not an ICC profile file; give a CMYK .icc or .icm file")
        profile = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"--proof {name}: cannot be read: {reason(error)}") from error
    if profile[36:40] != b"acsp":
        raise SettingsError(f"--proof {name}: is not an ICC profile; give a CMYK .icc or .icm file")
    if profile[16:20] != b"CMYK":
        kind = shown(profile[16:20].decode("latin-1")).strip()
        raise SettingsError(f"--proof {name}: is a profile for {kind}; give one for CMYK")
    try:
        usable = bool(np.isfinite(_soft_proof(np.full((1, 1, 3), 0.5, np.float32), profile)).all())
    except (RuntimeError, ValueError):  # imagecodecs.CmsError is a RuntimeError
        usable = False
    if not usable:
        raise SettingsError(f"--proof {name}: the profile is broken or cannot convert to CMYK; give another")
    return profile


# ----------------------------------------------------------------------------------------------------- saving


@dataclass(frozen=True)
class Writer:
    """One output format: name, bits per channel, largest side in pixels (0: no limit), alpha or not, encoder, and how it is
    read back.

    `check` gets the new file and the pixels, and raises if its header or its last strip is not what was to be written.
    """

    name: str
    bits: int
    max_side: int
    alpha: bool
    write: Callable[[BinaryIO, Array, float, dict[str, str]], None]
    check: Callable[[BinaryIO, Array], None]


def suffix_of(path: str | Path) -> str:
    """Return the extension of a picture to write; raise SettingsError if it is not a known one."""
    _writer_of(path)
    return Path(path).suffix.lower()


def check_output(path: str | Path, size: tuple[int, int] | None = None, *, alpha: bool = False) -> None:
    """Raise unless a picture of `size` (height, width), with `alpha` if so, can be saved at `path`. Writes nothing.

    SettingsError: the extension is not a known one, or the format cannot hold the size or alpha. OutputError: the
    folder is missing or not writable, or `path` is a folder or no regular file.
    """
    name = shown(path)
    writer = _writer_of(path)
    if size is not None and writer.max_side and max(size) > writer.max_side:
        height, width = size
        raise SettingsError(
            f"{name}: {writer.name} holds at most {writer.max_side} pixels a side and the result has {width} x {height}; use .tif"
        )
    if alpha and not writer.alpha:
        raise SettingsError(
            f"{name}: {writer.name} has no alpha to keep; use {', '.join(k for k, w in WRITERS.items() if w.alpha)}"
        )
    check_target(path)


def _writer_of(path: str | Path) -> Writer:
    suffix = Path(path).suffix
    writer = WRITERS.get(suffix.lower())
    if writer is None:
        guess = near_miss(suffix.lower(), WRITERS)
        what = f"unknown extension '{shown(suffix)}'{guess}" if suffix else "no extension"
        raise SettingsError(f"{shown(path)}: {what}; use one of {', '.join(WRITERS)}")
    return writer


def save(path: str | Path, pixels: Array, *, dpi: float = 72, metadata: Mapping[str, str] | None = None) -> None:
    """Write sRGB pixels (height, width, 3), or 4 with alpha that they are not multiplied with, in [0, 1] to `path`.

    The extension gives the format.

    TIFF and PNG get 16 bits per channel, JPEG (4:4:4) and WebP 8 bits at quality 95. Values are rounded, and
    clipped to [0, 1]. The file carries an sRGB profile, the resolution in pixels per inch, and `metadata`,
    which `read_metadata` gives back (JPEG has room for 64 kB of it; more is left out but for `Software`).
    Memory does not grow with the picture for TIFF and PNG.

    The old file stays until the new one is complete on disk, whatever happens. Raises SettingsError for the
    extension, size or dpi, OutputError for what goes wrong in writing, and for NaN or a wrong shape.
    """
    shape = pixels.shape
    check_output(path, (shape[0], shape[1]) if len(shape) > 1 else None, alpha=len(shape) == 3 and shape[2] == 4)
    _check_pixels(pixels)
    if not MIN_DPI <= dpi <= MAX_DPI:
        raise SettingsError(f"--dpi {dpi} must be from {MIN_DPI} to {MAX_DPI}")
    entries = _clean_metadata(metadata or {})
    writer = _writer_of(path)
    with replacing(path, lambda written: writer.check(written, pixels)) as stream:
        writer.write(stream, pixels, float(dpi), entries)


def encode_jpeg(pixels: Array, quality: int = 95) -> bytes:
    """Return (height, width, 3) pixels, uint8 or floats in [0, 1], as a JPEG (4:4:4, no profile) in memory, for a live view.

    A fourth channel, alpha, is shown on white.
    """
    if pixels.shape[2] == 4:
        white = 255 if pixels.dtype == np.uint8 else 1
        alpha = pixels[..., 3:] / np.float32(white)
        shown = pixels[..., :3] * alpha + white * (1 - alpha)
        pixels = np.rint(shown).astype(np.uint8) if white == 255 else shown
    buffer = io.BytesIO()
    image = Image.fromarray(pixels) if pixels.dtype == np.uint8 else to_pil(pixels)
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_png(stream: BinaryIO, pixels: Array, *, dpi: float = 72) -> None:
    """Write (height, width, 3 or 4) pixels in [0, 1] to a stream as a PNG with 16 bits per channel and an sRGB profile."""
    _check_pixels(pixels)
    _write_png(stream, pixels, dpi, {})


def _check_pixels(pixels: Array) -> None:
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size or pixels.dtype.kind != "f":
        raise OutputError(f"pixels: {pixels.dtype} of shape {pixels.shape}; must be float (height, width, 3 or 4)")
    for rows in _row_blocks(pixels.shape):
        if not np.isfinite(pixels[rows]).all():
            raise OutputError("the picture contains NaN or infinite values and is not written")


def quantize(block: Array, dtype: type[np.uint8] | type[np.uint16]) -> Array:
    """Return [0, 1] as 8- or 16-bit integers, clipped and rounded to nearest."""
    return np.rint(np.clip(block, 0, 1) * np.float32(np.iinfo(dtype).max)).astype(dtype)


def _clean_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the entries with values that UTF-8 can hold; raise OutputError for a name PNG cannot hold."""
    for key in metadata:
        if not (1 <= len(key) <= 79 and key.isascii() and key.isprintable() and " ".join(key.split()) == key):
            raise OutputError(f"metadata name {shown(key)!r}: must be 1 to 79 printable ASCII characters")
    return {k: v.encode("utf-8", "backslashreplace").decode("utf-8") for k, v in metadata.items()}


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")


# TIFF


def _tiff_strips(pixels: Array) -> Iterator[bytes]:
    """Yield the strips of a 16-bit RGB or RGBA picture: horizontal differences (predictor 2), then deflate."""
    for top in range(0, pixels.shape[0], _STRIP_ROWS):
        strip = quantize(pixels[top : top + _STRIP_ROWS], np.uint16)
        strip[:, 1:] -= strip[:, :-1].copy()  # modulo 65536, as the predictor wants it
        yield zlib.compress(strip.astype("<u2", copy=False).tobytes(), 6)


def _write_tiff(stream: BinaryIO, pixels: Array, dpi: float, metadata: dict[str, str]) -> None:
    import tifffile

    height, width, channels = pixels.shape
    with tifffile.TiffWriter(stream, bigtiff=height * width * 2 * channels > _CLASSIC_TIFF_BYTES, byteorder="<") as file:
        file.write(
            _tiff_strips(pixels),
            shape=(height, width, channels),
            dtype=np.uint16,
            photometric="rgb",
            extrasamples=["UNASSALPHA"] if channels == 4 else None,
            planarconfig="contig",
            rowsperstrip=_STRIP_ROWS,
            compression="zlib",
            predictor=True,
            resolution=(dpi, dpi),
            resolutionunit="INCH",
            iccprofile=_srgb_profile(),
            description=json.dumps(metadata) if metadata else None,
            software=_ascii(metadata["Software"]) if "Software" in metadata else False,
            metadata=None,
        )


def _check_tiff(stream: BinaryIO, pixels: Array) -> None:
    import tifffile

    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        if page.shape != pixels.shape or page.dtype != np.uint16:
            raise ValueError(f"read back as {page.dtype} of shape {page.shape}")
        stream.seek(page.dataoffsets[-1])
        packed = stream.read(page.databytecounts[-1])
    *_, last = _tiff_strips(pixels[(pixels.shape[0] - 1) // _STRIP_ROWS * _STRIP_ROWS :])
    if packed != last:
        raise ValueError("the last strip read back is not the one that was written")


# PNG


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_rows(pixels: Array) -> Iterator[bytes]:
    """Yield blocks of filtered scanlines; each row takes the filter (none, sub, up) of the smallest sum.

    The heuristic is the PNG specification's (W3C PNG 12.7): smallest sum of absolute differences.
    """
    row_bytes, step = pixels.shape[1] * pixels.shape[2] * 2, pixels.shape[2] * 2
    above = np.zeros((1, row_bytes), np.uint8)
    for top in range(0, pixels.shape[0], _STRIP_ROWS):
        strip = quantize(pixels[top : top + _STRIP_ROWS], np.uint16).astype(">u2", order="C")
        rows = strip.view(np.uint8).reshape(-1, row_bytes)
        sub = rows.copy()
        sub[:, step:] -= rows[:, :-step]
        up = rows - np.concatenate([above, rows[:-1]])
        choices = np.stack([rows, sub, up])
        cost = np.abs(choices.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
        best = cost.argmin(axis=0)
        filtered = np.empty((rows.shape[0], 1 + row_bytes), np.uint8)
        filtered[:, 0] = best
        filtered[:, 1:] = choices[best, np.arange(rows.shape[0])]
        yield filtered.tobytes()
        above = rows[-1:]


def _write_png(stream: BinaryIO, pixels: Array, dpi: float, metadata: dict[str, str]) -> None:
    height, width, channels = pixels.shape
    stream.write(_PNG_SIGNATURE)
    stream.write(_png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _PNG_KINDS[channels], 0, 0, 0)))
    stream.write(_png_chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(_srgb_profile(), 9)))
    per_meter = round(dpi / 0.0254)
    stream.write(_png_chunk(b"pHYs", struct.pack(">IIB", per_meter, per_meter, 1)))
    for key, value in metadata.items():
        stream.write(_png_chunk(b"iTXt", key.encode("ascii") + b"\0\0\0\0\0" + value.encode("utf-8")))
    packer = zlib.compressobj(6)
    packed = itertools.chain(map(packer.compress, _png_rows(pixels)), map(packer.flush, [zlib.Z_FINISH]))
    for data in packed:
        for at in range(0, len(data), 1 << 20):
            stream.write(_png_chunk(b"IDAT", data[at : at + (1 << 20)]))
    stream.write(_png_chunk(b"IEND", b""))


def _check_png(stream: BinaryIO, pixels: Array) -> None:
    height, width, channels = pixels.shape
    head = stream.read(26)
    if head[:8] != _PNG_SIGNATURE or struct.unpack(">IIBB", head[16:26]) != (width, height, 16, _PNG_KINDS[channels]):
        raise ValueError("the header read back is not the one that was written")
    at, last, kind = len(_PNG_SIGNATURE), b"", b""
    while kind != b"IEND":
        stream.seek(at)
        length, kind = struct.unpack(">I4s", stream.read(8))
        if kind in (b"IDAT", b"IEND"):
            body = stream.read(length)
            last = body if kind == b"IDAT" else last
            if stream.read(4) != struct.pack(">I", zlib.crc32(kind + body)):
                raise ValueError("data read back are not those that were written")
        at += 12 + length


# JPEG and WebP


def _exif(dpi: float, metadata: dict[str, str]) -> bytes:
    """Return an EXIF block with the resolution, the metadata as JSON in ImageDescription, and Software."""
    block = Image.Exif()
    block[0x011A] = block[0x011B] = dpi  # XResolution, YResolution
    block[0x0128] = 2  # ResolutionUnit: inch
    if metadata:
        block[0x010E] = json.dumps(metadata)
    if "Software" in metadata:
        block[0x0131] = _ascii(metadata["Software"])
    return block.tobytes()


def _encode_pillow(pixels: Array, kind: str, **options: Any) -> bytes:
    """Encode in memory: given a real file, Pillow's encoder does not notice when the disk is full."""
    buffer = io.BytesIO()
    to_pil(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _write_jpeg(stream: BinaryIO, pixels: Array, dpi: float, metadata: dict[str, str]) -> None:
    exif = _exif(dpi, metadata)
    if len(exif) > _JPEG_EXIF_BYTES:
        exif = _exif(dpi, {k: v[:1000] for k, v in metadata.items() if k == "Software"})
    density = (max(1, round(dpi)),) * 2  # JFIF has whole numbers only; EXIF has the exact one
    options = {"dpi": density, "exif": exif, "icc_profile": _srgb_profile()}
    stream.write(_encode_pillow(pixels, "JPEG", quality=95, subsampling=0, **options))


def _write_webp(stream: BinaryIO, pixels: Array, dpi: float, metadata: dict[str, str]) -> None:
    options = {"exif": _exif(dpi, metadata), "icc_profile": _srgb_profile(), "exact": pixels.shape[2] == 4}
    stream.write(_encode_pillow(pixels, "WEBP", quality=95, method=4, **options))


def _check_pillow(kind: str, stream: BinaryIO, pixels: Array) -> None:
    with _pillow(), Image.open(stream, formats=[kind]) as image:
        if image.size != (pixels.shape[1], pixels.shape[0]):
            raise ValueError(f"read back as {image.width} x {image.height}")
        image.load()


_check_jpeg, _check_webp = functools.partial(_check_pillow, "JPEG"), functools.partial(_check_pillow, "WEBP")


WRITERS: Final[Mapping[str, Writer]] = {
    ".tif": Writer("TIFF", 16, 0, True, _write_tiff, _check_tiff),
    ".tiff": Writer("TIFF", 16, 0, True, _write_tiff, _check_tiff),
    ".png": Writer("PNG", 16, 0, True, _write_png, _check_png),
    ".jpg": Writer("JPEG", 8, 65535, False, _write_jpeg, _check_jpeg),
    ".jpeg": Writer("JPEG", 8, 65535, False, _write_jpeg, _check_jpeg),
    ".webp": Writer("WebP", 8, 16383, True, _write_webp, _check_webp),
}


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the `metadata` that `save` put into a file; empty for a file that has none of ours.

    Raises ImageError for a file that is not a readable PNG, TIFF, JPEG or WebP.
    """
    path, name = Path(path), shown(path)
    _check_input(path, name)
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
            stream.seek(0)
            if head.startswith(_PNG_SIGNATURE):
                return dict(_png_texts(stream.read()))
            tiff = head[:2] in (b"II", b"MM")
            text = _tiff_description(stream, name) if tiff else _exif_description(stream)
    except StyleTransferError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise ImageError(f"{name}: its metadata cannot be read ({reason(error)})") from error
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {k: v for k, v in entries.items() if isinstance(v, str)} if isinstance(entries, dict) else {}


def _png_texts(data: bytes) -> Iterator[tuple[str, str]]:
    for kind, body in _png_chunks(data):
        key, _, rest = bytes(body).partition(b"\0")
        if kind == b"iTXt" and rest[:1] == b"\0":  # not compressed
            _language, _, rest = rest[2:].partition(b"\0")
            _translated, _, text = rest.partition(b"\0")
            yield key.decode("latin-1"), text.decode("utf-8", "replace")


def _tiff_description(stream: BinaryIO, name: str) -> str:
    import tifffile

    _tiff_pages(stream, name)
    with tifffile.TiffFile(stream) as file:
        return str(file.pages.first.description)


def _exif_description(stream: BinaryIO) -> str:
    with _pillow(), Image.open(stream, formats=["JPEG", "WEBP"]) as image:
        return str(image.getexif().get(0x010E, ""))
