"""How much is taken on at a time: tiles that fit into the memory, what moves to the host, the way back when memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from ..compute import allocator
from ..compute.distributed import LOCAL, Group
from ..errors import MemoryLimitError, SettingsError
from ..evaluation import memory
from ..geometry.scales import Size, Stage
from ..networks.graph import Network
from ..settings.settings import Settings, parse_bytes
from .sweep import UNLIMITED, Limits

T = TypeVar("T")
RETRIES = 8
"""How often a step is tried again in smaller tiles."""


@dataclass(frozen=True)
class Plan:
    """How a size is worked on: what a device takes on at a time, and whether what grows with the picture is on the host.

    `roomy` says that there is memory to keep what is freed, up to `most` bytes of the process.
    """

    limits: Limits
    host: bool = False
    roomy: bool = False
    most: float = math.inf

    def home(self, network: Network) -> torch.device:
        """Return where the picture, its gradient, the optimizer's state, the average and the targets are."""
        return torch.device("cpu") if self.host else network.devices[0]


def choose_plan(networks: Sequence[Network], size: Size, settings: Settings, group: Group = LOCAL, regions: int = 0) -> Plan:
    """Return `plan_for` a size; in a group rank 0 decides for all, since all must cut the network alike."""
    if group.rank:
        found: Plan | MemoryLimitError = group.broadcast(None)
    else:
        try:
            found = plan_for(networks, size, settings, group.size, regions)
        except MemoryLimitError as error:
            found = error
        found = group.broadcast(found)
    if isinstance(found, MemoryLimitError):
        raise found
    return found


def plan_for(networks: Sequence[Network], size: Size, settings: Settings, processes: int = 1, regions: int = 0) -> Plan:
    """Return the plan that `settings` ask for at a size, or, with `tile="auto"`, the one that fits into the memory.

    `regions` is how many parts of the picture have masks. On the CPU the process as a whole stays within `memory`. What grows
    with the picture moves to the host where a device would have too little left for its tiles. Raises `MemoryLimitError` if it
    does not fit there either.
    """
    layers = settings.layers
    network, hands = networks[0], len(networks) * processes
    if settings.tile == "off":
        if not memory.indexable(network, layers, size):
            raise SettingsError(
                f"--tile off cannot work on {size[1]}x{size[0]}: its feature maps have more than 2^31 elements; take --tile auto"
            )
        cpu = torch.device("cpu")
        most = memory.used_bytes(cpu) + memory.SHARE * memory.free_bytes(cpu)
        return Plan(UNLIMITED, roomy=settings.memory is None, most=most)
    if settings.tile != "auto":
        return Plan(memory.tiles_of(int(settings.tile), network, layers))
    device = network.devices[0]
    state = memory.state_bytes(network, size, settings, regions=regions, processes=processes)
    if settings.memory is None:
        room = memory.SHARE * memory.free_bytes(device)
    else:
        memory.costs(network, layers)  # what libraries set up for themselves at the first use counts as used
        spoken_for = memory.used_bytes(device) + (memory.LIBRARIES if device.type == "cpu" else 0)
        room = parse_bytes("--memory", settings.memory) - spoken_for
    sharing = sum(other.devices[0] == device for other in networks)

    def limits(left: float, *, host: bool) -> Limits:
        return memory.plan(network, size, layers, budget=int(memory.RESERVE * left / sharing), hands=hands, host=host)

    if room >= state * 1.02:
        found = limits(room - state, host=False)
        if device.type == "cpu" or not memory.cramped(found, network, layers):
            needed = size[0] * size[1] * memory.bound(network, layers) * sharing / hands
            roomy = needed <= room - state
            if device.type == "cpu" and found.whole and not roomy:
                roomy = memory.retained(network, size, layers) <= room - state
            return Plan(found, roomy=roomy, most=memory.used_bytes(device) + room)
    left = room
    if device.type != "cpu":
        left = memory.SHARE * memory.free_bytes(torch.device("cpu"))
        if left >= state * 1.5:  # beside the state: the outputs of segments and their gradients, 32 bytes a pixel
            return Plan(limits(room, host=True), host=True)
    raise MemoryLimitError(
        f"{size[1]}x{size[0]} needs {memory.show_bytes(state)} beside the tiles, but only "
        f"{memory.show_bytes(max(0, left))} of memory are left on cpu; take a smaller --end-scale, or raise --memory"
    )


class Workshop:
    """Does the memory-hungry work of one stage, again with smaller tiles when memory runs out."""

    def __init__(self, networks: Sequence[Network], stage: Stage, settings: Settings, group: Group, regions: int) -> None:
        self.networks, self.stage, self.group = networks, stage, group
        plan = choose_plan(networks, stage.size, settings, group, regions)
        self.limits, self.home = plan.limits, plan.home(networks[0])
        self._keeps, self._most = plan.roomy and self.home.type == "cpu", plan.most
        allocator.keep_freed(self._keeps)

    def attempt(self, work: Callable[[Limits], T]) -> T:
        """Return `work(limits)`; when memory runs out, the same again within smaller limits, a few times.

        Where what is freed is kept, and the free pieces between others have become too many, they are given back before.
        """
        if self._keeps and memory.used_bytes(self.home) > self._most:
            allocator.trim()
        for _ in range(RETRIES):
            try:
                return work(self.limits)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                reason = str(error).splitlines()[0][:200]
            if self.group.size > 1:  # the others wait in the middle of the step
                break
            # only here, outside of the except block, have the tensors that the exception held gone
            memory.release()
            self.limits = memory.smaller(self.limits, self.stage.size, self.networks[0])
        height, width = self.stage.size
        raise MemoryLimitError(
            f"{width}x{height} does not fit into memory even in small tiles ({reason}); take a smaller --end-scale"
        )
