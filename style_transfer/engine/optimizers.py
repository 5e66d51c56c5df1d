"""Optimizers of a picture, and the average of its iterates.

An optimizer changes the picture (1, 3, H, W) in place from `image.grad`. `moved` returns the one that goes on
with a larger picture.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.optim.adam import adam

from ..compute.distributed import LOCAL, Group

FIRST_CHANGE = 1 / 255
"""How far the first step that a line search tries changes pixels, root mean square."""
FIRST_ROOM = 16
"""How many times as far the first search goes at most where pixels are bounded."""


Resized = Callable[[Tensor, str], Tensor]
"""Returns a tensor that is shaped like the picture at the next scale's size; the word is the kind of interpolation."""


Kept = tuple[dict[str, Tensor], dict[str, float]]
"""Tensors that are shaped like the picture, and numbers, by name: what a checkpoint holds."""


class Optimizer(Protocol):
    """What the engine needs of an optimizer."""

    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        """Change `image` in place by one step along `image.grad`. Line searches need the loss, a scalar, too."""

    def settle(self, image: Tensor) -> None:
        """Put `image`, after the last step of a scale, where it is to stay."""

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
    [0, 1] after each step, if `bounded`. A step is torch's own, all of it in one pass over the tensors, which goes through memory
    whatever the order: pictures must be contiguous.
    """

    def __init__(
        self, *, step_size: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, bounded: bool = True
    ) -> None:
        self.step_size = step_size
        self.betas = betas
        self.eps = eps
        self.bounded = bounded
        self.steps = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None
        self._numbers: tuple[Tensor, Tensor] | None = None  # how many steps there were, and the size of the next

    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        """Change `image` in place by one step and clamp it."""
        self.advance(image)
        self.take(image)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What `take` changes beside the picture: the moments and the count of steps. Call `advance` first."""
        assert self.first is not None and self.second is not None and self._numbers is not None
        return self.first, self.second, self._numbers[0]

    @torch.no_grad()
    def advance(self, image: Tensor) -> None:
        """Count a step of `image`, and put the numbers that `take` reads where they stay."""
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(image), torch.zeros_like(image)
        if self._numbers is None:
            self._numbers = image.new_empty((), dtype=torch.float32), image.new_empty((), dtype=torch.float32)
        for number, value in zip(self._numbers, (self.steps, self.step_size), strict=True):
            number.fill_(value)
        self.steps += 1

    @torch.no_grad()
    def take(self, image: Tensor) -> None:
        """Change `image` in place by the step that was counted: the same operations on the same tensors every time."""
        assert image.grad is not None and self._numbers is not None and image.is_contiguous()
        grad = image.grad.contiguous()  # networks have channels last
        first, second, count = self.tensors
        size, (beta1, beta2) = self._numbers[1], self.betas
        adam(
            [image], [grad], [first], [second], [], [count], lr=size, beta1=beta1, beta2=beta2, eps=self.eps,
            weight_decay=0, amsgrad=False, maximize=False, fused=True,
        )  # fmt: skip
        if self.bounded:
            image.clamp_(0, 1)

    def settle(self, image: Tensor) -> None:
        """Leave the picture as it is."""

    def moved(self, resized: Resized) -> Adam:
        """Return an Adam whose moments are resized."""
        moved = Adam(step_size=self.step_size, betas=self.betas, eps=self.eps, bounded=self.bounded)
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


