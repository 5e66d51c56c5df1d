"""What the quality benchmark measures of a painted picture: style, content, structure and artefacts.

Pictures are float32 tensors (1, 3, H, W), sRGB in [0, 1]. Style and content are judged by the features of a network that did not
paint the picture; structure and artefacts by the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from style_transfer.compute.resampling import resize
from style_transfer.geometry import fit
from style_transfer.networks.forward import Network
from style_transfer.networks.spec import VGG_STYLE_LAYERS

LUMINANCE = 0.2126, 0.7152, 0.0722
GRID_SIDE = 16
"""The long side of the grid of cells whose similarities are compared."""
STRUCTURE_BLUR = 64
"""Gradients are those of the picture blurred by a Gaussian of the long side over this: 4 pixels at 256."""


def luminance(picture: Tensor) -> Tensor:
    """Return the luma of a picture (1, 3, H, W), (H, W) in float64."""
    weights = torch.tensor(LUMINANCE, dtype=torch.float64)
    return torch.einsum("chw,c->hw", picture[0].double(), weights)


def blurred(plane: Tensor, sigma: float) -> Tensor:
    """Return a plane (H, W) blurred by a Gaussian of `sigma` pixels, its edge replicated."""
    radius = min(math.ceil(3 * sigma), min(plane.shape) - 1)
    at = torch.arange(-radius, radius + 1, dtype=plane.dtype)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel /= kernel.sum()
    x = F.pad(plane[None, None], (radius,) * 4, "replicate")
    return F.conv2d(F.conv2d(x, kernel[None, None, None]), kernel[None, None, :, None])[0, 0]


# structure


def gradient_correlation(picture: Tensor, photograph: Tensor) -> float:
    """Return how well the orientations of gradients agree with the photograph's: 1 all, 0 as by chance.

    The mean of cos 2 (a - b), a and b the angles of the luma's gradients in both pictures, blurred; weighted by the magnitude of
    the photograph's gradient. Angles are doubled since a painting may exchange light and dark at an edge.
    """
    sigma = max(picture.shape[2:]) / STRUCTURE_BLUR
    angles, weight = [], torch.tensor(0.0)
    for each in (picture, photograph):
        dy, dx = torch.gradient(blurred(luminance(each), sigma))
        angles.append(torch.atan2(dy, dx))
        weight = torch.hypot(dx, dy)
    agreement = torch.cos(2 * (angles[0] - angles[1]))
    return float((agreement * weight).sum() / weight.sum().clamp_min(1e-12))


def self_similarities(features: Tensor) -> Tensor:
    """Return the cosine similarities of the cells of features (1, C, H, W), pooled to a coarse grid, each pair once."""
    height, width = fit(tuple(features.shape[2:]), GRID_SIDE, enlarge=False)
    cells = F.adaptive_avg_pool2d(features, (height, width)).flatten(2)[0].T.double()
    cells = F.normalize(cells - cells.mean(0), dim=1)
    upper = torch.triu_indices(len(cells), len(cells), 1)
    similarity: Tensor = (cells @ cells.T)[upper[0], upper[1]]
    return similarity


def correlation(x: Tensor, y: Tensor) -> float:
    """Return the correlation coefficient of two vectors; 0 if one is constant."""
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x.norm() * y.norm()).clamp_min(1e-12))


# artefacts


def grid(plane: Tensor, side: int = 64) -> float:
    """Return the power along the axes over that along the diagonals at 0.3 to 0.45 cycles a pixel.

    Mean over windows of `side` pixels, each of equal total power. Photographs and paintings have 0.8 to 3.3; from about 4 on a
    lattice of horizontal and vertical lines is visible.
    """
    side = min(side, *plane.shape)
    hann = torch.hann_window(side, periodic=False, dtype=plane.dtype)
    blocks = plane.unfold(0, side, max(1, side // 2)).unfold(1, side, max(1, side // 2)).flatten(0, 1)
    spectra = torch.fft.fft2((blocks - blocks.mean((1, 2), keepdim=True)) * torch.outer(hann, hann)).abs().square()
    power = (spectra / spectra.sum((1, 2), keepdim=True).clamp_min(1e-12)).sum(0)
    frequency = torch.fft.fftfreq(side, dtype=plane.dtype)
    radius = torch.hypot(frequency[:, None], frequency[None])
    angle = torch.rad2deg(torch.atan2(frequency.abs()[:, None], frequency.abs()[None]))
    ring = (radius >= 0.3) & (radius < 0.45)
    axes = ring & ((angle < 8) | (angle > 82))
    diagonals = ring & (angle > 37) & (angle < 53)
    return float(power[axes].mean() / power[diagonals].mean().clamp_min(1e-30))


def fringe(plane: Tensor) -> float:
    """Return the energy of differences across the outermost 4 pixels over that from the 6th to the 30th, of the worst side.

    Pictures without a fringe have 0.5 to 2.
    """
    sides = plane, plane.flip(0), plane.T, plane.T.flip(0)
    return max(float(s[:5].diff(dim=0).square().mean() / s[5:31].diff(dim=0).square().mean().clamp_min(1e-12)) for s in sides)


def specks(picture: Tensor) -> float:
    """Return the share of samples at black or white that differ by more than 0.25 from the mean of their eight neighbours."""
    kernel = torch.full((3, 1, 3, 3), 1 / 8)
    kernel[:, :, 1, 1] = 0
    around = F.conv2d(F.pad(picture, (1,) * 4, "replicate"), kernel, groups=3)
    return float((((picture <= 0.002) | (picture >= 0.998)) & ((picture - around).abs() > 0.25)).double().mean())


def artefacts(picture: Tensor) -> dict[str, float]:
    """Return `grid`, `fringe` and `specks` of a picture."""
    plane = luminance(picture)
    return {"grid": grid(plane), "fringe": fringe(plane), "specks": specks(picture)}


# style and content


@dataclass(frozen=True)
class Moments:
    """Mean (C,) and second moment (C, C) of features, float64."""

    mean: Tensor
    second: Tensor

    @staticmethod
    def of(features: Tensor) -> Moments:
        """Return the moments over the cells of features (1, C, H, W)."""
        x = features[0].flatten(1).double()
        return Moments(x.mean(1), x @ x.T / x.shape[1])

    @property
    def covariance(self) -> Tensor:
        """The covariance (C, C)."""
        return self.second - torch.outer(self.mean, self.mean)


def gram_distance(a: Moments, b: Moments) -> float:
    """Return the Frobenius norm of the difference of the Gram matrices over that of `b`'s."""
    return float((a.second - b.second).norm() / b.second.norm())


