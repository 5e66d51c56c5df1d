"""The two-sweep evaluation: a network over a picture of any size, tile by tile, on one or more devices, with exact gradients.

Sums over tiles are sums over the picture. So a loss f(S) of sums S has its exact gradient from two sweeps: the first adds up
S without gradients, then G = dL/dS is computed from small matrices alone, and the second runs each tile again and back-propagates
<G, s> of its own sums s. If the graph of a tile fits in memory, it is kept from the first sweep and the tile is not run again;
one kept tile is the ordinary single pass.

Large pictures run through the network in segments. The output of a segment is stored for the whole picture, and in the second
sweep its gradient too. Segments have small reaches of their own, so their tiles overlap less than the whole network's would.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..compute import memory
from ..compute.distributed import LOCAL, Group, Rows
from ..compute.threads import for_each
from ..geometry.scales import Size
from ..geometry.tiles import Box, Geometry, Tile, Window, bounds, coarser_rows, deal, grown_rows, plan_tiles, share_area, window
from ..losses.loss import PICTURE, PICTURE_REACH
from ..losses.statistics import Stats
from ..networks import Segment
from ..networks.forward import Network
from . import costs
from .margin import Margin

Visit = Callable[[str, Tensor, Window], None]
"""A function of a layer, a tile's features (1, C, h, w) and the window that counts; it is called from several threads."""

Measure = Callable[[str, Tensor, Window], Mapping[str, Stats]]
"""A function that returns the statistics, by any names, of a tile's features at a layer."""

Weights = Mapping[str, Mapping[str, Tensor]]
"""A factor for each sum of each statistic: dL/dS."""

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How much one device evaluates at a time, for each segment, in cells of its input.

    With `whole` the network is one segment, else it is cut. `areas` are the largest tiles, `keep` is the number of cells whose
    graphs stay in memory between the sweeps. `side` bounds each side of the box that a tile owns, in pixels.
    """

    whole: bool
    areas: tuple[int, ...]
    keep: tuple[int, ...]
    side: int | None = None


UNLIMITED = Limits(True, (2**62,), (2**62,))
"""One tile for each device, kept: the ordinary single pass."""


@dataclass(frozen=True)
class Part:
    """The plan of a segment: the size of its input, the tiles of each device, and those of them that are kept.

    `bands` are the rows of the input that each process owns, `rows_read` those that its tiles read.
    """

    index: int
    segment: Segment
    size: Size
    tiles: tuple[tuple[Tile, ...], ...]
    kept: frozenset[Tile]
    bands: tuple[Rows, ...]
    rows_read: tuple[Rows, ...]

    @property
    def output_bands(self) -> tuple[Rows, ...]:
        """The rows of the output that each process owns."""
        height, cells = self.size[0], self.output_size[0]
        return tuple(coarser_rows(band, self.segment.geometry.stride, height, cells) for band in self.bands)

    @cached_property
    def output_size(self) -> Size:
        """The size of the segment's output."""
        return self.segment.output_size(self.size)

    @cached_property
    def sizes(self) -> dict[str, Size]:
        """The sizes of the segment's layers."""
        return self.segment.sizes(self.size)


@dataclass
class _Run:
    """The result of a tile: its input, its statistics by name, and the cells that it owns of the segment's output."""

    x: Tensor
    stats: dict[str, Stats]
    output: Tensor | None


