"""The objective of one scale: the weighted sum of all losses of a picture, and its gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compute.distributed import LOCAL, Group
from ..compute.modes import exact_products
from ..compute.resampling import size_of
from ..compute.threads import in_parallel
from ..errors import SettingsError
from ..geometry.scales import Size
from ..geometry.tiles import Window, coarser_rows
from ..losses.band_contrast import BandContrast
from ..losses.content.base import ContentTarget
from ..losses.guidance import StageRegion, guide, weights_in
from ..losses.loss import PICTURE, Loss, seed_of
from ..losses.sampling import PointGrid, PointSampler
from ..losses.statistics import Stats, inside, sum_dtype
from ..losses.style.base import ColumnFunction, StyleLoss, StyleStatistic
from ..losses.total_variation import TOTAL_VARIATIONS
from ..networks import NetworkSpec
from ..networks.forward import Network
from ..registry import CONTENT_LOSSES, STYLE_LOSSES
from ..settings import Resolved
from .sweep import UNLIMITED, Limits, Measure, Sweep, products

NORMALIZED_EPS = 1e-8
COLUMNS_AREA = 640 * 640
"""The most pixels that a tile reads while features of all layers are gathered at points."""


@dataclass(frozen=True)
class Term:
    """One summand of the objective: `weight` times a loss of layers.

    Its gradient is multiplied by `gradient_factor`. With `normalized`, it is scaled at the layers to an L1 norm of `weight` times
    that factor.
    """

    name: str
    layers: tuple[str, ...]
    loss: Loss
    weight: float
    gradient_factor: float = 1.0
    normalized: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The loss and its weighted terms by name: scalars on the picture's device, for which the host has not waited."""

    loss: Tensor
    parts: dict[str, Tensor]


