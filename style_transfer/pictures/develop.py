"""Conversion of a decoder's samples to float32 sRGB, whole or by blocks of rows: alpha, orientation, colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from ..errors import ImageError
from ..files import shown
from .icc import is_srgb, profile_name, soft_proof, usable_profile
from .picture import CHANNELS, Array, Picture, Pixels, Reading, Samples, map_row_blocks, row_blocks
from .shaper import gray_table, shaper
from .working import WorkingSpace, convert_samples

TURNS: Final[dict[int, Callable[[Array], Array]]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}
"""Functions that turn a picture upright, by EXIF orientation."""
SIDEWAYS: Final = frozenset([5, 6, 7, 8])
"""Orientations whose upright rows are stored as columns."""
FROM_THE_END: Final = frozenset([3, 4, 7, 8])
"""Orientations whose upper rows are the last ones stored, or the last columns."""
SCALES: Final = (255, 1023, 4095, 16383, 65535)
"""The largest values that are white in integers of 8 to 16 bits."""


class DecodedPicture:
    """A decoded picture whose rows become float32 sRGB in [0, 1] when they are asked for.

    The samples stay as they were decoded, which takes a quarter to a half of the memory of the converted picture. `size` is the
    upright (height, width). `notes` are complete when all rows have been converted.
    """

    def __init__(
        self, raw: Samples, name: str, proof: bytes | None = None, *, keep_alpha: bool = False, space: WorkingSpace | None = None
    ) -> None:
        """Choose the conversion of samples; `proof` is a CMYK profile, whose printing condition limits the colours.

        The pixels have the values of a working `space` instead of sRGB, if one is given.
        Raises `ImageError` for floats whose white is not 1.
        """
        self._raw, self._name, self._proof, self._space = raw, name, proof, space
        notes = self._notes = raw.notes
        colours = CHANNELS[raw.space]
        transparent = raw.values.shape[2] > colours and any(block[..., colours].min() < raw.white for block in raw.blocks())
        self._keeps_alpha = transparent and keep_alpha
        self._unmultiplies = transparent and raw.premultiplied
        if transparent and not keep_alpha:
            notes.append(f"alpha channel ignored{'' if raw.premultiplied else '; colours are used as stored'}")
        self._orientation = known_orientation(raw.orientation, notes)
        if raw.icc is None and raw.exif_icc is not None and not raw.signal and raw.space != "cmyk":
            if raw.exif_icc:
                raw.icc, raw.signal = raw.exif_icc, f"{profile_name(raw.exif_icc)} by EXIF"
            else:
                notes.append("its EXIF says that colours are not sRGB, but not what they are: used as stored")
        self._profile = usable_profile(raw.icc, raw.space, notes)
        if raw.space == "cmyk" and self._profile is None and raw.icc is None:
            notes.append("CMYK without a colour profile: converted by a plain formula, colours are approximate")
        if raw.values.dtype.kind == "f":
            _check_scale(raw, name)
        self._by_value = None if self._unmultiplies or space is not None else _by_value(raw, self._profile)
        self.reading = _reading(raw, converted=self._profile is not None, transparent=transparent, kept=keep_alpha)
        height, width = raw.values.shape[:2]
        self.size: tuple[int, int] = (width, height) if self._orientation in SIDEWAYS else (height, width)

    @property
    def notes(self) -> tuple[str, ...]:
        """One-line warnings for the user, without the file's name."""
        return tuple(self._notes)

    def alpha(self) -> Pixels | None:
        """Return the opacity (height, width) in [0, 1]; None if it was not requested or is 1 everywhere. Raises `ImageError`."""
        if not self._keeps_alpha:
            return None
        alpha = np.empty(self.size, np.float32)
        for rows in row_blocks(self.size):
            alpha[rows] = self._stored(rows)[..., CHANNELS[self._raw.space]] / self._raw.white
        _check_finite(alpha, self._name)
        return alpha.clip(0, 1, out=alpha)

    def blocks(self) -> Iterator[Pixels]:
        """Yield the pixels (rows, width, 3) of blocks of rows, from the top.

        Raises `ImageError` for NaN.
        """

        def convert(rows: slice) -> tuple[Pixels, tuple[float, float]]:
            block = np.empty((rows.stop - rows.start, self.size[1], 3), np.float32)
            return block, self._convert(self._stored(rows), block)

        low, high = 0.0, 1.0
        for block, (lowest, highest) in map_row_blocks(self.size, convert):
            low, high = min(low, lowest), max(high, highest)
            yield block
        self._note_range(low, high)

    def picture(self) -> Picture:
        """Return the whole picture. Raises `ImageError` for NaN."""
        pixels, alpha = np.empty((*self.size, 3), np.float32), self.alpha()

        def convert(rows: slice) -> tuple[float, float]:
            return self._convert(self._stored(rows), pixels[rows])

        ranges = list(map_row_blocks(self.size, convert))
        self._note_range(min(low for low, _ in ranges), max(high for _, high in ranges))
        return Picture(pixels, self.notes, alpha, self.reading)

    def _stored(self, rows: slice) -> Array:
        """Return the samples of some rows of the upright picture, upright."""
        values, (start, stop) = self._raw.values, (rows.start, rows.stop)
        if self._orientation in FROM_THE_END:
            start, stop = self.size[0] - stop, self.size[0] - start
        part = slice(start, stop)
        return TURNS[self._orientation](values[:, part] if self._orientation in SIDEWAYS else values[part, :])

    def _convert(self, stored: Array, out: Pixels) -> tuple[float, float]:
        """Convert samples into `out`; return the lowest and the highest of their values, and of 0 and 1."""
        raw, colours = self._raw, CHANNELS[self._raw.space]
        samples, low, high = stored[..., :colours], 0.0, 1.0
        if self._by_value is not None:
            self._by_value(samples, out)
        else:
            precision: type[np.floating[Any]] = np.float64 if samples.dtype.itemsize > 2 else np.float32
            block = np.divide(samples, raw.white, dtype=precision).astype(np.float32, copy=False)
            if self._unmultiplies:
                block = _unmultiplied(block, np.divide(stored[..., colours:], raw.white, dtype=precision))
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            _check_finite(block, self._name)
            converted = convert_samples(block, raw.space, self._profile, raw.convert, self._space)
            np.clip(converted, 0, 1, out=out)
        if self._proof is not None:
            out[:] = np.clip(soft_proof(out, self._proof, None if self._space is None else self._space.exact), 0, 1)
        return low, high

    def _note_range(self, low: float, high: float) -> None:
        if low < -1e-6 or high > 1 + 1e-6:
            self._notes.append(f"values from {low:.4g} to {high:.4g}: clipped to 0 ... 1")


