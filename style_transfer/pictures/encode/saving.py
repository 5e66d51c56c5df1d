"""Output formats, and saving of pictures in the format of the file name's suffix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from ...errors import SettingsError, near_miss
from ...files import check_target, replacing, shown
from ...geometry import Sheet
from ...registry import OUTPUT_FORMATS
from ..credits import Credits
from ..icc import written_profile
from ..picture import Array, check_pixels
from ..pil import checked_metadata, exif_block
from ..press import Conversion
from ..working import WorkingSpace

MIN_DPI: Final = 0.1
"""PNG has whole pixels per metre."""
MAX_DPI: Final = 65535
"""JPEG has 16 bits for the resolution."""


@dataclass(frozen=True)
class Encoding:
    """What a file holds beside its pixels, and how it holds them.

    `dpi`: the resolution in pixels per inch. `metadata`: texts by name. `lossless`: whether a format that can do both stores the
    pixels, in its own bits, without loss. `space`: the working space of the pixels, None for sRGB. `press`: what they are
    converted to; None to store them as they are. `sheet`: the print, None for the size that follows from the resolution;
    `crop_marks`: whether a format with pages marks its corners. `credits`: what the photograph says of itself, if that is kept.
    """

    dpi: float = 72.0
    metadata: dict[str, str] = field(default_factory=dict)
    lossless: bool = False
    press: Conversion | None = None
    space: WorkingSpace | None = None
    sheet: Sheet | None = None
    crop_marks: bool = False
    credits: Credits | None = None

    @property
    def profile(self) -> bytes:
        """The ICC profile to embed."""
        found = self.press or self.space
        return written_profile() if found is None else found.icc

    @property
    def cmyk(self) -> bool:
        """Whether the file holds CMYK."""
        return self.press is not None and self.press.space == "cmyk"

    def exif(self) -> bytes:
        """Return the EXIF block to embed."""
        credits = self.credits or Credits()
        return exif_block(self.dpi, self.metadata, credits.exif_texts, credits.exif_date)

    def samples(self, block: Array) -> Array:
        """Return rows of pixels (rows, width, 3 or 4) as the values to store, in [0, 1] or slightly outside; alpha stays."""
        if self.press is None:
            return block
        values = self.press.convert(block[..., :3], None if self.space is None else self.space.exact)
        return np.concatenate([values, block[..., 3:]], axis=2) if block.shape[2] == 4 else values


@dataclass(frozen=True)
class OutputFormat:
    """A format that pictures are written in, registered in `registry.OUTPUT_FORMATS` under each of its suffixes.

    `name`: its name in messages. `bits`: 8 or 16 per channel. `alpha`: whether it stores alpha. `max_side`: the largest height
    and width in pixels; None for no limit. `lossless`: whether it can store pixels without loss. `halves_colour`: whether it
    stores colour at half the resolution (4:2:0) otherwise. `cmyk`: whether it stores CMYK. `readable`: whether
    `load` reads its files.

    `encode` gets an open file, finite pixels (height, width, 3 or 4) in [0, 1] or slightly outside, and the `Encoding`. `check`
    gets the written file, open for reading, the pixels and the `Encoding`; it raises any exception if the header or the last part
    of the file is not what was to be written.
    """

    name: str
    bits: int
    alpha: bool
    encode: Callable[[BinaryIO, Array, Encoding], None]
    check: Callable[[BinaryIO, Array, Encoding], None]
    max_side: int | None = None
    lossless: bool = True
    halves_colour: bool = False
    cmyk: bool = False
    readable: bool = True


def save(
    path: str | Path, pixels: Array, *, dpi: float = 72, metadata: Mapping[str, str] | None = None, lossless: bool = False,
    press: Conversion | None = None, space: WorkingSpace | None = None, sheet: Sheet | None = None, crop_marks: bool = False,
    credits: Credits | None = None,
) -> None:  # fmt: skip
    """Write pixels (height, width, 3) in [0, 1], or 4 channels with alpha by which colours are not multiplied, to `path`.

    They are sRGB, or values of a working `space`; `press` converts them. The suffix selects the format: TIFF and PNG with 16 bits
    per channel, JPEG (4:4:4) and WebP (4:2:0) with 8 bits at quality 95, WebP without loss if `lossless`, PDF with 8 bits, of the
    size of `sheet`, with `crop_marks`.

    Values are clipped to [0, 1] and rounded. The file has the profile of its colours; the resolution in pixels per inch;
    `metadata`, which `read_metadata` returns; and `credits`, for other programs (JPEG has room for 64 kB; of longer metadata only
    `Software` is kept). For TIFF and PNG the memory used does not grow with the picture.

    The file is replaced atomically. Raises `SettingsError` for the suffix, size or dpi, `OutputError` for NaN, a wrong shape,
    and problems in writing.
    """
    shape = pixels.shape
    check_output(
        path, (shape[0], shape[1]) if len(shape) > 1 else None, alpha=len(shape) == 3 and shape[2] == 4, lossless=lossless,
        press=press,
    )  # fmt: skip
    check_pixels(pixels)
    if not MIN_DPI <= dpi <= MAX_DPI:
        raise SettingsError(f"--dpi {dpi} must be from {MIN_DPI} to {MAX_DPI}")
    encoding = Encoding(float(dpi), checked_metadata(metadata or {}), lossless, press, space, sheet, crop_marks, credits)
    output_format = format_of(path)
    with replacing(path, lambda written: output_format.check(written, pixels, encoding)) as stream:
        output_format.encode(stream, pixels, encoding)


def check_output(
    path: str | Path, size: tuple[int, int] | None = None, *, alpha: bool = False, lossless: bool = False,
    press: Conversion | None = None,
) -> None:  # fmt: skip
    """Raise unless a picture of `size` (height, width), with alpha if `alpha`, can be saved at `path`. Writes nothing.

    `SettingsError`: the suffix is unknown, or the format does not support the size, alpha, `lossless` or `press`. `OutputError`:
    the folder does not exist or is not writable, or `path` is a folder or not a regular file.
    """
    name = shown(path)
    output_format = format_of(path)
    limit = output_format.max_side
    if size is not None and limit is not None and max(size) > limit:
        others = _suffixes(lambda other: other.max_side is None or max(size) <= other.max_side)
        raise SettingsError(
            f"{name}: {output_format.name} has at most {limit} pixels a side, the result is {size[1]} x {size[0]}; use {others}"
        )
    if alpha and not output_format.alpha:
        raise SettingsError(f"{name}: {output_format.name} does not store alpha; use {_suffixes(lambda other: other.alpha)}")
    if lossless and not output_format.lossless:
        raise SettingsError(f"{name}: {output_format.name} is not lossless; use {_suffixes(lambda other: other.lossless)}")
    if press is not None and press.space == "cmyk":
        if not output_format.cmyk:
            raise SettingsError(f"{name}: {output_format.name} is not for CMYK; use {_suffixes(lambda other: other.cmyk)}")
        if alpha:
            raise SettingsError(f"{name}: CMYK is written without alpha; leave out --alpha keep or --output-profile")
    check_target(path)


def format_of(path: str | Path) -> OutputFormat:
    """Return the output format of a path's suffix; raise `SettingsError` for an unknown one."""
    suffix = Path(path).suffix
    output_format: OutputFormat | None = OUTPUT_FORMATS.get(suffix.lower())
    if output_format is None:
        guess = near_miss(suffix, OUTPUT_FORMATS)
        problem = f"unknown extension '{shown(suffix)}'{guess}" if suffix else "no extension"
        raise SettingsError(f"{shown(path)}: {problem}; use one of {_suffixes(lambda _: True)}")
    return output_format


def _suffixes(accepts: Callable[[OutputFormat], bool]) -> str:
    """Return the suffixes of the formats that a condition accepts, for a message."""
    return ", ".join(suffix for suffix, output_format in OUTPUT_FORMATS.items() if accepts(output_format))
