"""Pictures in memory: the array types, `Picture`, the samples of a decoder, and operations by blocks of rows.

Inside the program a picture is float32 sRGB in [0, 1], shape (height, width, 3).
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import OutputError

S = TypeVar("S")
T = TypeVar("T")
Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.float32]

BLOCK_PIXELS: Final = 1 << 17
"""Large pictures are converted in blocks of rows of about this many pixels."""
THREADS: Final = 4
"""Blocks are converted on at most so many threads at a time, which bounds the memory of those under way."""
CHANNELS: Final = {"gray": 1, "rgb": 3, "cmyk": 4}
"""The number of colour channels of each colour space of files."""


@dataclass(frozen=True)
class Reading:
    """How a file was understood, in words for the user.

    `format`: its kind, such as "JPEG". `bits`: what its samples are, such as "8 bits". `colour`: the profile or signal that
    decided the colours, or what was assumed without one. `orientation` and `alpha`: what was done about them.
    """

    format: str
    bits: str
    colour: str
    orientation: str
    alpha: str

    def __str__(self) -> str:
        return f"{self.format}, {self.bits}, {self.colour}, {self.orientation}, {self.alpha}"


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    `pixels`: float32, shape (height, width, 3), sRGB in [0, 1], contiguous, upright.
    `notes`: one-line warnings for the user, without the file's name.
    `alpha`: float32, shape (height, width), opacity in [0, 1]; None if it was not requested or is 1 everywhere.
    `reading`: how its file was understood; None for a picture that was not read.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()
    alpha: Pixels | None = None
    reading: Reading | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


class Stored(Protocol):
    """Samples (height, width, channels) that a decoder keeps in a form of its own; an `Array` is one too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples."""

    def __getitem__(self, box: tuple[slice, slice], /) -> Array:
        """Return the samples of some rows and columns."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """Samples that a function of boxes (rows, columns, channels) makes from stored ones when they are asked for."""

    stored: Stored
    function: Callable[[Array], Array]

    def __getitem__(self, box: tuple[slice, slice]) -> Array:
        return self.function(self.stored[box])

    @functools.cached_property
    def _pixel(self) -> Array:
        return self[:1, :1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return (*self.stored.shape[:2], self._pixel.shape[2])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples."""
        return self._pixel.dtype


@dataclass
class Samples:
    """The samples of a file as its decoder returns them, before orientation and colour conversion.

    `values`: (height, width, channels), any numeric type; the first 1 (gray), 3 (rgb) or 4 (cmyk) channels are colour, and the
    next one, if any, is alpha. CMYK samples are amounts of ink. `white`: the sample value that means 1.0. `space`: a key of
    `CHANNELS`. `orientation`: the EXIF orientation, None if absent, or "damaged". `premultiplied`: whether colours are stored
    multiplied by alpha. `signal`: the name of what colours are converted by instead of the file's profile, such as "CIELAB" or
    "BT.2020 PQ", or "". `convert`: the conversion of colours in [0, 1] to sRGB, for blocks of rows, where a profile cannot do it.
    `exif_icc`: a profile of the colour space that EXIF names, which counts if there is no other; empty if EXIF says that
    colours are not sRGB, but not what they are. `bits`: what the samples in the file are, such as "8 bits", if `values` do not
    show it. `format`: the kind of file.
    """

    values: Stored
    white: float
    space: str
    icc: bytes | None = None
    orientation: object = None
    notes: list[str] = field(default_factory=list)
    premultiplied: bool = False
    signal: str = ""
    convert: Callable[[Pixels], Pixels] | None = None
    exif_icc: bytes | None = None
    bits: str = ""
    format: str = "PIL picture"

    @classmethod
    def empty(cls) -> Self:
        """Return samples without values, for a decoder that reads the description of a picture first."""
        return cls(np.empty((0, 0, 0)), 0.0, "rgb")

    def blocks(self) -> Iterator[Array]:
        """Yield all samples by blocks of rows."""
        for rows in row_blocks(self.values.shape):
            yield self.values[rows, :]

    def stored_bits(self) -> str:
        """Return what the samples in the file are, such as "8 bits" or "32-bit floating point"."""
        if not self.bits and self.values.dtype.kind == "f":
            return f"{self.values.dtype.itemsize * 8}-bit floating point"
        bits = round(np.log2(self.white + 1))
        return self.bits or f"{bits} bit{'s' * (bits != 1)}"


def row_blocks(shape: tuple[int, ...], pixels: int | None = None) -> Iterator[slice]:
    """Yield slices over the rows of a (height, width, ...) array, each of about `pixels` (or BLOCK_PIXELS) pixels."""
    rows = max(1, (pixels or BLOCK_PIXELS) // max(1, shape[1]))
    for top in range(0, shape[0], rows):
        yield slice(top, min(top + rows, shape[0]))


def map_row_blocks(shape: tuple[int, ...], work: Callable[[slice], T]) -> Iterator[T]:
    """Yield the results of `work` for all blocks of `row_blocks`; see `in_order`."""
    return in_order(work, row_blocks(shape))


def in_order(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Yield the results of `work` for items in their order, computed on up to `THREADS` threads, no further ahead than that."""
    threads = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[T]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def check_pixels(pixels: Array) -> None:
    """Raise `OutputError` unless pixels are finite floats of shape (height, width, 3 or 4)."""
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size or pixels.dtype.kind != "f":
        raise OutputError(f"pixels: {pixels.dtype} of shape {pixels.shape}; must be float (height, width, 3 or 4)")
    for rows in row_blocks(pixels.shape):
        if not np.isfinite(pixels[rows]).all():
            raise OutputError("the picture contains NaN or infinite values and is not written")


def quantize(block: Array, dtype: type[np.uint8] | type[np.uint16]) -> Array:
    """Return values in [0, 1] as 8- or 16-bit integers, clipped and rounded to nearest."""
    return np.rint(np.clip(block, 0, 1) * np.float32(np.iinfo(dtype).max)).astype(dtype)
