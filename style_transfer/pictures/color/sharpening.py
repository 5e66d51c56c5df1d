"""Sharpening for print: an unsharp mask on the lightness of Oklab, so that edges get no coloured fringes.

Ink spreads into paper, and pictures for print are sharpened to make up for it: with haloes of 1/100 to 1/50 inch, which nobody
sees at the distance at which prints are looked at (Fraser and Schewe, "Real World Image Sharpening", 2009).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from ..picture import Array, Pixels, map_row_blocks
from .spaces import into_gamut, to_space

WIDTH: Final = 3.0
"""The half width of the kernel in standard deviations."""
LEAST_RADIUS: Final = 0.2
"""The radius in pixels below which sharpening changes nothing that can be seen."""


def kernel(radius: float) -> Array:
    """Return the values of a Gaussian with the standard deviation `radius` in pixels, which sum to 1."""
    half = math.ceil(WIDTH * radius)
    values = np.exp(-0.5 * np.square(np.arange(-half, half + 1) / radius))
    result: Array = values / values.sum()
    return result


def sharpen(pixels: Pixels, amount: float, radius: float) -> Pixels:
    """Return pixels (height, width, 3 or 4) in [0, 1] whose lightness differs from its average by 1 + `amount` times as much.

    The average is Gaussian with the standard deviation `radius` in pixels, of the picture continued by reflection. Hue stays, and
    chroma too, unless the colour would leave the gamut. Alpha stays as it is.
    """
    if amount == 0 or radius < LEAST_RADIUS:
        return pixels
    weights = kernel(radius).astype(np.float32)
    half = len(weights) // 2
    height, width = pixels.shape[:2]
    below, across = (np.pad(np.arange(length), half, "reflect") for length in (height, width))
    result = pixels.copy()

    def work(rows: slice) -> None:
        colours = to_space(pixels[below[rows.start : rows.stop + 2 * half], :, :3], "oklab")
        light = colours[..., 0]
        down = sum(weight * light[at : at + rows.stop - rows.start] for at, weight in enumerate(weights))
        down = np.asarray(down)[:, across]
        average = sum(weight * down[:, at : at + width] for at, weight in enumerate(weights))
        colours = colours[half : half + rows.stop - rows.start]
        colours[..., 0] += np.float32(amount) * (colours[..., 0] - average)
        result[rows, :, :3] = into_gamut(colours, "oklab")

    list(map_row_blocks(pixels.shape, work))
    return result
