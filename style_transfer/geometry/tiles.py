"""Geometry of tiles: which cells a tile must see to answer exactly for others. Integers only.

A network is run in segments, one after the other; a segment turns cells (of the picture, or of the segment before) into
coarser cells. Cell i of a layer with stride s and reach r depends on the cells from i s - r to (i + 1) s + r of its segment's
input. A tile that owns a box aligned to the segment's stride and sees `reach` more on each side computes its own
cells exactly, since only padding differs at its edges; where it lies on the whole's edge its padding is the whole's. There it
owns all cells that are left: unpadded kernels make fewer than the whole has strides, kernels that hang over the edge one more.
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
    """How a layer's cells lie on its input: one cell for `stride` cells, which depends on `reach` more on each side."""

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
        """What to index a tensor (..., H, W) with."""
        return (..., slice(self.top, self.bottom), slice(self.left, self.right))

    def within(self, outer: Box) -> Box:
        """Return this box in coordinates that start at the corner of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def higher(self, rows: int) -> Box:
        """Return the box moved up by so many rows."""
        return Box(self.top - rows, self.left, self.bottom - rows, self.right)

    def grown(self, by: int, size: Size) -> Box:
        """Return the box with `by` more on each side, cut to (0, 0) to `size`."""
        height, width = size
        return Box(max(0, self.top - by), max(0, self.left - by), min(height, self.bottom + by), min(width, self.right + by))


@dataclass(frozen=True)
class Tile:
    """A box of cells that are read, and the box among them that the tile answers for."""

    read: Box
    own: Box


@dataclass(frozen=True)
class Window:
    """Which cells of a tile's features count: `inside` the features, `place` in the whole, whose size is `whole`."""

    inside: Box
    place: Box
    whole: Size


def window(tile: Tile, stride: int, whole: Size, cells: Size | None = None) -> Window:
    """Return the cells of `stride` that a tile answers for.

    `whole` is the size of the segment's input, `cells` that of the layer: as many as whole strides, if left out.
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
    """Return tiles that own at most `step` cells each way, a multiple of the stride, and cover `rows` of `size` once.

    `rows` begin at a multiple of the stride; left out, they are all.
    """
    first, last = rows or (0, size[0])
    tiles = []
    for top, bottom in _cuts(last - first, step[0]):
        for left, right in _cuts(size[1], step[1]):
            own = Box(first + top, left, first + bottom, right)
            tiles.append(Tile(own.grown(geometry.halo, size), own))
    return tuple(tiles)


def _even(length: int, count: int, stride: int) -> int:
    """Return the least multiple of `stride` of which `count` cover `length`."""
    return -(-length // (count * stride)) * stride


def _largest(length: int, count: int, geometry: Geometry, beyond: int = 0) -> int:
    """Return what the largest of `count` even tiles along an axis reads: a tile at the end has one halo, one between two.

    The axis goes on `beyond` so many of its ends, where tiles have a halo too.
    """
    halos = min(count - 1 + beyond, 2)
    return min(length + beyond * geometry.halo, _even(length, count, geometry.stride) + halos * geometry.halo)


def _fewest(length: int, limit: int, geometry: Geometry, least: int) -> int | None:
    """Return the least number of even tiles along an axis, `least` or more, that read at most `limit` each, or None."""
    for count in (max(1, least), max(2, least)):
        if _largest(length, count, geometry) <= limit:
            return count
    room = (limit - 2 * geometry.halo) // geometry.stride * geometry.stride
    return max(least, -(-length // room)) if room > 0 else None


def plan_tiles(
    size: Size, geometry: Geometry, max_area: int, max_side: int | None = None, rows: tuple[int, int] | None = None
) -> tuple[Tile, ...]:
    """Return the tiles that read least in all and cover `rows` of `size` once.

    None reads more than `max_area` cells or owns more than `max_side` each way, in whole strides. If even the smallest tiles
    read more than that, these are returned.
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
    """Return bands of rows, as even as multiples of `stride` allow, that cover `height`; late ones may be empty."""
    blocks = math.ceil(height / stride)
    edges = [min(height, round(blocks * i / shares) * stride) for i in range(shares)] + [height]
    return tuple(itertools.pairwise(edges))


def share_area(size: Size, hands: int, geometry: Geometry) -> int:
    """Return what the largest of `hands` even bands of rows reads: tiles of this area give everybody work."""
    return _largest(size[0], max(1, min(hands, -(-size[0] // geometry.stride))), geometry) * size[1]


def coarser_rows(rows: tuple[int, int], stride: int, height: int, cells: int) -> tuple[int, int]:
    """Return which of `cells` cells of `stride` belong to rows of `height` that begin at a multiple of it."""
    first, last = rows
    if first >= last:  # none, at the place that the band before has reached
        at = cells if first == height else min(first // stride, cells)
        return at, at
    return min(first // stride, cells), cells if last == height else min(last // stride, cells)


def grown_rows(rows: tuple[int, int], by: int, height: int) -> tuple[int, int]:
    """Return rows with `by` more on each side, cut to the height; no rows stay no rows."""
    return (max(0, rows[0] - by), min(height, rows[1] + by)) if rows[0] < rows[1] else rows


def bounds(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of them."""
    return Box(
        min(box.top for box in boxes), min(box.left for box in boxes),
        max(box.bottom for box in boxes), max(box.right for box in boxes),
    )  # fmt: skip


def deal(tiles: Sequence[Tile], hands: int) -> tuple[tuple[Tile, ...], ...]:
    """Return the tiles dealt to `hands` workers in consecutive runs of about equal areas to read."""
    total = max(1, sum(tile.read.area for tile in tiles))
    dealt: list[list[Tile]] = [[] for _ in range(hands)]
    before = 0
    for tile in tiles:
        dealt[min(hands - 1, (2 * before + tile.read.area) * hands // (2 * total))].append(tile)
        before += tile.read.area
    return tuple(map(tuple, dealt))
