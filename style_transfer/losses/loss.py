"""The base class of all losses, and the error measures that several of them share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final

import torch
from torch import Tensor

from ..geometry.tiles import Window
from .statistics import Stats

PICTURE = "picture"
"""The name of the layer that is the picture itself."""
PICTURE_REACH = 3
"""A loss of the picture itself may depend on this many pixels beyond each side of those that a window counts."""
SCALED_EPS = 1e-8
SMALLEST = 1e-24
"""A mean magnitude below this counts as zero."""


def seed_of(*key: object) -> int:
    """Return a seed for random numbers, below 2^63, that differs from key to key; keys are numbers and texts."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


class Loss(ABC):
    """A loss L = f(S) of the features (1, C, H, W) at one layer or several, or of the picture (1, 3, H, W) in [0, 1].

    S is the sum over the tiles of what `measure` returns, and f is `score`. The evaluation differentiates `score` with respect to
    S, and back-propagates that gradient through `measure`. So `measure` must be additive over cells, and differentiable by
    autograd. A loss of several layers names them in `layers` and implements `measure_at`, which returns sums that have names of
    their own at each layer.
    """

    layers: tuple[str, ...] = ()
    """The layers that are read at once; empty for a loss of one layer, which its term names."""

    decomposes: bool = False
    """Whether `score` decomposes matrices, so that on a CPU the scores of several layers are computed in parallel."""

    def measure(self, features: Tensor, window: Window | None = None) -> Stats:
        """Return the sums over the cells of `features` (1, C, H, W) that `window` counts, or over all cells."""
        raise NotImplementedError

    def measure_at(self, layer: str, features: Tensor, window: Window) -> Stats:
        """Return the sums of `measure` at a layer."""
        return self.measure(features, window)

    @abstractmethod
    def score(self, total: Stats) -> Tensor:
        """Return the loss, a scalar, of the sums over the whole picture."""

    random: ClassVar[bool] = False
    """Whether it draws random numbers, so that two evaluations of one picture differ."""
    sampled: ClassVar[bool] = False
    """Whether it is computed from random points alone, so that its gradient is noisy."""

    @property
    def capturable(self) -> bool:
        """Whether the next `score` can be part of a CUDA graph: always the same operations, and the host never waits."""
        return True

    def draw(self, seed: int) -> None:  # noqa: B027 - most losses are not random
        """Draw the random numbers of the next evaluation.

        Each evaluation of a run has a `seed` of its own, the same on every device, in every process and after a resume.
        """

    def increment(self) -> None:  # noqa: B027 - most losses do not depend on the count
        """Count a score that a replayed CUDA graph computed without a call of `score`."""

    def restore_step(self, count: int) -> None:  # noqa: B027
        """Set the number of scores computed so far, so that a resumed run computes the same bits."""


def scaled_squared_error(squares: Tensor, magnitudes: Tensor, count: Tensor | float = 0) -> Tensor:
    """Return sum d^2 / (sum |d| + 1e-8), whose gradient has an L1 norm of about 1.

    From style-transfer-pytorch (2021), which uses it instead of normalising the gradient itself.
    """
    return squares / (magnitudes + SCALED_EPS)


def relative_squared_error(squares: Tensor, magnitudes: Tensor, count: Tensor | float) -> Tensor:
    """Return sum d^2 / mean |2 d| with the divisor constant in the gradient, as neuralart does with its Inception network."""
    mean = 2 * magnitudes.detach() / count
    return squares / torch.where(mean > SMALLEST, mean, 1)  # without differences the gradient is zero, not infinite


ERRORS: Final[dict[str, Callable[[Tensor, Tensor, Tensor | float], Tensor]]] = {
    "scaled": scaled_squared_error,
    "mean": lambda squares, magnitudes, count: squares / count,
    "sum": lambda squares, magnitudes, count: squares,
    "relative": relative_squared_error,
}
"""Errors of differences d by the names of `--content-error` and `--style-error`, from sum d^2, sum |d| and the number of d."""
