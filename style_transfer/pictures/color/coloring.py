"""Colour modes: changes of the pictures that the engine gets, and of those that it returns.

`content` and `luminance` keep the photograph's colours: the result's lightness, the content's chrominance (Gatys, Bethge,
Hertzmann and Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016, and neural-style's `-original_colors`).
`match-style` gives the styles the content's colours beforehand, `match-content` the content the styles' (colour matching in the
same paper). Departures: colours are combined in Oklab unless another space is requested, and a colour outside sRGB keeps its
lightness and hue and loses chroma; those programs clip each channel, which changes the hue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ...compute.resampling import resize
from ...geometry.scales import Size
from ...settings import Resolved
from ..picture import Pixels
from ..tensors import from_pixels, to_pixels
from .matching import blended_moments, gray, match_histogram, match_lightness, match_moments, moments
from .spaces import colour_blocks, into_gamut, to_space


def chrominance(pixels: Pixels, space: str) -> Pixels:
    """Return the two coordinates of chrominance (height, width, 2) of a picture."""
    result = np.empty((*pixels.shape[:2], 2), np.float32)
    for rows in colour_blocks(pixels.shape):
        result[rows] = to_space(pixels[rows], space)[..., 1:]
    return result


def combine(pixels: Pixels, chroma: Pixels, space: str) -> Pixels:
    """Return the picture with the lightness of `pixels` (height, width, 3) and the chrominance `chroma` (height, width, 2)."""
    result = np.empty_like(pixels)
    for rows in colour_blocks(pixels.shape):
        x = to_space(pixels[rows], space)
        x[..., 1:] = chroma[rows]
        result[rows] = into_gamut(x, space)
    return result


def fill_hidden(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Return a picture whose transparent pixels have the colours of the visible ones around, blended by `alpha` (height, width).

    The colours that files store under transparent pixels are often black or white, and would bleed into the visible edges.
    They are replaced by pull-push (Gortler et al., "The Lumigraph", 1996): averages weighted by alpha on a pyramid of halved
    sizes.
    """
    weight = torch.from_numpy(np.ascontiguousarray(alpha))[None, None]
    if not bool((weight > 0).any()):
        return pixels
    return to_pixels(_pull_push(from_pixels(pixels), weight).clamp_(0, 1))


def _pull_push(colours: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    height, width = colours.shape[2:]
    if height == width == 1 or bool((weight >= 1).all()):
        return colours
    pooled = torch.nn.functional.avg_pool2d(torch.cat([colours * weight, weight], 1), 2, ceil_mode=True)
    share = pooled[:, 3:]
    coarse = _pull_push(pooled[:, :3] / share.clamp_min(1e-12), (4 * share).clamp_max(1))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return torch.lerp(smooth, colours, weight)


class KeptColours:
    """The colours of a content picture for results of any size: `at` returns that picture, (1, 3, H, W), resized. Thread-safe."""

    def __init__(self, at: Callable[[Size], torch.Tensor], space: str) -> None:
        self._at, self._space = at, space
        self._chroma: Pixels | None = None
        self._lock = threading.Lock()

    def finish(self, pixels: Pixels) -> Pixels:
        """Return a picture (height, width, 3) with the chrominance of the content; the last one is cached."""
        with self._lock:
            if self._chroma is None or self._chroma.shape[:2] != pixels.shape[:2]:
                self._chroma = None
                resized = self._at((pixels.shape[0], pixels.shape[1]))[0].clamp(0, 1)
                self._chroma = chrominance(resized.permute(1, 2, 0).numpy(), self._space)
            chroma = self._chroma
        return combine(pixels, chroma, self._space)


class Coloring:
    """The colour mode of one run: `content` and `styles` are the pictures for the engine, `finish` converts those it returns.

    Pictures are float32 sRGB (height, width, 3) in [0, 1]; `alpha` is the content's opacity (height, width) if results have it.
    `painted` is the share (height, width) of each pixel of the content that is painted: what is not keeps the content's colours
    in every mode. The original content is kept only if results have its colours. Thread-safe.
    """

    def __init__(
        self,
        settings: Resolved,
        content: Pixels,
        styles: Sequence[Pixels],
        alpha: Pixels | None = None,
        painted: Pixels | None = None,
    ) -> None:
        self.space = settings.color_space
        self._alpha = alpha
        if alpha is not None:
            content = fill_hidden(content, alpha)
        self.content, self.styles = content, list(styles)
        self._kept: KeptColours | None = None
        mode = settings.color
        if mode in ("content", "luminance"):
            self._kept = KeptColours(lambda size: resize(from_pixels(content), size, antialias=True), self.space)
        if mode == "luminance":
            target = moments(content, self.space)
            self.content = gray(content, self.space)
            self.styles = [match_lightness(style, target, self.space) for style in styles]
        elif mode == "match-style":
            match = self._matcher(settings, [content], [1.0])
            self.styles = [match(style) for style in styles]
        elif mode == "match-content":
            expanded = settings.expanded(len(styles))  # one entry for each size of each style
            shares = [0.0] * len(styles)
            for (style, _), share in zip(expanded, settings.blend(len(expanded)), strict=True):
                shares[style] += share
            self.content = self._matcher(settings, styles, shares)(content)
            if painted is not None:
                self.content = content + painted[..., None] * (self.content - content)

    def _matcher(self, settings: Resolved, targets: Sequence[Pixels], weights: Sequence[float]) -> Callable[[Pixels], Pixels]:
        """Return a function that gives a picture the colours of `targets`."""
        if settings.color_match == "histogram":
            return lambda source: match_histogram(source, targets, weights, self.space)
        target = blended_moments(targets, weights, self.space)
        return lambda source: match_moments(source, target, self.space)

    def finish(self, pixels: Pixels) -> Pixels:
        """Return a picture from the engine, of any size, in its final colours: (height, width, 3), or 4 channels with alpha."""
        size = pixels.shape[0], pixels.shape[1]
        if self._kept is not None:
            pixels = self._kept.finish(pixels)
        if self._alpha is None:
            return pixels
        alpha = resize(torch.from_numpy(np.ascontiguousarray(self._alpha))[None, None], size, antialias=True)[0, 0].clamp(0, 1)
        return np.concatenate([pixels, alpha.numpy()[..., None]], axis=2)
