"""Losses, each an additive statistic and a small score of its total: L = f(S), S = sum of s over parts of the picture.

`measure` returns raw sums and a count over the cells of a window, or over all cells; sums of windows that cover a picture
once add up to the sums of the whole. `score` turns the total into a scalar. A style's target is an average of the
statistics' means, so styles are blended by averaging means with weights. Features are (1, C, H, W); the picture
itself is (1, 3, H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..geometry.tiles import Box, Window
from .matrix import NARROW, RunningTraceSqrt, exact, given, symmetric

SCALED_EPS = 1e-8
COVARIANCE_EPS = 1e-4
BLOCK, BLOCKS = 1536, 4
"""On a CPU products of narrow features are added up from blocks of so many cells, so many at once."""
DIFFERENCES = 2**19
"""On a CPU about so many differences are taken at once."""


@dataclass(frozen=True)
class Stats:
    """Raw sums over the cells of a part of the picture, and how many cells those were."""

    sums: dict[str, Tensor]
    count: int

    def __add__(self, other: Stats) -> Stats:
        return Stats({k: v + other.sums[k] for k, v in self.sums.items()}, self.count + other.count)

    def detach(self) -> Stats:
        """Return the same numbers without a graph."""
        return Stats({k: v.detach() for k, v in self.sums.items()}, self.count)

    def to(self, device: torch.device) -> Stats:
        """Return the same sums on a device."""
        return Stats({k: v.to(device) for k, v in self.sums.items()}, self.count)

    def means(self) -> dict[str, Tensor]:
        """Return every sum divided by the count, or by the area that weighted cells cover, which is among the sums then."""
        area = self.sums.get("area")
        count = self.count if area is None else area.clamp_min(torch.finfo(area.dtype).tiny)
        return {k: v / count for k, v in self.sums.items()}


def blend(stats: Sequence[Stats], weights: Sequence[float]) -> dict[str, Tensor]:
    """Return the weighted average of the means of several statistics, and under `count` of how many cells; `weights` sum to 1."""
    means = [s.means() for s in stats]
    mixed = {k: torch.stack([m[k] * w for m, w in zip(means, weights, strict=True)]).sum(0) for k in means[0]}
    return mixed | {"count": torch.tensor(float(sum(s.count for s in stats)), device="cpu", dtype=torch.float64)}


class Loss(Protocol):
    """What the objective needs of a loss."""

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return raw sums over the window's cells of `features` (1, C, H, W)."""

    def score(self, total: Stats) -> Tensor:
        """Return the loss, a scalar, of the sums over the whole picture."""


class StyleLoss(Loss, Protocol):
    """A loss against the averaged statistics of the styles; `measure` needs no target."""

    def __init__(self, target: dict[str, Tensor]) -> None: ...

    @staticmethod
    def measure(features: Tensor, window: Window | None = None) -> Stats:
        """Return raw sums over the window's cells of `features` (1, C, H, W)."""


def scaled_squared_error(squares: Tensor, magnitudes: Tensor) -> Tensor:
    """Return sum d^2 / (sum |d| + 1e-8), whose gradient has an L1 norm of about 1.

    From style-transfer-pytorch (2021), which takes it instead of normalising the gradient itself.
    """
    return squares / (magnitudes + SCALED_EPS)


SMALLEST = 1e-24
"""A mean difference below this is none."""


def error(kind: str, squares: Tensor, magnitudes: Tensor, count: Tensor | float) -> Tensor:
    """Return an error from the sum of squared differences, the sum of their magnitudes, and how many there are.

    scaled: see `scaled_squared_error`. mean and sum: of d^2. relative: sum d^2 / mean |2 d| with the divisor held constant in
    the gradient, as neuralart normalises with its Inception network.
    """
    if kind == "scaled":
        return scaled_squared_error(squares, magnitudes)
    if kind == "mean":
        return squares / count
    if kind == "relative":
        mean = 2 * magnitudes.detach() / count
        return squares / torch.where(mean > SMALLEST, mean, 1)  # the slope of nothing is nothing, not infinite
    return squares


def inside(features: Tensor, window: Window | None) -> Tensor:
    """Return the cells of features (1, C, H, W) that a window counts."""
    return features if window is None else features[window.inside.index]


def flat(features: Tensor, window: Window | None) -> Tensor:
    """Return the cells of features (1, C, H, W) that a window counts, as (C, n)."""
    return inside(features, window).flatten(2).squeeze(0)


def width(x: Tensor) -> torch.dtype:
    """Return the type to sum up a tensor in: its own, at least float32."""
    return torch.float32 if x.dtype.itemsize < 4 else x.dtype


def wide(x: Tensor) -> Tensor:
    """Return a tensor in float32 if it is in less."""
    return x.to(width(x))


