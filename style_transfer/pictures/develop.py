"""Conversion of a decoder's samples to a `Picture`: alpha, orientation, colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ..errors import ImageError
from ..files import shown
from .icc import is_srgb, profile_name, soft_proof, usable_profile
from .picture import CHANNELS, Array, Picture, Pixels, Reading, Samples, for_row_blocks, row_blocks
from .shaper import gray_table, shaper
from .working import WorkingSpace, convert_samples

TURNS: Final[dict[object, Callable[[Array], Array]]] = {
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
SCALES: Final = (255, 1023, 4095, 16383, 65535)
"""The largest values that are white in integers of 8 to 16 bits."""


def develop(
    raw: Samples, name: str, proof: bytes | None = None, *, keep_alpha: bool = False, space: WorkingSpace | None = None
) -> Picture:
    """Return samples as an upright float32 sRGB picture in [0, 1], converted by blocks of rows.

    `proof` is a CMYK profile: colours are converted to those that its printing condition reproduces. The picture has the values
    of a working `space` instead of sRGB, if one is given. Raises `ImageError` for NaN, and for floats whose white is not 1.
    """
    notes = raw.notes
    count = CHANNELS[raw.space]
    samples = raw.values
    alpha = None
    opacity = None
    transparent = samples.shape[2] > count and bool(samples[..., count].min() < raw.white)
    if transparent:
        if keep_alpha:
            alpha = np.ascontiguousarray(upright(_alpha_of(raw, name)[..., None], raw.orientation, [])[..., 0])
        else:
            notes.append(f"alpha channel ignored{'' if raw.premultiplied else '; colours are used as stored'}")
        if raw.premultiplied:
            opacity = upright(samples[..., count:], raw.orientation, [])
    samples = upright(samples[..., :count], raw.orientation, notes)
    if raw.icc is None and raw.exif_icc is not None and not raw.signal and raw.space != "cmyk":
        if raw.exif_icc:
            raw.icc, raw.signal = raw.exif_icc, f"{profile_name(raw.exif_icc)} by EXIF"
        else:
            notes.append("its EXIF says that colours are not sRGB, but not what they are: used as stored")
    profile = usable_profile(raw.icc, raw.space, notes)
    if raw.space == "cmyk" and profile is None and raw.icc is None:
        notes.append("CMYK without a colour profile: converted by a plain formula, colours are approximate")
    if samples.dtype.kind == "f":
        _check_scale(samples, raw.white, name)
    pixels = np.empty((*samples.shape[:2], 3), np.float32)
    by_value = None if opacity is not None or space is not None else _by_value(raw, samples, profile)
    precision: type[np.floating[Any]] = np.float64 if samples.dtype.itemsize > 2 else np.float32

    def convert(rows: slice) -> tuple[float, float]:
        """Convert some rows; return the lowest and the highest of their values, and of 0 and 1."""
        low, high = 0.0, 1.0
        if by_value is not None:
            by_value(samples[rows], pixels[rows])
        else:
            block = np.divide(samples[rows], raw.white, dtype=precision).astype(np.float32, copy=False)
            if opacity is not None:
                block = _unmultiplied(block, np.divide(opacity[rows], raw.white, dtype=precision))
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            _check_finite(block, name)
            converted = convert_samples(block, raw.space, profile, raw.convert, space)
            np.clip(converted, 0, 1, out=pixels[rows])
        if proof is not None:
            pixels[rows] = np.clip(soft_proof(pixels[rows], proof, None if space is None else space.exact), 0, 1)
        return low, high

    ranges = for_row_blocks(pixels.shape, convert)
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if low < -1e-6 or high > 1 + 1e-6:
        notes.append(f"values from {low:.4g} to {high:.4g}: clipped to 0 ... 1")
    reading = _reading(raw, converted=profile is not None, transparent=transparent, kept=keep_alpha)
    return Picture(pixels, tuple(notes), alpha, reading)


def _by_value(raw: Samples, samples: Array, profile: tuple[bytes, str] | None) -> Callable[[Array, Pixels], object] | None:
    """Return a function that converts integer samples, all at most white, into pixels; None where it takes more than that."""
    if samples.dtype.kind != "u" or raw.white != np.iinfo(samples.dtype).max or raw.convert or samples.shape[2] == 4:
        return None
    if profile is None:
        return lambda block, pixels: np.divide(block, np.float32(raw.white), out=pixels, dtype=np.float32)
    icc, owner = profile
    if samples.shape[2] == 1:
        table = gray_table(icc, owner, samples.dtype)
        return lambda block, pixels: np.take(table, block[..., 0], axis=0, out=pixels, mode="clip")
    return shaper(icc, samples.dtype)


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


def upright(samples: Array, orientation: object, notes: list[str]) -> Array:
    """Return a view of (height, width, channels) `samples`, turned upright; an orientation that is unknown adds a note."""
    if orientation is None:
        return samples
    number = _integer(orientation)
    if number in TURNS:
        return TURNS[number](samples)
    if orientation == "damaged":
        notes.append("its EXIF data are damaged: orientation unknown, used as stored")
    else:
        notes.append(f"EXIF orientation {shown(str(orientation))[:20]} does not exist: used as stored")
    return samples


def _integer(value: object) -> int | None:
    """Return the integer that a value of a tag means, whatever its type: 6, 6.0, "6", (6,), (6, 1) for a fraction; else None."""
    if isinstance(value, tuple | bytes) and (len(value) == 1 or (len(value) == 2 and value[1] == 1)):
        value = value[0]
    try:
        number = float(value)  # type: ignore[arg-type]  # other types raise TypeError
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _check_scale(samples: Array, white: float, name: str) -> None:
    """Raise `ImageError` if most floats above 0 are above white, as in files with values up to 255 or 65535."""
    light = bright = 0
    top = 0.0
    for rows in row_blocks(samples.shape):
        block = samples[rows]
        light += int((block > 0).sum())
        bright += int((block > white).sum())
        top = max(top, float(block.max()))
    if 2 * bright > light and top < np.inf:
        factor = next((scale for scale in SCALES if top <= 1.1 * scale), top)
        raise ImageError(f"{name}: floating-point values up to {top:.6g}, most above {white:.6g}; divide them by {factor:.6g}")


def _check_finite(values: Pixels, name: str) -> None:
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: contains NaN or infinite values; repair it in the program that wrote it")


def _alpha_of(raw: Samples, name: str) -> Pixels:
    """Return the alpha channel of samples, not turned upright, in [0, 1]."""
    alpha = (raw.values[..., CHANNELS[raw.space]] / raw.white).astype(np.float32)
    _check_finite(alpha, name)
    return alpha.clip(0, 1)


def _unmultiplied(block: Array, alpha: Array) -> Pixels:
    """Return colours (rows, width, channels) that were stored multiplied by `alpha`, divided by it; 0 where alpha is 0.

    Colours of at most 1 stay so, although the division increases their rounding errors.
    """
    top = max(1.0, float(block.max()))
    result: Pixels = np.where(alpha > 0, np.minimum(block / np.where(alpha > 0, alpha, 1), top), 0).astype(np.float32)
    return result
