"""Plain, slow, float64 oracles of further losses, as `reference` has of the method. They never import the package."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from support.reference import cosine_distance, weighted_columns


def band_magnitudes(x: Tensor, mask: Tensor | None = None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the mean magnitude of the luma of a picture (1, 3, H, W) in each of eight bands, weighted by a mask (1, 1, H, W).

    Every second pixel counts. A band is a pair of Gabor filters of 7 x 7 pixels, 0.25 or 0.4 cycles per pixel, at 0, 45, 90
    and 135 degrees.
    """
    red, green, blue = np.pad(x[0].numpy(), ((0, 0), (3, 3), (3, 3)), "edge")
    patches = np.lib.stride_tricks.sliding_window_view(0.2126 * red + 0.7152 * green + 0.0722 * blue, (7, 7))[::2, ::2]
    weights = np.ones(patches.shape[:2]) if mask is None else mask[0, 0, ::2, ::2].numpy()
    found = []
    for frequency in (0.25, 0.4):
        for direction in ((1, 0), (0.5**0.5, 0.5**0.5), (0, 1), (-(0.5**0.5), 0.5**0.5)):
            squared: Any = 1e-6
            for wave in (math.cos, math.sin):
                window, kernel = np.zeros((7, 7)), np.zeros((7, 7))
                for i, j in itertools.product(range(7), repeat=2):
                    window[i, j] = math.exp(-((i - 3) ** 2 + (j - 3) ** 2) / (2 * 1.3**2))
                    along = (j - 3) * direction[0] + (i - 3) * direction[1]
                    kernel[i, j] = window[i, j] * wave(2 * math.pi * frequency * along)
                kernel -= window * kernel.sum() / window.sum()
                squared = squared + (patches * kernel / np.sqrt((kernel**2).sum())).sum((2, 3)) ** 2
            found.append((np.sqrt(squared) * weights).sum() / weights.sum())
    return np.array(found)


def neighbors(parts: Sequence[Tensor], content: Sequence[Tensor], bank: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean cosine distance of each point to its target, and the target's index: the bank's nearest to the content's.

    Layers have equal weights. The means of content and bank are subtracted for the search alone.
    """
    x, q, k = (weighted_columns(each, bank, [1.0] * len(bank)) for each in (parts, content, bank))
    table = torch.stack([torch.stack([cosine_distance(u, v) for v in k - k.mean(0)]) for u in q - q.mean(0)])
    index = table.argmin(1)
    return torch.stack([cosine_distance(u, k[i]) for u, i in zip(x, index, strict=True)]).mean(), index