def gram(x: Tensor) -> Tensor:
    """Return x x^T of features (C, n) as (C, C), in float32 if they are in less, without a copy of them that stays."""
    result: Tensor = _Gram.apply(x)
    return result


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        if x.is_cuda and x.dtype.itemsize < 4:
            product: Tensor = torch.mm(x, x.mT, out_dtype=torch.float32)
            return product
        if x.device.type == "cpu" and x.mT.is_contiguous():
            return _of_rows(x.mT)
        full: Tensor = wide(x)
        return full @ full.mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        x: Tensor = ctx.saved_tensors[0]
        slope = (grads[0] + grads[0].mT).to(x.dtype)
        # the gradient gets the features' layout: channels last where they are last
        return (x.mT @ slope).mT if x.stride(0) == 1 else slope @ x


def _of_rows(x: Tensor) -> Tensor:
    """Return x^T x of features (n, C) on a CPU as (C, C).

    Of long and narrow ones by blocks, which stay in the caches, also while they become float32, and without the lower left.
    """
    channels = x.shape[1]
    if channels > NARROW:
        full = wide(x)
        return symmetric(full, full)
    total = x.new_zeros(channels, channels, dtype=width(x))
    half = channels // 2
    upper, corner = total[:half], total[half:, half:]
    for part in torch.split(x, BLOCK * BLOCKS):
        full = wide(part)
        blocks = full[None] if len(part) % BLOCK else full.view(-1, BLOCK, channels)
        left, right = blocks[..., :half], blocks[..., half:]
        upper += torch.bmm(left.mT, blocks).sum(0)
        corner += torch.bmm(right.mT, right).sum(0)
    total[half:, :half] = upper[:, half:].mT
    return total


