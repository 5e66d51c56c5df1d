"""The contrast of fine detail, by frequency and orientation, against that of the styles.

Gram matrices of a network's features hardly change with faint patterns at the scale of pixels, and pictures painted with them
have lattices along the axes: at 0.3 to 0.45 cycles per pixel up to six times the power that the painting has. This loss compares
what those patterns change. After Heeger and Bergen (1995, "Pyramid-based texture analysis/synthesis"), who match histograms of
oriented bands; here it is the mean magnitude of each band, from a pair of Gabor filters in quadrature, of the luma.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry.tiles import Window
from .loss import PICTURE_REACH
from .statistics import Stats, window_of
from .style.base import StyleLoss

LUMA = 0.2126, 0.7152, 0.0722
FREQUENCIES = 0.25, 0.4
"""The centres of the bands, in cycles per pixel."""
ORIENTATIONS = 4
"""Half a turn is divided by this; the first orientation has horizontal waves."""
WIDTH = 1.3
"""The deviation of the filters' Gaussian, in pixels."""
FAINT = 1e-3
"""Magnitudes are those of a wave with this one added in quadrature, so that flat pictures have logarithms too."""


@functools.cache
def filters(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the filters (bands, 2, 1, n, n), even and odd, without a mean, of unit norm, and the weights of the luma (3, 1, 1).

    They are kept, since a step that copies from the host cannot be captured as a CUDA graph.
    """
    at = torch.arange(-PICTURE_REACH, PICTURE_REACH + 1, dtype=torch.float64)
    gaussian = torch.exp(-(at[:, None].square() + at.square()) / (2 * WIDTH**2))
    pairs = []
    for frequency in FREQUENCIES:
        for index in range(ORIENTATIONS):
            angle = math.pi * index / ORIENTATIONS
            phase = 2 * math.pi * frequency * (at * math.cos(angle) + at[:, None] * math.sin(angle))
            pair = gaussian * torch.stack([phase.cos(), phase.sin()])
            pair = pair - gaussian * (pair.sum((1, 2), keepdim=True) / gaussian.sum())
            pairs.append(pair / pair.flatten(1).norm(dim=1)[:, None, None])
    luma = torch.tensor(LUMA, dtype=torch.float64)[:, None, None]
    return torch.stack(pairs)[:, :, None].to(device, dtype), luma.to(device, dtype)


def _magnitude(luma: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
    """Return a band's responses (1, 2, h, w) and their magnitude (1, 1, h, w)."""
    responses = F.conv2d(luma, pair)
    return responses, (responses.square().sum(1, keepdim=True) + FAINT**2).sqrt()


class _Magnitudes(torch.autograd.Function):
    """The weighted sum of each band's magnitudes, one band after another: memory for one at a time, forward and backward."""

    @staticmethod
    def forward(ctx: Any, luma: Tensor, bank: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(luma, bank, weights)
        return torch.stack([(_magnitude(luma, pair)[1] * weights).sum() for pair in bank])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        luma, bank, weights = ctx.saved_tensors
        total = torch.zeros_like(luma)
        for pair, factor in zip(bank, gradient, strict=True):
            responses, magnitude = _magnitude(luma, pair)
            total += F.conv_transpose2d(responses * (factor * weights / magnitude), pair)
        return total, None, None


class BandContrast(StyleLoss):
    """Mean over bands of the squared logarithm of the ratio of mean magnitudes, of a picture (1, 3, H, W) and of the styles."""

    @staticmethod
    def statistic(features: Tensor, window: Window | None = None, weights: Tensor | None = None) -> Stats:
        """Return the sums of the magnitudes over the window's pixels, (bands,); `weights` (n,), if given, weight the pixels.

        Pixels beyond the edge of `features` are those at the edge.
        """
        box = window_of(features, window).inside
        read = box.grown(PICTURE_REACH, (features.shape[2], features.shape[3]))
        bank, weights_of_luma = filters(features.device, features.dtype)
        luma = (features[read.index] * weights_of_luma).sum(1, keepdim=True)
        beyond = [
            PICTURE_REACH - part
            for part in (box.left - read.left, read.right - box.right, box.top - read.top, read.bottom - box.bottom)
        ]
        area = {} if weights is None else {"area": weights.to(luma).sum()}
        shaped = luma.new_ones(()) if weights is None else weights.to(luma).view(1, 1, *box.size)
        if not box.area:
            return Stats(area | {"bands": luma.sum() * luma.new_zeros(len(FREQUENCIES) * ORIENTATIONS)}, 0)
        sums = _Magnitudes.apply(F.pad(luma, beyond, "replicate"), bank, shaped)
        return Stats(area | {"bands": sums}, box.area)

    def score(self, total: Stats) -> Tensor:
        """Return the loss."""
        return (total.means()["bands"].log() - self.target["bands"].log()).square().mean()
