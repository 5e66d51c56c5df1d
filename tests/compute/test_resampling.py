"""Resizing by bands of rows agrees with torch's resizing of the whole."""

from __future__ import annotations

import pytest
import torch
from support.tiny import picture

from style_transfer.compute.resampling import resize, resize_band, taps


@pytest.mark.parametrize(("mode", "antialias"), [("bicubic", False), ("bicubic", True), ("bilinear", False)])
@pytest.mark.parametrize("size", [(40, 53), (57, 75), (41, 54), (13, 17), (200, 30), (3, 99)])
def test_bands_are_rows_of_the_whole(size: tuple[int, int], mode: str, antialias: bool) -> None:
    x = picture(1, 40, 53)
    whole = resize(x, size, mode, antialias=antialias)
    for rows in ((0, size[0]), (0, 1), (size[0] // 3, size[0] // 2 + 1), (size[0] - 1, size[0]), (2, 2)):
        index, weights = taps(40, size[0], rows, mode, antialias)
        assert torch.allclose(weights.sum(1), torch.ones(len(weights), dtype=torch.float64))
        first, last = (int(index.min()), int(index.max()) + 1) if len(index) else (0, 0)
        band = resize_band(x[:, :, first:last], first, 40, size, rows, mode, antialias=antialias)
        assert torch.allclose(band, whole[:, :, rows[0] : rows[1]], atol=1e-6), rows
