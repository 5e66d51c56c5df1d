"""The cost of tiles on a device, in bytes and seconds for each cell of a segment's input.

Costs are measured: a small tile is run forward and backward on the device, and the peak of memory and the bytes that its graph
holds are divided by its cells. Both grow in proportion to the cells.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compute import devices, memory
from ..geometry.scales import Size
from ..losses.statistics import flat, gram
from ..networks import Segment
from ..networks.forward import Network

PROBE_CELLS = 96
LARGE_PROBE = 768
"""The side of a probe large enough to separate what grows with a picture from what does not."""
LARGE = 4 * LARGE_PROBE**2
"""The least area of pictures for which such a probe is run."""
LEAST_PEAK = 1.3
"""The smallest peak as a multiple of what a graph holds: the graph and one gradient of its largest tensor."""
RETAINED = 1.75
"""The memory that the C library holds after some steps, if it keeps freed memory, per peak: 1.4 to 1.75 were measured."""
MAX_ELEMENTS = 0.9 * 2**31
"""The most elements of a feature map: past 2^31 accelerators raise errors, or return wrong numbers."""
UNMEASURED_PEAK = 3.0
"""The peak as a multiple of what a graph holds, where it cannot be measured: more than any measured value."""


@dataclass(frozen=True)
class Cost:
    """Bytes for each cell of a segment's input: the peak while a tile is run, and what a kept graph holds; and seconds."""

    peak: float
    kept: float
    seconds: float


def _probe(network: Network, segment: Segment, cells: int) -> tuple[Tensor, int]:
    """Run a segment on a square of noise; return the gradient of its outputs' sum and the bytes that its graph held."""
    held: dict[int, int] = {}
    weights = network.storages

    def note(x: Tensor) -> Tensor:
        address = x.untyped_storage().data_ptr()
        if address not in weights:
            held[address] = x.untyped_storage().nbytes()
        return x

    dtype = network.dtype if segment.first else network.features
    x = torch.rand(1, segment.inputs, cells, cells, device=network.devices[0], dtype=dtype)
    x.requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        sums: list[Tensor] = []
        output = network.run(segment, x, lambda _, features: sums.append(gram(flat(features, None)).sum()))
        total = torch.stack([value.to(x.device) for value in (*sums, output.sum())]).sum()
    return torch.autograd.grad(total, x)[0], sum(held.values())


def cost(network: Network, segment_key: tuple[tuple[str, ...], bool, int]) -> Cost:
    """Return the cost of a segment on a network's device, which is measured once and stored with the network.

    `segment_key` is the sorted layers, whether the network is cut into segments, and the index of the segment.
    """
    known: Cost | None = network.measured.get(segment_key)
    if known is not None:
        return known
    layers, cut, index = segment_key
    segment = network.spec.segments(layers, cut=cut)[index]
    stride = segment.geometry.stride
    cells = -(-PROBE_CELLS // stride) * stride * (2 if segment.first else 1)
    _probe(network, segment, stride * 4)  # libraries initialise at their first use
    memory.trim()  # otherwise free memory that the process already holds would reduce the rise
    with memory.measured_rise(network.devices[0]) as rise:
        _, held = _probe(network, segment, cells)
        devices.synchronize(network.devices)
    start = time.perf_counter()  # again, as new memory makes the first time slower
    _probe(network, segment, cells)
    devices.synchronize(network.devices)
    seconds = time.perf_counter() - start
    memory.trim()
    kept = held / cells**2
    peak = max(rise[0] / cells**2 if rise else kept * UNMEASURED_PEAK, kept * LEAST_PEAK)
    network.measured[segment_key] = measured = Cost(peak, kept, seconds / cells**2)
    return measured


def costs(network: Network, layers: Collection[str]) -> list[Cost]:
    """Return the costs of the network's segments."""
    key = tuple(sorted(layers))
    return [cost(network, (key, True, index)) for index in range(len(network.spec.segments(key)))]


def growth(network: Network, layers: tuple[str, ...]) -> tuple[float, float]:
    """Return the peak of the uncut network as bytes that do not depend on the size, and bytes for each pixel, measured once.

    A small probe cannot separate them, and on a CPU the first are about 100 MB. Where the peak cannot be measured, the bytes for
    each pixel are infinite.
    """
    known: tuple[float, float] | None = network.measured.get(layers)
    if known is not None:
        return known
    (segment,) = network.spec.segments(layers, cut=False)
    areas, peaks = [], []
    for cells in (LARGE_PROBE // 2, LARGE_PROBE):
        memory.trim()
        with memory.measured_rise(network.devices[0]) as rise:
            _probe(network, segment, cells)
        if not rise:
            network.measured[layers] = unknown = 0.0, math.inf
            return unknown
        areas.append(cells**2)
        peaks.append(rise[0])
    memory.trim()
    more = (peaks[1] - peaks[0]) / (areas[1] - areas[0])
    network.measured[layers] = measured = max(0.0, peaks[1] - more * areas[1]), more
    return measured


def fits_whole(network: Network, layers: tuple[str, ...], area: int, budget: int) -> bool:
    """Return whether a picture of `area` pixels runs through the network in one piece within `budget` bytes."""
    if area * bound(network, layers) <= budget:
        return True
    price = cost(network, (layers, False, 0))
    if area * price.peak <= budget:
        return True
    if area * price.kept * LEAST_PEAK > budget or area < LARGE:
        return False
    fixed, more = growth(network, layers)
    return fixed + area * max(more, price.kept * LEAST_PEAK) <= budget


def retained(network: Network, size: Size, layers: Collection[str]) -> float:
    """Return the bytes that the C library holds after some steps on a large picture in one piece, if it keeps freed memory."""
    area = size[0] * size[1]
    if area < LARGE:
        return math.inf
    fixed, more = growth(network, tuple(sorted(layers)))
    return fixed + RETAINED * more * area


def bound(network: Network, layers: Collection[str]) -> float:
    """Return an upper bound of the bytes for each pixel without a measurement, which is enough for small pictures."""
    (segment,) = network.spec.segments(layers, cut=False)
    return UNMEASURED_PEAK * sum(4 * channels / stride**2 for channels, stride in segment.maps) + 200


def largest_area(segment: Segment) -> int:
    """Return the most cells of a segment's input that a tile may read, so that no feature map has more than `MAX_ELEMENTS`."""
    return int(MAX_ELEMENTS / max(widest(segment), segment.inputs))


def widest(segment: Segment) -> float:
    """Return the elements of a segment's largest feature map, for each cell of its input."""
    return max((channels / stride**2 for channels, stride in segment.maps), default=0)
