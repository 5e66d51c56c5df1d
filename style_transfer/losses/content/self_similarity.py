"""The content loss that compares the distances between points of a picture with those between the same points of the content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor

from ...geometry.tiles import Window
from ...registry import CONTENT_LOSSES
from ...settings import Resolved
from ..sampling import PointSampler, SampledLoss, balanced, hypercolumns
from ..statistics import Stats
from .base import ContentLoss, ContentTarget

POINTS = 1024
"""The points of an evaluation, as in STROTSS: half a million pairs. Memory and time grow with their square."""
FACTOR = 40.0
"""Gives the loss about the strength that `features` has with the same weight."""
SMALLEST = 1e-6
ROUND = 1e-3
"""Differences of this size, where 1 is the mean of what is compared, are between squares and magnitudes.

Without it differences by rounding alone would have gradients of full size, as at the start from the content picture.
"""


@CONTENT_LOSSES.register("self-similarity")
class SelfSimilarityLoss(SampledLoss, ContentLoss):
    """Mean absolute difference of the matrices of cosine distances between the hypercolumns of all points.

    From STROTSS (Kolkin, Salavon and Shakhnarovich 2019, https://arxiv.org/abs/1904.12785): with the distances D_ij of points i
    and j of the picture and D'_ij of the content, each column divided by its mean, the mean of |D_ij - D'_ij|, smooth at 0. It
    keeps structure and frees colour and texture. Hypercolumns are those of the content layers.
    """

    help = "distances between the features of random points, as in STROTSS"

    def __init__(self, settings: Resolved, targets: Mapping[str, ContentTarget], sampler: PointSampler) -> None:
        super().__init__(tuple(targets), sampler, POINTS)
        self.targets = targets
        self.weights = {layer: settings.content_weights[layer] for layer in targets}

    @staticmethod
    def default_layers(network: Any) -> tuple[str, ...]:
        """Return the deeper half of the style layers: shallow ones would keep the texture too."""
        layers: tuple[str, ...] = network.style_layers
        return layers[len(layers) // 2 :]

    @classmethod
    def prepare(cls, settings: Resolved, targets: Mapping[str, ContentTarget], sampler: PointSampler) -> dict[str, Self]:
        """Return one loss of all content layers."""
        return {"points": cls(settings, targets, sampler)}

    def measure_at(self, layer: str, features: Tensor, window: Window) -> Stats:
        """Return the features of picture and content at the points whose cell the window counts."""
        stats = super().measure_at(layer, features, window)
        target = self.targets[layer].at(window).to(features.device)
        return stats + Stats({f"content {layer}": self.sampler.gather(layer, target, window)}, 0)

    def score(self, total: Stats) -> Tensor:
        """Return the mean absolute difference."""
        content = {layer: total.sums[f"content {layer}"].detach() for layer in self.layers}
        scales = balanced(content, self.weights)
        found, target = (distances(hypercolumns(features, scales)) for features in (total.sums, content))
        d = found - target
        loss: Tensor = FACTOR * ((d.square() + ROUND**2).sqrt() - ROUND).mean()
        return loss


def distances(x: Tensor) -> Tensor:
    """Return the cosine distances of vectors (n, D), (n, n), each column divided by its mean."""
    unit = F.normalize(x, eps=SMALLEST)
    matrix = (1 - unit @ unit.mT).clamp_min(0)
    return matrix / matrix.mean(0).clamp_min(SMALLEST)
