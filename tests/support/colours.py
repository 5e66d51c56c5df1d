"""Pictures with random colours, and their lightness."""

from __future__ import annotations

import numpy as np

from style_transfer.pictures import Pixels
from style_transfer.pictures.color import spaces
from style_transfer.settings import Settings, options_of
from support import reference_color

COLOR_SPACES = list(options_of(Settings)["color_space"].choices)
LIGHT_SPACES = sorted(reference_color.SPACES)


def random_colours(seed: int, height: int = 40, width: int = 50, low: float = 0.2, high: float = 0.8) -> Pixels:
    """Return a random picture whose colours are correlated and not gray."""
    random = np.random.default_rng(seed)
    mix = random.uniform(0.1, 1, (3, 3)) * random.choice([-1, 1], (3, 3))
    x = random.normal(size=(height, width, 3)) @ mix
    x = (x - x.min()) / (x.max() - x.min())
    return (low + (high - low) * x).astype(np.float32)


def lightness(pixels: np.ndarray, space: str) -> np.ndarray:
    return spaces.to_space(pixels.astype(np.float64), space)[..., 0]
