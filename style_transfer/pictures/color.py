"""Colour: what the pictures are before the engine gets them, and what its result becomes. The engine knows nothing of it.

`content` and `luminance` keep the photograph's colours: the result's lightness, the content's chrominance (Gatys, Bethge,
Hertzmann and Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016, and neural-style's `-original_colors`).
`match-style` gives the styles the content's colours beforehand, `match-content` the content the styles' (the same paper's colour
matching). Departures: colours are combined in Oklab unless another space is asked for, and a colour that sRGB cannot hold keeps
its lightness and hue and loses chroma, where those programs clip each channel and so change the hue.

Pictures are float sRGB in [0, 1], shape (height, width, 3). Spaces have a lightness in [0, 1] and two coordinates of
chrominance that are 0 for grays. Large pictures are worked on in blocks of rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ..compute.resampling import resize, resize_band
from ..settings.settings import Settings

Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.float32]

BLOCK_PIXELS: Final = 1 << 18
SAMPLE_PIXELS: Final = 1 << 17
ROUNDS: Final = 10
KNOTS: Final = 256
MAX_SLOPE: Final = 2.0
"""How much one round of histogram matching may stretch a difference; without a bound, flat areas would turn into grain."""
MIN_DEVIATION: Final = 0.005
"""Deviations below this, about one 8-bit step, are noise and are not stretched as if they were colour."""
TOLERANCE: Final = 1e-5
COARSE: Final = 512
"""Long side of the picture on which changes of colour are smoothed."""
RADIUS: Final = 8
"""Half the width of the windows, on that picture, within which a change of colour is linear."""
FAINT: Final = 0.02
"""Deviations within a window well below this are grain, and their contrast stays as it is."""

# IEC 61966-2-1: linear sRGB to CIE XYZ (D65), and the luma of ITU-R BT.601.
_XYZ: Final = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE: Final = _XYZ.sum(1)
# Ottosson, "A perceptual color space for image processing", 2020: linear sRGB to cone responses, their cube roots to Oklab.
_LMS: Final = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_OKLAB: Final = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
_LUMA: Final = np.array([0.299, 0.587, 0.114])
_YUV: Final = np.array([_LUMA, 0.492111 * (np.array([0, 0, 1]) - _LUMA), 0.877283 * (np.array([1, 0, 0]) - _LUMA)])
_EPSILON: Final = (6 / 29) ** 3
_KAPPA: Final = (29 / 3) ** 3


def _times(x: Array, matrix: Array) -> Array:
    """Return `matrix` applied to the last axis of `x`, in the precision of `x`."""
    result: Array = x @ matrix.T.astype(x.dtype)
    return result


def to_linear(x: Array) -> Array:
    """Return light intensities of sRGB values; the curve goes on below 0 with its sign."""
    size = np.abs(x)
    result: Array = np.copysign(np.where(size <= 0.04045, size / 12.92, ((size + 0.055) / 1.055) ** 2.4), x)
    return result


def from_linear(x: Array) -> Array:
    """Return the sRGB values of light intensities; the curve goes on below 0 with its sign."""
    size = np.abs(x)
    result: Array = np.copysign(np.where(size <= 0.0031308, size * 12.92, 1.055 * size ** (1 / 2.4) - 0.055), x)
    return result


def _to_oklab(rgb: Array) -> Array:
    return _times(np.cbrt(_times(to_linear(rgb), _LMS)), _OKLAB)


def _from_oklab(x: Array) -> Array:
    return from_linear(_times(_times(x, np.linalg.inv(_OKLAB)) ** 3, np.linalg.inv(_LMS)))


def _lightness(y: Array) -> Array:
    """Return CIE lightness / 100 of a relative luminance."""
    return np.where(y > _EPSILON, 1.16 * np.cbrt(y) - 0.16, y * _KAPPA / 100)


def _luminance(lightness: Array) -> Array:
    """Return the relative luminance of a CIE lightness / 100."""
    return np.where(lightness > 0.08, ((lightness + 0.16) / 1.16) ** 3, lightness * 100 / _KAPPA)


def _to_lab(rgb: Array) -> Array:
    f = (_lightness(_times(to_linear(rgb), _XYZ) / _WHITE.astype(rgb.dtype)) + 0.16) / 1.16
    return np.stack([1.16 * f[..., 1] - 0.16, 5 * (f[..., 0] - f[..., 1]), 2 * (f[..., 1] - f[..., 2])], axis=-1)


def _from_lab(x: Array) -> Array:
    y = (x[..., 0] + 0.16) / 1.16
    f = np.stack([y + x[..., 1] / 5, y, y - x[..., 2] / 2], axis=-1)
    xyz = _luminance(1.16 * f - 0.16) * _WHITE.astype(x.dtype)
    return from_linear(_times(xyz, np.linalg.inv(_XYZ)))


def _chromaticity(xyz: Array) -> tuple[Array, Array]:
    """Return CIE 1976 u' and v'; those of white for black."""
    below = xyz[..., 0] + 15 * xyz[..., 1] + 3 * xyz[..., 2]
    dark = below <= 1e-12
    below = np.where(dark, 1, below)
    white = _WHITE[0] + 15 * _WHITE[1] + 3 * _WHITE[2]
    u = np.where(dark, 4 * _WHITE[0] / white, 4 * xyz[..., 0] / below)
    v = np.where(dark, 9 * _WHITE[1] / white, 9 * xyz[..., 1] / below)
    return u.astype(xyz.dtype), v.astype(xyz.dtype)


def _to_luv(rgb: Array) -> Array:
    xyz = _times(to_linear(rgb), _XYZ)
    lightness = _lightness(xyz[..., 1])
    (u, v), (white_u, white_v) = _chromaticity(xyz), _chromaticity(_WHITE)
    return np.stack([lightness, 13 * lightness * (u - float(white_u)), 13 * lightness * (v - float(white_v))], axis=-1)


def _from_luv(x: Array) -> Array:
    white_u, white_v = (float(w) for w in _chromaticity(_WHITE))
    lightness = x[..., 0]
    scale = 13 * np.where(np.abs(lightness) < 1e-9, 1, lightness)
    u, v = x[..., 1] / scale + white_u, x[..., 2] / scale + white_v
    y = _luminance(lightness)
    v = np.where(np.abs(v) < 1e-4, 1e-4, v)  # such colours are far outside sRGB, and must stay finite to be brought back
    xyz = np.stack([y * 9 * u / (4 * v), y, y * (12 - 3 * u - 20 * v) / (4 * v)], axis=-1).astype(x.dtype)
    return from_linear(_times(xyz, np.linalg.inv(_XYZ)))


def _to_yuv(rgb: Array) -> Array:
    return _times(rgb, _YUV)


def _from_yuv(x: Array) -> Array:
    return _times(x, np.linalg.inv(_YUV))


def _same(x: Array) -> Array:
    return x


_SPACES: Final[dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]]] = {
    "oklab": (_to_oklab, _from_oklab),
    "lab": (_to_lab, _from_lab),
    "luv": (_to_luv, _from_luv),
    "yuv": (_to_yuv, _from_yuv),
    "rgb": (_same, _same),
}


def to_space(rgb: Array, space: str) -> Array:
    """Return sRGB (..., 3) in a space of `config.COLOR_SPACES`.

    oklab as Ottosson has it; lab and luv are CIE 1976 for D65, divided by 100; yuv is BT.601's on sRGB values as they are, as
    image programs have it; rgb stays.
    """
    return _SPACES[space][0](rgb)


def from_space(x: Array, space: str) -> Array:
    """Return the sRGB values of coordinates (..., 3) in a space, outside [0, 1] where sRGB cannot hold the colour."""
    return _SPACES[space][1](x)


def into_gamut(x: Array, space: str) -> Array:
    """Return sRGB in [0, 1] for coordinates (..., 3) in a space.

    A colour outside keeps its lightness, clipped to [0, 1], and its hue, and gets the largest chroma that sRGB holds, found by
    bisection. Colours of space rgb are treated as in yuv.
    """
    if space == "rgb":
        x, space = _to_yuv(x), "yuv"
    x = x.copy()
    x[..., 0] = x[..., 0].clip(0, 1)
    rgb = from_space(x, space)
    outside = _outside(rgb)
    if outside.any():
        bad = x[outside]
        low, high = np.zeros(len(bad), x.dtype), np.ones(len(bad), x.dtype)
        for _ in range(18):
            middle = (low + high) / 2
            out = _outside(from_space(_scaled(bad, middle), space))
            low, high = np.where(out, low, middle), np.where(out, middle, high)
        rgb[outside] = from_space(_scaled(bad, low), space)
    return rgb.clip(0, 1)


def _outside(rgb: Array) -> npt.NDArray[np.bool_]:
    """Say which colours sRGB cannot hold; what is not a number is such."""
    held: npt.NDArray[np.bool_] = (rgb >= -TOLERANCE) & (rgb <= 1 + TOLERANCE)
    return np.logical_not(held.all(axis=-1))


def _scaled(x: Array, chroma: Array) -> Array:
    """Return coordinates (n, 3) with their chrominance multiplied by (n,)."""
    return np.stack([x[:, 0], x[:, 1] * chroma, x[:, 2] * chroma], axis=-1)


def _rows(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield slices over the rows of a (height, width, ...) array, each of about BLOCK_PIXELS pixels."""
    rows = max(1, BLOCK_PIXELS // max(1, shape[1]))
    for top in range(0, shape[0], rows):
        yield slice(top, min(top + rows, shape[0]))


def _mapped(pixels: Pixels, change: Callable[[Array], Array], space: str) -> Pixels:
    """Return a picture whose coordinates in a space went through `change`, block by block."""
    result = np.empty_like(pixels)
    for rows in _rows(pixels.shape):
        result[rows] = into_gamut(change(to_space(pixels[rows], space)), space)
    return result


@dataclass(frozen=True)
class Moments:
    """Mean (3,) and covariance (3, 3) of a picture's colours, float64."""

    mean: Array
    covariance: Array


def moments(pixels: Pixels, space: str) -> Moments:
    """Return mean and covariance of a picture's colours in a space."""
    return blended_moments([pixels], [1.0], space)


def blended_moments(pictures: Sequence[Pixels], weights: Sequence[float], space: str) -> Moments:
    """Return mean and covariance of the colours of several pictures together, each with a weight; the weights sum to 1."""
    mean, second = np.zeros(3), np.zeros((3, 3))
    for picture, weight in zip(pictures, weights, strict=True):
        share = weight / (picture.shape[0] * picture.shape[1])
        for rows in _rows(picture.shape):
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
    2007): of all linear maps between these covariances, the one that changes colours least. Gatys et al. (2016) take
    `C^1/2 S^-1/2`, which has the same moments but turns hues further.
    """
    floor = MIN_DEVIATION**2
    root, inverse = _root(source.covariance, 0.5, floor), _root(source.covariance, -0.5, floor)
    result: Array = inverse @ _root(root @ target.covariance @ root, 0.5) @ inverse
    return result


def linear_map(source: Moments, target: Moments) -> Callable[[Array], Array]:
    """Return the affine map of coordinates (..., 3) that `transport` is the matrix of."""
    matrix = transport(source, target)

    def change(x: Array) -> Array:
        moved: Array = _times(x - source.mean.astype(x.dtype), matrix) + target.mean.astype(x.dtype)
        return moved

    return change


def match_moments(pixels: Pixels, target: Moments, space: str) -> Pixels:
    """Return a picture whose colours have the target's mean and covariance, but for what sRGB cannot hold."""
    return _mapped(pixels, linear_map(moments(pixels, space), target), space)


