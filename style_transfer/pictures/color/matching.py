"""Colour matching: by mean and covariance, by lightness, and by the joint histogram, smoothed so as not to amplify noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from ...compute.resampling import resize, resize_band
from ..picture import Array, Pixels
from .spaces import colour_blocks, into_gamut, mapped, times, to_space

MIN_DEVIATION: Final = 0.005
"""Standard deviations below this, about one 8-bit step, are noise and are not scaled as if they were colour."""
SAMPLE_PIXELS: Final = 1 << 17
ROUNDS: Final = 10
KNOTS: Final = 256
MAX_SLOPE: Final = 2.0
"""The largest factor by which one round of histogram matching scales a difference; without a limit, flat areas become grainy."""
COARSE: Final = 512
"""Long side, in pixels, of the picture on which changes of colour are smoothed."""
RADIUS: Final = 8
"""Half the width, in pixels of that picture, of the windows within which a change of colour is affine."""
FAINT: Final = 0.02
"""Contrast in a window whose standard deviation is well below this counts as grain and is not changed."""


@dataclass(frozen=True)
class Moments:
    """Mean (3,) and covariance (3, 3) of a picture's colours, float64."""

    mean: Array
    covariance: Array


def moments(pixels: Pixels, space: str) -> Moments:
    """Return mean and covariance of a picture's colours in a space."""
    return blended_moments([pixels], [1.0], space)


def blended_moments(pictures: Sequence[Pixels], weights: Sequence[float], space: str) -> Moments:
    """Return mean and covariance of the colours of several pictures, combined by weights that sum to 1."""
    mean, second = np.zeros(3), np.zeros((3, 3))
    for picture, weight in zip(pictures, weights, strict=True):
        share = weight / (picture.shape[0] * picture.shape[1])
        for rows in colour_blocks(picture.shape):
            x = to_space(picture[rows], space).reshape(-1, 3).astype(np.float64)
            mean += share * x.sum(0)
            second += share * (x.T @ x)
    return Moments(mean, second - np.outer(mean, mean))


def _root(matrix: Array, power: float, floor: float = 0.0) -> Array:
    """Return a symmetric matrix to a power, with eigenvalues of at least `floor`."""
    values, vectors = np.linalg.eigh(matrix)
    result: Array = (vectors * np.maximum(values, floor) ** power) @ vectors.T
    return result


def transport(source: Moments, target: Moments) -> Array:
    """Return the symmetric matrix (3, 3) that gives centred colours with the source's covariance the target's.

    It is the optimal transport between Gaussians (Pitié and Kokaram, "The linear Monge-Kantorovitch linear colour mapping",
    2007), the linear map between these covariances that changes colours least. Gatys et al. (2016) use `C^1/2 S^-1/2`, which
    results in the same moments but larger changes of hue.
    """
    floor = MIN_DEVIATION**2
    root, inverse = _root(source.covariance, 0.5, floor), _root(source.covariance, -0.5, floor)
    result: Array = inverse @ _root(root @ target.covariance @ root, 0.5) @ inverse
    return result


def linear_map(source: Moments, target: Moments) -> Callable[[Array], Array]:
    """Return the affine map of coordinates (..., 3) from the source's moments to the target's, with the matrix of `transport`."""
    matrix = transport(source, target)

    def change(x: Array) -> Array:
        result: Array = times(x - source.mean.astype(x.dtype), matrix) + target.mean.astype(x.dtype)
        return result

    return change


def match_moments(pixels: Pixels, target: Moments, space: str) -> Pixels:
    """Return a picture whose colours have the target's mean and covariance, apart from those that `into_gamut` changes."""
    return mapped(pixels, linear_map(moments(pixels, space), target), space)


def gray(pixels: Pixels, space: str, scale: float = 1.0, shift: float = 0.0) -> Pixels:
    """Return the gray picture whose lightness is the picture's times `scale` plus `shift`, clipped to [0, 1]."""

    def change(x: Array) -> Array:
        result = np.zeros_like(x)
        result[..., 0] = x[..., 0] * x.dtype.type(scale) + x.dtype.type(shift)
        return result

    return mapped(pixels, change, space)


