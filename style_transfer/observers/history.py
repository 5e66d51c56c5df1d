"""The losses of a run: read from the device without waiting for it, and kept in bounded memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import torch
from torch import Tensor

from ..compute.capture import Transfer

if TYPE_CHECKING:
    from ..engine.iterate import Iterate

T = TypeVar("T")

Row = tuple[float | None, ...]
"""The number of a step, counted over the whole run from 1, the loss, and each term; None for a value that is not finite."""

BEHIND: Final = 8
"""The most items of a `Late` queue that may wait for their numbers."""
LIMIT: Final = 2000
"""The most rows of a history."""
PENDING: Final = 256
"""The most steps that are added to a history before it is read."""


class Late(Generic[T]):
    """A queue of items, each with scalars of a device; items leave in order once their scalars have arrived on the host."""

    def __init__(self, behind: int = BEHIND) -> None:
        self.behind = behind
        self._waiting: deque[tuple[T, tuple[str, ...], Transfer]] = deque()

    def put(self, item: T, scalars: Mapping[str, Tensor]) -> None:
        """Append an item and its scalars, tensors of one device, which are copied to the host in one transfer."""
        values = [value.detach().to(torch.float64 if value.device.type == "cpu" else torch.float32) for value in scalars.values()]
        self._waiting.append((item, tuple(scalars), Transfer(torch.stack(values))))

    def arrived(self, *, wait: bool = False) -> Iterator[tuple[T, dict[str, float]]]:
        """Remove and yield the items whose scalars have arrived, each with these.

        The oldest of more than `behind` items is waited for, and with `wait` all of them.
        """
        while self._waiting and (wait or len(self._waiting) > self.behind or self._waiting[0][2].ready):
            item, names, transfer = self._waiting.popleft()
            yield item, dict(zip(names, transfer.get().tolist(), strict=True))


@dataclass(frozen=True)
class Curves:
    """The rows that a history has read. `names` are the loss terms; a row has 2 + len(names) entries.

    `generation` is the number of times that every second row was removed.
    """

    generation: int = 0
    names: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


class History:
    """The value of each loss term at each step of a run. `steps` is the number of steps before the first one that is added.

    When there are more than `limit` rows, every second row is removed, and so is every second later step. One thread calls `add`
    and `read`. Any thread may call `since` and use `curves`, which is immutable and replaced as a whole.
    """

    def __init__(self, limit: int = LIMIT, *, steps: int = 0) -> None:
        self.limit = limit
        self.steps = self.first = steps
        self.curves = Curves()
        self._names: tuple[str, ...] = ()
        self._late: Late[int] = Late()
        self._pending = 0
        self._last: Iterate | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The terms of the rows that have been read."""
        return self.curves.names

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that have been read."""
        return self.curves.rows

    def add(self, iterate: Iterate) -> None:
        """Add a step. Several observers may add the same step, which counts once."""
        if iterate is self._last:
            return
        self._last = iterate
        self.steps += 1
        self._names += tuple(name for name in iterate.parts if name not in self._names)  # scales may differ in terms, by masks
        if self.steps % (1 << self.curves.generation) == 0 or self.steps == self.first + 1:
            self._late.put(self.steps, {"loss": iterate.loss, **iterate.parts})
            self._pending += 1
        if self._pending >= PENDING:
            self.read()

    def read(self, *, wait: bool = False) -> None:
        """Append the rows of steps whose losses have arrived from the device; with `wait`, wait for all."""
        self._pending = 0
        names, width = self._names, 2 + len(self._names)
        rows = [row + (None,) * (width - len(row)) for row in self.rows]
        for step, numbers in self._late.arrived(wait=wait):
            known = {name: value for name, value in numbers.items() if math.isfinite(value)}
            rows.append((step, *(known.get(name) for name in ("loss", *names))))
        generation = self.curves.generation
        while len(rows) > self.limit:
            rows = [rows[0], *(row for row in rows[1:] if int(row[0] or 0) % (2 << generation) == 0)]
            generation += 1
        self.curves = Curves(generation, names, tuple(rows))

    def since(self, generation: int, known: int) -> dict[str, Any]:
        """Return the rows after the first `known` ones, or all rows if `generation` is not the current one."""
        curves = self.curves
        if generation != curves.generation or known > len(curves.rows):
            known = 0
        return {"generation": curves.generation, "from": known, "names": curves.names, "rows": curves.rows[known:]}