def _sample(pixels: Pixels, space: str) -> Array:
    """Return at most SAMPLE_PIXELS colours (n, 3) of a picture, evenly spread over it, float64."""
    step = int(np.ceil((pixels.shape[0] * pixels.shape[1] / SAMPLE_PIXELS) ** 0.5))
    return to_space(pixels[::step, ::step].astype(np.float64), space).reshape(-1, 3)


def rotations(count: int) -> list[Array]:
    """Return `count` rotations (3, 3): the identity, then such that are spread evenly (Shoemake 1992 on an additive sequence)."""
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
    """Return knots (x, y) of the increasing curve that gives values (n,) the distribution of weighted values (m,)."""
    places = (np.arange(KNOTS) + 0.5) / KNOTS
    x = np.quantile(source, places)
    order = np.argsort(target)
    heap = np.cumsum(weights[order])
    y = np.interp(places, (heap - weights[order] / 2) / heap[-1], target[order])
    x, place = np.unique(x, return_inverse=True)  # a value that many pixels have goes to the middle of what it should cover
    y = np.bincount(place, y) / np.bincount(place)
    excess = y - MAX_SLOPE * x  # the bounded curves just below and just above y fall in this; between them is the nearest one
    below, above = np.minimum.accumulate(excess), np.maximum.accumulate(excess[::-1])[::-1]
    return x, (below + above) / 2 + MAX_SLOPE * x


