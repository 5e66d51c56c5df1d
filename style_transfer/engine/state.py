"""The state of a run: all that its later steps depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compute.distributed import Group, Rows
from ..evaluation.sweep import Limits
from ..geometry import Size
from ..settings import flag_name

NOT_COMPARED = (
    "devices", "sharding", "split", "tile", "memory", "deterministic", "cuda_graphs", "network", "weights", "preset",
)  # fmt: skip
"""Settings that do not identify a run: they choose where it is computed, or are compared by their effect (network, preset)."""


@dataclass(frozen=True)
class State:
    """The state of a run after a step, from which the run can continue as if it had not been interrupted.

    `index` is the scale, from 0, `step` the step at it. `tensors` are shaped like the picture, (1, 3, H, W): image, average, and
    those of the optimizer. In a group of processes they are this process's rows, `bands[rank]`; a whole state has one band of all
    rows. `numbers` belong to the optimizer and the average. `halvings` counts how often the step size was halved. `ended` are the
    scales that were finished early, each with its last step, possibly the state's own. `limits` are the tile limits, so that sums
    are added in the same order. `identity` identifies the run: settings, hashes of the pictures and of the weights. `made`
    describes the environment, which may differ.
    """

    index: int
    step: int
    size: Size
    tensors: dict[str, Tensor]
    numbers: dict[str, float]
    halvings: int
    seconds: float
    limits: Limits
    identity: dict[str, Any]
    made: dict[str, Any]
    ended: tuple[tuple[int, int], ...] = ()
    bands: tuple[Rows, ...] = field(default=(), compare=False)

    def rows(self, group: Group) -> Iterator[tuple[str, Tensor]]:
        """Yield the whole tensors, on the CPU, one after the other. In a group all ranks must iterate; only rank 0 gets rows."""
        for name, tensor in self.tensors.items():
            yield name, group.gather_rows(tensor.detach(), self.bands)

    def whole(self, group: Group) -> State:
        """Return a copy on the CPU that later steps do not change, with all rows on rank 0 and none on other ranks."""
        live = {tensor.untyped_storage().data_ptr() for tensor in self.tensors.values()}
        tensors = {name: x.clone() if x.untyped_storage().data_ptr() in live else x for name, x in self.rows(group)}
        return dataclasses.replace(self, tensors=tensors, bands=_one_band(self.size, group))

    def distributed(self, group: Group, bands: Sequence[Rows], device: torch.device) -> State:
        """Return a whole state's rows `bands[rank]` for this process, on a device."""
        tensors = {}
        for name, tensor in self.tensors.items():
            tensors[name] = group.exchange_rows(tensor, self.bands, bands).clone().to(device)
        return dataclasses.replace(self, tensors=tensors, bands=tuple(bands))

    def picture(self) -> Tensor:
        """Return the averaged picture of a whole state, (1, 3, H, W) in [0, 1]."""
        return (self.tensors["average"] / (1 - self.numbers["missing"])).clamp_(0, 1)

    @property
    def bytes(self) -> int:
        """The size of the whole tensors in bytes."""
        return sum(3 * math.prod(self.size) * tensor.element_size() for tensor in self.tensors.values())


def _one_band(size: Size, group: Group) -> tuple[Rows, ...]:
    return (0, size[0]), *[(size[0], size[0])] * (group.size - 1)


def broadcast_state(state: State | None, group: Group) -> State | None:
    """Return the whole state of rank 0 on all ranks, with all rows on rank 0 and none on other ranks."""
    if group.size == 1:
        return state
    if group.rank == 0 and state is not None:
        empty = {name: tensor[:, :, :0].clone() for name, tensor in state.tensors.items()}
        group.broadcast(dataclasses.replace(state, tensors=empty))
        return dataclasses.replace(state, bands=_one_band(state.size, group))
    received: State | None = group.broadcast(None)
    return None if received is None else dataclasses.replace(received, bands=_one_band(received.size, group))


def digest(*tensors: Tensor) -> str:
    """Return the SHA-256 of the types, shapes and values of tensors, in hex."""
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(as_bytes(tensor))
    return hasher.hexdigest()


def as_bytes(tensor: Tensor) -> memoryview:
    """Return the values of a tensor as little-endian bytes, copied only if they are not contiguous on the CPU."""
    numbers = tensor.detach().cpu().contiguous().numpy()
    return memoryview(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe how the identities of two runs differ; the list is empty if one can continue the other."""
    found = []
    before, after = then["settings"], now["settings"]
    for name in sorted({*before, *after} - {*NOT_COMPARED, "init"}):
        if before.get(name) != after.get(name):
            found.append(f"{flag_name(name)} was {_words(before.get(name))} and is {_words(after.get(name))}")
    if then["init"] or now["init"]:
        if then["init"] != now["init"]:
            found.append("--init is a different picture")
    elif before["init"] != after["init"]:
        found.append(f"--init was {before['init']} and is {after['init']}")
    if then["content"] != now["content"]:
        found.append("the content picture differs")
    if len(then["styles"]) != len(now["styles"]):
        found.append(f"the number of style pictures was {len(then['styles'])} and is {len(now['styles'])}")
    else:
        pairs = enumerate(zip(then["styles"], now["styles"], strict=True), 1)
        found += [f"style picture {number} differs" for number, (a, b) in pairs if a != b]
    if then["regions"] != now["regions"]:
        found.append("the masks differ")
    if then["network"] != now["network"]:
        found.append(f"--network was {then['network']} and is {now['network']}")
    elif then["weights"] != now["weights"]:
        found.append("the weights of the network differ")
    return found


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "not set" if value is None else str(value)
