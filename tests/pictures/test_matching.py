"""Colour matching by moments and by histograms."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from support import reference_color
from support.colours import COLOR_SPACES, LIGHT_SPACES, lightness, random_colours

from style_transfer.pictures.color import matching, spaces
from style_transfer.pictures.color.matching import (
    MIN_DEVIATION,
    Moments,
    blended_moments,
    match_histogram,
    match_lightness,
    match_moments,
    moments,
    rotations,
    transport,
)
from style_transfer.pictures.color.spaces import to_space


@pytest.mark.parametrize("space", COLOR_SPACES)
def test_matched_colours_have_the_targets_mean_and_covariance(space: str) -> None:
    source, target = random_colours(1), random_colours(2, 30, 20, 0.35, 0.65)
    found = match_moments(source, moments(target, space), space)

    def slow(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = np.array([reference_color.SPACES.get(space, tuple)(c) for c in pixels.reshape(-1, 3).astype(float).tolist()])
        return x.mean(0), np.cov(x.T, bias=True)

    for mine, theirs in zip(slow(found), slow(target), strict=True):
        assert np.abs(mine - theirs).max() < 1e-3 * np.abs(theirs).max() + 2e-6


def test_the_map_is_the_optimal_transport() -> None:
    source, target = moments(random_colours(1), "oklab"), moments(random_colours(2), "oklab")
    matrix = transport(source, target)
    assert np.abs(matrix - matrix.T).max() < 1e-10
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert matrix @ source.covariance @ matrix == pytest.approx(target.covariance, abs=1e-10)


def test_a_gray_picture_stays_gray_when_its_colours_are_matched() -> None:
    source = np.repeat(random_colours(3)[..., :1], 3, axis=2)
    source += np.random.default_rng(0).normal(0, 5e-4, source.shape).astype(np.float32)  # noise of a camera
    target = Moments(np.array([0.5, 0, 0]), np.diag([0.01, 0.01, 0.01]))  # colours that do not depend on the lightness
    found = moments(match_moments(source, target, "oklab"), "oklab")
    noise = moments(source, "oklab").covariance[1:, 1:].max() ** 0.5
    assert noise < MIN_DEVIATION / 10
    assert found.covariance[1, 1] ** 0.5 < 1.1 * noise * 0.1 / MIN_DEVIATION


def test_blended_moments_are_those_of_all_pixels_in_their_shares() -> None:
    a, b = random_colours(1, 10, 30), random_colours(2, 20, 30)
    found = blended_moments([a, b], [0.5, 0.5], "yuv")
    x = to_space(np.concatenate([a, a, b]).astype(np.float64), "yuv").reshape(-1, 3)  # half of the pixels each
    assert found.mean == pytest.approx(x.mean(0), abs=1e-6)
    assert found.covariance == pytest.approx(np.cov(x.T, bias=True), abs=1e-6)


@pytest.mark.parametrize("space", ["oklab", "rgb"])
def test_matched_histograms_agree_along_every_axis(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change of colours itself does that, before it is smoothed."""
    monkeypatch.setattr(matching, "smoothed", spaces.mapped)
    random = np.random.default_rng(0)
    source = random_colours(1, 100, 100)
    two = np.where(random.uniform(size=(100, 100, 1)) < 0.3, [0.7, 0.4, 0.3], [0.3, 0.5, 0.6])
    target = (two + random.normal(0, 0.05, (100, 100, 3))).clip(0, 1).astype(np.float32)
    found = match_histogram(source, [target], [1.0], space)
    spread = target.reshape(-1, 3).std(0).max()
    for axis in random.normal(size=(20, 3)):
        axis /= np.linalg.norm(axis)
        mine, theirs = (np.sort(p.reshape(-1, 3) @ axis) for p in (found, target))
        assert np.abs(mine - theirs).mean() < 0.08 * spread
    moved = np.abs(np.sort(source.reshape(-1, 3), 0) - np.sort(target.reshape(-1, 3), 0)).mean()
    assert moved > 0.3 * spread


