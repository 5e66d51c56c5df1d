"""What a tile costs on a device, and the largest tiles that fit: the planner of `sweep.Limits`.

Costs are measured, not guessed: a small tile is run forward and backward on the device, and its peak of memory and the bytes
its graph holds are taken per cell. Both grow in proportion to the cells.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch import Tensor

from ..compute import allocator
from ..geometry.scales import Size
from ..losses.losses import flat, gram
from ..networks.graph import Network
from ..networks.spec import Segment
from ..settings.settings import Settings
from .sweep import UNLIMITED, Limits, Sweep

SHARE = 0.85
"""The part of the memory that is free which a plan may use if no limit is given."""
RESERVE = 0.8
"""The part of what is left for tiles that a plan uses: allocators round up."""
LIBRARIES = 150_000_000
"""What libraries come to hold on a CPU once the work is on, beside what they hold after the first small tiles."""
MAX_ELEMENTS = 0.9 * 2**31
"""The most elements of a feature map: past 2^31 accelerators raise errors, or return wrong numbers."""
PROBE_CELLS = 96
LARGE_PROBE = 768
"""The side of a probe that tells what grows with a picture from what does not."""
LARGE = 4 * LARGE_PROBE**2
"""The least area of pictures for which it is made."""
LEAST_PEAK = 1.3
"""The least peak as a multiple of what a graph holds: it and one gradient of its largest tensor."""
RETAINED = 1.75
"""What the C library holds after a few steps, if it keeps freed memory, as a multiple of the peak: 1.4 to 1.75 were seen."""
GUESS = 3.0
"""The peak as a multiple of what a graph holds, until it has been measured: more than was ever seen."""
GOOD_SIDE = 640
"""Tiles of this many pixels overlap by a sixth; what memory is left is better spent on keeping graphs than on larger tiles."""


@dataclass(frozen=True)
class Cost:
    """Bytes for each cell of a segment's input: the peak while a tile is in work, and what a kept graph holds."""

    peak: float
    kept: float
    seconds: float


def show_bytes(count: float) -> str:
    """Return bytes as 1.2 GB or 340 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device; on the CPU also within the limit of a container."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps it for the next tensors
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return max(0, round(min(psutil.virtual_memory().available, left_to_group())))


def left_to_group(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the memory that the limits of this process's control group and of those above it leave, infinity without limits.

    `own` names the group, of version 1 or 2, below `root`. Files in memory that nobody has used of late do not count as used.
    """
    left = math.inf
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return left
    for line in lines:
        if len(line) == 3 and not line[1]:
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif len(line) == 3 and "memory" in line[1].split(","):
            top, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = top / line[2].lstrip("/")
        for place in (top, *(place for place in (group, *group.parents) if top in place.parents)):
            with contextlib.suppress(OSError, ValueError):
                limit, usage = (int((place / name).read_text()) for name in names[:2])
                statistics = (place / "memory.stat").read_text().splitlines()
                about = dict(line.split(maxsplit=1) for line in statistics if " " in line)
                left = min(left, limit - usage + int(about.get(names[2], 0)))
    return left


def used_bytes(device: torch.device) -> int:
    """Return what this process uses on a device."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else int(psutil.Process().memory_info().rss)


def ran_out(error: BaseException) -> bool:
    """Say whether an exception means that memory ran out."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "unable to find an engine", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error).lower() for word in words)


def release() -> None:
    """Give back memory that nothing uses any more."""
    gc.collect()
    allocator.trim()
    kind = torch.accelerator.current_accelerator()
    if kind is not None and kind.type == "mps":
        torch.mps.empty_cache()  # torch.accelerator's fails there before torch 2.15
    elif kind is not None:
        torch.accelerator.empty_cache()


