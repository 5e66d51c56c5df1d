"""Boxes, tiles and how they are dealt: integers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from style_transfer.geometry.tiles import Box, Geometry, bounds, coarser_rows, deal, plan_tiles, share_area, share_rows, window
from style_transfer.registry import NETWORKS

geometries = st.builds(Geometry, st.sampled_from([1, 2, 8, 16]), st.integers(1, 70))


@pytest.mark.parametrize("name", NETWORKS)
def test_bands_of_every_layer_cover_its_cells_once(name: str) -> None:
    """Also where a layer has a cell more than whole strides, and some processes have no rows."""
    spec = NETWORKS[name].spec
    for height in range(64, 130):
        for shares in (2, 3, 8, 16):
            bands = share_rows(height, shares, spec.stride)
            size = (height, 96)
            for segment in spec.segments(list(spec.strides)):
                cells = segment.output_size(size)
                bands = tuple(coarser_rows(band, segment.geometry.stride, size[0], cells[0]) for band in bands)
                assert (bands[0][0], bands[-1][1]) == (0, cells[0])
                assert all(a[1] == b[0] for a, b in itertools.pairwise(bands)), (height, shares, bands)
                size = cells


@given(st.integers(1, 300), st.integers(1, 300), geometries, st.integers(100, 200_000))
@settings(deadline=None)
def test_tiles_own_every_cell_once_and_read_enough(height: int, width: int, geometry: Geometry, area: int) -> None:
    tiles = plan_tiles((height, width), geometry, area)
    assert sum(tile.own.area for tile in tiles) == height * width
    whole = Box(0, 0, height, width)
    assert bounds([tile.own for tile in tiles]) == whole
    for tile in tiles:
        assert tile.own.top % geometry.stride == tile.own.left % geometry.stride == 0
        assert tile.read.top % geometry.stride == tile.read.left % geometry.stride == 0
        assert tile.read == tile.own.grown(geometry.halo, (height, width))
        assert geometry.halo >= geometry.reach
    smallest = (geometry.stride + 2 * geometry.halo) ** 2
    if area >= smallest:
        assert all(tile.read.area <= area for tile in tiles)
    if area >= height * width:
        assert [tile.read for tile in tiles] == [whole]


@given(st.integers(1, 40), st.integers(1, 300), geometries, st.integers(1, 5), st.data())
@settings(deadline=None)
def test_tiles_of_a_band_read_no_more_than_they_may(blocks: int, width: int, geometry: Geometry, shares: int, data: Any) -> None:
    height = blocks * geometry.stride
    smallest = (geometry.stride + 2 * geometry.halo) ** 2
    area = data.draw(st.integers(smallest, 4 * smallest + 2000))
    owned = 0
    for band in share_rows(height, shares, geometry.stride):
        tiles = plan_tiles((height, width), geometry, area, rows=band)
        assert all(tile.read.area <= area for tile in tiles)
        assert all(band[0] <= tile.own.top and tile.own.bottom <= band[1] for tile in tiles)
        owned += sum(tile.own.area for tile in tiles)
    assert owned == height * width


@pytest.mark.parametrize(
    ("size", "geometry", "area", "own"),
    [
        ((64, 64), Geometry(16, 70), 64 * 64, (64, 64)),
        ((512, 512), Geometry(8, 22), 280 * 280, (256, 256)),  # 256 and one halo of 24
        ((3072, 4096), Geometry(8, 22), 560 * 560, (512, 512)),
        ((100, 1000), Geometry(2, 6), 100 * 300, (100, 250)),
    ],
)
def test_plans_by_hand(size: tuple[int, int], geometry: Geometry, area: int, own: tuple[int, int]) -> None:
    assert plan_tiles(size, geometry, area)[0].own.size == own


def test_a_window_maps_a_tile_to_its_features() -> None:
    (_, tile) = plan_tiles((40, 16), Geometry(8, 8), 16 * 40 - 1)
    assert (tile.own, tile.read) == (Box(24, 0, 40, 16), Box(16, 0, 40, 16))
    found = window(tile, 8, (40, 16))
    assert (found.inside, found.place, found.whole) == (Box(1, 0, 3, 2), Box(3, 0, 5, 2), (5, 2))


def test_odd_last_cells_are_dropped_as_pooling_drops_them() -> None:
    (tile,) = plan_tiles((21, 19), Geometry(8, 8), 10**6)
    assert window(tile, 8, (21, 19)).place == Box(0, 0, 2, 2)


@given(st.integers(1, 400), st.integers(1, 9), st.sampled_from([1, 8, 16]))
def test_bands_cover_the_rows(height: int, shares: int, stride: int) -> None:
    bands = share_rows(height, shares, stride)
    assert len(bands) == shares
    assert [row for a, b in bands for row in range(a, b)] == list(range(height))
    assert all(a % stride == 0 or a == height for a, _ in bands)


@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 5))
def test_dealt_tiles_are_all_there_and_in_order(height: int, width: int, hands: int) -> None:
    geometry = Geometry(8, 22)
    tiles = plan_tiles((height, width), geometry, min(5000, share_area((height, width), hands, geometry)))
    dealt = deal(tiles, hands)
    assert tuple(tile for hand in dealt for tile in hand) == tiles
    if len(tiles) >= hands:
        assert all(dealt) or len(tiles) < 2 * hands
