"""Tiles of a picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from style_transfer.observers.web.pyramid import TILE, Pyramid


def test_tiles_make_up_the_picture_at_every_level() -> None:
    rng = np.random.default_rng(0)
    small = rng.random((11, 13, 3))
    whole = np.repeat(np.repeat(small, 120, 0), 120, 1).astype(np.float32)  # 1320 x 1560
    pyramid = Pyramid(whole)
    assert pyramid.levels == 3
    for level in range(3):
        factor = 1 << level
        height, width = -(-1320 // factor), -(-1560 // factor)
        rows, columns = -(-height // TILE), -(-width // TILE)
        assert not pyramid.has(level, columns, 0) and not pyramid.has(level, 0, rows)
        joined = np.zeros((height, width, 3))
        for row in range(rows):
            for column in range(columns):
                part = np.asarray(Image.open(io.BytesIO(pyramid.tile(level, column, row)))) / 255
                joined[row * TILE : row * TILE + part.shape[0], column * TILE : column * TILE + part.shape[1]] = part
        middle = np.arange(60, 1320, 120) // factor, np.arange(60, 1560, 120) // factor
        assert abs(joined[np.ix_(*middle)] - small).max() < 0.03
    assert np.asarray(Image.open(io.BytesIO(pyramid.to_8_bits().tile(2, 0, 0)))).shape == (330, 390, 3)
    with pytest.raises(KeyError):
        pyramid.tile(3, 0, 0)


def test_only_the_requested_part_of_a_huge_picture_is_read() -> None:
    huge = np.broadcast_to(np.float32(0.5), (60000, 80000, 3))  # a copy would take 58 GB
    assert Image.open(io.BytesIO(Pyramid(huge).tile(0, 100, 60))).size == (512, 512)