class Objective:
    """The weighted sum of content, style and total variation losses at one scale.

    `networks` are the same network on each device that evaluates a part of the tiles. `content` and `styles` are pictures
    (1, 3, H, W) in [0, 1] at the sizes of the scale, on the device of the picture that is optimised. `limits` bound the tiles.
    In a group of processes `content` and every picture that is evaluated are this process's rows of the whole, whose size is
    `size`; styles and `regions` are given whole. Without regions every style is compared with the whole picture.
    """

    @exact_products()
    def __init__(
        self,
        networks: Sequence[Network],
        content: Tensor,
        styles: Sequence[Tensor],
        settings: Resolved,
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
        self._evaluations = 0
        self._counts: dict[str, int] = {}
        """The number of cells of each term, over all processes; the same in every evaluation."""
        self._content: Tensor | None = content
        """The content picture until the first evaluation, before which other limits change the tiles of the targets too."""
        self._targets: dict[str, ContentTarget] = {}
        white = 1 / networks[0].spec.preprocessing.std[1]
        terms = [
            *self._content_terms(content),
            *self._style_terms(content, styles, limits, regions),
            Term("tv", (PICTURE,), TOTAL_VARIATIONS[settings.tv_loss](white), settings.tv_weight),
        ]
        self.terms = tuple(term for term in terms if term.weight)
        if not self.terms:
            raise SettingsError("nothing to optimize: every weight is 0, or masks cover nothing at this size")
        self._parallel_scores = content.device.type == "cpu" and any(term.loss.decomposes for term in self.terms)
        self._limit(limits)

    def _content_terms(self, like: Tensor) -> Iterator[Term]:
        """Yield the terms of the content layers, with targets for this process's rows that `_measure_content` fills."""
        settings, network = self.settings, self.networks[0]
        spec, sizes = network.spec, network.spec.sizes(self.size)
        band = self.group.bands(self.size[0], spec.stride)[self.group.rank]
        weights = {layer: settings.content_weight * share for layer, share in settings.content_weights.items()}
        for layer in (layer for layer, weight in weights.items() if weight):
            height, width = sizes[layer]
            first, last = coarser_rows(band, spec.strides[layer], self.size[0], height)
            target = like.new_empty((1, spec.channels[layer], last - first, width), dtype=network.features)
            self._targets[layer] = ContentTarget(target.to(memory_format=network.memory_format(like.device)), first)
        prepare = CONTENT_LOSSES[settings.content_loss].prepare
        for key, loss in prepare(settings, self._targets, sampler(spec, self.size)).items() if self._targets else ():
            weight = sum(weights[layer] for layer in loss.layers or (key,))
            yield Term(f"content {key}", loss.layers or (key,), loss, weight, normalized=settings.normalize_gradients)

    def _measure_content(self, content: Tensor) -> None:
        """Fill the targets of the content layers.

        They are computed in the tiles of the evaluation: others round differently. Then a picture that equals the content differs
        from it by exactly zero, where the gradient of scaled errors does not depend on the size of differences.
        """

        def store(layer: str, features: Tensor, window: Window) -> None:
            if layer in self._targets:
                self._targets[layer].store(features, window)

        if self._targets:
            self.sweep.forward(content, store)

    def _style_terms(
        self, content: Tensor, styles: Sequence[Tensor], limits: Limits, regions: Sequence[StageRegion]
    ) -> Iterator[Term]:
        """Yield the terms of the style layers for each loss and each region, with guides on the content's device."""
        settings, spec, layers = self.settings, self.networks[0].spec, self.settings.style_layers
        blend, factor = settings.blend(len(styles)), settings.style_factor
        read = (PICTURE, *layers) if settings.band_weight else layers
        all_guides = [{k: x.to(content.device) for k, x in guides_of(region.content, spec, read).items()} for region in regions]
        kinds: Sequence[tuple[str, type[StyleLoss], float, tuple[str, ...]]] = (
            ("style", STYLE_LOSSES[settings.style_loss], factor, layers),
            ("extra", STYLE_LOSSES[settings.extra_loss], factor * settings.extra_weight, layers),
            ("bands", BandContrast, settings.band_weight, (PICTURE,)),
        )
        for prefix, kind, weight, layers in kinds:
            for index, region in enumerate(regions or (None,) if weight else ()):
                guides = all_guides[index] if region else {}
                about = layers, region, guides, limits, self.group, self.size
                measured = MeasuredStyles(self.networks, content, styles, blend, *about)
                for key, loss in kind.prepare(settings, measured).items():
                    if region and not any(guides[layer].any() for layer in (layers if loss.layers else (key,))):
                        continue
                    share = weight if loss.layers else weight * settings.layer_weights.get(key, 1.0)
                    share *= region.share if region else 1
                    title = f"{prefix} {key} {index + 1}" if region else f"{prefix} {key}"
                    factors = (settings.style_gradient, settings.normalize_gradients) if key != PICTURE else ()
                    yield Term(title, loss.layers or (key,), loss, share, *factors)

    def _limit(self, limits: Limits) -> None:
        self.sweep = Sweep(self.networks, self.size, {layer for term in self.terms for layer in term.layers}, limits, self.group)
        if self._content is not None:
            self._measure_content(self._content)
        self.limits = limits

    def _measure(self, layer: str, features: Tensor, window: Window) -> dict[str, Stats]:
        return {term.name: term.loss.measure_at(layer, features, window) for term in self.terms if layer in term.layers}

    @property
    def capturable(self) -> bool:
        """Whether the next evaluation can be part of a CUDA graph: always the same operations, and the host never waits."""
        return all(term.loss.capturable for term in self.terms)

    def increment(self) -> None:
        """Count an evaluation that a replayed CUDA graph computed."""
        self._evaluations += 1
        for term in self.terms:
            term.loss.increment()

    def restore_step(self, count: int) -> None:
        """Continue as after `count` evaluations, so that a resumed run computes the same bits."""
        self._evaluations = count
        for term in self.terms:
            term.loss.restore_step(count)

    def _draw(self) -> None:
        """Let random losses draw for this evaluation; one that ran out of memory draws the same again."""
        seed = seed_of(self.settings.random_seed, *self.size, self._evaluations)
        for term in self.terms:
            term.loss.draw(seed)

    @exact_products()
    def evaluate(self, image: Tensor, limits: Limits | None = None) -> Evaluation:
        """Return the loss of a picture (1, 3, H, W) and write its gradient to `image.grad`; `limits` replace the current ones."""
        if limits is not None and limits != self.limits:
            self._limit(limits)
        image.grad = None
        self._draw()
        sums, sources = self.sweep.measure(image, self._measure)
        self._counts = self._counts or reduce_counts(sums, self.group)
        totals = {
            name: Stats({key: value.requires_grad_() for key, value in stats.sums.items()}, stats.count)
            for name, stats in reduce_stats(sums, self.group, self._counts).items()
        }
        parts = self._scores(totals)
        loss = torch.stack(list(parts.values())).sum()
        gradient_loss = torch.stack([parts[term.name] * term.gradient_factor for term in self.terms]).sum()
        values = [value for stats in totals.values() for value in stats.sums.values()]
        gradients = iter(torch.autograd.grad(gradient_loss, values, allow_unused=True, materialize_grads=True))
        weights = {name: {key: next(gradients) for key in stats.sums} for name, stats in totals.items()}
        if any(term.normalized for term in self.terms):
            self._normalize(image, weights)
        image.grad = self.sweep.gradient(sources, self._measure, weights)
        self._content = None
        self._evaluations += 1
        return Evaluation(loss.detach(), {name: part.detach() for name, part in parts.items()})

    def _scores(self, totals: Mapping[str, Stats]) -> dict[str, Tensor]:
        """Return the weighted score of each term."""
        tasks = [functools.partial(term.loss.score, totals[term.name]) for term in self.terms]
        # the last layers have the most channels, so theirs start first
        scores = in_parallel(tasks[::-1])[::-1] if self._parallel_scores else [task() for task in tasks]
        return {term.name: score * term.weight for term, score in zip(self.terms, scores, strict=True)}

    def _normalize(self, image: Tensor, weights: Mapping[str, dict[str, Tensor]]) -> None:
        """Scale `weights` so that each normalized term's gradient at its layer has an L1 norm of its weight times its factor.

        As neural-style's -normalize_gradients. The magnitudes need another sweep, without gradients through the network.
        """
        terms = {term.name: term for term in self.terms if term.normalized}

        def magnitudes(layer: str, features: Tensor, window: Window) -> dict[str, Stats]:
            stats_of = {}
            for term in terms.values():
                if layer not in term.layers:
                    continue
                with torch.enable_grad():
                    x = features.detach().requires_grad_()
                    stats = term.loss.measure_at(layer, x, window)
                    (gradient,) = torch.autograd.grad(torch.stack(products({term.name: stats}, weights)).sum(), x)
                stats_of[term.name] = Stats({"l1": gradient.abs().sum(dtype=sum_dtype(gradient))}, 0)
            return stats_of

        sums, _ = self.sweep.measure(image, magnitudes, keep=False)
        for name, stats in reduce_stats(sums, self.group).items():
            wanted = terms[name].weight * terms[name].gradient_factor
            for key in weights[name]:
                weights[name][key] = weights[name][key] * (wanted / (stats.sums["l1"] + NORMALIZED_EPS))


class MeasuredStyles:
    """The style pictures that one region is compared with, or all of them without regions; a `StyleStatistics`.

    `styles` are pictures (1, 3, H, W), `blend` their weights, which sum to 1. `guides` are those of the region, and `size` is
    that of the picture that is compared with them; `content` is this process's rows of it as a photograph.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        content: Tensor,
        styles: Sequence[Tensor],
        blend: Sequence[float],
        layers: Sequence[str],
        region: StageRegion | None,
        guides: Mapping[str, Tensor],
        limits: Limits,
        group: Group,
        size: Size,
    ) -> None:
        self._content = content
        self.networks, self.layers, self.guides, self.limits, self.group = networks, layers, guides, limits, group
        self._picture = size, None if region is None else region.content
        indices = [index for index in range(len(styles)) if region is None or index in region.masks]
        self.styles = [(styles[index], None if region is None else region.masks[index]) for index in indices]
        weights = [blend[index] for index in indices]
        if not sum(weights):
            weights = [1.0] * len(weights)
        self.weights: Sequence[float] = [weight / sum(weights) for weight in weights]

    def measure(self, statistic: StyleStatistic) -> dict[str, list[Stats]]:
        """Return the totals of a statistic at each style layer, one for each style picture."""
        totals = [self._measure_one(style, mask, statistic) for style, mask in self.styles]
        return {layer: [total[layer] for total in totals] for layer in self.layers}

    def _measure_one(self, style: Tensor, mask: Tensor | None, statistic: StyleStatistic) -> dict[str, Stats]:
        """Return the totals over one picture, whose cells a mask (1, 1, H, W) weights, if there is one."""
        guides = {} if mask is None else guides_of(mask, self.networks[0].spec, self.layers)

        def measure(layer: str, features: Tensor, window: Window) -> dict[str, Stats]:
            return {layer: statistic(layer, features, window, weights_in(guides.get(layer), window))}

        return self._sums(style, self.layers, measure)

    def _sums(self, style: Tensor, layers: Sequence[str], measure: Measure) -> dict[str, Stats]:
        """Return the statistics of one picture."""
        sweep = Sweep(self.networks, size_of(style), layers, self.limits, self.group)
        band = sweep.bands[self.group.rank]
        sums, _ = sweep.measure(style[:, :, band[0] : band[1]], measure, keep=False)
        return reduce_stats(sums, self.group)

    def sampler(self) -> PointSampler:
        """Return a sampler of the picture that is compared with the styles, within the region."""
        return sampler(self.networks[0].spec, *self._picture)

    def sample(self, count: int, seed: int) -> dict[str, Tensor]:
        """Return the features at about `count` random points of the styles, (n, C), at each style layer and of the picture."""
        parts = []
        for (style, mask), weight in zip(self.styles, self.weights, strict=True):
            points = sampler(self.networks[0].spec, size_of(style), mask)
            points.draw(round(count * weight), seed)

            def gather(layer: str, features: Tensor, window: Window, points: PointSampler = points) -> Tensor:
                return points.gather(layer, inside(features, window), window)

            parts.append(self._gathered(style, gather))
        return {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}

    def sample_squares(self, step: int, count: int, seed: int) -> dict[str, Tensor]:
        """Return the features of at most about `count` squares of the styles, (n, C), at each style layer and of the picture."""
        parts = []
        for (style, mask), weight in zip(self.styles, self.weights, strict=True):
            grid = PointGrid(size_of(style), {PICTURE: 1, **self.networks[0].spec.strides}, step, mask)
            chosen = grid.choose(max(1, round(count * weight)), seed).to(style.device)
            place = chosen.new_full((grid.shape[0] * grid.shape[1],), -1)
            place[chosen] = torch.arange(len(chosen), device=place.device)

            def gather(layer: str, features: Tensor, window: Window, grid: PointGrid = grid, place: Tensor = place) -> Tensor:
                box = grid.own(layer, window)
                rows = place.view(grid.shape)[box.index].flatten()
                columns = grid.gather(layer, features, window, box)
                result = columns.new_zeros(int(place.max()) + 1, columns.shape[1])
                return result.index_copy(0, rows[rows >= 0], columns[rows >= 0])

            parts.append(self._gathered(style, gather))
        return {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}

    def _gathered(self, style: Tensor, gather: Callable[[str, Tensor, Window], Tensor]) -> dict[str, Tensor]:
        """Return the sums over tiles of what `gather` returns at each style layer and for the picture."""
        layers = PICTURE, *self.layers
        sums = self._sums(style, layers, lambda layer, *about: {layer: Stats({layer: gather(layer, *about)}, 0)})
        return {layer: sums[layer].sums[layer] for layer in layers}

    def grid(self, step: int) -> PointGrid:
        """Return the squares of the picture that is compared with the styles, weighted by the region's mask."""
        size, mask = self._picture
        return PointGrid(size, {PICTURE: 1, **self.networks[0].spec.strides}, step, mask)

    def sum_columns(self, grid: PointGrid, function: ColumnFunction) -> Tensor:
        """Return the sum over tiles of the content of a function of a box of squares and their features at each style layer.

        The whole network runs over each tile, so that features of all layers are at hand at once.
        """
        tile: dict[str, tuple[Tensor, Window]] = {}
        sums: list[Tensor] = []

        def see(layer: str, features: Tensor, window: Window) -> dict[str, Stats]:
            tile[layer] = features, window
            if len(tile) > len(self.layers):
                box = grid.own(PICTURE, tile.pop(PICTURE)[1])
                columns = {name: grid.gather(name, *tile[name], box) for name in self.layers}
                part = function(box, columns)
                sums[:] = [part + sums[0] if sums else part]
                tile.clear()
            return {}

        limits = Limits(True, (COLUMNS_AREA,), (0,))
        sweep = Sweep(self.networks[:1], self._picture[0], (PICTURE, *self.layers), limits, self.group)
        sweep.measure(self._content, see, keep=False)
        return self.group.all_reduce({"sum": sums[0]})["sum"]


def sampler(spec: NetworkSpec, size: Size, mask: Tensor | None = None) -> PointSampler:
    """Return a sampler of points of a picture of `size`, within a mask (1, 1, H, W) if given."""
    return PointSampler(size, {PICTURE: 1, **spec.strides}, mask)


def guides_of(mask: Tensor, spec: NetworkSpec, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return the guides of a mask (1, 1, H, W) at layers of a network."""
    size = size_of(mask)
    cells = {layer: (spec.strides[layer], each) for layer, each in spec.sizes(size).items()} | {PICTURE: (1, size)}
    return {layer: guide(mask, *cells[layer]) for layer in layers}


def reduce_stats(stats: Mapping[str, Stats], group: Group, counts: Mapping[str, int] | None = None) -> dict[str, Stats]:
    """Return the sums over all processes of statistics by name; `counts` are the total numbers of cells if they are known."""
    names = sorted(stats)
    counts = counts or reduce_counts(stats, group)
    flat = {f"{name}/{key}": value for name in names for key, value in stats[name].sums.items()}
    total = group.all_reduce(flat)
    return {name: Stats({key: total[f"{name}/{key}"] for key in stats[name].sums}, counts[name]) for name in names}


def reduce_counts(stats: Mapping[str, Stats], group: Group) -> dict[str, int]:
    """Return the numbers of cells over all processes of statistics by name."""
    names = sorted(stats)
    return dict(zip(names, group.all_reduce_counts([stats[name].count for name in names]), strict=True))
