"""The objective of one scale: network and losses in, loss and gradient out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import Settings
from .losses import (
    ContentLoss,
    GramLoss,
    Loss,
    MeanSquaredContentLoss,
    NinePointTVLoss,
    StyleLoss,
    TVLoss,
    WassersteinLoss,
    blend,
)
from .networks.graph import Network

PICTURE = "picture"
"""The name of the layer that is the picture itself."""


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

    `content` and `styles` are pictures (1, 3, H, W) in [0, 1] at the sizes of the scale, on the network's first device.
    """

    def __init__(self, network: Network, content: Tensor, styles: Sequence[Tensor], settings: Settings) -> None:
        family = FAMILIES[settings.style_loss]
        self.network = network
        terms = []
        with torch.no_grad():
            targets = network.forward(content, settings.content_layers)
            for layer in settings.content_layers:
                weight = settings.content_weight / len(settings.content_layers)
                terms.append(Term(f"content {layer}", layer, family.content(targets[layer]), weight))
            measured = []
            for style in styles:
                features = network.forward(style, settings.style_layers)
                measured.append({layer: family.style.measure(features[layer]) for layer in settings.style_layers})
                del features
            mix = settings.blend(len(styles))
            for layer, weight in settings.layer_weights.items():
                target = blend([stats[layer] for stats in measured], mix)
                terms.append(Term(f"style {layer}", layer, family.style(target), weight))
        terms.append(Term("tv", PICTURE, family.tv(), settings.tv_weight))
        self.terms = tuple(term for term in terms if term.weight)

    def evaluate(self, image: Tensor) -> Evaluation:
        """Return the loss of `image`, a leaf that requires a gradient, and write `image.grad`."""
        layers = [term.layer for term in self.terms if term.layer != PICTURE]
        features = self.network.forward(image, layers) | {PICTURE: image}
        parts = {}
        for term in self.terms:
            score = term.loss.score(term.loss.measure(features[term.layer]))
            parts[term.name] = (score * term.weight).to(image.device)
        del features
        loss = torch.stack(list(parts.values())).sum()
        (image.grad,) = torch.autograd.grad(loss, image)
        return Evaluation(loss.detach(), {name: part.detach() for name, part in parts.items()})