def _bent(values: Array, x: Array, y: Array) -> Array:
    """Return the curve through the knots at `values`, going on with slope 1 beyond them."""
    inside = np.interp(values, x, y)
    result: Array = inside + np.minimum(values - x[0], 0) + np.maximum(values - x[-1], 0)
    return result


def match_histogram(pixels: Pixels, targets: Sequence[Pixels], weights: Sequence[float], space: str) -> Pixels:
    """Return a picture whose colours are distributed as those of `targets` together, each with a weight.

    The distribution is that of all three coordinates, not of each by itself: after mean and covariance, histograms are
    matched along the axes of one rotation after another (Pitié, Kokaram and Dahyot, "Automated colour grading using colour
    distribution transfer", 2007). The curves are found on a sample of the pixels, and none stretches by more than MAX_SLOPE.
    What they add up to would still make grain of noise, so the change is smoothed as `smoothed` says.
    """
    moved = linear_map(moments(pixels, space), blended_moments(targets, weights, space))
    now = moved(_sample(pixels, space))
    samples = [_sample(target, space) for target in targets]
    goal = np.concatenate(samples)
    shares = np.concatenate([np.full(len(s), w / len(s)) for s, w in zip(samples, weights, strict=True)])
    stages = []
    for rotation in rotations(ROUNDS):
        turned, wanted = now @ rotation, goal @ rotation
        curves = [_curve(turned[:, axis], wanted[:, axis], shares) for axis in range(3)]
        stages.append((rotation, curves))
        now = np.stack([_bent(turned[:, axis], *curves[axis]) for axis in range(3)], axis=-1) @ rotation.T

    def change(x: Array) -> Array:
        x = moved(x)
        for rotation, curves in stages:
            turned = _times(x, rotation.T)
            for axis in range(3):
                turned[..., axis] = _bent(turned[..., axis], *curves[axis])
            x = _times(turned, rotation)
        return x

    return smoothed(pixels, change, space)


