"""Prints: their size in pixels, and how a photograph of another shape is framed for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import SettingsError
from .scales import Size

INCH: Final = 25.4
"""Millimetres."""


@dataclass(frozen=True)
class Sheet:
    """A print: its width and height after trimming and its bleed at each side in millimetres, and pixels per inch."""

    width: float
    height: float
    bleed: float
    dpi: float

    @property
    def size(self) -> Size:
        """The size in pixels with bleed."""
        height, width = (max(1, round((side + 2 * self.bleed) / INCH * self.dpi)) for side in (self.height, self.width))
        return height, width


@dataclass(frozen=True)
class Framing:
    """What is added to a photograph by reflection, or cut off where it is negative: at top and bottom, at left and right.

    Both are shares of the height or width for one side, so that masks of another size are framed as their photograph is.
    """

    vertical: float
    horizontal: float

    def edges(self, size: Size) -> tuple[int, int]:
        """Return the rows to add at top and bottom of a picture of `size`, and the columns at left and right.

        At least one row and one column remain.
        """
        height, width = size
        rows, columns = round(self.vertical * height), round(self.horizontal * width)
        return max(rows, -((height - 1) // 2)), max(columns, -((width - 1) // 2))


def frame(size: Size, sheet: Sheet, fit: str, bleed: str) -> Framing:
    """Return how a photograph of `size` is framed for a print; `fit` is one of `PRINT_FITS`, and `bleed` one of `BLEEDS`.

    Raises `SettingsError` with the fit "exact" if the shapes differ by more than a pixel of the photograph.
    """
    margin = sheet.bleed if bleed == "mirror" else 0.0
    outside = sheet.bleed - margin
    tall, wide = sheet.height + 2 * outside, sheet.width + 2 * outside
    height, width = size
    scales = height / tall, width / wide  # pixels of the photograph per millimetre, if it filled that side
    if fit == "exact" and min(abs(scales[0] * wide - width), abs(scales[1] * tall - height)) > 1:
        raise SettingsError(
            f"the photograph is {width}x{height} pixels, {width / height:.4g} times as wide as high, and the print "
            f"{wide / tall:.4g} times; choose --print-fit crop or pad"
        )
    scale = max(scales) if fit == "pad" else min(scales)
    return Framing((scale * (tall + 2 * margin) / height - 1) / 2, (scale * (wide + 2 * margin) / width - 1) / 2)
