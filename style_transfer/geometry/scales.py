"""Scales and sizes of a run. Integers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import SettingsError
from ..settings import END_SCALE

Size = tuple[int, int]
"""(height, width) in pixels, everywhere in this package."""


@dataclass(frozen=True)
class Stage:
    """One scale of a run: the picture's long side and size, each style's size, and the number of steps."""

    scale: int
    size: Size
    style_sizes: tuple[Size, ...]
    steps: int

    @property
    def work(self) -> int:
        """Pixels times steps, to which the time of a stage is about proportional."""
        return self.size[0] * self.size[1] * self.steps


def scales(min_scale: int, end_scale: int) -> tuple[int, ...]:
    """Return the scales, ascending: `end_scale` divided by powers of sqrt(2), rounded, down to `min_scale`.

    Gatys et al. (2016), https://arxiv.org/abs/1611.07865, optimise coarse to fine; the factor sqrt(2) is that of
    style-transfer-pytorch. As there, a `min_scale` above `end_scale` counts as `end_scale`, which is then the only scale.
    """
    min_scale = min(min_scale, end_scale)
    result: list[int] = []
    while (scale := round(end_scale / 2 ** (len(result) / 2))) >= min_scale and (not result or scale < result[-1]):
        result.append(scale)
    return tuple(reversed(result))


def at_scale(values: Sequence[int], index: int) -> int:
    """Return the value of a scale, counted from 0, from a list with one for each; the last one holds for further scales."""
    return values[min(index, len(values) - 1)]


def fit(size: Size, longest: int, *, enlarge: bool) -> Size:
    """Return `size` scaled so that its long side is `longest`; the other side is rounded, and at least 1.

    Without `enlarge` a smaller size is returned unchanged.
    """
    long_side = max(size)
    if not enlarge and long_side <= longest:
        return size
    height, width = (max(1, round(longest * side / long_side)) for side in size)
    return height, width


def resolve_end_scale(end_scale: str, size: Size) -> int:
    """Return the last scale in pixels; 0 is the content's. `"512+"` means int(sqrt(long / short) * 512): about 512 x 512."""
    match = END_SCALE.fullmatch(end_scale)
    if match is None:
        raise SettingsError(f"--end-scale must be a number of pixels, with or without a +, not {end_scale!r}")
    pixels = int(match[1]) or max(size)
    return int(math.sqrt(max(size) / min(size)) * pixels) if match[2] else pixels
