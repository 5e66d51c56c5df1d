"""Resizing by bands of rows agrees with torch's resizing of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import picture

from style_transfer.compute.resampling import ImagePyramid, resize, resize_band, resize_blocks, taps


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


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_blocks_of_rows_are_resized_as_pillow_resizes_the_whole(rows: int) -> None:
    x = torch.rand((1, 3, 40, 53), generator=torch.Generator().manual_seed(0)) * 2 - 1
    sizes = [(13, 17), (40, 53), (39, 50), (1, 1), (7, 1), (1, 9), (60, 80)]
    given = [x[:, :, top : top + rows].clone() for top in range(0, 40, rows)]
    for size, found in zip(sizes, resize_blocks(given, (40, 53), sizes), strict=True):
        pillow = [Image.fromarray(channel.numpy()).resize(size[::-1], Image.Resampling.BICUBIC) for channel in x[0]]
        assert np.abs(found[0].numpy() - np.stack([np.asarray(channel) for channel in pillow])).max() < 1e-5, size


def test_a_pyramid_gives_the_level_that_is_large_enough() -> None:
    levels = tuple(picture(1, *size, torch.float32) for size in ((20, 30), (40, 60), (10, 15)))
    pyramid = ImagePyramid((400, 600), levels)
    assert pyramid.largest is levels[1] and pyramid.nearest((500, 500)) is levels[1]
    assert pyramid.nearest((10, 15)) is levels[2] and pyramid.nearest((11, 15)) is levels[0]
    assert pyramid.nearest((20, 30)) is levels[0] and pyramid.nearest((10, 31)) is levels[1]
    assert ImagePyramid.whole(levels[0]).size == (20, 30)
