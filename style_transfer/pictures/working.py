"""Working spaces: RGB spaces other than sRGB that pictures are read in, painted in and written in.

Conversions from and to sRGB are exact for grays: both profiles are made here, from formulas, with columns that sum to D50.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from . import signals
from .icc import BLACK_POINT, is_same, profile_name, to_srgb, transform
from .picture import Array, Pixels, map_row_blocks
from .press import read_profile

SIGNALS: Final = {
    "srgb": signals.Signal(signals.SRGB), "display-p3": signals.DISPLAY_P3, "adobe-rgb": signals.ADOBE_RGB,
    "prophoto": signals.PROPHOTO,
}  # fmt: skip
"""The spaces that --output-space has names for."""


def exact_srgb() -> bytes:
    """Return the profile of sRGB for conversions from and to working spaces."""
    return signals.profile(SIGNALS["srgb"], formula=True)


@dataclass(frozen=True)
class WorkingSpace:
    """An RGB space: its name, the ICC profile that files get, and the profile for conversions, which may be more exact."""

    name: str
    icc: bytes
    exact: bytes

    def from_srgb(self, block: Array) -> Array:
        """Return sRGB pixels (rows, width, 1 or 3) as values of this space, not clipped."""
        return transform(np.broadcast_to(block, (*block.shape[:2], 3)), exact_srgb(), self.exact, ("rgb", "rgb"), BLACK_POINT)

    def from_samples(self, block: Pixels, space: str, profile: tuple[bytes, str] | None) -> Array:
        """Return samples of `space`, as `icc.to_srgb` takes them, as values of this space; its own values stay as they are."""
        if profile is None:
            return self.from_srgb(to_srgb(block, space, None))
        icc, owner = profile
        if owner == "rgb":
            block = np.broadcast_to(block, (*block.shape[:2], 3))
            if is_same(icc, self.exact):
                return block
        return transform(block, icc, self.exact, (owner, "rgb"), BLACK_POINT)

    def to_srgb(self, pixels: Pixels) -> Pixels:
        """Return pixels (height, width, 3 or 4) of this space as sRGB in [0, 1], to be shown; alpha stays as it is."""
        result = pixels.copy()

        def convert(rows: slice) -> None:
            block = transform(pixels[rows, :, :3], self.exact, exact_srgb(), ("rgb", "rgb"), BLACK_POINT)
            np.clip(block, 0, 1, out=result[rows, :, :3])

        list(map_row_blocks(pixels.shape, convert))
        return result


def read_space(flag: str, name: str) -> WorkingSpace | None:
    """Return the working space of a word of `SIGNALS` or of a profile's path; None for sRGB. Raises `SettingsError`."""
    if name in SIGNALS:
        signal = SIGNALS[name]
        space = WorkingSpace(signal.name, signals.profile(signal), signals.profile(signal, formula=True))
        return None if name == "srgb" else space
    icc = read_profile(flag, name, ("rgb",))[0]
    return None if is_same(icc, exact_srgb()) else WorkingSpace(profile_name(icc), icc, icc)


def convert_samples(
    block: Pixels, source: str, profile: tuple[bytes, str] | None, convert: Callable[[Pixels], Pixels] | None,
    space: WorkingSpace | None,
) -> Array:  # fmt: skip
    """Return samples as values of a working space, None for sRGB; `convert` makes sRGB of samples that no profile describes."""
    if convert is not None:
        block, source, profile = convert(block), "rgb", None
    return to_srgb(block, source, profile) if space is None else space.from_samples(block, source, profile)
