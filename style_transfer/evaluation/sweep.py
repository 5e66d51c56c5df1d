"""Running a network over a picture of any size, tile by tile, on one or more devices, with the exact gradient.

Sums over tiles are sums over the picture. So a loss f(S) of sums S has its exact gradient from two sweeps: the first adds up
S without gradients, then G = dL/dS comes from small matrices alone, and the second runs each tile again and back-propagates
<G, s> of its own sums s. A tile whose graph fits in memory is kept from the first sweep and not run again; one tile that is
kept is the ordinary single pass.

Large pictures go through the network in segments. The output of a segment is stored for the whole picture, and so is its
gradient on the way back. Segments have small reaches of their own, so their tiles overlap less than the whole network's would.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from ..compute import allocator
from ..compute.distributed import LOCAL, Group, Rows
from ..compute.threads import for_each
from ..geometry.scales import Size
from ..geometry.tiles import Box, Tile, Window, bounds, coarser_rows, deal, grown_rows, plan_tiles, share_area, window
from ..losses.losses import Stats
from ..networks.graph import Network
from ..networks.spec import Segment

PICTURE = "picture"
"""The name of the layer that is the picture itself."""

Visit = Callable[[str, Tensor, Window], None]
"""What is done with a tile's features: layer, features (1, C, h, w), the window that counts. Called from several threads."""

Measure = Callable[[str, Tensor, Window], Mapping[str, Stats]]
"""Returns the statistics, by any names, of a tile's features at a layer."""

Weights = Mapping[str, Mapping[str, Tensor]]
"""A factor for each sum of each statistic: dL/dS."""

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How much one device works on at a time: for each segment, in cells that are read.

    `whole` has the network in one segment, else it is cut. `areas` are the largest tiles, `keep` is how many cells' graphs stay
    in memory between the sweeps. `side` bounds each side of what a tile owns, in pixels.
    """

    whole: bool
    areas: tuple[int, ...]
    keep: tuple[int, ...]
    side: int | None = None


UNLIMITED = Limits(True, (2**62,), (2**62,))
"""One tile for each device, kept: the ordinary single pass."""


@dataclass(frozen=True)
class Part:
    """A segment's share of the plan: the size of its input, the tiles of each device, and those of them that are kept.

    `bands` are the rows of the input that each process owns, `wanted` those that its tiles read.
    """

    index: int
    segment: Segment
    size: Size
    tiles: tuple[tuple[Tile, ...], ...]
    kept: frozenset[Tile]
    bands: tuple[Rows, ...]
    wanted: tuple[Rows, ...]

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
        """The sizes of the segment's wanted layers."""
        return self.segment.sizes(self.size)


@dataclass
class _Run:
    """A tile that has been run: its input, its statistics by name, and the cells it owns of the segment's output."""

    x: Tensor
    stats: dict[str, Stats]
    output: Tensor | None


