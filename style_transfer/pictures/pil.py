"""PIL pictures: conversion from and to them, and the metadata that files hold in EXIF blocks and image descriptions."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from PIL import Image

from ..errors import ImageError, OutputError
from ..files import reason, shown
from . import signals
from .develop import DecodedPicture
from .picture import Array, Picture, Samples, check_pixels, quantize, row_blocks

DESCRIPTION: Final = 0x010E
ORIENTATION: Final = 0x0112
EXIF_IFD: Final = 0x8769
INTEROPERABILITY_IFD: Final = 0xA005
COLOR_SPACE: Final = 0xA001
ADOBE_RGB_SPACE: Final = 2
UNCALIBRATED: Final = 65535
CONVERTED: Final = {"HSV": "RGB", "YCbCr": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "RGBA"}
"""Modes of PIL pictures, and those that their samples are converted to."""
_lock = threading.RLock()  # guards Pillow's global pixel limit and Python's global warning filters


@contextlib.contextmanager
def pillow_limits_off() -> Iterator[None]:
    """Lift Pillow's own pixel limit and silence its warnings, for which this package has its own limit and notes."""
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@dataclasses.dataclass(frozen=True, eq=False)
class PilValues:
    """The samples of a PIL picture, copied from it and converted box by box: Pillow has 4 bytes for a pixel of 8-bit RGB.

    `mode` is the one that they are converted to.
    """

    image: Image.Image
    mode: str

    def __getitem__(self, box: tuple[slice, slice]) -> Array:
        (top, bottom, _), (left, right, _) = (
            part.indices(length) for part, length in zip(box, (self.image.height, self.image.width), strict=True)
        )
        with pillow_limits_off():
            part = self.image.crop((left, top, right, bottom))
            values = np.asarray(part if part.mode == self.mode else part.convert(self.mode))
        return values.reshape(bottom - top, right - left, -1)

    @functools.cached_property
    def _pixel(self) -> Array:
        return self[:1, :1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return self.image.height, self.image.width, self._pixel.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples."""
        return self._pixel.dtype


def from_pil(image: Image.Image, *, alpha: bool = False) -> Picture:
    """Convert a PIL picture as `load` converts files: its ICC profile and EXIF orientation are applied.

    Modes I;16 and I have values up to 65535; mode F must be in [0, 1]. Raises `ImageError` for a mode that is not supported
    (LAB), for values beyond the range or NaN, for an object that is not a PIL picture, and for a picture that is closed or whose
    file is damaged.
    """
    name = "PIL picture"
    if not isinstance(image, Image.Image):
        raise ImageError(f"a PIL picture is expected, not {type(image).__name__}; Image.open or Image.fromarray makes one")
    if not image.width or not image.height:
        raise ImageError(f"{name}: {image.width} x {image.height} has no pixels")
    try:
        with pillow_limits_off():
            raw = samples_of(image, name, alpha)
        _apply_numbers(raw, image.info)
        _check_range(raw, name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow decodes files lazily, and raises many types for closed and damaged ones
        raise ImageError(f"{name}: cannot be decoded ({reason(error)})") from error
    return DecodedPicture(raw, name, keep_alpha=alpha).picture()


def _check_range(raw: Samples, name: str) -> None:
    """Raise `ImageError` for samples outside of the range that has a meaning: a caller can divide, and nothing tells by what."""
    blocks = [(block.min(), block.max()) for block in raw.blocks()]
    low, high = float(min(low for low, _ in blocks)), float(max(high for _, high in blocks))
    if low < -1e-6 * raw.white or high > (1 + 1e-6) * raw.white:
        raise ImageError(f"{name}: has values from {low:.4g} to {high:.4g}; bring them into [0, {raw.white:g}]")


def _apply_numbers(raw: Samples, info: Mapping[str | tuple[int, int], Any]) -> None:
    """Let samples have the colours of the gamma and the chromaticities that Pillow found in a PNG."""
    points, gamma = info.get("chromaticity"), info.get("gamma")
    if raw.icc is not None or "srgb" in info or not (points or gamma):
        return
    try:
        white, *others = zip(points[::2], points[1::2], strict=True) if points else (None,)
        signal = signals.from_numbers((*others, white) if white else None, 1 / gamma if gamma else None)
    except (TypeError, ValueError):
        raw.notes.append("its primaries or its gamma cannot be right: ignored, sRGB assumed")
    else:
        signals.apply(raw, signal)


def to_pil(pixels: Array, convert: Callable[[Array], Array] = lambda block: block) -> Image.Image:
    """Return (height, width, 3 or 4) pixels in [0, 1] as an 8-bit RGB or RGBA PIL picture, rounded and clipped.

    `convert` changes the colours of blocks of rows.

    Raises `OutputError` for a wrong shape or NaN.
    """
    check_pixels(pixels)
    result = np.empty(pixels.shape, np.uint8)
    for rows in row_blocks(pixels.shape):
        result[rows] = quantize(convert(pixels[rows]), np.uint8)
    return Image.fromarray(result)


def samples_of(image: Image.Image, name: str, alpha: bool = False) -> Samples:
    """Return the samples of a PIL picture, with what `description_of` returns; with `alpha` a transparent colour becomes alpha.

    Raises `ImageError` for a mode that is not supported.
    """
    raw = description_of(image)
    mode = image.mode
    transparent = "transparency" in image.info
    if mode == "P" or (mode in ("L", "RGB") and transparent and alpha):
        mode = "RGBA" if transparent else "RGB"
    elif mode in ("L", "RGB") and transparent:
        raw.notes.append("transparent colour ignored; colours are used as stored")
    mode = CONVERTED.get(mode, mode)
    if mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;16"):
        raw.space = "gray"
    elif mode in ("RGB", "RGBA", "CMYK"):
        raw.space = "cmyk" if mode == "CMYK" else "rgb"
    else:
        raise ImageError(f"{name}: PIL mode {mode} is not supported; convert it to RGB")
    image.load()
    raw.values = PilValues(image, mode)
    raw.white = {"1": 1.0, "F": 1.0}.get(mode, 65535.0 if mode.startswith("I") else 255.0)
    return raw


def description_of(image: Image.Image) -> Samples:
    """Return what a PIL picture says of its samples, without them: profile, orientation, colour space of EXIF, animation."""
    raw = Samples.empty()
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a photograph with its preview
        raw.notes.append(f"animated {image.format or 'picture'}: only the first frame is used")
    raw.icc = image.info.get("icc_profile")
    raw.orientation = exif_orientation(image.getexif)
    raw.exif_icc = exif_profile(image.getexif)
    return raw


def exif_orientation(load: Callable[[], Image.Exif]) -> object:
    """Return the orientation tag of the EXIF block that `load` returns, None without one, "damaged" if `load` fails."""
    try:
        with pillow_limits_off():
            return load().get(ORIENTATION)
    except Exception:  # Pillow raises SyntaxError, struct.error, KeyError and others for damaged EXIF
        return "damaged"


def exif_profile(load: Callable[[], Image.Exif]) -> bytes | None:
    """Return a profile of the colour space that the EXIF block of `load` names, None for sRGB, empty if it is an unknown one.

    Cameras mark Adobe RGB by the interoperability index R03 (DCF 2.0) and ColorSpace 65535, which means uncalibrated, or by
    ColorSpace 2.
    """
    try:
        with pillow_limits_off():
            block = load()
            space, index = block.get_ifd(EXIF_IFD).get(COLOR_SPACE), block.get_ifd(INTEROPERABILITY_IFD).get(1)
    except Exception:  # as in `exif_orientation`
        return None
    if isinstance(index, bytes):
        index = index.decode("latin-1")
    index = index.rstrip("\0 ") if isinstance(index, str) else None
    if space == ADOBE_RGB_SPACE or (index == "R03" and space in (UNCALIBRATED, None)):
        return signals.profile(signals.ADOBE_RGB)
    return b"" if space == UNCALIBRATED else None


def xmp_orientation(data: bytes) -> int | None:
    """Return the orientation in an XMP packet, None without one."""
    match = re.search(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([0-9])", data)
    return int(match[1]) if match else None


def parse_exif(data: bytes) -> Image.Exif:
    """Return an EXIF block, with or without "Exif" and two zeros before it; raise any exception for a damaged one."""
    block = Image.Exif()
    block.load(data)
    return block


def exif_block(dpi: float, metadata: Mapping[str, str], texts: Mapping[int, bytes] | None = None, taken: str = "") -> bytes:
    """Return an EXIF block with the resolution, the metadata as JSON in ImageDescription, and Software.

    `texts` are further ones by their tag, and `taken` is the date at which a photograph was taken.
    """
    block = Image.Exif()
    block[0x011A] = block[0x011B] = dpi  # XResolution, YResolution
    block[0x0128] = 2  # ResolutionUnit: inch
    if metadata:
        block[DESCRIPTION] = json.dumps(metadata)
    if "Software" in metadata:
        block[0x0131] = ascii_only(metadata["Software"])
    for tag, text in (texts or {}).items():
        block[tag] = text
    if taken:
        block.get_ifd(EXIF_IFD)[0x9003] = taken  # DateTimeOriginal
    return block.tobytes()


def ascii_only(text: str) -> str:
    """Return a text with a question mark for each character that is not ASCII."""
    return text.encode("ascii", "replace").decode("ascii")


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata with values that UTF-8 can encode; raise `OutputError` for a name that PNG does not allow."""
    for key in metadata:
        if not (1 <= len(key) <= 79 and key.isascii() and key.isprintable() and " ".join(key.split()) == key):
            raise OutputError(f"metadata name {shown(key)!r}: must be 1 to 79 printable ASCII characters")
    return {k: v.encode("utf-8", "backslashreplace").decode("utf-8") for k, v in metadata.items()}


def parse_description(text: str) -> dict[str, str]:
    """Return the metadata in an image description, which are JSON; empty for the description of another program."""
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {k: v for k, v in entries.items() if isinstance(v, str)} if isinstance(entries, dict) else {}
