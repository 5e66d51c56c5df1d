"""L-BFGS, with or without a line search, with or without bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...compute.distributed import LOCAL, Group
from ...geometry import at_scale
from ...registry import OPTIMIZERS
from ...settings import Resolved
from .line_search import LineSearch
from .optimizer import Optimizer, Resize, Saved

FIRST_CHANGE = 1 / 255
"""The change of pixels, root mean square, at the first length that a line search tries."""
FIRST_ROOM = 16
"""The largest length of the first search where pixels are bounded, as a multiple of the first one tried."""


@OPTIMIZERS.register("lbfgs")
class LBFGS(Optimizer):
    """L-BFGS (Liu and Nocedal 1989), one evaluation per step.

    Steps have length 1, or the length that a line search finds if `search`. In units in which white is `white`, the first step is
    min(1, 1 / sum |g|) along the gradient, as in style-transfer-pytorch and neural-style; the first step that a search tries
    changes pixels by an 8-bit step, root mean square, whatever their number. There are no stopping tolerances: gradients are so
    small here that they would end runs early. A pair without positive curvature is left out. The history starts afresh at each
    scale, since the curvature of one does not fit the next. In a group of processes each has its rows of every vector, and inner
    products are summed over all. `length` multiplies the steps, or the first length that a search tries.

    If `bounded`, pixels stay within [0, 1]: those at a bound that the gradient pushes beyond it are left out of the quasi-Newton
    step (Bertsekas 1982), whose end is clamped; the line search tries points on the way there, all of which are valid.
    """

    help = "L-BFGS, its history cleared at each scale"
    defaults: ClassVar[Mapping[str, Any]] = {"bounds": "off"}
    working_pictures = 3

    def __init__(
        self, *, history: tuple[int, ...] = (10,), group: Group = LOCAL, search: bool = False, bounded: bool = False,
        white: float = 1.0, length: float = 1.0,
    ) -> None:  # fmt: skip
        self.history = history
        self.group = group
        self.search = search
        self.bounded = bounded
        self.white = white
        self.length = length
        self.pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=history[0])
        """Steps s, changes of the gradient y, and their products."""
        self.last: tuple[Tensor, Tensor] | None = None
        """The last step and the gradient before it, until their pair is complete."""
        self._line: tuple[LineSearch, Tensor, Tensor, Tensor] | None = None
        """A search in progress, its starting point, and the gradient and the direction there."""

    @classmethod
    def from_settings(cls, settings: Resolved, group: Group, factor: float) -> Self:
        """Return L-BFGS before its first step."""
        return cls(
            history=settings.lbfgs_history, group=group, search=settings.line_search == "strong-wolfe", bounded=settings.bounded,
            white=settings.optimizer_range, length=factor,
        )  # fmt: skip

    @staticmethod
    def pictures(settings: Resolved) -> int:
        """Return two per pair of the history, and the last step, its gradient and the start of a search."""
        return 2 * max(settings.lbfgs_history) + 3

    def begin_scale(self, index: int) -> None:
        """Keep as many pairs as `history` says for a scale, counted from 0; the last number holds for further scales."""
        self.pairs = deque(self.pairs, maxlen=at_scale(self.history, index))

    @torch.no_grad()
    def step(self, image: Tensor, loss: Tensor | None = None) -> None:
        """Change `image` by one step, or by one trial of the line search."""
        assert image.grad is not None
        grad = image.grad.flatten().clone()
        if self._line is not None and self._continue_search(image, grad, loss):
            return
        if self.last is not None:
            self._add_pair(*self.last, grad)
        direction = self._step_from(image, grad)
        if self.search:
            self._start_search(image, grad, direction, loss)
            return
        if self.length != 1:
            direction *= self.length
        image.add_(direction.view_as(image))
        self.last = direction, grad

    def _add_pair(self, s: Tensor, before: Tensor, grad: Tensor) -> None:
        """Add a step and the change of the gradient over it to the history, if their curvature is positive."""
        y = grad - before
        curvature, yy, ss = self._products((y, s), (y, y), (s, s))
        if curvature > torch.finfo(y.dtype).eps * (yy * ss).sqrt():
            self.pairs.append((s, y, curvature))

    def _start_search(self, image: Tensor, grad: Tensor, direction: Tensor, loss: Tensor | None) -> None:
        """Start a line search along `direction`, and move to the first point that it tries."""
        assert loss is not None
        slope = float(self._products((grad, direction))[0])
        if slope >= 0:  # the estimate of the curvature is wrong here
            self.pairs.clear()
            self.last = None
            direction = self._step_from(image, grad)
            slope = float(self._products((grad, direction))[0])
        self.last = None
        if slope == 0:
            return
        first = self.length if self.pairs else self.length / FIRST_ROOM
        line = LineSearch(float(loss), slope, first=first, most=1.0 if self.bounded else None)
        self._line = line, image.flatten().clone(), grad, direction
        image.add_((line.tried * direction).view_as(image))

    def _continue_search(self, image: Tensor, grad: Tensor, loss: Tensor | None) -> bool:
        """Give the search the loss and the gradient at the point it tried; return whether `image` moved to another point."""
        assert loss is not None and self._line is not None
        line, start, before, direction = self._line
        slope = float(self._products((grad, direction))[0])
        length = line.next(float(loss), slope)
        if length is not None:
            image.copy_((start + length * direction).view_as(image))
            return True
        self._line = None
        self.last = line.best * direction, before
        if not line.best:  # no point was better: the history led astray
            self.pairs.clear()
            self.last = None
        if line.best == line.tried:
            return False
        image.copy_((start + line.best * direction).view_as(image))  # the gradient is not known there
        return True

    @torch.no_grad()
    def finish_scale(self, image: Tensor) -> None:
        """Move `image` to the best point that a search has evaluated, and end the search."""
        if self._line is not None:
            line, start, _, direction = self._line
            image.copy_((start + line.best * direction).view_as(image))
            self._line = None

    def _step_from(self, image: Tensor, grad: Tensor) -> Tensor:
        """Return the quasi-Newton step; its end is within the bounds if pixels are bounded."""
        held: Tensor | None = None
        free = grad
        if self.bounded:
            x = image.flatten()
            held = ((x <= 0) & (grad > 0)) | ((x >= 1) & (grad < 0))
            free = grad.masked_fill(held, 0)
        direction = self._direction(free)
        if not self.pairs and self.search:
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
        """Return the inner products of pairs of vectors, summed over all processes."""
        sums = self.group.all_reduce({str(number): a.dot(b) for number, (a, b) in enumerate(pairs)})
        return [sums[str(number)] for number in range(len(pairs))]

    def _direction(self, grad: Tensor) -> Tensor:
        """Return minus the estimate of the inverse Hessian times `grad`, by the two-loop recursion."""
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

    def resized(self, resize: Resize) -> Self:
        """Return an L-BFGS with an empty history."""
        return type(self)(
            history=self.history, group=self.group, search=self.search, bounded=self.bounded, white=self.white, length=self.length
        )

    def state(self, image: Tensor) -> Saved:
        """Return the history, and the last step or the search in progress."""
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
        """Restore the history, and the last step or the search in progress."""
        self.pairs.clear()
        for number in range(int(numbers["pairs"])):
            s, y = tensors[f"s{number}"].flatten(), tensors[f"y{number}"].flatten()
            self.pairs.append((s, y, s.new_tensor(numbers[f"curvature{number}"])))
        if numbers["begun"]:
            self.last = tensors["direction"].flatten(), tensors["gradient"].flatten()
        if self.search and numbers["searching"]:
            start, gradient, direction = (tensors[name].flatten() for name in ("start", "gradient", "direction"))
            self._line = LineSearch.from_state(numbers), start, gradient, direction