def smoothed(pixels: Pixels, change: Callable[[Array], Array], space: str) -> Pixels:
    """Return a picture whose coordinates in a space went through `change`, as far as it is linear from place to place.

    Within small windows the change is replaced by the nearest affine one that leaves faint differences as they are: the guided
    filter of the change with the picture as its guide (He, Sun and Tang, "Guided image filtering", 2010; of changes of
    colour first Rabin, Delon and Gousseau, "Removing artefacts from color and contrast modifications", 2011, with another
    filter). As in He and Sun, "Fast guided filter", 2015, the affine maps are found on a small picture and enlarged.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, COARSE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = resize(torch.from_numpy(pixels).permute(2, 0, 1)[None], size, antialias=True)[0].clamp(0, 1)
    x = to_space(small.permute(1, 2, 0).numpy().astype(np.float64), space)
    maps = _affine_maps(torch.from_numpy(x), torch.from_numpy(change(x) - x)).float()
    result = np.empty_like(pixels)
    for rows in _rows(pixels.shape):
        first, last = (min(size[0] - 1, max(0, int((row + 0.5) * size[0] / height - 0.5))) for row in (rows.start, rows.stop))
        near = maps[:, :, first : last + 2]
        here = resize_band(near, first, size[0], (height, width), (rows.start, rows.stop), "bilinear")
        slope, shift = here[0, :9].reshape(3, 3, *here.shape[2:]).numpy(), here[0, 9:].numpy()
        y = to_space(pixels[rows], space)
        result[rows] = into_gamut(y + np.einsum("hwi,ijhw->hwj", y, slope) + shift.transpose(1, 2, 0), space)
    return result


def _affine_maps(x: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Return the affine maps from x (h, w, 3) to d (h, w, 3) around each pixel, (1, 12, h, w): slopes (3, 3), shifts (3)."""

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
    slope = torch.linalg.solve(spread + FAINT**2 * torch.eye(3, device="cpu", dtype=x.dtype), joint)
    shift = mean_d - (mean_x[..., None, :] @ slope)[..., 0, :]
    return averaged(slope, shift).permute(2, 0, 1)[None]


def gray(pixels: Pixels, space: str, scale: float = 1.0, shift: float = 0.0) -> Pixels:
    """Return the gray picture whose lightness is the picture's times `scale` plus `shift`, clipped to [0, 1]."""

    def change(x: Array) -> Array:
        result = np.zeros_like(x)
        result[..., 0] = x[..., 0] * x.dtype.type(scale) + x.dtype.type(shift)
        return result

    return _mapped(pixels, change, space)


def match_lightness(pixels: Pixels, target: Moments, space: str) -> Pixels:
    """Return the gray picture with the picture's lightness, moved and stretched to the target's mean and deviation.

    Gatys et al. (2016), luminance-only transfer: the style should not be dark where the photograph is bright.
    """
    source = moments(pixels, space)
    deviation = max(source.covariance[0, 0], MIN_DEVIATION**2) ** 0.5  # rounding makes a flat picture's negative
    scale = float(max(target.covariance[0, 0], 0.0) ** 0.5 / deviation)
    return gray(pixels, space, scale, float(target.mean[0] - scale * source.mean[0]))


def chrominance(pixels: Pixels, space: str) -> Pixels:
    """Return the two coordinates of chrominance (height, width, 2) of a picture."""
    result = np.empty((*pixels.shape[:2], 2), np.float32)
    for rows in _rows(pixels.shape):
        result[rows] = to_space(pixels[rows], space)[..., 1:]
    return result


