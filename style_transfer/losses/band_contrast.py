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
from torch.nn.grad import conv2d_input

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
STRIDE = 2
"""Magnitudes are taken at every second pixel each way, since they change little from one to the next."""
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


def _magnitudes(luma: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Return the responses (bands, 2, h, w) at every second pixel, and their magnitudes (bands, h, w)."""
    responses = F.conv2d(luma, bank.flatten(0, 1), stride=STRIDE)[0]
    responses = responses.reshape(*bank.shape[:2], *responses.shape[1:])
    return responses, (responses.square().sum(1) + FAINT**2).sqrt()


class _Magnitudes(torch.autograd.Function):
    """The weighted sum of each band's magnitudes. The responses are computed again for the gradient, to save memory."""

    @staticmethod
    def forward(ctx: Any, luma: Tensor, bank: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(luma, bank, weights)
        return (_magnitudes(luma, bank)[1] * weights).sum((1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        luma, bank, weights = ctx.saved_tensors
        responses, magnitudes = _magnitudes(luma, bank)
        gradient = responses * (grads[0][:, None, None] * weights / magnitudes)[:, None]
        total: Tensor = conv2d_input(luma.shape, bank.flatten(0, 1), gradient.flatten(0, 1)[None], stride=STRIDE)  # type: ignore[no-untyped-call]
        return total, None, None


class BandContrast(StyleLoss):
    """Mean over bands of the squared logarithm of the ratio of mean magnitudes, of a picture (1, 3, H, W) and of the styles."""

    @staticmethod
    def statistic(features: Tensor, window: Window | None = None, weights: Tensor | None = None) -> Stats:
        """Return the sums of the magnitudes over every second pixel of the window, (bands,).

               `weights` (n,), if given, weight the pixels of the window.
        Pixels beyond the edge of `features` are those at the edge.
        """
        window = window_of(features, window)
        box, place = window.inside, window.place
        first = -place.top % STRIDE, -place.left % STRIDE  # the first pixel whose place is a multiple of the stride
        read = box.grown(PICTURE_REACH, (features.shape[2], features.shape[3]))
        bank, weights_of_luma = filters(features.device, features.dtype)
        luma = (features[read.index] * weights_of_luma).sum(1, keepdim=True)
        beyond = [
            PICTURE_REACH - part
            for part in (box.left - read.left, read.right - box.right, box.top - read.top, read.bottom - box.bottom)
        ]
        height, width = box.size
        shaped = luma.new_ones(height, width) if weights is None else weights.to(luma).view(height, width)
        shaped = shaped[first[0] :: STRIDE, first[1] :: STRIDE]
        area = {} if weights is None else {"area": shaped.sum()}
        if not shaped.numel():
            return Stats(area | {"bands": luma.sum() * luma.new_zeros(len(FREQUENCIES) * ORIENTATIONS)}, 0)
        padded = F.pad(luma, beyond, "replicate")[:, :, first[0] :, first[1] :]
        return Stats(area | {"bands": _Magnitudes.apply(padded, bank, shaped)}, shaped.numel())

    def score(self, total: Stats) -> Tensor:
        """Return the loss."""
        return (total.means()["bands"].log() - self.target["bands"].log()).square().mean()
