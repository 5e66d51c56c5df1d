"""Geometry of tiles: which cells a tile must read to compute the cells that it owns exactly. Integers only.

A network is run in segments, one after the other; a segment turns the pixels of the picture, or the output cells of the segment
before, into coarser cells. Cell i of a layer with stride s and reach r depends on the cells from i s - r to (i + 1) s + r of its
segment's input. A tile that owns a box aligned to the segment's stride and reads `reach` more cells on each side computes its own
cells exactly: only cells within `reach` of its edges are affected by padding. At an edge of the whole input a tile is padded like
the whole. There it owns all remaining cells: an unpadded kernel makes fewer than the input has strides, a kernel that extends
beyond the edge makes one more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType

from .scales import Size


@dataclass(frozen=True)
class Geometry:
    """How a layer's cells lie on its input: a cell covers `stride` input cells, and depends on `reach` more on each side."""

    stride: int
    reach: int

    @property
    def halo(self) -> int:
        """The reach, rounded up to a multiple of the stride."""
        return -(-self.reach // self.stride) * self.stride


@dataclass(frozen=True)
class Box:
    """Rows from `top` to `bottom` and columns from `left` to `right`, the ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    @property
    def area(self) -> int:
        """Height times width."""
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def index(self) -> tuple[EllipsisType, slice, slice]:
        """The index of the box in a tensor (..., H, W)."""
        return (..., slice(self.top, self.bottom), slice(self.left, self.right))

    def within(self, outer: Box) -> Box:
        """Return this box in coordinates whose origin is the upper left corner of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def higher(self, rows: int) -> Box:
        """Return the box moved up by `rows`."""
        return Box(self.top - rows, self.left, self.bottom - rows, self.right)

    def grown(self, by: int, size: Size) -> Box:
        """Return the box with `by` more cells on each side, clipped to a tensor of `size`."""
        height, width = size
        return Box(max(0, self.top - by), max(0, self.left - by), min(height, self.bottom + by), min(width, self.right + by))


@dataclass(frozen=True)
class Tile:
    """The box of cells that a tile reads, and the box within it of the cells that it owns: no other tile computes these."""

    read: Box
    own: Box


@dataclass(frozen=True)
class Window:
    """The cells that a tile owns at a layer: their box `inside` its features, and their `place` in the layer of size `whole`."""

    inside: Box
    place: Box
    whole: Size


def window(tile: Tile, stride: int, whole: Size, cells: Size | None = None) -> Window:
    """Return the cells that a tile owns at a layer of this stride.

    `whole` is the size of the segment's input, `cells` that of the layer; by default the number of complete strides.
    """
    height, width = cells or (whole[0] // stride, whole[1] // stride)
    top, bottom = coarser_rows((tile.own.top, tile.own.bottom), stride, whole[0], height)
    left, right = coarser_rows((tile.own.left, tile.own.right), stride, whole[1], width)
    corner = Box(tile.read.top // stride, tile.read.left // stride, 0, 0)
    place = Box(top, left, bottom, right)
    return Window(place.within(corner), place, (height, width))


def _cuts(length: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(length, start + step)) for start in range(0, length, step)]


def grid(size: Size, step: Size, geometry: Geometry, rows: tuple[int, int] | None = None) -> tuple[Tile, ...]:
    """Return tiles that own boxes of `step`, a multiple of the stride, or less at the ends, and cover `rows` of `size` once.

    `rows` begin at a multiple of the stride; the default is all rows.
    """
    first, last = rows or (0, size[0])
    tiles = []
    for top, bottom in _cuts(last - first, step[0]):
        for left, right in _cuts(size[1], step[1]):
            own = Box(first + top, left, first + bottom, right)
            tiles.append(Tile(own.grown(geometry.halo, size), own))
    return tuple(tiles)


def _even(length: int, count: int, stride: int) -> int:
    """Return the smallest multiple of `stride` so that `count` times it covers `length`."""
    return -(-length // (count * stride)) * stride


def _largest(length: int, count: int, geometry: Geometry, beyond: int = 0) -> int:
    """Return the cells that the largest of `count` even tiles along an axis reads: a tile between others has two halos.

    A tile at an end of the axis has one, but two where the picture continues beyond it: at `beyond` of the ends, 0 to 2.
    """
    halos = min(count - 1 + beyond, 2)
    return min(length + beyond * geometry.halo, _even(length, count, geometry.stride) + halos * geometry.halo)


def _fewest(length: int, limit: int, geometry: Geometry, least: int) -> int | None:
    """Return the smallest number, at least `least`, of even tiles along an axis that read at most `limit` each, or None."""
    for count in (max(1, least), max(2, least)):
        if _largest(length, count, geometry) <= limit:
            return count
    room = (limit - 2 * geometry.halo) // geometry.stride * geometry.stride
    return max(least, -(-length // room)) if room > 0 else None


def plan_tiles(
    size: Size, geometry: Geometry, max_area: int, max_side: int | None = None, rows: tuple[int, int] | None = None
) -> tuple[Tile, ...]:
    """Return the tiles that cover `rows` of `size` once and read the smallest total area.

    No tile reads more than `max_area` cells, or owns more than `max_side` cells along an axis, rounded down to strides. If the
    smallest possible tiles read more than that, they are returned.
    """
    first, last = rows or (0, size[0])
    height, width, beyond = last - first, size[1], (first > 0) + (last < size[0])
    if not height:
        return ()
    stride, halo = geometry.stride, geometry.halo
    side = max(stride, max_side // stride * stride) if max_side else max(size)
    best: tuple[int, Size] | None = None
    for down in range(-(-height // side), -(-height // stride) + 1):
        across = _fewest(width, max_area // _largest(height, down, geometry, beyond), geometry, -(-width // side))
        if across is None:
            continue
        total = (height + halo * (beyond + 2 * (down - 1))) * (width + 2 * halo * (across - 1))
        if best is None or total < best[0]:
            best = total, (_even(height, down, stride), _even(width, across, stride))
    return grid(size, best[1] if best else (stride, stride), geometry, rows)


def share_rows(height: int, shares: int, stride: int) -> tuple[tuple[int, int], ...]:
    """Return bands of rows that cover `height`, as even as multiples of `stride` allow; the last ones may be empty."""
    blocks = math.ceil(height / stride)
    edges = [min(height, round(blocks * i / shares) * stride) for i in range(shares)] + [height]
    return tuple(itertools.pairwise(edges))


def share_area(size: Size, workers: int, geometry: Geometry) -> int:
    """Return the area that the largest of `workers` even bands of rows reads: with tiles of it no worker is idle."""
    return _largest(size[0], max(1, min(workers, -(-size[0] // geometry.stride))), geometry) * size[1]


def coarser_rows(rows: tuple[int, int], stride: int, height: int, cells: int) -> tuple[int, int]:
    """Return the rows of a layer with `cells` rows that belong to `rows` of its input, which begin at a multiple of `stride`."""
    first, last = rows
    if first >= last:  # an empty band stays empty, after the cells of the band before
        at = cells if first == height else min(first // stride, cells)
        return at, at
    return min(first // stride, cells), cells if last == height else min(last // stride, cells)


def grown_rows(rows: tuple[int, int], by: int, height: int) -> tuple[int, int]:
    """Return rows with `by` more on each side, clipped to the height; an empty range stays empty."""
    return (max(0, rows[0] - by), min(height, rows[1] + by)) if rows[0] < rows[1] else rows


def bounds(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that contains all boxes."""
    return Box(
        min(box.top for box in boxes), min(box.left for box in boxes),
        max(box.bottom for box in boxes), max(box.right for box in boxes),
    )  # fmt: skip


def deal(tiles: Sequence[Tile], workers: int) -> tuple[tuple[Tile, ...], ...]:
    """Return the tiles of each worker: consecutive ones, of about the same total area to read."""
    total = max(1, sum(tile.read.area for tile in tiles))
    dealt: list[list[Tile]] = [[] for _ in range(workers)]
    before = 0
    for tile in tiles:
        dealt[min(workers - 1, (2 * before + tile.read.area) * workers // (2 * total))].append(tile)
        before += tile.read.area
    return tuple(map(tuple, dealt))
