"""The objective of one scale: network and losses in, loss and gradient out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compute.distributed import LOCAL, Group
from ..compute.threads import at_once
from ..errors import SettingsError
from ..geometry.scales import Size
from ..geometry.tiles import Window, coarser_rows
from ..losses.guidance import GuidedLoss, StageRegion, guide, weights_in
from ..losses.losses import ContentLoss, GramLoss, Loss, NinePointTVLoss, Stats, StyleLoss, TVLoss, WassersteinLoss, blend, width
from ..losses.matrix import RunningTraceSqrt
from ..losses.statistics import HistogramLoss, InnerTVLoss, MomentForm, histogram, moments
from ..networks.graph import Network
from ..settings.settings import Settings
from .sweep import PICTURE, UNLIMITED, Limits, Sweep

BETAS = {"wasserstein": (0.9, 0.99)}
"""Adam's betas by `Settings.style_loss`, where they are not the usual (0.9, 0.999): style-transfer-pytorch's of 2023."""


@dataclass(frozen=True)
class Form:
    """A kind of style loss: what is summed over a style or a picture, and the loss against a target.

    `measure` returns the sums over a window of features (1, C, H, W), in which cells count as much as weights (n,) say, if
    given. Targets are means, or, if `raw`, sums.
    """

    measure: Callable[[Tensor, Window, Tensor | None], Stats]
    loss: Callable[[dict[str, Tensor]], Loss]
    raw: bool = False


def style_form(kind: str, settings: Settings) -> Form:
    """Return the form of a style loss by its name in `Settings.style_loss`; a histogram's depends on the style's spread."""
    plain = settings.style_error == "scaled" and settings.gram_norm == "pixels"
    if kind == "wasserstein" or (kind == "gram" and plain):
        target: type[StyleLoss] = WassersteinLoss if kind == "wasserstein" else GramLoss

        def measure(features: Tensor, window: Window, weights: Tensor | None) -> Stats:
            if weights is None:
                return target.measure(features, window)
            found = moments(features, window, weights)
            if kind == "wasserstein":
                return found
            return Stats({"gram": found.sums["second"], "area": found.sums["area"]}, found.count)

        return Form(measure, target)
    form = MomentForm(kind, settings.style_error if kind != "mean-std" else "mean", settings.gram_norm)
    return Form(form.measure, form.loss, form.raw)


def histogram_form(low: Tensor, high: Tensor) -> Form:
    """Return the form of the distance between histograms whose bins reach from `low` to `high`, both (C,)."""
    return Form(lambda x, w, n: histogram(x, w, low, high, n), lambda target: HistogramLoss(target, low, high))


@dataclass(frozen=True)
class Term:
    """One summand of the objective: `weight` times a loss at a layer.

    Its gradient is `slope` times as large as it should be; with `even` it is divided by the sum of its magnitudes at the layer.
    """

    name: str
    layer: str
    loss: Loss
    weight: float
    slope: float = 1.0
    even: bool = False


TV: dict[str, Callable[[], Loss]] = {"axes": TVLoss, "nine-point": NinePointTVLoss}
EVEN_EPS = 1e-8

Take = Callable[[str, Tensor, Window, Tensor | None], Stats]
"""Returns the sums over a window of features at a layer, whose cells count as much as weights (n,) say, if there are any."""


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
    `size`; styles and `regions` are given whole. Without regions every style goes everywhere.
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
        regions: Sequence[StageRegion] = (),
    ) -> None:
        self.networks = networks
        self.group = group
        self.size = size or size_of(content)
        self.settings = settings
        self._roots: list[RunningTraceSqrt] = []
        self._counts: dict[str, int] = {}
        """How many cells each term counts, in all processes; the same at every evaluation."""
        terms = []
        even = settings.normalize_gradients
        targets = self._content_targets(content, settings.content_layers, limits)
        for layer, share in settings.content_weights.items():
            content_loss = ContentLoss(*targets[layer], settings.content_error)
            terms.append(Term(f"content {layer}", layer, content_loss, settings.content_weight * share, even=even))
        mix = settings.blend(len(styles))
        for prefix, name, weight in (("style", settings.style_loss, 1.0), ("extra", settings.extra_loss, settings.extra_weight)):
            places: Sequence[StageRegion | None] = regions or (None,)
            for index, region in enumerate(places if weight else (), 1):
                number = f" {index}" if region else ""
                for layer, loss in self._style_losses(name, styles, mix, limits, region, content.device).items():
                    share = settings.style_factor * weight * settings.layer_weights[layer] * (region.share if region else 1)
                    terms.append(Term(f"{prefix} {layer}{number}", layer, loss, share, settings.style_gradient, even))
        white = 1 / networks[0].spec.std[1]
        tv: Loss = InnerTVLoss(white) if settings.tv_loss == "inner" else TV[settings.tv_loss]()
        terms.append(Term("tv", PICTURE, tv, settings.tv_weight))
        self.terms = tuple(term for term in terms if term.weight)
        if not self.terms:
            raise SettingsError("there is nothing to paint by: every weight is 0, or masks leave nothing at this size")
        self.decomposes = content.device.type == "cpu" and "wasserstein" in settings.statistics
        self._limit(limits)

    def _style_losses(
        self,
        kind: str,
        styles: Sequence[Tensor],
        mix: Sequence[float],
        limits: Limits,
        region: StageRegion | None,
        home: torch.device,
    ) -> dict[str, Loss]:
        """Return the loss of each style layer against the styles' blended statistics, or, within a region, those of its own.

        What a region's losses keep, which grows with the picture, is on the device `home`.
        """
        measure = functools.partial(self._measure_styles, styles, mix, limits, region)
        if kind == "histogram":
            means = measure(lambda _, x, w, n: moments(x, w, n, squares=True))
            spreads = {layer: HistogramLoss.spread(found) for layer, found in means.items()}
            counts = measure(lambda layer, x, w, n: histogram(x, w, *spreads[layer], n))
            forms = {layer: histogram_form(*spread) for layer, spread in spreads.items()}
            losses = {layer: forms[layer].loss(target) for layer, target in counts.items()}
        else:
            form = style_form(kind, self.settings)
            targets = measure(lambda _, x, w, n: form.measure(x, w, n), form.raw)
            forms = dict.fromkeys(targets, form)
            losses = {layer: form.loss(target) for layer, target in targets.items()}
        self._roots += [loss.trace_sqrt for loss in losses.values() if isinstance(loss, WassersteinLoss)]
        if region is None:
            return losses
        spec = self.networks[0].spec
        sizes = spec.sizes(self.size)
        guides = {layer: guide(region.content, spec.strides[layer], sizes[layer]).to(home) for layer in losses}
        return {
            layer: GuidedLoss(loss, forms[layer].measure, guides[layer]) for layer, loss in losses.items() if guides[layer].any()
        }

    def _measure_styles(
        self,
        styles: Sequence[Tensor],
        mix: Sequence[float],
        limits: Limits,
        region: StageRegion | None,
        take: Take,
        raw: bool = False,
    ) -> dict[str, dict[str, Tensor]]:
        """Return each style layer's average over the styles of what `take` sums up; of the sums themselves if `raw`."""
        layers = self.settings.style_layers
        spec = self.networks[0].spec
        measured, shares = [], []
        for index, style in enumerate(styles):
            if region is not None and index not in region.masks:
                continue
            size, mask = size_of(style), None if region is None else region.masks[index]
            sizes = spec.sizes(size)
            guides = {} if mask is None else {layer: guide(mask, spec.strides[layer], sizes[layer]) for layer in layers}
            sweep = Sweep(self.networks, size, layers, limits, self.group)
            band = sweep.parts[0].bands[self.group.rank]

            def measure(layer: str, x: Tensor, w: Window, guides: Mapping[str, Tensor] = guides) -> dict[str, Stats]:
                return {layer: take(layer, x, w, weights_in(guides.get(layer), w))}

            found, _ = sweep.measure(style[:, :, band[0] : band[1]], measure, keep=False)
            measured.append(self._total(found))
            shares.append(mix[index])
        if not sum(shares):
            shares = [1.0] * len(shares)
        if raw:
            measured = [{layer: _as_sums(stats) for layer, stats in found.items()} for found in measured]
        return {layer: blend([found[layer] for found in measured], [s / sum(shares) for s in shares]) for layer in layers}

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
            target = content.new_empty(shape, dtype=self.networks[0].features)
            targets[layer] = target.to(memory_format=self.networks[0].layout(content.device)), first

        def put(layer: str, features: Tensor, window: Window) -> None:
            target, first = targets[layer]
            target[window.place.higher(first).index] = features[window.inside.index].to(target)

        sweep.forward(content, put)
        return targets

    def _measure(self, layer: str, features: Tensor, window: Window) -> dict[str, Stats]:
        return {term.name: term.loss.measure(features, window) for term in self.terms if term.layer == layer}

    def _total(self, found: Mapping[str, Stats], counts: Mapping[str, int] | None = None) -> dict[str, Stats]:
        """Return the sums over all processes, and the counts, unless those are known."""
        names = sorted(found)
        counts = counts or self._cells(found)
        flat = {f"{name}/{key}": value for name in names for key, value in found[name].sums.items()}
        total = self.group.total(flat)
        return {name: Stats({key: total[f"{name}/{key}"] for key in found[name].sums}, counts[name]) for name in names}

    def _cells(self, found: Mapping[str, Stats]) -> dict[str, int]:
        """Return the counts over all processes."""
        names = sorted(found)
        return dict(zip(names, self.group.counts([found[name].count for name in names]), strict=True))

    @property
    def settled(self) -> bool:
        """Whether the next evaluation does the same operations as any other, and nobody waits for a number."""
        return all(root.settled for root in self._roots)

    def advance(self) -> None:
        """Count an evaluation that is done without a call of `evaluate`."""
        for root in self._roots:
            root.advance()

    def go_on(self, count: int) -> None:
        """Do as after so many evaluations."""
        for root in self._roots:
            root.go_on(count)

    def evaluate(self, image: Tensor, limits: Limits | None = None) -> Evaluation:
        """Return the loss of a picture (1, 3, H, W) and write its gradient to `image.grad`. `limits` replace those there are."""
        if limits is not None and limits != self.limits:
            self._limit(limits)
        image.grad = None
        found, sources = self.sweep.measure(image, self._measure)
        self._counts = self._counts or self._cells(found)
        leaves = {
            name: Stats({key: value.requires_grad_() for key, value in stats.sums.items()}, stats.count)
            for name, stats in self._total(found, self._counts).items()
        }
        scores = [functools.partial(term.loss.score, leaves[term.name]) for term in self.terms]
        # the last layers have the most channels, so theirs begin first
        scored = at_once(scores[::-1])[::-1] if self.decomposes else [score() for score in scores]
        parts = {term.name: score * term.weight for term, score in zip(self.terms, scored, strict=True)}
        loss = torch.stack(list(parts.values())).sum()
        flat = [(name, key, value) for name, stats in leaves.items() for key, value in stats.sums.items()]
        sloped = torch.stack([parts[term.name] * term.slope for term in self.terms]).sum()
        slopes = torch.autograd.grad(sloped, [value for _, _, value in flat], allow_unused=True, materialize_grads=True)
        weights: dict[str, dict[str, Tensor]] = {name: {} for name in leaves}
        for (name, key, _), slope in zip(flat, slopes, strict=True):
            weights[name][key] = slope
        if any(term.even for term in self.terms):
            self._even_out(image, weights)
        image.grad = self.sweep.gradient(sources, self._measure, weights)
        return Evaluation(loss.detach(), {name: part.detach() for name, part in parts.items()})

    def _even_out(self, image: Tensor, weights: Mapping[str, dict[str, Tensor]]) -> None:
        """Make each layer's gradient as large as its term's weight: its sum of magnitudes at the layer, over the whole picture.

        As neural-style's -normalize_gradients has it. That sum takes another sweep, without gradients through the network.
        """
        terms = {term.name: term for term in self.terms if term.even}

        def magnitudes(layer: str, features: Tensor, window: Window) -> dict[str, Stats]:
            found = {}
            for term in terms.values():
                if term.layer != layer:
                    continue
                with torch.enable_grad():
                    x = features.detach().requires_grad_()
                    stats = term.loss.measure(x, window)
                    scalars = [(v * weights[term.name][k].to(v.device)).sum() for k, v in stats.sums.items() if v.requires_grad]
                    (slope,) = torch.autograd.grad(torch.stack(scalars).sum(), x)
                found[term.name] = Stats({"l1": slope.abs().sum(dtype=width(slope))}, 0)
            return found

        found, _ = self.sweep.measure(image, magnitudes, keep=False)
        for name, stats in self._total(found).items():
            for key in weights[name]:
                weights[name][key] = weights[name][key] * (terms[name].weight / (stats.sums["l1"] + EVEN_EPS))


def _as_sums(stats: Stats) -> Stats:
    """Return statistics whose means are their sums."""
    return Stats({key: value for key, value in stats.sums.items() if key != "area"}, 1)


def size_of(picture: Tensor) -> Size:
    """Return the (height, width) of a picture (1, 3, H, W)."""
    height, width = picture.shape[2:]
    return height, width
