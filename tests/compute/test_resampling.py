"""Resizing by bands of rows agrees with torch's resizing of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
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


@pytest.mark.parametrize("size", [(7, 1), (100, 1), (40, 1), (1, 1), (1, 7), (1, 99), (2, 64)])
@pytest.mark.parametrize("shape", [(1, 3, 40, 53), (1, 3, 40, 1), (1, 3, 1, 53), (1, 1, 40, 53)])
@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("last", [False, True])
def test_sides_of_one_pixel_are_resized_as_pillow_does(
    size: tuple[int, int], shape: tuple[int, ...], mode: str, last: bool
) -> None:
    """torch repeats one value along the height where the width becomes 1."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    kind = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[mode]
    expected = np.stack([np.asarray(Image.fromarray(channel.numpy()).resize(size[::-1], kind)) for channel in x[0]])
    given = x.contiguous(memory_format=torch.channels_last) if last else x
    assert np.abs(resize(given, size, mode, antialias=True)[0].numpy() - expected).max() < 2e-6
