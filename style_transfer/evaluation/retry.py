"""Recovery from out of memory: the work is repeated in smaller tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..compute import memory
from ..compute.distributed import Group
from ..errors import MemoryLimitError
from ..files import reason
from ..geometry.scales import Size, Stage
from ..networks.forward import Network
from ..settings import Resolved
from .planner import choose_plan
from .sweep import Limits

T = TypeVar("T")
RETRIES = 8
"""How often the work of a step is tried, in smaller tiles each time."""


def smaller(limits: Limits, size: Size, network: Network) -> Limits:
    """Return limits that need about half the memory: first segments and no kept graphs, then smaller and smaller tiles."""
    if limits.whole:
        layers = list(network.spec.strides)
        areas, shape = [], network.spec.extended(size)
        for segment in network.spec.segments(layers):
            areas.append(math.prod(shape) // 2)
            shape = segment.output_size(shape)
        return Limits(False, tuple(areas), (0,) * len(areas))
    if any(limits.keep):
        return Limits(False, limits.areas, (0,) * len(limits.keep), limits.side)
    side = limits.side and max(1, limits.side * 2 // 3)
    return Limits(False, tuple(max(1, area // 2) for area in limits.areas), limits.keep, side)


class OutOfMemoryRetrier:
    """Runs the memory-hungry work of one scale within limits, and repeats it within smaller ones when memory runs out.

    `regions` is the number of regions with masks. `state_device` is the device of the picture and of all tensors of its shape.
    """

    def __init__(self, networks: Sequence[Network], stage: Stage, settings: Resolved, group: Group, regions: int) -> None:
        self.networks, self.stage, self.group = networks, stage, group
        plan = choose_plan(networks, stage.size, settings, group, regions)
        self.limits, self.state_device = plan.limits, plan.state_device(networks[0])
        self._keeps, self._most = plan.keeps_freed and self.state_device.type == "cpu", plan.process_limit
        memory.keep_freed(self._keeps)

    def attempt(self, work: Callable[[Limits], T]) -> T:
        """Return `work(limits)`; when memory runs out, repeat it within smaller limits, up to `RETRIES` times in all.

        If freed memory is kept and its fragmentation makes the process exceed its limit, it is returned to the system first.
        Raises `MemoryLimitError` when the smallest limits do not suffice, and in a group of processes at the first failure.
        """
        if self._keeps and memory.used_bytes(self.state_device) > self._most:
            memory.trim()
        height, width = self.stage.size
        for _ in range(RETRIES):
            try:
                return work(self.limits)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                cause = reason(error)
            if self.group.size > 1:  # the other processes wait in the middle of the step
                raise MemoryLimitError(
                    f"{width}x{height} ran out of memory on rank {self.group.rank} ({cause}), and several processes cannot try "
                    "again in smaller tiles; give a smaller --memory or --tile"
                )
            # the exception holds tensors, which are free only after the except block
            memory.release()
            self.limits = smaller(self.limits, self.stage.size, self.networks[0])
        raise MemoryLimitError(
            f"{width}x{height} does not fit into memory even in small tiles ({cause}); take a smaller --end-scale"
        )
