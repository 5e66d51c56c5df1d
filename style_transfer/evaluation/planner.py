"""The memory planner: the largest tiles that fit, and whether what grows with the picture moves to the host."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from ..compute import memory
from ..compute.distributed import LOCAL, Group
from ..errors import MemoryLimitError, SettingsError
from ..geometry.scales import Size
from ..networks import Segment
from ..networks.forward import Network
from ..registry import OPTIMIZERS
from ..settings import Resolved, parse_bytes
from . import costs
from .sweep import UNLIMITED, Limits, Sweep

LOG = logging.getLogger("style_transfer")
SHARE = 0.85
"""The share of the free memory that a plan may use if no limit is set."""
RESERVE = 0.8
"""The share of what is left for tiles that a plan uses: allocators round up."""
LIBRARIES = 150_000_000
"""Bytes that libraries allocate on a CPU during a run, in addition to those that they hold after the first small tiles."""
SMALLEST_SIDE = 64
"""Smaller tiles than of this many pixels are not planned on a CPU: more than half of their work would be overlap."""
GOOD_SIDE = 640
"""Tiles of this many pixels overlap by a sixth; memory that is left is better spent on keeping graphs than on larger tiles."""


@dataclass(frozen=True)
class Plan:
    """How a size is evaluated: limits for each device, and whether everything that grows with the picture is on the host.

    With `keeps_freed` the memory suffices for keeping freed memory, until the process uses `process_limit` bytes.
    """

    limits: Limits
    host: bool = False
    keeps_freed: bool = False
    process_limit: float = math.inf

    def state_device(self, network: Network) -> torch.device:
        """Return the device of the picture, its gradient, the optimizer's state, the average and the content targets."""
        return torch.device("cpu") if self.host else network.devices[0]


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a scale: the tiles of each segment, the peak of bytes on one device, the seconds for a step."""

    tiles: tuple[int, ...]
    bytes: int
    seconds: float


def choose_plan(networks: Sequence[Network], size: Size, settings: Resolved, group: Group = LOCAL, regions: int = 0) -> Plan:
    """Return `plan_for` a size; in a group rank 0 decides for all, since all must cut the network in the same way."""
    if group.rank:
        plan: Plan | MemoryLimitError = group.broadcast(None)
    else:
        try:
            plan = plan_for(networks, size, settings, group.size, regions)
        except MemoryLimitError as error:
            plan = error
        plan = group.broadcast(plan)
    if isinstance(plan, MemoryLimitError):
        raise plan
    return plan


def plan_for(networks: Sequence[Network], size: Size, settings: Resolved, processes: int = 1, regions: int = 0) -> Plan:
    """Return the plan that `settings` request for a size, or, with `tile="auto"`, the one that fits into the memory.

    `regions` is the number of regions with masks. Raises `MemoryLimitError` if the picture fits neither on the device nor on the
    host, `SettingsError` for a picture that `tile="off"` cannot evaluate.
    """
    network = networks[0]
    whole = indexable(network, settings.layers, size)
    if settings.tile == "off":
        if not whole:
            raise SettingsError(
                f"--tile off cannot work on {size[1]}x{size[0]}: its feature maps have more than 2^31 elements; take --tile auto"
            )
        most = memory.used_bytes(memory.CPU) + SHARE * memory.free_host_bytes()
        return Plan(UNLIMITED, keeps_freed=settings.memory is None, process_limit=most)
    if settings.tile != "auto":
        return Plan(tiles_of(int(settings.tile), network, settings.layers))
    room = _room(network, settings)
    if room is None:
        LOG.warning("the free memory of %s is unknown; give --memory if it runs out", network.devices[0])
        return Plan(UNLIMITED if whole else tiles_of(GOOD_SIDE, network, settings.layers))
    return _fitting_plan(networks, size, settings, room, processes, regions)


def _room(network: Network, settings: Resolved) -> float | None:
    """Return the bytes that a plan may use on a device, or None where that is unknown."""
    device = network.devices[0]
    if settings.memory is None:
        free = memory.free_bytes(device)
        return None if free is None else SHARE * free
    costs.costs(network, settings.layers)  # so that what libraries allocate at their first use counts as used
    used = memory.used_bytes(device) + (LIBRARIES if device.type == "cpu" else 0)
    return parse_bytes("--memory", settings.memory) - used


def _fitting_plan(networks: Sequence[Network], size: Size, settings: Resolved, room: float, processes: int, regions: int) -> Plan:
    """Return the plan that fits into `room` bytes on each device; raise `MemoryLimitError` if there is none.

    On the CPU the whole process stays within the limit. Everything that grows with the picture moves to the host if it would
    leave a device too little memory for tiles.
    """
    layers, network, workers = settings.layers, networks[0], len(networks) * processes
    device = network.devices[0]
    state = state_bytes(network, size, settings, regions=regions, processes=processes)
    sharing = sum(other.devices[0] == device for other in networks)

    def limits(left: float, *, host: bool) -> Limits:
        return fit_tiles(network, size, layers, budget=int(RESERVE * left / sharing), workers=workers, host=host)

    if room >= state * 1.02:
        fitting = limits(room - state, host=False)
        side = SMALLEST_SIDE if device.type == "cpu" else GOOD_SIDE / 2
        if not cramped(fitting, network, size, layers, side):
            seen = network.spec.extended(size)
            needed = math.prod(seen) * costs.bound(network, layers) * sharing / workers
            keeps_freed = needed <= room - state
            if device.type == "cpu" and fitting.whole and not keeps_freed:
                keeps_freed = costs.retained(network, seen, layers) <= room - state
            return Plan(fitting, keeps_freed=keeps_freed, process_limit=memory.used_bytes(device) + room)
    left = room
    if device.type != "cpu":
        left = SHARE * memory.free_host_bytes()
        if left >= state * 1.5:  # the outputs of segments and their gradients, 32 bytes for each pixel, also need room
            return Plan(limits(room, host=True), host=True)
    least = least_budget(network, size, layers, workers) * sharing / RESERVE
    needs = f"{size[1]}x{size[0]} needs {memory.show_bytes(state)} and {memory.show_bytes(least)} for its smallest tiles"
    if device.type == "cpu" and settings.memory is not None:
        own = parse_bytes("--memory", settings.memory) - room
        enough = math.ceil((own + max(state * 1.02, state + least)) / 1e7) / 100
        raise MemoryLimitError(
            f"--memory {settings.memory} is too little: the program takes {memory.show_bytes(own)}, and {needs}; "
            f"give --memory {enough:.2f}GB, or take a smaller --end-scale"
        )
    raise MemoryLimitError(
        f"{needs}, but only {memory.show_bytes(max(0, left))} of memory are left on cpu; "
        "take a smaller --end-scale, or raise --memory"
    )


def fit_tiles(
    network: Network, size: Size, layers: Collection[str], *, budget: int, workers: int = 1, host: bool = False
) -> Limits:
    """Return the limits for a picture of `size` within `budget` bytes on each of `workers` devices.

    The budget is for tiles alone: it excludes what `state_bytes` counts and, with `host`, the outputs of segments. The result is
    one tile if it fits, else segments with tiles as large as is useful. Remaining memory is for keeping graphs, first those of
    the last segment, which save most time for their bytes.
    """
    key = tuple(sorted(layers))
    shape = network.spec.extended(size)
    area = math.prod(shape) // workers
    if workers == 1 and indexable(network, key, size) and costs.fits_whole(network, key, area, budget):
        return UNLIMITED
    segments = network.spec.segments(key)
    prices = costs.costs(network, key)
    areas = tile_areas(segments, GOOD_SIDE)
    sizes, stored = _cells(network, size, key)
    room = budget - (0 if host else stored / workers)
    work = min(room, max(a * c.peak for a, c in zip(areas, prices, strict=True)))
    areas = [max(1.0, min(work / c.peak, costs.largest_area(s))) for c, s in zip(prices, segments, strict=True)]
    spare = room - work
    keep = [0] * len(segments)
    for index in reversed(range(len(segments))):
        useful = 1.3 * sizes[index] / workers * prices[index].kept
        share = max(0.0, min(spare, useful))
        keep[index] = int(share / prices[index].kept)
        spare -= share
    return Limits(False, tuple(int(a) for a in areas), tuple(keep))


def least_budget(network: Network, size: Size, layers: Collection[str], workers: int = 1) -> float:
    """Return the bytes that tiles of `SMALLEST_SIDE` need."""
    key = tuple(sorted(layers))
    prices = costs.costs(network, key)
    sizes, stored = _cells(network, size, key)
    areas = tile_areas(network.spec.segments(key), SMALLEST_SIDE)
    return (stored + max(min(area, cells) * c.peak for area, cells, c in zip(areas, sizes, prices, strict=True))) / workers


def _cells(network: Network, size: Size, layers: Collection[str]) -> tuple[list[int], float]:
    """Return the cells of each segment's input, and the bytes of all outputs of segments and their gradients."""
    shape, sizes, stored = network.spec.extended(size), [], 0.0
    for segment in network.spec.segments(layers):
        sizes.append(math.prod(shape))
        shape = segment.output_size(shape)
        stored += 0 if segment.last else 2 * network.features.itemsize * segment.channels * math.prod(shape)
    return sizes, stored