def test_matched_histograms_make_no_grain_of_noise() -> None:
    """A sky with a little noise, matched to few colours far apart, keeps its noise and takes on the colours."""
    random = np.random.default_rng(0)
    sky = np.linspace(0, 1, 160)[:, None, None] * [0.1, 0.2, 0.3] + [0.2, 0.3, 0.5]
    noisy = (sky + random.normal(0, 0.012, (160, 200, 3))).clip(0, 1).astype(np.float32)
    palette = np.array([[0.1, 0.1, 0.3], [0.9, 0.7, 0.2], [0.3, 0.5, 0.7], [0.95, 0.9, 0.8]])
    target = palette[random.integers(4, size=(90, 90))].astype(np.float32)
    found = match_histogram(noisy, [target], [1.0], "oklab")

    def grain(x: np.ndarray[Any, Any]) -> float:
        return float((x[1:, 1:] - x[1:, :-1] - x[:-1, 1:] + x[:-1, :-1]).std())

    assert grain(found) < 2.2 * grain(noisy)  # without smoothing it is 11 times as strong
    assert np.abs(found.mean((0, 1)) - target.mean((0, 1))).max() < 0.05
    assert found.std((0, 1)).sum() > 3 * noisy.std((0, 1)).sum()


def test_changes_of_colour_are_smoothed_alike_in_blocks_and_where_linear_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_colours(1, 90, 70, 0.3, 0.7)
    twice = matching.smoothed(source, lambda x: 1.3 * x + 0.02, "rgb")
    assert np.abs(twice - (1.3 * source + 0.02)).mean() < 0.01
    monkeypatch.setattr(matching, "COARSE", 40)
    monkeypatch.setattr(matching, "RADIUS", 3)
    whole = matching.smoothed(source, lambda x: x * np.abs(x), "yuv")
    monkeypatch.setattr(spaces, "BLOCK_PIXELS", 700)
    assert np.abs(matching.smoothed(source, lambda x: x * np.abs(x), "yuv") - whole).max() < 1e-5


def test_histograms_of_several_pictures_count_by_weight() -> None:
    source = random_colours(1, 60, 60)
    dark, light = (np.full((8, 9, 3), v, np.float32) for v in (0.25, 0.75))
    found = match_histogram(source, [dark, light], [0.25, 0.75], "rgb")
    assert (found.mean(2) < 0.5).mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("colour", [(200, 30, 40), (217, 163, 130), (0, 0, 0), (255, 255, 255), (1, 2, 3)])
@pytest.mark.parametrize("shape", [(30, 40), (75, 68)])
def test_a_flat_pictures_lightness_is_matched(colour: tuple[int, ...], shape: tuple[int, int]) -> None:
    flat = np.broadcast_to(np.float32(colour) / np.float32(255), (*shape, 3)).copy()
    assert np.isfinite(match_lightness(flat, moments(random_colours(2), "oklab"), "oklab")).all()


def test_a_flat_picture_survives_every_match() -> None:
    flat, other = np.full((5, 6, 3), 0.4, np.float32), random_colours(2)
    for source, target in ((flat, other), (other, flat)):
        for found in (
            match_moments(source, moments(target, "oklab"), "oklab"),
            match_histogram(source, [target], [1.0], "oklab"),
            match_lightness(source, moments(target, "oklab"), "oklab"),
        ):
            assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
            assert abs(lightness(found, "oklab").mean() - lightness(target, "oklab").mean()) < 0.05


def test_rotations_are_rotations_and_differ() -> None:
    found = rotations(8)
    assert np.array_equal(found[0], np.eye(3))
    for a in found:
        assert a @ a.T == pytest.approx(np.eye(3), abs=1e-12) and np.linalg.det(a) == pytest.approx(1)
    assert min(np.abs(a - b).max() for a, b in pairwise(found)) > 0.1


@pytest.mark.parametrize("space", LIGHT_SPACES)
def test_matched_lightness_is_gray_with_the_targets_mean_and_deviation(space: str) -> None:
    source, target = random_colours(1), random_colours(2, 20, 30, 0.4, 0.6)
    found = match_lightness(source, moments(target, space), space)
    assert np.abs(found - found[..., :1]).max() < 2e-4
    mine, theirs = lightness(found, space), lightness(target, space)
    assert (mine.mean(), mine.std()) == pytest.approx((theirs.mean(), theirs.std()), abs=1e-4)
