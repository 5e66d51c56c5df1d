"""Numbers that are on a device, read without waiting for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

BEHIND = 8
"""How many steps a device may be behind before its numbers are waited for."""


class Reading:
    """Scalars on one device, on their way to the host in one transfer."""

    def __init__(self, scalars: Mapping[str, Tensor]) -> None:
        import torch

        from ..compute.devices import Transfer

        self.names = tuple(scalars)
        values = torch.stack([value.detach().to(torch.float64 if value.device.type == "cpu" else torch.float32)
                              for value in scalars.values()])  # fmt: skip
        self._transfer = Transfer(values)

    @property
    def ready(self) -> bool:
        """Whether the numbers have arrived, so that nothing is waited for."""
        return self._transfer.ready

    def read(self) -> dict[str, float]:
        """Return the numbers by name; waits for them if they are not ready."""
        return dict(zip(self.names, self._transfer.get().tolist(), strict=True))


class Late(Generic[T]):
    """A queue of things and their numbers, which come out in order once the numbers have arrived."""

    def __init__(self, behind: int = BEHIND) -> None:
        self.behind = behind
        self._waiting: deque[tuple[T, Reading]] = deque()

    def put(self, thing: T, scalars: Mapping[str, Tensor]) -> None:
        """Note a thing and its numbers, scalar tensors of one device."""
        self._waiting.append((thing, Reading(scalars)))

    def arrived(self, *, wait: bool = False) -> Iterator[tuple[T, dict[str, float]]]:
        """Yield what has arrived, and what is more than `behind` steps old or, with `wait`, everything."""
        while self._waiting and (wait or len(self._waiting) > self.behind or self._waiting[0][1].ready):
            thing, reading = self._waiting.popleft()
            yield thing, reading.read()