def tiles_of(pixels: int, network: Network, layers: Collection[str]) -> Limits:
    """Return limits with tiles that own at most `pixels` x `pixels`, whose graphs are not kept."""
    segments = network.spec.segments(layers)
    return Limits(False, tuple(map(costs.largest_area, segments)), (0,) * len(segments), pixels)


def indexable(network: Network, layers: Collection[str], size: Size) -> bool:
    """Return whether the feature maps of a picture in one tile have fewer elements than accelerators can index."""
    (segment,) = network.spec.segments(layers, cut=False)
    return math.prod(network.spec.extended(size)) <= costs.largest_area(segment)


def tile_areas(segments: Sequence[Segment], side: float) -> list[float]:
    """Return the area of tiles that own `side` x `side` pixels, with their overlap, in cells of each segment's input."""
    areas = []
    for segment in segments:
        areas.append((side + 2 * segment.geometry.halo) ** 2)
        side /= segment.geometry.stride
    return areas


def cramped(limits: Limits, network: Network, size: Size, layers: Collection[str], side: float) -> bool:
    """Return whether tiles of a picture of `size` own less than `side` x `side` pixels."""
    sizes, _ = _cells(network, size, layers)
    least = tile_areas(network.spec.segments(layers), side)
    return not limits.whole and any(area < min(cells, few) for area, cells, few in zip(limits.areas, sizes, least, strict=True))


