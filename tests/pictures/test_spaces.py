"""Colour spaces and the gamut against independent float64 formulas."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support import reference_color
from support.colours import COLOR_SPACES, LIGHT_SPACES

from style_transfer.pictures.color.spaces import from_space, into_gamut, to_space

LEVELS = (0.0, 0.004, 0.03, 0.2, 0.5, 0.8, 1.0)


@pytest.mark.parametrize("space", LIGHT_SPACES)
def test_spaces_against_the_formulas_of_their_standards(space: str) -> None:
    colours = list(product(LEVELS, repeat=3))
    expected = np.array([reference_color.SPACES[space](c) for c in colours])
    tolerance = 3e-5 if space == "yuv" else 1e-12  # that program rounds its matrix to five digits
    assert np.abs(to_space(np.array(colours), space) - expected).max() < tolerance


def test_published_values() -> None:
    red = np.array([1.0, 0.0, 0.0])
    assert to_space(red, "oklab") == pytest.approx([0.627955, 0.224863, 0.125846], abs=1e-5)
    assert to_space(red, "lab") == pytest.approx([0.5324, 0.8009, 0.6720], abs=5e-4)
    assert to_space(red, "luv") == pytest.approx([0.5324, 1.7501, 0.3776], abs=5e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("space", COLOR_SPACES)
def test_spaces_are_inverted(space: str, dtype: type) -> None:
    colours = np.array(list(product(LEVELS, repeat=3)), dtype)
    forward = to_space(colours, space)
    assert forward.dtype == dtype
    back = from_space(forward, space)
    assert np.abs(back - colours).max() < (3e-5 if dtype is np.float32 else 1e-9)
    assert np.abs(into_gamut(forward, space) - colours).max() < 3e-5


@pytest.mark.parametrize("space", LIGHT_SPACES)
def test_colours_outside_keep_lightness_and_hue_and_lose_no_more_chroma_than_they_must(space: str) -> None:
    random = np.random.default_rng(0)
    x = np.stack([random.uniform(0.02, 0.98, 500), *random.uniform(-1, 1, (2, 500))], axis=-1)
    x[:, 1:] *= 0.4 if space == "oklab" else 1.5
    outside = ((from_space(x, space) < 0) | (from_space(x, space) > 1)).any(-1)
    assert outside.sum() > 50
    rgb = into_gamut(x, space)
    assert rgb.min() >= 0 and rgb.max() <= 1
    found = to_space(rgb, space)
    assert np.abs(found[:, 0] - x[:, 0]).max() < 1e-3
    cross = found[:, 1] * x[:, 2] - found[:, 2] * x[:, 1]
    assert np.abs(cross / np.hypot(x[:, 1], x[:, 2])).max() < 1e-3
    assert np.abs(found - x)[~outside].max() < 1e-4
    more = from_space(found[outside] * [1, 1.03, 1.03], space)
    assert ((more < 0) | (more > 1)).any(-1).mean() > 0.97  # but for the few hues whose border bends inwards


def test_extreme_coordinates_end_inside() -> None:
    x = np.array([[0.0, 1, 1], [1, -1, 1], [2, 0, 0], [-1, 0, 0], [1e-6, 1, -1], [0.5, 50, -50]], np.float32)
    for space in COLOR_SPACES:
        rgb = into_gamut(x, space)
        assert np.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 1
        if space == "rgb":
            continue
        assert rgb[2] == pytest.approx([1, 1, 1], abs=1e-4) and rgb[3] == pytest.approx([0, 0, 0], abs=1e-4)