def psd_sqrt(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def wasserstein_distance(a: Moments, b: Moments) -> float:
    """Return the Wasserstein-2 distance of Gaussians with these moments over the root of `b`'s mean square."""
    root = psd_sqrt(b.covariance)
    cross = psd_sqrt(root @ a.covariance @ root).trace()
    squared = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return math.sqrt(max(0.0, float(squared)) / float(b.second.trace()))


class Judge:
    """Measures painted pictures of one pair by the features of a network.

    `photograph` and `style` are pictures (1, 3, H, W), reduced to the long side of the painted ones.
    """

    def __init__(self, network: Network, photograph: Tensor, style: Tensor) -> None:
        self.network, self.photograph = network, photograph
        self.style_layers, self.content_layer = VGG_STYLE_LAYERS, "relu4_2"
        self.style = {layer: Moments.of(x) for layer, x in self._features(style).items() if layer in self.style_layers}
        self.content = self._features(photograph)[self.content_layer]

    @torch.no_grad()
    def _features(self, picture: Tensor) -> dict[str, Tensor]:
        return {k: x.float() for k, x in self.network.forward(picture, {*self.style_layers, self.content_layer}).items()}

    def measure(self, picture: Tensor) -> dict[str, float]:
        """Return all measures of a picture of the photograph's size.

        `gram`: distance to the style, the mean over layers of the relative distance of Gram matrices; `wasserstein`: the same for
        the Wasserstein distance; `features`: relative distance to the photograph's features at the content layer; `gradients` and
        `similarity`: structure kept, 1 at most; `grid`, `fringe`, `specks`: artefacts.
        """
        found = self._features(picture)
        pairs = [(Moments.of(found[layer]), self.style[layer]) for layer in self.style_layers]
        content = found[self.content_layer]
        return {
            "gram": sum(gram_distance(*pair) for pair in pairs) / len(pairs),
            "wasserstein": sum(wasserstein_distance(*pair) for pair in pairs) / len(pairs),
            "features": float((content - self.content).norm() / self.content.norm()),
            "gradients": gradient_correlation(picture, self.photograph),
            "similarity": correlation(self_similarities(content), self_similarities(self.content)),
            **artefacts(picture),
        }


def reduced(picture: Tensor, longest: int) -> Tensor:
    """Return a picture reduced to a long side of at most `longest`, antialiased."""
    size = fit((picture.shape[2], picture.shape[3]), longest, enlarge=False)
    return resize(picture, size, antialias=True).clamp(0, 1)
