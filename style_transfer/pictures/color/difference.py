"""The colour difference CIEDE2000.

Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula: Implementation Notes, Supplementary Test Data, and Mathematical
Observations", Color Research and Application 30 (2005), whose numbers of equations are given below.
"""

from __future__ import annotations

import numpy as np

from ..picture import Array


def ciede2000(one: Array, other: Array) -> Array:
    """Return the differences (...) of colours (..., 3) in CIE L*a*b*, with L* up to 100, as float64; all weights are 1."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    mean_chroma = (np.hypot(one[..., 1], one[..., 2]) + np.hypot(other[..., 1], other[..., 2])) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7))  # 1 + G, (4)
    (chroma_1, hue_1), (chroma_2, hue_2) = (_polar(lab, stretch) for lab in (one, other))
    coloured = chroma_1 * chroma_2 > 0
    turn = np.where(coloured, (hue_2 - hue_1 + 180) % 360 - 180, 0.0)  # (10)
    # opposite hues are a step of +180 from the smaller to the larger
    turn = np.where(coloured & (np.abs(hue_2 - hue_1) == 180), hue_2 - hue_1, turn)
    apart = 2 * np.sqrt(chroma_1 * chroma_2) * np.sin(np.radians(turn) / 2)  # (11)
    lightness, chroma = (one[..., 0] + other[..., 0]) / 2, (chroma_1 + chroma_2) / 2
    total = hue_1 + hue_2
    far = np.abs(hue_1 - hue_2) > 180
    hue = np.where(coloured, np.where(far, np.where(total < 360, total + 360, total - 360), total) / 2, total)  # (14)
    weight = 1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue) + 0.32 * _cos(3 * hue + 6) - 0.20 * _cos(4 * hue - 63)  # (15)
    scale_l = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)  # (18)
    scale_c, scale_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * weight  # (19), (20)
    rotation = 2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    by_l, by_c, by_h = (other[..., 0] - one[..., 0]) / scale_l, (chroma_2 - chroma_1) / scale_c, apart / scale_h
    squares = by_l**2 + by_c**2 + by_h**2 - rotation * by_c * by_h  # (22)
    result: Array = np.sqrt(np.maximum(squares, 0))
    return result


def _polar(lab: Array, stretch: Array) -> tuple[Array, Array]:
    """Return the chroma and the hue in degrees, from 0 to 360, of colours whose a* is stretched: (5) to (7)."""
    a = lab[..., 1] * stretch
    return np.hypot(a, lab[..., 2]), np.degrees(np.arctan2(lab[..., 2], a)) % 360


def _cos(degrees: Array) -> Array:
    result: Array = np.cos(np.radians(degrees))
    return result