class Sweep:
    """A plan to run `layers` of a network over pictures of one size.

    `networks` are the same network on each device. A picture may lie on any device; what is made of it comes to the same.
    In a group of processes each has its band of the picture's rows, `bands[rank]`.
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
        self.parts = tuple(self._plan([layer for layer in layers if layer != PICTURE], limits))
        self._kept: dict[tuple[int, Tile], _Run] = {}
        # float16 holds nothing below 6e-8: gradients on their way back are as much larger as a picture has cells of 4 x 4
        self._scale = 2.0 ** round(math.log2(size[0] * size[1] / 16)) if networks[0].features == torch.float16 else 1.0

    def _plan(self, layers: Collection[str], limits: Limits) -> Iterator[Part]:
        size, hands, side = self.size, len(self.networks), limits.side
        segments = self.networks[0].spec.segments(layers, cut=not limits.whole)
        bands = self.group.bands(size[0], self.networks[0].spec.stride)
        for index, segment in enumerate(segments):
            band = bands[self.group.rank]
            area = min(limits.areas[index], share_area((band[1] - band[0], size[1]), hands, segment.geometry))
            area += 2 * segment.geometry.halo * size[1] if self.group.size > 1 else 0  # a band between others has two halos
            tiles = plan_tiles(size, segment.geometry, min(area, limits.areas[index]), side, band)
            side = side and max(1, side // segment.geometry.stride)
            dealt = deal(tiles, hands)
            kept: set[Tile] = set()
            for hand in dealt:
                room = limits.keep[index]
                for tile in hand:
                    room -= tile.read.area
                    if room >= 0:
                        kept.add(tile)
            wanted = tuple(grown_rows(rows, segment.geometry.halo, size[0]) for rows in bands)
            part = Part(index, segment, size, dealt, frozenset(kept), bands, wanted)
            yield part
            size, bands = part.output_size, part.output_bands

    @property
    def tiles(self) -> tuple[int, ...]:
        """How many tiles each segment has."""
        return tuple(sum(map(len, part.tiles)) for part in self.parts)

    def forward(self, image: Tensor, visit: Visit) -> None:
        """Run the network over a picture (1, 3, H, W) without gradients and let `visit` see every owned cell once."""

        def see(layer: str, features: Tensor, place: Window) -> Mapping[str, Stats]:
            visit(layer, features, place)
            return {}

        self.measure(image, see, keep=False)

    def measure(self, image: Tensor, measure: Measure, *, keep: bool = True) -> tuple[dict[str, Stats], list[Tensor]]:
        """Return the statistics of this process's band, on the picture's device, and what `gradient` needs, unless not `keep`."""
        self._kept = {}
        own = image.detach()
        sources: list[Tensor] = []
        totals: list[dict[str, Stats]] = [{} for _ in self.networks]
        for part in self.parts:
            _trim(part)
            source = self.group.exchange(own, part.bands, part.wanted)
            sources.append(source)
            output = None
            if not part.segment.last:
                first, last = part.output_bands[self.group.rank]
                shape = (1, part.segment.channels, last - first, part.output_size[1])
                output = source.new_empty(shape, dtype=self.networks[0].features)
            self._each(lambda hand, p=part, s=source, o=output: self._measure(p, hand, s, o, measure, keep, totals[hand]))  # type: ignore[misc]
            if output is not None:
                own = output
            if not any(part.tiles):
                add(totals[0], self._nothing(part, source, measure))
        total: dict[str, Stats] = {}
        for hand in totals:
            add(total, {name: stats.to(image.device) for name, stats in hand.items()})
        return total, sources

    def _nothing(self, part: Part, like: Tensor, measure: Measure) -> dict[str, Stats]:
        """Return the statistics of no cells, for a process that has no rows: zeros of the right shapes."""
        nothing = Box(0, 0, 0, 0)
        channels = self.networks[0].spec.channels
        layers = {PICTURE: 3} if part.segment.first and self.picture else {}
        layers |= {layer: channels[layer] for layer in part.segment.strides}
        stats: dict[str, Stats] = {}
        for layer, count in layers.items():
            stats |= measure(layer, like.new_zeros(1, count, 1, 1), Window(nothing, nothing, part.size))
        return stats

    def _measure(
        self, part: Part, hand: int, source: Tensor, output: Tensor | None, measure: Measure, keep: bool, total: dict[str, Stats]
    ) -> None:
        """Run one device's tiles of a segment: write its output, add up statistics, keep graphs."""
        for tile in part.tiles[hand]:
            kept = keep and tile in part.kept
            done = self._run(part, hand, tile, source, measure, graph=kept)
            add(total, {name: stats.detach() for name, stats in done.stats.items()})
            if output is not None and done.output is not None:
                output[self._output_box(part, tile).index] = done.output.detach().to(output.device)
            if kept:
                self._kept[part.index, tile] = done

    def gradient(self, sources: Sequence[Tensor], measure: Measure, weights: Weights) -> Tensor:
        """Return the gradient with respect to the picture of the sum of all weights times sums.

        `sources` are what `measure` returned for the picture, whose statistics were taken by the same function.
        """
        behind: Tensor | None = None
        for part in reversed(self.parts):
            _trim(part)
            source = sources[part.index]
            bands = self._each(lambda hand, p=part, s=source, b=behind: self._back(p, hand, s, b, measure, weights))  # type: ignore[misc]
            first = part.wanted[self.group.rank][0]
            read = _join([(band[0].higher(first), band[1]) for band in bands if band is not None], source)
            behind = self.group.fold(read, part.bands, part.wanted)
        assert behind is not None
        return behind if self._scale == 1 else behind / self._scale

    def _back(
        self, part: Part, hand: int, source: Tensor, behind: Tensor | None, measure: Measure, weights: Weights
    ) -> tuple[Box, Tensor] | None:
        """Return the gradient that one device's tiles of a segment give to its input, and where that lies; None without tiles."""
        tiles = part.tiles[hand]
        if not tiles:
            return None
        whole = bounds([tile.read for tile in tiles])
        total: Tensor | None = None
        for tile in tiles:
            done = self._kept.pop((part.index, tile), None) or self._run(part, hand, tile, source, measure, graph=True)
            scalars = [
                (value * (self._scale * weights[name][key]).to(value.device)).sum()
                for name, stats in done.stats.items()
                for key, value in stats.sums.items()
                if value.requires_grad
            ]
            if done.output is not None and behind is not None:
                slope = behind[self._output_box(part, tile).index].to(done.output.device)
                scalars.append((done.output * slope).sum())
            scalar = torch.stack([value.to(done.x.device) for value in scalars]).sum()
            (gradient,) = torch.autograd.grad(scalar, done.x)
            del done, scalars, scalar
            if len(tiles) == 1:
                total = gradient
            else:
                if total is None:
                    total = gradient.new_zeros(*gradient.shape[:2], *whole.size)
                total[tile.read.within(whole).index] += gradient
        assert total is not None
        return whole, total

    def _output_box(self, part: Part, tile: Tile) -> Box:
        """Return where a tile's output lies in this process's band of the segment's output."""
        place = window(tile, part.segment.geometry.stride, part.size, part.output_size).place
        return place.higher(part.output_bands[self.group.rank][0])

    def _run(self, part: Part, hand: int, tile: Tile, source: Tensor, measure: Measure, *, graph: bool) -> _Run:
        """Run a segment over a tile, with or without a graph."""
        network, segment = self.networks[hand], part.segment
        x = source[tile.read.higher(part.wanted[self.group.rank][0]).index].to(network.devices[0]).detach()
        with torch.set_grad_enabled(graph):
            x = x.requires_grad_() if graph else x
            stats: dict[str, Stats] = {}
            if segment.first and self.picture:
                stats |= measure(PICTURE, x, window(tile, 1, part.size))

            def see(layer: str, features: Tensor) -> None:
                stats.update(measure(layer, features, window(tile, segment.strides[layer], part.size, part.sizes[layer])))

            output = network.run(segment, x, see)
            if segment.last:
                return _Run(x, stats, None)
            return _Run(x, stats, output[window(tile, segment.geometry.stride, part.size, part.output_size).inside.index])

    def _each(self, work: Callable[[int], T]) -> list[T]:
        """Return what `work` returns for each device, all at once in a thread each."""
        with contextlib.ExitStack() as stack:
            for network in self.networks:
                stack.enter_context(network.float32_math())
            if len(self.networks) == 1:
                return [work(0)]
            return for_each(len(self.networks), work)


def add(total: dict[str, Stats], more: Mapping[str, Stats]) -> None:
    """Add statistics to the totals of the same names."""
    for name, stats in more.items():
        total[name] = total[name] + stats if name in total else stats


def _trim(part: Part) -> None:
    """Before many tiles, give the system back what the C library keeps of the last segment's, in blocks of other sizes."""
    if sum(map(len, part.tiles)) > len(part.tiles):
        allocator.trim()


def _join(bands: Sequence[tuple[Box, Tensor]], like: Tensor) -> Tensor:
    """Return the sum of tensors that lie at boxes, in the shape of `like` and on its device, added in their order."""
    if len(bands) == 1 and bands[0][1].shape == like.shape:
        return bands[0][1].to(like.device)
    total = torch.zeros_like(like)
    for box, band in bands:
        total[box.index] += band.to(like.device)
    return total