class Sweep:
    """Runs `layers` of a network over pictures of one size.

    `networks` are the same network on each device. A picture may be on any device, and results are on the same one. In a group
    of processes a picture stands for this process's band of its rows, `bands[rank]`. The network sees pictures with the margin
    that its specification asks for, whose cells do not count.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        size: Size,
        layers: Collection[str],
        limits: Limits = UNLIMITED,
        group: Group = LOCAL,
    ) -> None:
        self.networks = tuple(networks)
        self.size = size
        self.group = group
        self.picture = PICTURE in layers
        self.bands = group.bands(size[0], networks[0].spec.stride)
        self.margin = Margin(size, networks[0].spec.margin, group, self.bands)
        strides = {PICTURE: 1} | networks[0].spec.strides
        self._cells = {layer: (strides[layer], each) for layer, each in ({PICTURE: size} | networks[0].spec.sizes(size)).items()}
        self.parts = tuple(self._plan([layer for layer in layers if layer != PICTURE], limits))
        self._kept: dict[tuple[int, Tile], _Run] = {}
        # float16 has no numbers below 6e-8, so that in the backward pass gradients are multiplied by the number of 4 x 4 cells
        self._scale = 2.0 ** round(math.log2(size[0] * size[1] / 16)) if networks[0].features == torch.float16 else 1.0

    def _plan(self, layers: Collection[str], limits: Limits) -> Iterator[Part]:
        size, workers, side = self.margin.extended, len(self.networks), limits.side
        segments = self.networks[0].spec.segments(layers, cut=not limits.whole)
        bands = self.margin.extended_bands
        for index, segment in enumerate(segments):
            if not index and self.picture and segment.geometry.reach < PICTURE_REACH:
                segment = replace(segment, geometry=Geometry(segment.geometry.stride, PICTURE_REACH))
            band = bands[self.group.rank]
            most = min(limits.areas[index], costs.largest_area(segment))  # limits are those of the content; a style may be larger
            area = min(most, share_area((band[1] - band[0], size[1]), workers, segment.geometry))
            area += 2 * segment.geometry.halo * size[1] if self.group.size > 1 else 0  # a band between two others has two halos
            tiles = plan_tiles(size, segment.geometry, min(area, most), side, band)
            side = side and max(1, side // segment.geometry.stride)
            dealt = deal(tiles, workers)
            kept: set[Tile] = set()
            for own in dealt:
                room = limits.keep[index]
                for tile in own:
                    room -= tile.read.area
                    if room >= 0:
                        kept.add(tile)
            rows_read = tuple(grown_rows(rows, segment.geometry.halo, size[0]) for rows in bands)
            part = Part(index, segment, size, dealt, frozenset(kept), bands, rows_read)
            yield part
            size, bands = part.output_size, part.output_bands

    @property
    def tiles(self) -> tuple[int, ...]:
        """The number of tiles of each segment."""
        return tuple(sum(map(len, part.tiles)) for part in self.parts)

    def forward(self, image: Tensor, visit: Visit) -> None:
        """Run the network over a picture (1, 3, H, W) without gradients, and call `visit` so that it gets every cell once."""

        def see(layer: str, features: Tensor, place: Window) -> Mapping[str, Stats]:
            visit(layer, features, place)
            return {}

        self.measure(image, see, keep=False)

    def measure(self, image: Tensor, measure: Measure, *, keep: bool = True) -> tuple[dict[str, Stats], list[Tensor]]:
        """Return the statistics of this process's band, on the picture's device, and the inputs of the segments.

        With `keep` the graphs of kept tiles stay in memory for `gradient`.
        """
        self._kept = {}
        own = self.margin.extend(image.detach())
        sources: list[Tensor] = []
        totals: list[dict[str, Stats]] = [{} for _ in self.networks]
        for part in self.parts:
            _trim(part)
            source = self.group.exchange_rows(own, part.bands, part.rows_read)
            sources.append(source)
            output = None
            if not part.segment.last:
                first, last = part.output_bands[self.group.rank]
                shape = (1, part.segment.channels, last - first, part.output_size[1])
                output = source.new_empty(shape, dtype=self.networks[0].features)
            self._each(self._measure, part, source, output, measure, keep, totals)
            if output is not None:
                own = output
            if not any(part.tiles):
                add(totals[0], self._nothing(part, source, measure))
        total: dict[str, Stats] = {}
        for each in totals:
            add(total, {name: stats.to(image.device) for name, stats in each.items()})
        return total, sources

    def _nothing(self, part: Part, like: Tensor, measure: Measure) -> dict[str, Stats]:
        """Return the statistics of no cells, for a process that has no rows: zeros of the right shapes."""
        nothing = Box(0, 0, 0, 0)
        channels = self.networks[0].spec.channels
        layers = {PICTURE: 3} if part.segment.first and self.picture else {}
        layers |= {layer: channels[layer] for layer in part.segment.strides}
        stats: dict[str, Stats] = {}
        for layer, count in layers.items():
            add(stats, measure(layer, like.new_zeros(1, count, 1, 1), Window(nothing, nothing, part.size)))
        return stats

    def _measure(
        self, worker: int, part: Part, source: Tensor, output: Tensor | None, measure: Measure, keep: bool,
        totals: Sequence[dict[str, Stats]],
    ) -> None:  # fmt: skip
        """Run one device's tiles of a segment: write its output, add up statistics, keep graphs."""
        for tile in part.tiles[worker]:
            kept = keep and tile in part.kept
            result = self._run(worker, part, tile, source, measure, graph=kept)
            add(totals[worker], {name: stats.detach() for name, stats in result.stats.items()})
            if output is not None and result.output is not None:
                output[self._output_box(part, tile).index] = result.output.detach().to(output.device)
            if kept:
                self._kept[part.index, tile] = result

    def gradient(self, sources: Sequence[Tensor], measure: Measure, weights: Weights) -> Tensor:
        """Return the gradient with respect to the picture of the sum of all weights times sums.

        `sources` are the inputs of the segments that `measure` returned for the picture, with the same function `measure`.
        """
        output_gradient: Tensor | None = None
        for part in reversed(self.parts):
            _trim(part)
            source = sources[part.index]
            bands = self._each(self._back, part, source, output_gradient, measure, weights)
            first = part.rows_read[self.group.rank][0]
            read = _join([(band[0].higher(first), band[1]) for band in bands if band is not None], source)
            output_gradient = self.group.reduce_rows(read, part.bands, part.rows_read)
        assert output_gradient is not None
        gradient = self.margin.fold(output_gradient)
        return gradient if self._scale == 1 else gradient / self._scale

    def _back(
        self, worker: int, part: Part, source: Tensor, output_gradient: Tensor | None, measure: Measure, weights: Weights
    ) -> tuple[Box, Tensor] | None:
        """Return the gradient of a segment's input from one device's tiles, and the box that it covers; None without tiles."""
        tiles = part.tiles[worker]
        if not tiles:
            return None
        whole = bounds([tile.read for tile in tiles])
        total: Tensor | None = None
        for tile in tiles:
            result = self._kept.pop((part.index, tile), None) or self._run(worker, part, tile, source, measure, graph=True)
            scalars = products(result.stats, weights, self._scale)
            if result.output is not None and output_gradient is not None:
                own = output_gradient[self._output_box(part, tile).index].to(result.output.device)
                scalars.append((result.output * own).sum())
            scalar = torch.stack([value.to(result.x.device) for value in scalars]).sum()
            (gradient,) = torch.autograd.grad(scalar, result.x)
            del result, scalars, scalar
            if len(tiles) == 1:
                total = gradient
            else:
                if total is None:
                    total = gradient.new_zeros(*gradient.shape[:2], *whole.size)
                total[tile.read.within(whole).index] += gradient
        assert total is not None
        return whole, total

    def _output_box(self, part: Part, tile: Tile) -> Box:
        """Return the box of a tile's output in this process's band of the segment's output."""
        place = window(tile, part.segment.geometry.stride, part.size, part.output_size).place
        return place.higher(part.output_bands[self.group.rank][0])

    def _run(self, worker: int, part: Part, tile: Tile, source: Tensor, measure: Measure, *, graph: bool) -> _Run:
        """Run a segment over a tile, with or without a graph."""
        network, segment = self.networks[worker], part.segment
        x = source[tile.read.higher(part.rows_read[self.group.rank][0]).index].to(network.devices[0]).detach()
        with torch.set_grad_enabled(graph):
            x = x.requires_grad_() if graph else x
            stats: dict[str, Stats] = {}
            if segment.first and self.picture:
                add(stats, measure(PICTURE, x, self.margin.window(window(tile, 1, part.size), *self._cells[PICTURE])))

            def see(layer: str, features: Tensor) -> None:
                place = window(tile, segment.strides[layer], part.size, part.sizes[layer])
                add(stats, measure(layer, features, self.margin.window(place, *self._cells[layer])))

            output = network.run(segment, x, see)
            if segment.last:
                return _Run(x, stats, None)
            return _Run(x, stats, output[window(tile, segment.geometry.stride, part.size, part.output_size).inside.index])

    def _each(self, work: Callable[..., T], *arguments: Any) -> list[T]:
        """Return `work(worker, *arguments)` for each device, computed in parallel in a thread each."""
        with contextlib.ExitStack() as stack:
            for network in self.networks:
                stack.enter_context(network.float32_math())
            if len(self.networks) == 1:
                return [work(0, *arguments)]
            return for_each(len(self.networks), lambda worker: work(worker, *arguments))


def products(stats: Mapping[str, Stats], weights: Weights, scale: float = 1.0) -> list[Tensor]:
    """Return <weight, sum>, times `scale`, of all sums that have a graph."""
    return [
        (value * (scale * weights[name][key]).to(value.device)).sum()
        for name, each in stats.items()
        for key, value in each.sums.items()
        if value.requires_grad
    ]


def add(total: dict[str, Stats], more: Mapping[str, Stats]) -> None:
    """Add statistics to the totals of the same names."""
    for name, stats in more.items():
        total[name] = total[name] + stats if name in total else stats


def _trim(part: Part) -> None:
    """Return freed memory to the system before many tiles: the blocks of the previous segment have other sizes."""
    if sum(map(len, part.tiles)) > len(part.tiles):
        memory.trim()


def _join(bands: Sequence[tuple[Box, Tensor]], like: Tensor) -> Tensor:
    """Return the sum of tensors at boxes, in the shape of `like` and on its device, added in their order."""
    if len(bands) == 1 and bands[0][1].shape == like.shape:
        return bands[0][1].to(like.device)
    total = torch.zeros_like(like)
    for box, band in bands:
        total[box.index] += band.to(like.device)
    return total
