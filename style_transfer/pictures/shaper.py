"""Fast conversion of integer samples to sRGB: by a table for gray, by tables and a matrix for RGB.

Most RGB profiles hold one curve per channel and a matrix. A conversion by such a profile is found from the profile's own
conversion of a few colours, and compared with it on others, so that nothing here reads profiles. It agrees with LittleCMS to
`TOLERANCE` and takes a tenth of the time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from . import signals
from .icc import BLACK_POINT, srgb_profile, transform
from .picture import Array, Pixels

TOLERANCE: Final = 1 / 65535
"""The largest difference to the profile's own conversion, in sRGB values."""
CODES: Final = 1 << 18
"""The size of the table of sRGB values, by the square root of light: neighbours differ by 6e-6 at most."""
TRIED: Final = 33
"""So many random colours, and as many grays, are compared."""


@functools.cache
def _codes() -> Pixels:
    """Return the sRGB values of light (i / (CODES - 1))^2."""
    table: Pixels = signals.coded_srgb(np.square(np.linspace(0, 1, CODES))).astype(np.float32)
    return table


@dataclass(frozen=True, eq=False)
class Shaper:
    """A conversion of integers to linear light by curves (3, number of values), and to that of sRGB by a matrix (3, 3)."""

    curves: Pixels
    matrix: Pixels

    def __call__(self, samples: Array, out: Pixels | None = None) -> Pixels:
        """Return integer samples (rows, width, 3) as sRGB in [0, 1], clipped; in `out` if given."""
        light = np.empty(samples.shape, np.float32)
        for channel, curve in enumerate(self.curves):
            light[..., channel] = curve.take(samples[..., channel], mode="clip")
        light = light @ self.matrix
        np.clip(light, 0, 1, out=light)
        np.sqrt(light, out=light)
        light *= np.float32(CODES - 1)
        light += np.float32(0.5)
        return _codes().take(light.astype(np.intp), mode="clip", out=out)


@functools.lru_cache(maxsize=4)
def gray_table(icc: bytes, owner: str, dtype: np.dtype[Any]) -> Pixels:
    """Return the sRGB colours (number of values, 3) of all gray samples of an unsigned type, through a profile for `owner`."""
    ramp = _ramp(dtype)
    gray = ramp[None, :, None] if owner == "gray" else np.repeat(ramp, 3).reshape(1, -1, 3)
    table: Pixels = np.clip(transform(gray, icc, srgb_profile(), (owner, "rgb"), BLACK_POINT)[0], 0, 1)
    return table


@functools.lru_cache(maxsize=4)
def shaper(icc: bytes, dtype: np.dtype[Any]) -> Shaper | None:
    """Return the conversion of RGB samples of an unsigned type; None for a profile that is more than curves and a matrix."""
    linear = signals.profile(signals.Signal(signals.SRGB, signals.LINEAR))
    ramp = _ramp(dtype)
    axes = np.zeros((3, len(ramp), 3), np.float32)
    for channel in range(3):
        axes[channel, :, channel] = ramp
    lights = transform(axes, icc, linear, ("rgb", "rgb"), BLACK_POINT).astype(np.float64)
    directions = lights[:, -1] - lights[:, 0]
    lengths = np.square(directions).sum(1)
    if not (lengths > 0).all():
        return None
    curves = np.einsum("cni,ci->cn", lights, directions) / lengths[:, None]
    found = Shaper(curves.astype(np.float32), directions.astype(np.float32))
    chance = np.random.default_rng(0)
    values = chance.integers(0, len(ramp), (2, TRIED, 3))
    values[1] = values[1, :, :1]
    exact = transform(ramp[values], icc, srgb_profile(), ("rgb", "rgb"), BLACK_POINT)
    return found if np.abs(found(values) - np.clip(exact, 0, 1)).max() <= TOLERANCE else None


def _ramp(dtype: np.dtype[Any]) -> Pixels:
    """Return all values of an unsigned type, from 0 to 1."""
    top = np.iinfo(dtype).max
    return (np.arange(top + 1) / top).astype(np.float32)