def match_lightness(pixels: Pixels, target: Moments, space: str) -> Pixels:
    """Return the gray picture with the picture's lightness, shifted and scaled to the target's mean and standard deviation.

    Gatys et al. (2016), luminance-only transfer: the style's lightness should be distributed like the photograph's.
    """
    source = moments(pixels, space)
    deviation = max(source.covariance[0, 0], MIN_DEVIATION**2) ** 0.5  # rounding makes the variance of a flat picture negative
    scale = float(max(target.covariance[0, 0], 0.0) ** 0.5 / deviation)
    return gray(pixels, space, scale, float(target.mean[0] - scale * source.mean[0]))


def _sample(pixels: Pixels, space: str) -> Array:
    """Return at most SAMPLE_PIXELS colours (n, 3) of a picture, evenly spread over it, float64."""
    step = int(np.ceil((pixels.shape[0] * pixels.shape[1] / SAMPLE_PIXELS) ** 0.5))
    return to_space(pixels[::step, ::step].astype(np.float64), space).reshape(-1, 3)


def rotations(count: int) -> list[Array]:
    """Return `count` rotations (3, 3): the identity, then evenly spread ones (Shoemake 1992 on an additive sequence)."""
    found = [np.eye(3)]
    step = 1.2207440846057596  # the root of x^4 = x + 1, the generalised golden ratio in three dimensions
    for number in range(1, count):
        u, v, w = ((0.5 + number * step**-k) % 1 for k in (1, 2, 3))
        a, b, c, d = (
            (1 - u) ** 0.5 * np.sin(2 * np.pi * v), (1 - u) ** 0.5 * np.cos(2 * np.pi * v),
            u**0.5 * np.sin(2 * np.pi * w), u**0.5 * np.cos(2 * np.pi * w),
        )  # fmt: skip
        found.append(np.array([
            [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
        ]))  # fmt: skip
    return found[:count]


def _curve(source: Array, target: Array, weights: Array) -> tuple[Array, Array]:
    """Return knots (x, y) of the increasing curve that maps the distribution of values (n,) to that of weighted values (m,)."""
    places = (np.arange(KNOTS) + 0.5) / KNOTS
    x = np.quantile(source, places)
    order = np.argsort(target)
    total = np.cumsum(weights[order])
    y = np.interp(places, (total - weights[order] / 2) / total[-1], target[order])
    x, place = np.unique(x, return_inverse=True)  # a value at several quantiles maps to the mean of their targets
    y = np.bincount(place, y) / np.bincount(place)
    # With slopes of at most MAX_SLOPE this difference decreases. The nearest such curve is the mean of the closest ones below
    # and above.
    excess = y - MAX_SLOPE * x
    below, above = np.minimum.accumulate(excess), np.maximum.accumulate(excess[::-1])[::-1]
    return x, (below + above) / 2 + MAX_SLOPE * x


def _interpolated(values: Array, x: Array, y: Array) -> Array:
    """Return the curve through the knots at `values`, continued with slope 1 beyond them."""
    inside = np.interp(values, x, y)
    result: Array = inside + np.minimum(values - x[0], 0) + np.maximum(values - x[-1], 0)
    return result


def match_histogram(pixels: Pixels, targets: Sequence[Pixels], weights: Sequence[float], space: str) -> Pixels:
    """Return a picture whose colours are distributed as those of `targets` combined by weights.

    The joint distribution of the three coordinates is matched: after mean and covariance, the histograms along the axes of
    one rotation after another (Pitié, Kokaram and Dahyot, "Automated colour grading using colour distribution transfer", 2007).
    The curves are fitted to a sample of the pixels, with slopes of at most MAX_SLOPE. All rounds together could still amplify
    noise to visible grain, so the change is applied through `smoothed`.
    """
    linear = linear_map(moments(pixels, space), blended_moments(targets, weights, space))
    source = linear(_sample(pixels, space))
    samples = [_sample(picture, space) for picture in targets]
    target = np.concatenate(samples)
    shares = np.concatenate([np.full(len(s), w / len(s)) for s, w in zip(samples, weights, strict=True)])
    stages = []
    for rotation in rotations(ROUNDS):
        turned, wanted = source @ rotation, target @ rotation
        curves = [_curve(turned[:, axis], wanted[:, axis], shares) for axis in range(3)]
        stages.append((rotation, curves))
        source = np.stack([_interpolated(turned[:, axis], *curves[axis]) for axis in range(3)], axis=-1) @ rotation.T

    def change(x: Array) -> Array:
        x = linear(x)
        for rotation, curves in stages:
            turned = times(x, rotation.T)
            for axis in range(3):
                turned[..., axis] = _interpolated(turned[..., axis], *curves[axis])
            x = times(turned, rotation)
        return x

    return smoothed(pixels, change, space)


def smoothed(pixels: Pixels, change: Callable[[Array], Array], space: str) -> Pixels:
    """Return a picture with a locally affine approximation of `change` applied to its coordinates in a space.

    Within small windows the change is replaced by the nearest affine map that does not amplify faint differences: the guided
    filter of the change with the picture as its guide (He, Sun and Tang, "Guided image filtering", 2010; first applied to
    changes of colour, with another filter, by Rabin, Delon and Gousseau, "Removing artefacts from color and contrast
    modifications", 2011). As in He and Sun, "Fast guided filter", 2015, the affine maps are fitted on a small picture and
    enlarged.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, COARSE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = resize(torch.from_numpy(pixels).permute(2, 0, 1)[None], size, antialias=True)[0].clamp(0, 1)
    x = to_space(small.permute(1, 2, 0).numpy().astype(np.float64), space)
    maps = _affine_maps(torch.from_numpy(x), torch.from_numpy(change(x) - x)).float()
    result = np.empty_like(pixels)
    for rows in colour_blocks(pixels.shape):
        first, last = (min(size[0] - 1, max(0, int((row + 0.5) * size[0] / height - 0.5))) for row in (rows.start, rows.stop))
        near = maps[:, :, first : last + 2]
        band = resize_band(near, first, size[0], (height, width), (rows.start, rows.stop), "bilinear")
        matrix, shift = band[0, :9].reshape(3, 3, *band.shape[2:]).numpy(), band[0, 9:].numpy()
        y = to_space(pixels[rows], space)
        result[rows] = into_gamut(y + np.einsum("hwi,ijhw->hwj", y, matrix) + shift.transpose(1, 2, 0), space)
    return result


def _affine_maps(x: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Return the affine maps from x (h, w, 3) to d (h, w, 3) around each pixel, (1, 12, h, w): matrices (3, 3), shifts (3)."""

    def averaged(*parts: torch.Tensor) -> torch.Tensor:
        both = torch.cat([part.flatten(2) for part in parts], 2).permute(2, 0, 1)[None]
        for kernel in ((2 * RADIUS + 1, 1), (1, 2 * RADIUS + 1)):
            padding = kernel[0] // 2, kernel[1] // 2
            both = torch.nn.functional.avg_pool2d(both, kernel, 1, padding, count_include_pad=False)
        return both[0].permute(1, 2, 0)

    means = averaged(x, d, x[..., :, None] * x[..., None, :], x[..., :, None] * d[..., None, :])
    mean_x, mean_d = means[..., :3], means[..., 3:6]
    spread = means[..., 6:15].reshape(*x.shape, 3) - mean_x[..., :, None] * mean_x[..., None, :]
    joint = means[..., 15:].reshape(*x.shape, 3) - mean_x[..., :, None] * mean_d[..., None, :]
    matrix = torch.linalg.solve(spread + FAINT**2 * torch.eye(3, device="cpu", dtype=x.dtype), joint)
    shift = mean_d - (mean_x[..., None, :] @ matrix)[..., 0, :]
    return averaged(matrix, shift).permute(2, 0, 1)[None]