def smaller(limits: Limits, size: Size, network: Network) -> Limits:
    """Return limits that need about half the memory: first no kept graphs and segments, then ever smaller tiles."""
    if limits.whole:
        layers = list(network.spec.strides)
        areas, shape = [], size
        for segment in network.spec.segments(layers):
            areas.append(math.prod(shape) // 2)
            shape = segment.output_size(shape)
        return Limits(False, tuple(areas), (0,) * len(areas))
    if any(limits.keep):
        return Limits(False, limits.areas, (0,) * len(limits.keep), limits.side)
    side = limits.side and max(1, limits.side * 2 // 3)
    return Limits(False, tuple(max(1, area // 2) for area in limits.areas), limits.keep, side)


def state_bytes(network: Network, size: Size, settings: Settings, *, regions: int = 0, processes: int = 1) -> int:
    """Return the bytes that grow with the picture, on each of `processes` that share it.

    They are the picture, its gradient, the optimizer's state, the average and content targets; with masks for `regions` of it
    also the photograph that shows where nothing is painted, how much is painted, and each region's guides, of which every
    process has the whole.
    """
    strides = network.spec.strides
    working = 3 if settings.optimizer == "lbfgs" else 0
    pictures = _optimizer_pictures(settings.optimizer, settings.lbfgs_history) + working + 3
    targets = sum(network.spec.channels[layer] / strides[layer] ** 2 for layer in settings.content_layers)
    cover = 4 * (3 + 1) if regions else 0
    guides = 4 * regions * len(settings.statistics) * sum(1 / strides[layer] ** 2 for layer in settings.style_layers)
    shared = 4 * 3 * pictures + network.features.itemsize * targets + cover
    return round(size[0] * size[1] * (shared / processes + guides))


def kept_bytes(size: Size, optimizer: str, history: int = 10) -> int:
    """Return the bytes of a checkpoint at most: the picture, the average, the optimizer's state."""
    return size[0] * size[1] * 4 * 3 * (_optimizer_pictures(optimizer, history) + 2)


def _optimizer_pictures(optimizer: str, history: int) -> int:
    """Return how many tensors of the picture's shape an optimizer keeps at most from step to step."""
    return {"adam": 2, "lbfgs": 2 * history + 3, "sgd": 1}[optimizer]


def _probe(network: Network, segment: Segment, cells: int) -> tuple[Tensor, int]:
    """Run a segment forward on a square of noise; return the sum of its output and the bytes its graph holds."""
    held: dict[int, int] = {}
    weights = network.storages

    def note(x: Tensor) -> Tensor:
        place = x.untyped_storage().data_ptr()
        if place not in weights:
            held[place] = x.untyped_storage().nbytes()
        return x

    dtype = network.dtype if segment.first else network.features
    x = torch.rand(1, segment.inputs, cells, cells, device=network.devices[0], dtype=dtype)
    x.requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        sums: list[Tensor] = []
        output = network.run(segment, x, lambda _, features: sums.append(gram(flat(features, None)).sum()))
        total = torch.stack([value.to(x.device) for value in (*sums, output.sum())]).sum()
    return torch.autograd.grad(total, x)[0], sum(held.values())


@contextlib.contextmanager
def _peak(device: torch.device) -> Iterator[list[int]]:
    """Put into the list by how many bytes memory rose within the block at its highest; nothing where that cannot be seen."""
    found: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.append(torch.cuda.max_memory_allocated(device) - before)
    elif sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            yield found
            return
        before = psutil.Process().memory_info().rss
        yield found
        high = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if high:
            found.append(int(high[1]) * 1024 - before)
    else:
        yield found


K = TypeVar("K")
R = TypeVar("R")


def _once(measure: Callable[[Network, K], R]) -> Callable[[Network, K], R]:
    """Have something measured once for each network, which keeps it: it goes when the network does."""

    @functools.wraps(measure)
    def found(network: Network, key: K) -> R:
        place = measure.__name__, key
        if place not in network.measured:
            network.measured[place] = measure(network, key)
        known: R = network.measured[place]
        return known

    return found


@_once
def cost(network: Network, segment_key: tuple[tuple[str, ...], bool, int]) -> Cost:
    """Return what a segment costs on a network's device, measured once."""
    layers, cut, index = segment_key
    segment = network.spec.segments(layers, cut=cut)[index]
    stride = segment.geometry.stride
    cells = -(-PROBE_CELLS // stride) * stride * (2 if segment.first else 1)
    _probe(network, segment, stride * 4)  # libraries set themselves up
    allocator.trim()  # else the rise would be less by what is free in the process already
    with _peak(network.devices[0]) as high:
        start = time.perf_counter()
        _, held = _probe(network, segment, cells)
        seconds = time.perf_counter() - start
    allocator.trim()
    kept = held / cells**2
    peak = max(high[0] / cells**2 if high else kept * GUESS, kept * LEAST_PEAK)
    return Cost(peak, kept, seconds / cells**2)


def costs(network: Network, layers: Collection[str]) -> list[Cost]:
    """Return what the network's segments cost."""
    key = tuple(sorted(layers))
    return [cost(network, (key, True, index)) for index in range(len(network.spec.segments(key)))]


def plan(
    network: Network,
    size: Size,
    layers: Collection[str],
    *,
    budget: int,
    hands: int = 1,
    host: bool = False,
) -> Limits:
    """Return the limits with which a picture of `size` is worked on within `budget` bytes on each of `hands` devices.

    The budget is for tiles alone, what `state_bytes` counts is not in it; nor are, with `host`, the outputs of segments. One
    tile if it fits, else segments with tiles as large as is useful, and what is left for keeping graphs: those first that
    save most time for their bytes, the last segment's.
    """
    key = tuple(sorted(layers))
    area = size[0] * size[1] // hands
    if hands == 1 and indexable(network, key, size) and _fits(network, key, area, budget):
        return UNLIMITED
    segments = network.spec.segments(key)
    prices = costs(network, key)
    stored = 0.0  # outputs of segments and their gradients, for the whole picture
    areas = good_areas(segments)
    shape = size
    sizes = []
    for segment in segments:
        sizes.append(math.prod(shape))
        shape = segment.output_size(shape)
        stored += 0 if segment.last or host else 2 * network.features.itemsize * segment.channels * math.prod(shape) / hands
    room = budget - stored
    work = min(room, max(a * c.peak for a, c in zip(areas, prices, strict=True)))
    areas = [max(1.0, min(work / c.peak, MAX_ELEMENTS / _widest(s))) for c, s in zip(prices, segments, strict=True)]
    spare = room - work
    keep = [0] * len(segments)
    for index in reversed(range(len(segments))):
        wanted = 1.3 * sizes[index] / hands * prices[index].kept
        share = max(0.0, min(spare, wanted))
        keep[index] = int(share / prices[index].kept)
        spare -= share
    return Limits(False, tuple(int(a) for a in areas), tuple(keep))


def _fits(network: Network, key: tuple[str, ...], area: int, budget: int) -> bool:
    """Say whether a picture of `area` pixels goes through the network in one piece within `budget` bytes."""
    if area * bound(network, key) <= budget:
        return True
    price = cost(network, (key, False, 0))
    if area * price.peak <= budget:
        return True
    if area * price.kept * LEAST_PEAK > budget or area < LARGE:
        return False
    fixed, more = _growth(network, key)
    return fixed + area * max(more, price.kept * LEAST_PEAK) <= budget


@_once
def _growth(network: Network, key: tuple[str, ...]) -> tuple[float, float]:
    """Return the peak of the network in one piece as bytes that do not depend on the size, and bytes a pixel.

    A small probe cannot tell them apart, and on a CPU the first are some 100 MB.
    """
    (segment,) = network.spec.segments(key, cut=False)
    areas, peaks = [], []
    for cells in (LARGE_PROBE // 2, LARGE_PROBE):
        allocator.trim()
        with _peak(network.devices[0]) as high:
            _probe(network, segment, cells)
        if not high:
            return 0.0, math.inf
        areas.append(cells**2)
        peaks.append(high[0])
    allocator.trim()
    more = (peaks[1] - peaks[0]) / (areas[1] - areas[0])
    return max(0.0, peaks[1] - more * areas[1]), more


def retained(network: Network, size: Size, layers: Collection[str]) -> float:
    """Return the bytes that a CPU's allocator comes to hold for a large picture in one piece, if it keeps what is freed."""
    area = size[0] * size[1]
    if area < LARGE:
        return math.inf
    fixed, more = _growth(network, tuple(sorted(layers)))
    return fixed + RETAINED * more * area


def _widest(segment: Segment) -> float:
    """Return the elements of a segment's largest feature map, per cell of its input."""
    return max((channels / stride**2 for channels, stride in segment.maps), default=0)


def indexable(network: Network, layers: Collection[str], size: Size) -> bool:
    """Say whether the feature maps of a picture in one tile have fewer elements than accelerators can count."""
    (segment,) = network.spec.segments(layers, cut=False)
    return size[0] * size[1] * _widest(segment) <= MAX_ELEMENTS


def good_areas(segments: Sequence[Segment]) -> list[float]:
    """Return the area of tiles that are as large as is useful, in cells of each segment's input."""
    areas, side = [], float(GOOD_SIDE)
    for segment in segments:
        areas.append((side + 2 * segment.geometry.halo) ** 2)
        side /= segment.geometry.stride
    return areas


def cramped(limits: Limits, network: Network, layers: Collection[str]) -> bool:
    """Say whether tiles are much smaller than is useful."""
    good = good_areas(network.spec.segments(layers))
    return not limits.whole and any(area < wanted / 2 for area, wanted in zip(limits.areas, good, strict=True))


def bound(network: Network, layers: Collection[str]) -> float:
    """Return more bytes per pixel than the network can cost, without a measurement, for pictures that are small anyway."""
    (segment,) = network.spec.segments(layers, cut=False)
    return GUESS * sum(4 * channels / stride**2 for channels, stride in segment.maps) + 200


@dataclass(frozen=True)
class Estimate:
    """What one scale is expected to take: tiles of each segment, bytes on one device at the peak, seconds for one step."""

    tiles: tuple[int, ...]
    bytes: int
    seconds: float


def estimate(
    networks: Sequence[Network], size: Size, settings: Settings, limits: Limits, *, host: bool = False, regions: int = 0
) -> Estimate:
    """Return what a scale is expected to take within `limits`, from what a small tile takes; on the device alone with `host`."""
    network = networks[0]
    key = tuple(sorted(settings.layers))
    sweep = Sweep(networks, size, key, limits)
    held, work, slowest = 0.0, 0.0, 0.0
    for part in sweep.parts:
        price = cost(network, (key, not limits.whole, part.index))
        hands = [
            sum(tile.read.area * price.seconds * (1 if tile in part.kept else 1.5) for tile in tiles) for tiles in part.tiles
        ]
        slowest += max(hands)
        held += max(sum(tile.read.area for tile in tiles if tile in part.kept) for tiles in part.tiles) * price.kept
        work = max(work, max(tile.read.area for tiles in part.tiles for tile in tiles) * price.peak)
        if not part.segment.last and not host:
            held += 2 * network.features.itemsize * part.segment.channels * math.prod(part.output_size)
    state = 0 if host else state_bytes(network, size, settings, regions=regions)
    peak = state + max(work, held) if limits.whole else state + work + held
    return Estimate(sweep.tiles, round(used_bytes(network.devices[0]) + peak), slowest)


def tiles_of(pixels: int, network: Network, layers: Collection[str]) -> Limits:
    """Return limits with tiles that own at most `pixels` x `pixels`, none of them kept."""
    segments = network.spec.segments(layers)
    return Limits(False, tuple(int(MAX_ELEMENTS / _widest(s)) for s in segments), (0,) * len(segments), pixels)


def peak_bytes(devices: Sequence[torch.device]) -> int:
    """Return the peak memory so far in bytes: the accelerators' largest, or the process's if all work is on the CPU."""
    used = [torch.accelerator.max_memory_allocated(d) for d in devices if d.type in ("cuda", "xpu")]
    if used:
        return max(used)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
