"""Optimizers of a picture, and the average of its iterates.

An optimizer changes the picture (1, 3, H, W) in place from `image.grad`. `moved` returns the one that goes on
with a larger picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, Self

import torch
from torch import Tensor

from .distributed import LOCAL, Group

STRIP_PIXELS = 2**22


Resized = Callable[[Tensor, str], Tensor]
"""Returns a tensor that is shaped like the picture at the next scale's size; the word is the kind of interpolation."""


Kept = tuple[dict[str, Tensor], dict[str, float]]
"""Tensors that are shaped like the picture, and numbers, by name: what a checkpoint holds."""


class Optimizer(Protocol):
    """What the engine needs of an optimizer."""

    def step(self, image: Tensor) -> None:
        """Change `image` in place by one step along `image.grad`."""

    def moved(self, resized: Resized) -> Self:
        """Return the optimizer for the same picture at another size."""

    def state(self, image: Tensor) -> Kept:
        """Return all that it knows of its past: tensors that are shaped like the picture, and numbers."""

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Take what `state` returned; what belongs to others is left alone. Raises KeyError if something is missing."""


class Adam:
    """Adam (Kingma and Ba 2014, https://arxiv.org/abs/1412.6980) that is warm-started from scale to scale.

    The first moment is resized bicubically, the second bilinearly and kept non-negative, and the step count of the
    bias correction goes on, as in style-transfer-pytorch, so that a new scale starts without noise. Pixels are clamped to
    [0, 1] after each step.
    """

    def __init__(self, *, step_size: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.step_size = step_size
        self.betas = betas
        self.eps = eps
        self.steps = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    @torch.no_grad()
    def step(self, image: Tensor) -> None:
        """Change `image` in place by one step and clamp it."""
        grad = image.grad
        assert grad is not None
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(image), torch.zeros_like(image)
        self.steps += 1
        beta1, beta2 = self.betas
        scale = (1 - beta2**self.steps) ** 0.5
        rows = max(1, STRIP_PIXELS // image.shape[3])  # large pictures strip by strip: what is temporary stays small
        strips = (torch.split(x.detach(), rows, dim=2) for x in (image, grad, self.first, self.second))
        for x, g, first, second in zip(*strips, strict=True):
            first.lerp_(g, 1 - beta1)
            second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            denominator = second.sqrt().div_(scale).add_(self.eps)
            x.addcdiv_(first, denominator, value=-self.step_size / (1 - beta1**self.steps))
            x.clamp_(0, 1)

    def moved(self, resized: Resized) -> Adam:
        """Return an Adam whose moments are resized."""
        moved = Adam(step_size=self.step_size, betas=self.betas, eps=self.eps)
        moved.steps = self.steps
        if self.first is not None and self.second is not None:
            moved.first = resized(self.first, "bicubic")
            moved.second = resized(self.second, "bilinear").clamp_min(0)
        return moved

    def state(self, image: Tensor) -> Kept:
        """Return the moments and the step count."""
        tensors = {} if self.first is None or self.second is None else {"first": self.first, "second": self.second}
        return tensors, {"steps": self.steps}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Take the moments and the step count."""
        self.steps = int(numbers["steps"])
        if self.steps:
            self.first, self.second = tensors["first"], tensors["second"]


class LBFGS:
    """L-BFGS with steps of length 1 and no line search (Liu and Nocedal 1989), one evaluation a step.

    As in style-transfer-pytorch and neural-style the first step is min(1, 1 / sum |g|) along the gradient, and pixels
    are not clamped. There are no stopping tolerances: they end runs early, since gradients are small here. A pair
    without positive curvature is left out. Curvature of one scale does not fit the next: the history starts afresh.
    In a group of processes each has its rows of every vector, and products are summed over all. `length` is what each step is
    multiplied by.
    """

    def __init__(self, *, history: int = 10, group: Group = LOCAL, length: float = 1.0) -> None:
        self.history = history
        self.length = length
        self.group = group
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=history)
        self.last: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def step(self, image: Tensor) -> None:
        """Change `image` in place by one step."""
        assert image.grad is not None
        grad = image.grad.flatten().clone()
        if self.last is not None:
            s, old = self.last
            y = grad - old
            curvature, yy, ss = self._products((y, s), (y, y), (s, s))
            if curvature > torch.finfo(y.dtype).eps * (yy * ss).sqrt():
                self.pairs.append((s, y, curvature))
        direction = self._direction(grad)
        if self.last is None:
            direction *= (1 / self._products((grad, grad.sign()))[0]).clamp(max=1)
        if self.length != 1:
            direction *= self.length
        image.add_(direction.view_as(image))
        self.last = direction, grad

    def _products(self, *pairs: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Return the inner products of pairs of vectors."""
        found = self.group.total({str(number): a.dot(b) for number, (a, b) in enumerate(pairs)})
        return [found[str(number)] for number in range(len(pairs))]

    def _direction(self, grad: Tensor) -> Tensor:
        """Return minus the inverse Hessian's estimate times `grad`: the two-loop recursion."""
        q = -grad
        alphas = []
        for s, y, curvature in reversed(self.pairs):
            alphas.append(self._products((s, q))[0] / curvature)
            q -= alphas[-1] * y
        if self.pairs:
            _, y, curvature = self.pairs[-1]
            q *= curvature / self._products((y, y))[0]
        for (s, y, curvature), alpha in zip(self.pairs, reversed(alphas), strict=True):
            q += s * (alpha - self._products((y, q))[0] / curvature)
        return q

    def moved(self, resized: Resized) -> LBFGS:
        """Return an L-BFGS with an empty history."""
        return LBFGS(history=self.history, group=self.group, length=self.length)

    def state(self, image: Tensor) -> Kept:
        """Return the history: pairs of steps and changes of the gradient, their products, and the last step."""
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, float] = {"pairs": len(self.pairs), "begun": float(self.last is not None)}
        for number, (s, y, curvature) in enumerate(self.pairs):
            tensors |= {f"s{number}": s.view_as(image), f"y{number}": y.view_as(image)}
            numbers[f"curvature{number}"] = float(curvature)
        if self.last is not None:
            tensors |= {"direction": self.last[0].view_as(image), "gradient": self.last[1].view_as(image)}
        return tensors, numbers

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Take the history."""
        self.pairs.clear()
        for number in range(int(numbers["pairs"])):
            s, y = tensors[f"s{number}"].flatten(), tensors[f"y{number}"].flatten()
            self.pairs.append((s, y, s.new_tensor(numbers[f"curvature{number}"])))
        if numbers["begun"]:
            self.last = tensors["direction"].flatten(), tensors["gradient"].flatten()


class Average:
    """Exponential moving average of the iterates, corrected for its start at zero as in Adam."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.sum: Tensor | None = None
        self.missing = 1.0

    @torch.no_grad()
    def update(self, image: Tensor) -> None:
        """Take in one iterate."""
        if self.sum is None:
            self.sum = torch.zeros_like(image)
        self.sum.lerp_(image, 1 - self.decay)
        self.missing *= self.decay

    def value(self) -> Tensor:
        """Return the average so far. Call `update` first."""
        assert self.sum is not None
        return self.sum.detach() / (1 - self.missing)

    def state(self) -> Kept:
        """Return the sum and what it lacks."""
        return {} if self.sum is None else {"average": self.sum}, {"missing": self.missing}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Take what `state` returned."""
        self.sum, self.missing = tensors["average"], float(numbers["missing"])