def _by_value(raw: Samples, profile: tuple[bytes, str] | None) -> Callable[[Array, Pixels], object] | None:
    """Return a function that converts integer samples, all at most white, into pixels; None where it takes more than that."""
    dtype = raw.values.dtype
    if dtype.kind != "u" or raw.white != np.iinfo(dtype).max or raw.convert or raw.space == "cmyk":
        return None
    if profile is None:
        return lambda block, pixels: np.divide(block, np.float32(raw.white), out=pixels, dtype=np.float32)
    icc, owner = profile
    if raw.space == "gray":
        table = gray_table(icc, owner, dtype)
        return lambda block, pixels: np.take(table, block[..., 0], axis=0, out=pixels, mode="clip")
    return shaper(icc, dtype)


def _reading(raw: Samples, *, converted: bool, transparent: bool, kept: bool) -> Reading:
    """Return how samples were understood; `converted` tells whether by their profile, `kept` whether alpha was requested."""
    assumed = "plain CMYK assumed" if raw.space == "cmyk" else "sRGB assumed"
    if raw.signal:
        colour = raw.signal
    elif raw.icc is None:
        colour = f"no profile, {assumed}"
    else:
        colour = f"profile {profile_name(raw.icc)}" if converted or is_srgb(raw.icc) else f"profile ignored, {assumed}"
    number = _integer(raw.orientation)
    if raw.orientation is None or number == 1:
        orientation = "upright"
    else:
        orientation = f"orientation {number} applied" if number in TURNS else "orientation ignored"
    alpha = ("alpha kept" if kept else "alpha ignored") if transparent else "no transparency"
    divided = ", colours divided by alpha" if transparent and raw.premultiplied else ""
    return Reading(raw.format, raw.stored_bits(), colour, orientation, alpha + divided)


def known_orientation(orientation: object, notes: list[str]) -> int:
    """Return the key of `TURNS` for an orientation of any type; 1 for None, and, with a note, for one that is unknown."""
    number = 1 if orientation is None else _integer(orientation)
    if number is not None and number in TURNS:
        return number
    if orientation == "damaged":
        notes.append("its EXIF data are damaged: orientation unknown, used as stored")
    else:
        notes.append(f"EXIF orientation {shown(str(orientation))[:20]} does not exist: used as stored")
    return 1


def _integer(value: object) -> int | None:
    """Return the integer that a value of a tag means, whatever its type: 6, 6.0, "6", (6,), (6, 1) for a fraction; else None."""
    if isinstance(value, tuple | bytes) and (len(value) == 1 or (len(value) == 2 and value[1] == 1)):
        value = value[0]
    try:
        number = float(value)  # type: ignore[arg-type]  # other types raise TypeError
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _check_scale(raw: Samples, name: str) -> None:
    """Raise `ImageError` if most floats above 0 are above white, as in files with values up to 255 or 65535."""
    light = bright = 0
    top, white = 0.0, raw.white
    for stored in raw.blocks():
        block = stored[..., : CHANNELS[raw.space]]
        light += int((block > 0).sum())
        bright += int((block > white).sum())
        top = max(top, float(block.max()))
    if 2 * bright > light and top < np.inf:
        factor = next((scale for scale in SCALES if top <= 1.1 * scale), top)
        raise ImageError(f"{name}: floating-point values up to {top:.6g}, most above {white:.6g}; divide them by {factor:.6g}")


def _check_finite(values: Pixels, name: str) -> None:
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: contains NaN or infinite values; repair it in the program that wrote it")


def _unmultiplied(block: Array, alpha: Array) -> Pixels:
    """Return colours (rows, width, channels) that were stored multiplied by `alpha`, divided by it; 0 where alpha is 0.

    Colours of at most 1 stay so, although the division increases their rounding errors.
    """
    top = max(1.0, float(block.max()))
    result: Pixels = np.where(alpha > 0, np.minimum(block / np.where(alpha > 0, alpha, 1), top), 0).astype(np.float32)
    return result