class _Differences(torch.autograd.Function):
    """The sums of squares and of magnitudes of the differences of two tensors (1, C, h, w), in float32 if they are in less.

    Differences are taken block by block, on the way back once more, and not kept.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(features, target)
        squares, magnitudes = features.new_zeros(2, dtype=width(features)).unbind()
        for x, y in _blocks(features, target):
            d = wide(x) - wide(y)
            squares += d.square().sum()
            magnitudes += d.abs().sum()
        return squares, magnitudes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        features, target = ctx.saved_tensors
        found = torch.empty_like(features)
        for x, y, slope in _blocks(features, target, found):
            d = wide(x) - wide(y)
            slope.copy_(d.sgn().mul_(grads[1]).addcmul_(d, grads[0], value=2))
        return found, None


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return the same rows of tensors (1, C, h, w) as few at a time as the caches hold, on a CPU, else all."""
    first = tensors[0]
    rows = max(1, DIFFERENCES // max(1, first[0, :, :1].numel())) if first.device.type == "cpu" else max(1, first.shape[2])
    return zip(*(torch.split(x, rows, dim=2) for x in tensors), strict=True)


class ContentLoss:
    """The `error` of features to a target of the same shape (1, C, H, W), or to its rows from `first` on, of some kind."""

    def __init__(self, target: Tensor, first: int = 0, kind: str = "scaled") -> None:
        self.target, self.first, self.kind = target, first, kind

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums of squares and of magnitudes of the differences."""
        target = self.target if window is None else self.target[window.place.higher(self.first).index]
        part = inside(features, window)
        squares, magnitudes = _Differences.apply(part, target.to(features.device))
        return Stats({"squares": squares, "magnitudes": magnitudes}, part.numel())

    def score(self, total: Stats) -> Tensor:
        """Return the error."""
        return error(self.kind, total.sums["squares"], total.sums["magnitudes"], total.count)


class GramLoss:
    """Scaled squared error of Gram matrices divided by height x width.

    Gatys et al. (2015), https://arxiv.org/abs/1508.06576, do not divide; Johnson et al. (2016) divide by the channels too.
    """

    def __init__(self, target: dict[str, Tensor]) -> None:
        self.target = target

    @staticmethod
    def measure(features: Tensor, window: Window | None = None) -> Stats:
        """Return the sum over cells of f f^T, (C, C)."""
        x = flat(features, window)
        return Stats({"gram": gram(x)}, x.shape[1])

    def score(self, total: Stats) -> Tensor:
        """Return the scaled squared error of the Gram matrix to the target."""
        d = total.means()["gram"] - self.target["gram"]
        return scaled_squared_error(d.square().sum(), d.abs().sum())


class WassersteinLoss:
    """Squared Wasserstein-2 distance of Gaussians fitted to the features, each part averaged over the channels.

    With means m, m' and covariances S, S': mean((m - m')^2) + tr(S + S' - 2 (S'^1/2 S S'^1/2)^1/2) / C, as in
    style-transfer-pytorch (2023). Mean and second moment are what is added and blended. Both covariances have
    1e-4 added on the diagonal: with fewer cells than channels they are rank-deficient, and the gradient of a root
    grows without bound towards the null space; this bounds it by 1/(2 sqrt(1e-4)) relative to the target's own
    spread. The sums are in the features' dtype, float32 at least; all that follows from them is float64 but for some products.
    """

    def __init__(self, target: dict[str, Tensor]) -> None:
        self.mean, self.covariance = self._gaussian(target)
        self.trace_sqrt = RunningTraceSqrt(
            self.covariance, target["mean"].dtype, COVARIANCE_EPS, self._rank(int(target["count"]))
        )

    @staticmethod
    def measure(features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums over cells of f, (C,), and of f f^T, (C, C)."""
        x = flat(features, window)
        return Stats({"mean": x.sum(1, dtype=width(x)), "second": gram(x)}, x.shape[1])

    @staticmethod
    def _rank(cells: int) -> int:
        """Return the rank of a covariance of so many cells, of which the mean takes one; at least one is asked for."""
        return max(1, cells - 1)

    @staticmethod
    def _gaussian(means: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        mean, second = exact(means["mean"]), exact(means["second"])
        covariance = torch.addr(second, mean, mean, alpha=-1)
        covariance.diagonal().add_(COVARIANCE_EPS)
        return mean, covariance

    def score(self, total: Stats) -> Tensor:
        """Return the squared distance to the target."""
        means = total.means()
        with torch.no_grad():
            mean, covariance = self._gaussian(means)
            root, slope = self.trace_sqrt(covariance, self._rank(total.count))
            away, channels = mean - self.mean, len(mean)
            traces = covariance.diagonal().sum() + self.covariance.diagonal().sum() - 2 * root
            loss = away.square().mean() + traces / channels
            slope.mul_(-2 / channels).diagonal().add_(1 / channels)  # of the covariance, S = second moment - mean mean^T
            slope_of_mean = away * (2 / channels) - 2 * (slope @ mean.to(slope))
        return given(loss, (means["mean"], slope_of_mean), (means["second"], slope))


def _axes(features: Tensor, window: Window | None) -> tuple[Tensor, int]:
    """Return the sum of squared differences to right and lower neighbours of a window's pixels, and its number of samples."""
    box = window.inside if window else Box(0, 0, *features.shape[2:])
    right = features[Box(box.top, box.left, box.bottom, box.right + 1).index].diff(dim=3)
    down = features[Box(box.top, box.left, box.bottom + 1, box.right).index].diff(dim=2)
    return right.square().sum() + down.square().sum(), features.shape[1] * box.area


class TVLoss:
    """Mean squared difference to the right and lower neighbour, the edge replicated (Mahendran and Vedaldi 2014)."""

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sum of squared differences of a picture (1, 3, H, W), each counted where its left or upper pixel is."""
        squares, count = _axes(features, window)
        return Stats({"tv": squares}, count)

    def score(self, total: Stats) -> Tensor:
        """Return the mean over all samples."""
        return total.means()["tv"]


class NinePointTVLoss:
    """Total variation on the nine-point stencil, the edge replicated, as in style-transfer-pytorch (2023).

    2 ((mean dx^2 + mean dy^2) / 3 + (mean d1^2 + mean d2^2) / 12), d1 and d2 the differences along the diagonals of
    all (H + 1) x (W + 1) blocks of 2 x 2 of the padded picture.
    """

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums of squared differences along the axes and along the diagonals, and how many the latter are."""
        axes, count = _axes(features, window)
        box = window.inside if window else Box(0, 0, *features.shape[2:])
        ends = window is None or window.place.bottom == window.whole[0], window is None or window.place.right == window.whole[1]
        # block (i, j) has pixel (i, j) at its lower right; those beyond the last row and column belong to the edge
        padded = F.pad(features, (1, 1, 1, 1), "replicate")
        padded = padded[Box(box.top, box.left, box.bottom + 1 + ends[0], box.right + 1 + ends[1]).index]
        falling = padded[..., 1:, 1:] - padded[..., :-1, :-1]
        rising = padded[..., 1:, :-1] - padded[..., :-1, 1:]
        diagonals = falling.square().sum() + rising.square().sum()
        return Stats({"axes": axes, "diagonals": diagonals, "corners": axes.new_full((), falling.numel())}, count)

    def score(self, total: Stats) -> Tensor:
        """Return the weighted mean over all samples."""
        diagonals = total.sums["diagonals"] / total.sums["corners"]
        return 2 * (total.means()["axes"] / 3 + diagonals / 12)