class SGD:
    """Gradient descent with momentum, v <- momentum v + g, x <- x - step v; the step shrinks every hundred steps by a factor.

    As in neuralart. Momentum is resized bicubically for a new scale, and the count of steps goes on.
    """

    PERIOD = 100

    def __init__(self, *, step_size: float, momentum: float = 0.9, decay: float = 0.75, bounded: bool = True) -> None:
        self.step_size = step_size
        self.momentum = momentum
        self.decay = decay
        self.bounded = bounded
        self.steps = 0
        self.velocity: Tensor | None = None

    @torch.no_grad()
    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        """Change `image` in place by one step."""
        assert image.grad is not None
        if self.velocity is None:
            self.velocity = torch.zeros_like(image)
        self.velocity.mul_(self.momentum).add_(image.grad)
        image.add_(self.velocity, alpha=-self.step_size * self.decay ** (self.steps // self.PERIOD))
        self.steps += 1
        if self.bounded:
            image.clamp_(0, 1)

    def settle(self, image: Tensor) -> None:
        """Leave the picture as it is."""

    def moved(self, resized: Resized) -> SGD:
        """Return an SGD whose velocity is resized."""
        moved = SGD(step_size=self.step_size, momentum=self.momentum, decay=self.decay, bounded=self.bounded)
        moved.steps = self.steps
        moved.velocity = None if self.velocity is None else resized(self.velocity, "bicubic")
        return moved

    def state(self, image: Tensor) -> Kept:
        """Return the velocity and the step count."""
        return {} if self.velocity is None else {"velocity": self.velocity}, {"steps": self.steps}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Take the velocity and the step count."""
        self.steps = int(numbers["steps"])
        if self.steps:
            self.velocity = tensors["velocity"]


class LBFGS:
    """L-BFGS (Liu and Nocedal 1989), one evaluation a step.

    Steps have length 1; with a `search`, a line search sets it. In units in which white is `white`, the first step is
    min(1, 1 / sum |g|) along the gradient, as in style-transfer-pytorch and neural-style; the first that a search tries changes
    pixels by an 8-bit step, root mean square, whatever their number. There are no stopping tolerances: they end runs early, since
    gradients are small here. A pair without positive curvature is left out. Curvature of one scale does not fit
    the next: the history starts afresh. In a group of processes each has its rows of every vector, and products are
    summed over all. `length` is what steps are multiplied by, and what a search tries first.

    With `bounded`, pixels stay within [0, 1]: those at a bound that the gradient pushes on stay out of the quasi-Newton step
    (Bertsekas 1982), whose end is clamped; the line search is on the way there, of which every point is valid.
    """

    def __init__(
        self,
        *,
        history: int = 10,
        group: Group = LOCAL,
        search: Callable[[], LineSearch] | None = None,
        bounded: bool = False,
        white: float = 1.0,
        length: float = 1.0,
    ) -> None:
        self.history = history
        self.group = group
        self.search = search
        self.bounded = bounded
        self.white = white
        self.length = length
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=history)
        self.last: tuple[Tensor, Tensor] | None = None
        self._line: tuple[LineSearch, Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        """Change `image` in place by one step, of the line search if there is one."""
        assert image.grad is not None
        grad = image.grad.flatten().clone()
        if self._line is not None:
            line, start, old, direction = self._line
            assert loss is not None
            slope = float(self._products((grad, direction))[0])
            length = line.next(float(loss), slope)
            if length is not None:
                image.copy_((start + length * direction).view_as(image))
                return
            self._line = None
            self.last = line.best * direction, old
            if not line.best:  # nothing was better: forget what led here
                self.pairs.clear()
                self.last = None
            if line.best != line.tried:  # the search gave up on its last point: go back to the best, and measure there
                image.copy_((start + line.best * direction).view_as(image))
                return
        if self.last is not None:
            s, old = self.last
            y = grad - old
            curvature, yy, ss = self._products((y, s), (y, y), (s, s))
            if curvature > torch.finfo(y.dtype).eps * (yy * ss).sqrt():
                self.pairs.append((s, y, curvature))
        direction = self._step_from(image, grad)
        if self.search is None:
            if self.length != 1:
                direction *= self.length
            image.add_(direction.view_as(image))
            self.last = direction, grad
            return
        assert loss is not None
        slope = float(self._products((grad, direction))[0])
        if slope >= 0:  # the estimate of the curvature is of no use here
            self.pairs.clear()
            self.last = None
            direction = self._step_from(image, grad)
            slope = float(self._products((grad, direction))[0])
        self.last = None
        if slope == 0:
            return
        line = self.search()
        first = self.length
        if not self.pairs:
            first /= FIRST_ROOM
        length = line.start(float(loss), slope, first=first, most=1.0 if self.bounded else None)
        self._line = line, image.flatten().clone(), grad, direction
        image.add_((length * direction).view_as(image))

    @torch.no_grad()
    def settle(self, image: Tensor) -> None:
        """Put `image` at the best point that a search measured, if it is at one that nobody has, and end the search."""
        if self._line is not None:
            line, start, _, direction = self._line
            image.copy_((start + line.best * direction).view_as(image))
            self._line = None

    def _step_from(self, image: Tensor, grad: Tensor) -> Tensor:
        """Return the quasi-Newton step, whose end is valid if pixels are bounded."""
        held: Tensor | None = None
        free = grad
        if self.bounded:
            x = image.flatten()
            held = ((x <= 0) & (grad > 0)) | ((x >= 1) & (grad < 0))
            free = grad.masked_fill(held, 0)
        direction = self._direction(free)
        if not self.pairs and self.search is not None:
            cells, squares = self._products((free.sign(), free.sign()), (free, free))
            direction *= FIRST_ROOM * FIRST_CHANGE * (cells / squares.clamp_min(torch.finfo(squares.dtype).tiny)).sqrt()
        elif not self.pairs:
            direction /= self.white**2
            if self.last is None:
                direction *= (self.white / self._products((free, free.sign()))[0]).clamp(max=1)
        if held is not None:
            direction.masked_fill_(held, 0)
            direction = (x + direction).clamp_(0, 1) - x
        return direction

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
        return LBFGS(
            history=self.history, group=self.group, search=self.search, bounded=self.bounded, white=self.white, length=self.length
        )

    def state(self, image: Tensor) -> Kept:
        """Return the history, pairs of steps and changes of the gradient with their products, and the last step or the search."""
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, float] = {
            "pairs": len(self.pairs), "begun": float(self.last is not None), "searching": float(self._line is not None)
        }  # fmt: skip
        for number, (s, y, curvature) in enumerate(self.pairs):
            tensors |= {f"s{number}": s, f"y{number}": y}
            numbers[f"curvature{number}"] = float(curvature)
        if self.last is not None:
            tensors["direction"], tensors["gradient"] = self.last
        if self._line is not None:
            line, tensors["start"], tensors["gradient"], tensors["direction"] = self._line
            numbers |= line.state()
        return {name: tensor.view_as(image) for name, tensor in tensors.items()}, numbers

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Take the history, and the last step or the search."""
        self.pairs.clear()
        for number in range(int(numbers["pairs"])):
            s, y = tensors[f"s{number}"].flatten(), tensors[f"y{number}"].flatten()
            self.pairs.append((s, y, s.new_tensor(numbers[f"curvature{number}"])))
        if numbers["begun"]:
            self.last = tensors["direction"].flatten(), tensors["gradient"].flatten()
        if self.search is not None and numbers["searching"]:
            line = self.search()
            line.restore(numbers)
            start, gradient, direction = (tensors[name].flatten() for name in ("start", "gradient", "direction"))
            self._line = line, start, gradient, direction


class LineSearch:
    """A search for a step length that meets the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6).

    It is asked, not asking: `start` returns the first length to try, `next` the next one after the loss and slope at the last, or
    None at the end. `best` is then the length to take, `tried` the last one that was tried. Cubic interpolation, at most
    `limit` evaluations.
    """

    DECREASE, CURVATURE = 1e-4, 0.9

    def __init__(self, limit: int = 12) -> None:
        self.limit = limit
        self.high: tuple[float, float, float] | None = None

    def start(self, loss: float, slope: float, *, first: float = 1.0, most: float | None = None) -> float:
        """Return the first length to try, from a point with `loss` and a negative `slope`; never more than `most`."""
        self.loss, self.slope, self.most = loss, slope, most
        self.low = (0.0, loss, slope)
        self.best, self.best_loss = 0.0, loss
        self.count = 0
        self.tried = first if most is None else min(first, most)
        return self.tried

    def state(self) -> dict[str, float]:
        """Return what it knows so far, by name."""
        found: dict[str, float] = {name: getattr(self, name) for name in ("loss", "slope", "best", "best_loss", "count", "tried")}
        if self.most is not None:
            found["most"] = self.most
        for end, point in (("low", self.low), ("high", self.high)):
            if point is not None:
                found[f"{end}_length"], found[f"{end}_loss"], found[f"{end}_slope"] = point
        return found

    def restore(self, numbers: Mapping[str, float]) -> None:
        """Take what `state` returned."""
        self.loss, self.slope, self.most = numbers["loss"], numbers["slope"], numbers.get("most")
        self.best, self.best_loss = numbers["best"], numbers["best_loss"]
        self.count, self.tried = int(numbers["count"]), numbers["tried"]
        self.low = numbers["low_length"], numbers["low_loss"], numbers["low_slope"]
        if "high_length" in numbers:
            self.high = numbers["high_length"], numbers["high_loss"], numbers["high_slope"]

    def next(self, loss: float, slope: float) -> float | None:
        """Return the next length to try, or None when the one just tried is good or nothing better is to be hoped for."""
        here = (self.tried, loss, slope)
        self.count += 1
        enough = math.isfinite(loss) and loss <= self.loss + self.DECREASE * self.tried * self.slope
        if enough and loss < self.best_loss:
            self.best, self.best_loss = self.tried, loss
        flat = abs(slope) <= -self.CURVATURE * self.slope
        if enough and flat and loss <= self.low[1]:
            self.best = self.tried
            return None
        if self.count >= self.limit:
            return None
        if not enough or loss >= self.low[1]:
            self.high = here
        elif self.high is None:
            if slope >= 0:
                self.low, self.high = here, self.low
            elif self.most is not None and self.tried >= self.most:
                return None
            else:
                self.low = here
        else:
            if slope * (self.high[0] - self.low[0]) >= 0:
                self.high = self.low
            self.low = here
        if self.high is None:
            self.tried = 2 * self.tried if self.most is None else min(2 * self.tried, self.most)
        else:
            self.tried = _between(self.low, self.high)
            if abs(self.high[0] - self.low[0]) * abs(self.slope) < 1e-9 * abs(self.loss):
                return None
        return self.tried


def _between(low: tuple[float, float, float], high: tuple[float, float, float]) -> float:
    """Return where the cubic through two points, given as length, loss and slope, is least, and not near their ends."""
    (a, f, df), (b, g, dg) = low, high
    width = b - a
    middle = a + width / 2
    if not (math.isfinite(g) and math.isfinite(dg)):
        return a + width / 10
    d = df + dg - 3 * (f - g) / (a - b)
    square = d * d - df * dg
    if square < 0:
        return middle
    root = math.copysign(math.sqrt(square), width)
    denominator = dg - df + 2 * root
    if not denominator:
        return middle
    found = b - width * (dg + root - d) / denominator
    ends = sorted((a + 0.1 * width, b - 0.1 * width))
    return min(max(found, ends[0]), ends[1])


class Average:
    """Exponential moving average of the iterates, corrected for its start at zero as in Adam."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.sum: Tensor | None = None
        self.missing = 1.0

    def update(self, image: Tensor) -> None:
        """Take in one iterate."""
        self.advance(image)
        self.take(image)

    def advance(self, image: Tensor) -> None:
        """Count an iterate."""
        if self.sum is None:
            self.sum = torch.zeros_like(image)
        self.missing *= self.decay

    @torch.no_grad()
    def take(self, image: Tensor) -> None:
        """Take in the iterate that was counted: the same operations on the same tensors every time."""
        assert self.sum is not None
        self.sum.lerp_(image, 1 - self.decay)

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
