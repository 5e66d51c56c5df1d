"""Soft proofs of finished pictures: how a print will look, and which of its colours the press does not have."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from .color.difference import ciede2000
from .icc import lab_profile, srgb_profile, transform, written_profile
from .picture import Array, Pixels, map_row_blocks
from .press import Press
from .working import WorkingSpace

VISIBLE: Final = 3.0
"""The CIEDE2000 above which a colour counts as out of gamut; smaller differences come from the tables of profiles too."""
STRIKING: Final = 20.0
"""The CIEDE2000 from which a gamut map is red."""
LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class _Shown:
    """A conversion to sRGB that shows something of the print of a press."""

    press: Press

    @property
    def icc(self) -> bytes:
        """The profile of the result, sRGB."""
        return written_profile()

    @property
    def space(self) -> str:
        """The colour space of the result."""
        return "rgb"


class SoftProof(_Shown):
    """The conversion of pixels to sRGB as the press will show them, relative to the white of its paper."""

    def convert(self, block: Array, source: bytes | None = None) -> Array:
        """Return pixels (rows, width, 3) of the profile `source`, by default sRGB, as sRGB of the print."""
        values = self.press.convert(block, source)
        return np.clip(transform(values, self.press.icc, srgb_profile(), (self.press.space, "rgb"), 0), 0, 1)


class GamutMap(_Shown):
    """The conversion of pixels to a gray sRGB picture in which colours that the press does not have are yellow to red.

    A colour is compared with what the press makes of it relative to the white of its paper (relative colorimetric, without black
    point compensation, whatever the intent of the print), by CIEDE2000: yellow from `VISIBLE` on, red at `STRIKING`.
    """

    def differences(self, block: Array, source: bytes | None = None) -> Array:
        """Return the CIEDE2000 (rows, width) between pixels and their print."""
        source = source or srgb_profile()
        block = np.clip(block, 0, 1)
        device = self.press.space
        values = np.clip(transform(block, source, self.press.icc, ("rgb", device), 0), 0, 1)
        printed = transform(values, self.press.icc, lab_profile(), (device, "lab"), 0)
        return ciede2000(transform(block, source, lab_profile(), ("rgb", "lab"), 0), printed)

    def convert(self, block: Array, source: bytes | None = None) -> Array:
        """Return the map (rows, width, 3) of pixels (rows, width, 3)."""
        differences = self.differences(block, source)[..., None].astype(np.float32)
        gray = np.repeat(0.4 + 0.5 * np.clip(block, 0, 1) @ LUMA[:, None], 3, axis=2)
        share = np.clip((differences - VISIBLE) / (STRIKING - VISIBLE), 0, 1)
        marked = np.concatenate([np.ones_like(share), 1 - share, np.zeros_like(share)], axis=2)
        result: Array = np.where(differences > VISIBLE, marked, gray)
        return result


@dataclass(frozen=True)
class GamutReport:
    """What a print loses: the share of pixels out of gamut, the largest and the mean CIEDE2000; and its most ink in percent."""

    profile: str
    out_of_gamut: float
    largest_difference: float
    mean_difference: float
    largest_ink: float | None

    @classmethod
    def of(cls, pixels: Pixels, press: Press, space: WorkingSpace | None = None) -> GamutReport:
        """Return the report of finished pixels (height, width, 3 or 4), which are sRGB or values of a working space."""
        gamut, source = GamutMap(press), None if space is None else space.exact

        def measure(rows: slice) -> tuple[float, float, float, float]:
            block = pixels[rows, :, :3]
            differences = gamut.differences(block, source)
            ink = float(press.convert(block, source).sum(-1).max()) if press.space == "cmyk" else 0.0
            return float((differences > VISIBLE).sum()), float(differences.max()), float(differences.sum()), ink

        outside, largest, sums, inks = zip(*map_row_blocks(pixels.shape, measure), strict=True)
        count = pixels.shape[0] * pixels.shape[1]
        ink = 100 * max(inks) if press.space == "cmyk" else None
        return cls(press.name, sum(outside) / count, max(largest), sum(sums) / count, ink)

    def recorded(self) -> dict[str, Any]:
        """Return the report as OUTPUT.json holds it."""
        rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return rounded | {"threshold": VISIBLE}

    def __str__(self) -> str:
        ink = "" if self.largest_ink is None else f"; the most ink is {self.largest_ink:.0f}%"
        return (
            f"{self.out_of_gamut:.1%} of the pixels are out of gamut of {self.profile} (CIEDE2000 above {VISIBLE:g}), by up to "
            f"{self.largest_difference:.1f}{ink}"
        )
