"""The objective of one scale: network and losses in, loss and gradient out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import Settings
from .distributed import LOCAL, Group
from .losses import (
    ContentLoss,
    GramLoss,
    Loss,
    MeanSquaredContentLoss,
    NinePointTVLoss,
    Stats,
    StyleLoss,
    TVLoss,
    WassersteinLoss,
    blend,
)
from .networks.graph import Network
from .schedule import Size
from .sweep import PICTURE, UNLIMITED, Limits, Sweep
from .tiling import Window, coarser_rows


@dataclass(frozen=True)
class Family:
    """The losses that go together, and Adam's betas for them."""

    content: type[ContentLoss] | type[MeanSquaredContentLoss]
    style: type[StyleLoss]
    tv: type[TVLoss] | type[NinePointTVLoss]
    betas: tuple[float, float]


FAMILIES = {
    "gram": Family(ContentLoss, GramLoss, TVLoss, (0.9, 0.999)),
    "wasserstein": Family(MeanSquaredContentLoss, WassersteinLoss, NinePointTVLoss, (0.9, 0.99)),
}
"""By `Settings.style_loss`: style-transfer-pytorch's losses of 2021 and of 2023."""


@dataclass(frozen=True)
class Term:
    """One summand of the objective: `weight` times a loss at a layer."""

    name: str
    layer: str
    loss: Loss
    weight: float


@dataclass(frozen=True)
class Evaluation:
    """The loss and its weighted parts by name, scalars on the first device, not yet waited for."""

    loss: Tensor
    parts: dict[str, Tensor]


class Objective:
    """The weighted sum of content, style and total variation losses at one scale.

    `networks` are the same network on each device that takes a share of the tiles. `content` and `styles` are pictures
    (1, 3, H, W) in [0, 1] at the sizes of the scale, on the device where the picture will be. `limits` bound the tiles.
    In a group of processes `content` and every picture that is evaluated are this process's rows of the whole, whose size is
    `size`; styles are given whole.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        content: Tensor,
        styles: Sequence[Tensor],
        settings: Settings,
        limits: Limits = UNLIMITED,
        *,
        group: Group = LOCAL,
        size: Size | None = None,
    ) -> None:
        family = FAMILIES[settings.style_loss]
        self.networks = networks
        self.group = group
        self.size = size or size_of(content)
        terms = []
        targets = self._content_targets(content, settings.content_layers, limits)
        for layer in settings.content_layers:
            weight = settings.content_weight / len(settings.content_layers)
            terms.append(Term(f"content {layer}", layer, family.content(*targets[layer]), weight))
        measured = []
        for style in styles:
            sweep = Sweep(networks, size_of(style), settings.style_layers, limits, group)
            band = sweep.parts[0].bands[group.rank]
            found, _ = sweep.measure(style[:, :, band[0] : band[1]], lambda k, x, w: {k: family.style.measure(x, w)}, keep=False)
            measured.append(self._total(found))
        mix = settings.blend(len(styles))
        for layer, weight in settings.layer_weights.items():
            target = blend([stats[layer] for stats in measured], mix)
            terms.append(Term(f"style {layer}", layer, family.style(target), weight))
        terms.append(Term("tv", PICTURE, family.tv(), settings.tv_weight))
        self.terms = tuple(term for term in terms if term.weight)
        self._limit(limits)

    def _limit(self, limits: Limits) -> None:
        self.limits = limits
        self.sweep = Sweep(self.networks, self.size, {term.layer for term in self.terms}, limits, self.group)

    def _content_targets(self, content: Tensor, layers: Sequence[str], limits: Limits) -> dict[str, tuple[Tensor, int]]:
        """Return the content's features of this process's rows at each layer, and the first of these rows."""
        spec = self.networks[0].spec
        sweep = Sweep(self.networks, self.size, layers, limits, self.group)
        targets = {}
        sizes = spec.sizes(self.size)
        for layer in layers:
            height, width = sizes[layer]
            first, last = coarser_rows(sweep.parts[0].bands[self.group.rank], spec.strides[layer], self.size[0], height)
            shape = (1, spec.channels[layer], last - first, width)
            targets[layer] = content.new_empty(shape, dtype=self.networks[0].features), first

        def put(layer: str, features: Tensor, window: Window) -> None:
            target, first = targets[layer]
            target[window.place.higher(first).index] = features[window.inside.index].to(target)

        sweep.forward(content, put)
        return targets

    def _measure(self, layer: str, features: Tensor, window: Window) -> dict[str, Stats]:
        return {term.name: term.loss.measure(features, window) for term in self.terms if term.layer == layer}

    def _total(self, found: Mapping[str, Stats]) -> dict[str, Stats]:
        """Return the sums over all processes."""
        names = sorted(found)
        counts = self.group.counts([found[name].count for name in names])
        flat = {f"{name}/{key}": value for name in names for key, value in found[name].sums.items()}
        total = self.group.total(flat)
        return {
            name: Stats({key: total[f"{name}/{key}"] for key in found[name].sums}, count)
            for name, count in zip(names, counts, strict=True)
        }

    def evaluate(self, image: Tensor, limits: Limits | None = None) -> Evaluation:
        """Return the loss of a picture (1, 3, H, W) and write its gradient to `image.grad`. `limits` replace those there are."""
        if limits is not None and limits != self.limits:
            self._limit(limits)
        image.grad = None
        found, sources = self.sweep.measure(image, self._measure)
        leaves = {
            name: Stats({key: value.requires_grad_() for key, value in stats.sums.items()}, stats.count)
            for name, stats in self._total(found).items()
        }
        parts = {term.name: term.loss.score(leaves[term.name]) * term.weight for term in self.terms}
        loss = torch.stack(list(parts.values())).sum()
        flat = [(name, key, value) for name, stats in leaves.items() for key, value in stats.sums.items()]
        slopes = torch.autograd.grad(loss, [value for _, _, value in flat], allow_unused=True, materialize_grads=True)
        weights: dict[str, dict[str, Tensor]] = {name: {} for name in leaves}
        for (name, key, _), slope in zip(flat, slopes, strict=True):
            weights[name][key] = slope
        image.grad = self.sweep.gradient(sources, self._measure, weights)
        return Evaluation(loss.detach(), {name: part.detach() for name, part in parts.items()})


def size_of(picture: Tensor) -> Size:
    """Return the (height, width) of a picture (1, 3, H, W)."""
    height, width = picture.shape[2:]
    return height, width