def state_bytes(network: Network, size: Size, settings: Resolved, *, regions: int = 0, processes: int = 1) -> int:
    """Return the bytes that grow with the picture, on each of `processes` that share it.

    These are the picture, its gradient, the optimizer's state, the average and content targets; with a margin also the continued
    picture and its gradient; with masks for `regions` also the content picture and the blend mask, and the guides of each region,
    which every process has for the whole picture.
    """
    strides = network.spec.strides
    optimizer = OPTIMIZERS[settings.optimizer]
    pictures: int = optimizer.pictures(settings) + optimizer.working_pictures + (5 if network.spec.margin else 3)
    targets = sum(network.spec.channels[layer] / strides[layer] ** 2 for layer in settings.content_layers)
    blend = 4 * (3 + 1) if regions else 0
    guides = 4 * regions * (sum(1 / strides[layer] ** 2 for layer in settings.style_layers) + bool(settings.band_weight))
    shared = 4 * 3 * pictures + network.features.itemsize * targets + blend
    return round(size[0] * size[1] * (shared / processes + guides))


def checkpoint_bytes(size: Size, settings: Resolved) -> int:
    """Return the largest size of a checkpoint in bytes: the picture, the average and the optimizer's state."""
    kept: int = OPTIMIZERS[settings.optimizer].pictures(settings)
    return size[0] * size[1] * 4 * 3 * (kept + 2)


def estimate(
    networks: Sequence[Network], size: Size, settings: Resolved, limits: Limits, *, host: bool = False, regions: int = 0
) -> Estimate:
    """Return the expected cost of a scale within `limits`, from that of a small tile; with `host` on the device alone."""
    network = networks[0]
    key = tuple(sorted(settings.layers))
    sweep = Sweep(networks, size, key, limits)
    held, work, slowest = 0.0, 0.0, 0.0
    for part in sweep.parts:
        price = costs.cost(network, (key, not limits.whole, part.index))
        seconds = [
            sum(tile.read.area * price.seconds * (1 if tile in part.kept else 1.5) for tile in tiles) for tiles in part.tiles
        ]
        slowest += max(seconds)
        held += max(sum(tile.read.area for tile in tiles if tile in part.kept) for tiles in part.tiles) * price.kept
        work = max(work, max(tile.read.area for tiles in part.tiles for tile in tiles) * price.peak)
        if not part.segment.last and not host:
            held += 2 * network.features.itemsize * part.segment.channels * math.prod(part.output_size)
    state = 0 if host else state_bytes(network, size, settings, regions=regions)
    peak = state + max(work, held) if limits.whole else state + work + held
    return Estimate(sweep.tiles, round(memory.used_bytes(network.devices[0]) + peak), slowest)
