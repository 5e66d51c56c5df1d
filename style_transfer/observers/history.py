"""The loss and its terms over a whole run, in bounded memory and without waiting for the device at every step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .late import Late

if TYPE_CHECKING:
    from ..engine.iterate import Iterate

Row = list[float | None]
"""The number of the step, counted over the whole run from 1, the loss, and each term; None if it is not finite."""

LIMIT = 2000
PENDING = 256


class History:
    """What each loss term was at each step; `steps` were done before.

    When there are more than `limit` rows every second one is dropped, and from then on every second step is left out;
    `generation` counts how often that was. `read` takes in what has arrived from the device, and does not wait for the rest.
    """

    def __init__(self, limit: int = LIMIT, *, steps: int = 0) -> None:
        self.limit = limit
        self.names: tuple[str, ...] = ()
        self.steps = self.first = steps
        self.generation = 0
        self.rows: list[Row] = []
        self._late: Late[int] = Late()
        self._pending = 0
        self._last: Iterate | None = None

    def add(self, iterate: Iterate) -> None:
        """Take note of an iteration, once, whoever else does."""
        if iterate is self._last:
            return
        self._last = iterate
        self.steps += 1
        self.names += tuple(name for name in iterate.parts if name not in self.names)  # masks may leave a scale some
        if self.steps % (1 << self.generation) == 0 or self.steps == self.first + 1:
            self._late.put(self.steps, {"loss": iterate.loss, **iterate.parts})
            self._pending += 1
        if self._pending >= PENDING:
            self.read()

    def read(self, *, wait: bool = False) -> None:
        """Take in what has arrived since the last time; with `wait`, wait for the rest too."""
        self._pending = 0
        for step, numbers in self._late.arrived(wait=wait):
            known = {name: value for name, value in numbers.items() if math.isfinite(value)}
            self.rows.append([step, *(known.get(name) for name in ("loss", *self.names))])
        for row in self.rows:
            row.extend([None] * (2 + len(self.names) - len(row)))
        while len(self.rows) > self.limit:
            rows = [row for row in self.rows[1:] if int(row[0] or 0) % (2 << self.generation) == 0]
            self.rows = [self.rows[0], *rows]
            self.generation += 1

    def since(self, generation: int, known: int) -> dict[str, object]:
        """Return what a reader lacks who has `known` rows of a generation; all rows if that is over."""
        rows, now = self.rows, self.generation
        if generation != now or known > len(rows):
            known = 0
        return {"generation": now, "from": known, "names": self.names, "rows": rows[known:]}
