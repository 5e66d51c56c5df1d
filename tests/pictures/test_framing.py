"""Framing: cropping and reflection against indices worked out one by one."""

from __future__ import annotations

import numpy as np
import pytest

from style_transfer.pictures import Picture
from style_transfer.pictures.framing import framed, framed_picture


def reflected(index: int, length: int) -> int:
    """Walk from 0 to `index`, turning round at both ends."""
    place, step = 0, 1 if index >= 0 else -1
    for _ in range(abs(index)):
        if not 0 <= place + step < length:
            step = -step
        place += step if length > 1 else 0
    return place


@pytest.mark.parametrize("edges", [(0, 0), (2, -1), (-2, 3), (-1, -2), (9, 20)])
@pytest.mark.parametrize("size", [(5, 6), (7, 5)])
def test_framed(size: tuple[int, int], edges: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
    found = framed(values, edges)
    rows, columns = (
        [reflected(i, length) if added > 0 else i for i in range(-added, length + added)]
        for length, added in zip(size, edges, strict=True)
    )
    np.testing.assert_array_equal(found, values[np.ix_(rows, columns)])
    assert found.flags.c_contiguous and found.dtype == np.float32


def test_a_single_pixel_is_repeated_and_alpha_follows() -> None:
    pixels = np.full((1, 1, 3), 0.25, np.float32)
    picture = framed_picture(Picture(pixels, alpha=np.full((1, 1), 0.5, np.float32)), (1, 2))
    assert picture.size == (3, 5) and picture.alpha is not None and picture.alpha.shape == (3, 5)
    assert (picture.pixels == 0.25).all() and (picture.alpha == 0.5).all()
