"""Colour spaces: Oklab, CIE L*a*b* and L*u*v*, Y'UV, and sRGB itself; and the gamut of sRGB.

Colours are float sRGB values (..., 3). Each space but rgb has a lightness in [0, 1] and two coordinates of chrominance that are 0
for grays. Conversions keep the precision of their input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from ..picture import Array, Pixels, row_blocks

BLOCK_PIXELS: Final = 1 << 18
"""Colours of a picture are converted in blocks of rows of about this many pixels."""
TOLERANCE: Final = 1e-5
"""How far outside [0, 1] sRGB values count as inside."""
# IEC 61966-2-1: linear sRGB to CIE XYZ (D65), and the luma of ITU-R BT.601.
XYZ: Final = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE: Final = XYZ.sum(1)
# Ottosson, "A perceptual color space for image processing", 2020: linear sRGB to cone responses, their cube roots to Oklab.
_LMS: Final = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_OKLAB: Final = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
_LUMA: Final = np.array([0.299, 0.587, 0.114])
_YUV: Final = np.array([_LUMA, 0.492111 * (np.array([0, 0, 1]) - _LUMA), 0.877283 * (np.array([1, 0, 0]) - _LUMA)])
_EPSILON: Final = (6 / 29) ** 3
_KAPPA: Final = (29 / 3) ** 3


def times(x: Array, matrix: Array) -> Array:
    """Return `matrix` applied to the last axis of `x`, in the precision of `x`."""
    result: Array = x @ matrix.T.astype(x.dtype)
    return result


def to_linear(x: Array) -> Array:
    """Return the linear intensities of sRGB values; the curve is continued below 0 as an odd function."""
    size = np.abs(x)
    result: Array = np.copysign(np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4), x)
    return result


def from_linear(x: Array) -> Array:
    """Return the sRGB values of linear intensities; the curve is continued below 0 as an odd function."""
    size = np.abs(x)
    result: Array = np.copysign(np.where(size <= 0.0031308, size * 12.92, 1.055 * size ** (1 / 2.4) - 0.055), x)
    return result


def to_oklab(rgb: Array) -> Array:
    return times(np.cbrt(times(to_linear(rgb), _LMS)), _OKLAB)


def from_oklab(x: Array) -> Array:
    return from_linear(times(times(x, np.linalg.inv(_OKLAB)) ** 3, np.linalg.inv(_LMS)))


def _lightness(y: Array) -> Array:
    """Return CIE lightness / 100 of a relative luminance."""
    return np.where(y > _EPSILON, 1.16 * np.cbrt(y) - 0.16, y * _KAPPA / 100)


def _luminance(lightness: Array) -> Array:
    """Return the relative luminance of a CIE lightness / 100."""
    return np.where(lightness > 0.08, ((lightness + 0.16) / 1.16) ** 3, lightness * 100 / _KAPPA)


def to_lab(rgb: Array) -> Array:
    f = (_lightness(times(to_linear(rgb), XYZ) / _WHITE.astype(rgb.dtype)) + 0.16) / 1.16
    return np.stack([1.16 * f[..., 1] - 0.16, 5 * (f[..., 0] - f[..., 1]), 2 * (f[..., 1] - f[..., 2])], axis=-1)


def from_lab(x: Array) -> Array:
    y = (x[..., 0] + 0.16) / 1.16
    f = np.stack([y + x[..., 1] / 5, y, y - x[..., 2] / 2], axis=-1)
    xyz = _luminance(1.16 * f - 0.16) * _WHITE.astype(x.dtype)
    return from_linear(times(xyz, np.linalg.inv(XYZ)))


def _chromaticity(xyz: Array) -> tuple[Array, Array]:
    """Return CIE 1976 u' and v' of XYZ; those of white for black."""
    below = xyz[..., 0] + 15 * xyz[..., 1] + 3 * xyz[..., 2]
    dark = below <= 1e-12
    below = np.where(dark, 1, below)
    white = _WHITE[0] + 15 * _WHITE[1] + 3 * _WHITE[2]
    u = np.where(dark, 4 * _WHITE[0] / white, 4 * xyz[..., 0] / below)
    v = np.where(dark, 9 * _WHITE[1] / white, 9 * xyz[..., 1] / below)
    return u.astype(xyz.dtype), v.astype(xyz.dtype)


def to_luv(rgb: Array) -> Array:
    xyz = times(to_linear(rgb), XYZ)
    lightness = _lightness(xyz[..., 1])
    (u, v), (white_u, white_v) = _chromaticity(xyz), _chromaticity(_WHITE)
    return np.stack([lightness, 13 * lightness * (u - float(white_u)), 13 * lightness * (v - float(white_v))], axis=-1)


def from_luv(x: Array) -> Array:
    white_u, white_v = (float(w) for w in _chromaticity(_WHITE))
    lightness = x[..., 0]
    scale = 13 * np.where(np.abs(lightness) < 1e-9, 1, lightness)
    u, v = x[..., 1] / scale + white_u, x[..., 2] / scale + white_v
    y = _luminance(lightness)
    v = np.where(np.abs(v) < 1e-4, 1e-4, v)  # keeps colours far outside sRGB finite for the reduction of chroma
    xyz = np.stack([y * 9 * u / (4 * v), y, y * (12 - 3 * u - 20 * v) / (4 * v)], axis=-1).astype(x.dtype)
    return from_linear(times(xyz, np.linalg.inv(XYZ)))


def to_yuv(rgb: Array) -> Array:
    return times(rgb, _YUV)


def from_yuv(x: Array) -> Array:
    return times(x, np.linalg.inv(_YUV))


_SPACES: Final[dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]]] = {
    "oklab": (to_oklab, from_oklab),
    "lab": (to_lab, from_lab),
    "luv": (to_luv, from_luv),
    "yuv": (to_yuv, from_yuv),
    "rgb": (lambda x: x, lambda x: x),
}


def to_space(rgb: Array, space: str) -> Array:
    """Return sRGB values (..., 3) in a space of `Settings.color_space`.

    oklab is Ottosson's; lab and luv are CIE 1976 for D65, divided by 100; yuv is BT.601's on gamma-encoded values, as in image
    programs; rgb is the identity.
    """
    return _SPACES[space][0](rgb)


def from_space(x: Array, space: str) -> Array:
    """Return the sRGB values of coordinates (..., 3) in a space, which are outside [0, 1] for colours outside sRGB."""
    return _SPACES[space][1](x)


def into_gamut(x: Array, space: str) -> Array:
    """Return sRGB in [0, 1] for coordinates (..., 3) in a space.

    A colour outside sRGB keeps its lightness, clipped to [0, 1], and its hue, and gets the largest chroma within sRGB, found by
    bisection. Colours of space rgb are treated as in yuv.
    """
    if space == "rgb":
        x, space = to_space(x, "yuv"), "yuv"
    x = x.copy()
    x[..., 0] = x[..., 0].clip(0, 1)
    rgb = from_space(x, space)
    outside = outside_gamut(rgb)
    if outside.any():
        bad = x[outside]
        low, high = np.zeros(len(bad), x.dtype), np.ones(len(bad), x.dtype)
        for _ in range(18):
            middle = (low + high) / 2
            out = outside_gamut(from_space(_scaled(bad, middle), space))
            low, high = np.where(out, low, middle), np.where(out, middle, high)
        rgb[outside] = from_space(_scaled(bad, low), space)
    return rgb.clip(0, 1)


def outside_gamut(rgb: Array) -> npt.NDArray[np.bool_]:
    """Return which colours (..., 3) are outside sRGB; NaN counts as outside."""
    held: npt.NDArray[np.bool_] = (rgb >= -TOLERANCE) & (rgb <= 1 + TOLERANCE)
    return np.logical_not(held.all(axis=-1))


def _scaled(x: Array, chroma: Array) -> Array:
    """Return coordinates (n, 3) with their chrominance multiplied by (n,)."""
    return np.stack([x[:, 0], x[:, 1] * chroma, x[:, 2] * chroma], axis=-1)


def colour_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield slices over the rows of a (height, width, ...) array, each of about BLOCK_PIXELS pixels."""
    return row_blocks(shape, BLOCK_PIXELS)


def mapped(pixels: Pixels, change: Callable[[Array], Array], space: str) -> Pixels:
    """Return a picture with `change` applied to its coordinates in a space, by blocks of rows."""
    result = np.empty_like(pixels)
    for rows in colour_blocks(pixels.shape):
        result[rows] = into_gamut(change(to_space(pixels[rows], space)), space)
    return result
