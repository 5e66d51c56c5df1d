"""The rule that ends a scale early: the loss has stopped falling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

WINDOW: Final = 50
"""Mean losses of this many steps are compared, since single losses of stochastic steps vary."""
KEYS: Final = ("settling_sum", "settling_before")


class Settling:
    """Whether the mean loss of the last `WINDOW` steps is less than `tolerance` x that of the `WINDOW` steps before lower.

    fzliu/style-transfer ran L-BFGS until SciPy's test of the same kind held between two iterations.
    """

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self._sum: Tensor | float = 0.0
        self._before: float | None = None

    def add(self, loss: Tensor, step: int) -> bool:
        """Add the loss of a step, counted from 1; return whether it has settled. Waits for the device every `WINDOW` steps."""
        if not self.tolerance:
            return False
        self._sum = self._sum + loss.detach()
        if step % WINDOW:
            return False
        mean, before = float(self._sum) / WINDOW, self._before
        self._sum, self._before = 0.0, mean
        return before is not None and before - mean < self.tolerance * before

    def numbers(self) -> dict[str, float]:
        """Return the state, of which a run that is resumed takes the same decisions."""
        if not self.tolerance:
            return {}
        return {KEYS[0]: float(self._sum)} | ({} if self._before is None else {KEYS[1]: self._before})

    def restore(self, numbers: Mapping[str, float]) -> None:
        """Restore what `numbers` returned, of a mapping that may hold more."""
        self._sum, self._before = numbers.get(KEYS[0], 0.0), numbers.get(KEYS[1])
