"""Sharpening against the same mask written out for each pixel in float64, and what it leaves alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from style_transfer.pictures import picture
from style_transfer.pictures.color.sharpening import kernel, sharpen
from style_transfer.pictures.color.spaces import into_gamut, to_space


def reflected(index: int, length: int) -> int:
    while not 0 <= index < length:
        index = -index if index < 0 else 2 * (length - 1) - index
    return index


@pytest.mark.parametrize(("size", "radius"), [((9, 14), 0.7), ((7, 5), 1.5), ((4, 30), 2.0)])
@pytest.mark.parametrize("amount", [1.0, -0.5])
def test_sharpening_equals_the_mask_written_out(size: tuple[int, int], radius: float, amount: float) -> None:
    height, width = size
    pixels = np.random.default_rng(0).random((height, width, 3)).astype(np.float32)
    lab = to_space(pixels.astype(np.float64), "oklab")
    half = math.ceil(3 * radius)
    sharp = lab.copy()
    for row, column in np.ndindex(height, width):
        total = sums = 0.0
        for down in range(-half, half + 1):
            for across in range(-half, half + 1):
                weight = math.exp(-(down**2 + across**2) / (2 * radius**2))
                total += weight
                sums += weight * lab[reflected(row + down, height), reflected(column + across, width), 0]
        sharp[row, column, 0] += amount * (lab[row, column, 0] - sums / total)
    np.testing.assert_allclose(sharpen(pixels, amount, radius), into_gamut(sharp, "oklab"), atol=2e-4)


def test_blocks_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).random((50, 20, 3)).astype(np.float32)
    whole = sharpen(pixels, 1.0, 1.5)
    for count in (20, 60, 300):
        monkeypatch.setattr(picture, "BLOCK_PIXELS", count)
        np.testing.assert_allclose(sharpen(pixels, 1.0, 1.5), whole, atol=1e-6)


def test_what_sharpening_leaves_alone() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.random((20, 20, 4)).astype(np.float32)
    assert sharpen(pixels, 0.0, 1.5) is pixels and sharpen(pixels, 1.0, 0.1) is pixels
    sharp = sharpen(pixels, 1.0, 1.5)
    assert (sharp[..., 3] == pixels[..., 3]).all() and sharp.min() >= 0 and sharp.max() <= 1
    flat = np.full((9, 9, 3), [0.3, 0.6, 0.2], np.float32)
    np.testing.assert_allclose(sharpen(flat, 2.0, 1.5), flat, atol=1e-5)
    gray = np.repeat(0.3 + 0.4 * rng.random((20, 20, 1)), 3, axis=2).astype(np.float32)
    sharp = sharpen(gray, 1.0, 1.5)
    assert np.ptp(sharp, axis=2).max() < 1e-5 and sharp.std() > 1.3 * gray.std()
    assert kernel(1.5).sum() == pytest.approx(1) and len(kernel(1.5)) == 11