def combine(pixels: Pixels, chroma: Pixels, space: str) -> Pixels:
    """Return the picture with the lightness of `pixels` (height, width, 3) and `chroma` (height, width, 2)."""
    result = np.empty_like(pixels)
    for rows in _rows(pixels.shape):
        x = to_space(pixels[rows], space)
        x[..., 1:] = chroma[rows]
        result[rows] = into_gamut(x, space)
    return result


def fill_hidden(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Return a picture whose colours, where `alpha` (height, width) is below 1, come by that much from the visible ones around.

    What files hold under transparent pixels is often black or white, and would be painted into the visible edges. Colours
    spread by pull and push (Gortler et al., "The Lumigraph", 1996): averages weighted by alpha on a pyramid of halved sizes.
    """
    colours = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
    weight = torch.from_numpy(np.ascontiguousarray(alpha))[None, None]
    if not bool((weight > 0).any()):
        return pixels
    filled = _pull_push(colours, weight)[0].clamp_(0, 1)
    return np.ascontiguousarray(filled.permute(1, 2, 0).numpy())


def _pull_push(colours: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    height, width = colours.shape[2:]
    if height == width == 1 or bool((weight >= 1).all()):
        return colours
    pooled = torch.nn.functional.avg_pool2d(torch.cat([colours * weight, weight], 1), 2, ceil_mode=True)
    share = pooled[:, 3:]
    coarse = _pull_push(pooled[:, :3] / share.clamp_min(1e-12), (4 * share).clamp_max(1))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return torch.lerp(smooth, colours, weight)


class Coloring:
    """The colour work of one run: `content` and `styles` are what the engine should get, `finish` what to show of its pictures.

    Pictures are float32 sRGB (height, width, 3) in [0, 1], `alpha` is the content's opacity (height, width) if it is to be kept.
    The content is remembered only where its colours are kept. May be used by several threads.
    """

    def __init__(self, settings: Settings, content: Pixels, styles: Sequence[Pixels], alpha: Pixels | None = None) -> None:
        self.space = settings.color_space
        self._alpha = alpha
        if alpha is not None:
            content = fill_hidden(content, alpha)
        self.content, self.styles = content, list(styles)
        self._original: Pixels | None = None
        self._chroma: Pixels | None = None
        self._lock = threading.Lock()
        mode = settings.color
        if mode in ("content", "luminance"):
            self._original = content
        if mode == "luminance":
            target = moments(content, self.space)
            self.content = gray(content, self.space)
            self.styles = [match_lightness(style, target, self.space) for style in styles]
        elif mode == "match-style":
            self.styles = [self._matched(settings, style, [content], [1.0]) for style in styles]
        elif mode == "match-content":
            expanded = settings.expanded(len(styles))  # a style counts once for each of its sizes
            shares = [0.0] * len(styles)
            for (style, _), share in zip(expanded, settings.blend(len(expanded)), strict=True):
                shares[style] += share
            self.content = self._matched(settings, content, styles, shares)

    def _matched(self, settings: Settings, source: Pixels, targets: Sequence[Pixels], weights: Sequence[float]) -> Pixels:
        if settings.color_match == "histogram":
            return match_histogram(source, targets, weights, self.space)
        return match_moments(source, blended_moments(targets, weights, self.space), self.space)

    def finish(self, pixels: Pixels) -> Pixels:
        """Return what to show of a picture of the engine's, of any size: (height, width, 3), or 4 where alpha is kept."""
        size = pixels.shape[0], pixels.shape[1]
        if self._original is not None:
            pixels = combine(pixels, self._chroma_at(*size), self.space)
        if self._alpha is None:
            return pixels
        alpha = resize(torch.from_numpy(np.ascontiguousarray(self._alpha))[None, None], size, antialias=True)[0, 0].clamp(0, 1)
        return np.concatenate([pixels, alpha.numpy()[..., None]], axis=2)

    def _chroma_at(self, height: int, width: int) -> Pixels:
        """Return the content's chrominance at a size, resized as the engine resizes the content; the last size is kept."""
        assert self._original is not None
        with self._lock:
            if self._chroma is None or self._chroma.shape[:2] != (height, width):
                self._chroma = None
                whole = torch.from_numpy(np.ascontiguousarray(self._original.transpose(2, 0, 1)))[None]
                resized = resize(whole, (height, width), antialias=True)[0].clamp_(0, 1)
                self._chroma = chrominance(resized.permute(1, 2, 0).numpy(), self.space)
            return self._chroma
