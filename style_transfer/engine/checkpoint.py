"""Checkpoints: all that a run needs to go on, in one file that is whole or not there.

The file is a safetensors file: tensors, and JSON in its header. There are no pickles. The header holds a schema number, a
count that grows with every checkpoint (clocks can be set back), and the SHA-256 of the whole file, taken with zeros in its own
place. The last one stays beside the new one, as PATH.old; of the two the newest that is whole counts.

Random numbers: a run draws them for its first picture only, from `Settings.random_seed`, so a state has none of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..compute.distributed import Group, Rows
from ..errors import CheckpointError, OutputError
from ..evaluation.sweep import Limits
from ..files import atomic as files
from ..files.atomic import reason, shown
from ..geometry.scales import Size
from ..settings.settings import flag_name

SCHEMA = 1
MAX_HEADER = 1 << 20
BUSY = 50
"""A checkpoint by time waits at least so many times as long as the last one took from the run: 2 %."""
BLOCK = 1 << 24
DTYPES = {"F32": torch.float32, "F64": torch.float64}
NO_DIGEST = "0" * 64
ANYWHERE = ("devices", "sharding", "split", "tile", "memory", "deterministic", "cuda_graphs", "network", "weights", "preset")
"""Settings that say where a picture is made, or that are compared by what they stand for: the weights, a preset's settings."""


@dataclass(frozen=True)
class State:
    """A run after a step: what is needed to go on as if nothing had happened.

    `tensors` are shaped like the picture, (1, 3, H, W): image, average and what the optimizer has; in a group of processes
    this process's rows of them, `bands[rank]` (one band of all rows for a state that is whole). `numbers` go with them.
    `halvings` is how often the step size was halved. `ended` are scales that ended before their time, each with its last step;
    the state may be at the end of such a one. `identity` says of what run the state is: settings, hashes of the pictures
    and of the weights; `made` what it was made with, which may differ.
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
        """Yield the tensors whole, on the CPU, one after the other. In a group all must go through it; only rank 0 gets rows."""
        wanted = [(0, self.size[0]), *[(0, 0)] * (group.size - 1)]
        for name, tensor in self.tensors.items():
            yield name, group.exchange(tensor.detach(), self.bands, wanted).cpu()

    def whole(self, group: Group) -> State:
        """Return a copy on the CPU, with all rows on rank 0 and none elsewhere, that the run does not change any more."""
        live = {tensor.untyped_storage().data_ptr() for tensor in self.tensors.values()}
        tensors = {name: x.clone() if x.untyped_storage().data_ptr() in live else x for name, x in self.rows(group)}
        return dataclasses.replace(self, tensors=tensors, bands=_one_band(self.size, group))

    def shared(self, group: Group, bands: Sequence[Rows], home: torch.device) -> State:
        """Return a whole state with this process's rows, of those in `bands`, on the device `home`."""
        found = {}
        for name, tensor in self.tensors.items():
            found[name] = group.exchange(tensor, self.bands, bands).clone().to(home)
        return dataclasses.replace(self, tensors=found, bands=tuple(bands))

    def picture(self) -> Tensor:
        """Return the averaged picture of a whole state, (1, 3, H, W) in [0, 1]."""
        return (self.tensors["average"] / (1 - self.numbers["missing"])).clamp_(0, 1)

    @property
    def bytes(self) -> int:
        """Return the bytes of the whole tensors."""
        return sum(3 * math.prod(self.size) * tensor.element_size() for tensor in self.tensors.values())


def _one_band(size: Size, group: Group) -> tuple[Rows, ...]:
    return (0, size[0]), *[(size[0], size[0])] * (group.size - 1)


def joint(state: State | None, group: Group) -> State | None:
    """Return rank 0's whole state on all ranks, the others without rows."""
    if group.size == 1:
        return state
    if group.rank == 0 and state is not None:
        empty = {name: tensor[:, :, :0].clone() for name, tensor in state.tensors.items()}
        group.broadcast(dataclasses.replace(state, tensors=empty))
        return dataclasses.replace(state, bands=_one_band(state.size, group))
    found: State | None = group.broadcast(None)
    return None if found is None else dataclasses.replace(found, bands=_one_band(found.size, group))


def digest(*tensors: Tensor) -> str:
    """Return the SHA-256 of tensors' types, shapes and numbers, in hex."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """Return the numbers of a CPU tensor as bytes, little-endian, copied only if they do not lie in order."""
    numbers = tensor.detach().cpu().contiguous().numpy()
    return memoryview(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return how the run of a state differs from another, in words; nothing if it can go on with it."""
    found = []
    before, after = then["settings"], now["settings"]
    for name in sorted({*before, *after} - {*ANYWHERE, "init"}):
        if before.get(name) != after.get(name):
            found.append(f"{flag_name(name)} was {_words(before.get(name))} and is {_words(after.get(name))}")
    if then["init"] or now["init"]:
        if then["init"] != now["init"]:
            found.append("--init is another picture")
    elif before["init"] != after["init"]:
        found.append(f"--init was {before['init']} and is {after['init']}")
    if then["content"] != now["content"]:
        found.append("the content picture is another")
    if len(then["styles"]) != len(now["styles"]):
        found.append(f"there were {len(then['styles'])} style pictures and are {len(now['styles'])}")
    else:
        pairs = enumerate(zip(then["styles"], now["styles"], strict=True), 1)
        found += [f"style picture {number} is another" for number, (a, b) in pairs if a != b]
    if then["regions"] != now["regions"]:
        found.append("the masks are others")
    if then["network"] != now["network"]:
        found.append(f"--network was {then['network']} and is {now['network']}")
    elif then["weights"] != now["weights"]:
        found.append("the network's weights are others")
    return found


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "not given" if value is None else str(value)


# -------------------------------------------------------------------------------------------------------------- files


def older(path: Path) -> Path:
    """Return where the last checkpoint but one lies."""
    return path.with_name(path.name + ".old")


def save(path: str | Path, state: State, *, number: int = 1, tensors: Iterable[tuple[str, Tensor]] | None = None) -> None:
    """Write a whole state to `path`; what was there becomes PATH.old. Raises `OutputError`.

    `tensors` are the state's, whole and in its order, if they come one by one.
    """
    path = Path(path)

    def check(written: BinaryIO) -> None:
        entries, about = _read_header(written, os.fstat(written.fileno()).st_size)
        if list(entries) != list(state.tensors) or about["sha256"] == NO_DIGEST:
            raise OSError("what was read back is not what was written")
        if path.exists():
            path.replace(older(path))

    with files.replacing(path, check) as stream:
        _write(stream, state, number, state.tensors.items() if tensors is None else tensors)


def _write(stream: BinaryIO, state: State, number: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
    words = {torch_type: word for word, torch_type in DTYPES.items()}
    entries, at = {}, 0
    for name, tensor in state.tensors.items():
        end = at + 3 * math.prod(state.size) * tensor.element_size()
        entries[name] = {"dtype": words[tensor.dtype], "shape": [1, 3, *state.size], "data_offsets": [at, end]}
        at = end

    def header(sha256: str) -> bytes:
        about = {"schema": str(SCHEMA), "number": str(number), "sha256": sha256, "state": json.dumps(_described(state))}
        text = json.dumps({"__metadata__": about} | entries).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    found = hashlib.sha256(header(NO_DIGEST))
    stream.write(header(NO_DIGEST))
    for _, tensor in tensors:
        data = _bytes(tensor)
        for start in range(0, len(data), BLOCK):
            found.update(data[start : start + BLOCK])
            stream.write(data[start : start + BLOCK])
    stream.seek(0)
    stream.write(header(found.hexdigest()))
    stream.seek(0, os.SEEK_END)


def _described(state: State) -> dict[str, Any]:
    plain = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in ("tensors", "bands")}
    return plain | {"limits": dataclasses.asdict(state.limits)}


def _read_header(stream: BinaryIO, size: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the entries of the tensors and the metadata; raise ValueError, or KeyError, for what is no checkpoint."""
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ValueError("it is truncated, or no checkpoint")
    entries = json.loads(stream.read(length).decode())
    about = entries.pop("__metadata__")
    if int(about["schema"]) != SCHEMA:
        raise _FutureError(f"it has schema {int(about['schema'])} and this version of the program reads schema {SCHEMA}")
    at = 0
    for entry in entries.values():
        start, end = entry["data_offsets"]
        shape = entry["shape"]
        if start != at or len(shape) != 4 or not all(type(n) is int and 0 < n <= 2**31 for n in shape):
            raise ValueError("its header is damaged")
        at = start + math.prod(shape) * DTYPES[entry["dtype"]].itemsize
        if end != at:
            raise ValueError("its header is damaged")
    if at != size - 8 - length:
        raise ValueError("it is truncated")
    return entries, about


class _FutureError(ValueError):
    """A checkpoint of another version of the program."""


def load(path: str | Path) -> State:
    """Return the state in a file. Raises `CheckpointError` if it cannot be read, is damaged, or of another schema."""
    return _load(Path(path))[1]


def _load(path: Path) -> tuple[int, State]:
    name = shown(path)
    try:
        if not path.is_file():
            raise CheckpointError(f"{name}: no such checkpoint")
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            entries, about = _read_header(stream, size)
            end = stream.tell()
            stream.seek(0)
            head = stream.read(end)
            found = hashlib.sha256(head.replace(about["sha256"].encode(), NO_DIGEST.encode(), 1))
            tensors = {}
            for key, entry in entries.items():
                tensors[key] = torch.empty(entry["shape"], device="cpu", dtype=DTYPES[entry["dtype"]])
                data = memoryview(tensors[key].numpy().reshape(-1).view(np.uint8))  # type: ignore[arg-type]
                for start in range(0, len(data), BLOCK):
                    if stream.readinto(data[start : start + BLOCK]) != len(data[start : start + BLOCK]):
                        raise ValueError("it is truncated")
                    found.update(data[start : start + BLOCK])
            if found.hexdigest() != about["sha256"]:
                raise ValueError("its hash is wrong, so it is damaged")
        return int(about["number"]), _state(json.loads(about["state"]), tensors)
    except _FutureError as error:
        raise CheckpointError(f"{name} cannot be used: {error}; take the version that wrote it") from error
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {reason(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError, RuntimeError) as error:
        why = str(error) if type(error) is ValueError else "it is no checkpoint of this program"
        raise CheckpointError(f"{name} cannot be used: {shown(why)[:200]}") from error


def _state(about: Mapping[str, Any], tensors: dict[str, Tensor]) -> State:
    """Return the state of what a file holds. Raises ValueError, KeyError or TypeError for what no run has written."""
    limits, identity = about["limits"], dict(about["identity"])
    size = (int(about["size"][0]), int(about["size"][1]))
    if {"image", "average"} - tensors.keys() or any(tuple(tensor.shape) != (1, 3, *size) for tensor in tensors.values()):
        raise ValueError("its tensors do not belong together")
    for name in ("settings", "content", "styles", "init", "regions", "network", "weights"):
        _ = identity[name]
    _ = identity["settings"]["init"]
    return State(
        index=int(about["index"]),
        step=int(about["step"]),
        size=size,
        tensors=tensors,
        numbers={str(name): float(value) for name, value in about["numbers"].items()},
        halvings=int(about["halvings"]),
        seconds=float(about["seconds"]),
        limits=Limits(bool(limits["whole"]), tuple(map(int, limits["areas"])), tuple(map(int, limits["keep"])), limits["side"]),
        identity=identity,
        made=dict(about["made"]),
        ended=tuple((int(index), int(step)) for index, step in about.get("ended", ())),
        bands=((0, size[0]),),
    )


@dataclass(frozen=True)
class Found:
    """A state that was found in a file: where, its count, and remarks on the files that could not be used."""

    path: Path
    number: int
    state: State
    remarks: tuple[str, ...]


def newest(path: str | Path) -> Found | None:
    """Return the newest of two generations that is whole, or None if there is none at all.

    Raises `CheckpointError` if there are only damaged ones, or one of a later version of the program.
    """
    path = Path(path)
    whole: list[Found] = []
    problems: list[CheckpointError] = []
    for place in (path, older(path)):
        if os.path.lexists(place):
            try:
                whole.append(Found(place, *_load(place), ()))
            except CheckpointError as error:
                if isinstance(error.__cause__, _FutureError):
                    raise
                problems.append(error)
    if not whole and problems:
        raise problems[0]
    if not whole:
        return None
    found = max(whole, key=lambda each: each.number)
    return dataclasses.replace(found, remarks=tuple(f"{problem}; going on with {shown(found.path)}" for problem in problems))


class Keeper:
    """Keeps the checkpoints of a run at `path`: when one is due, writing it beside the run, and removing them in the end.

    One is due at the first step, `seconds` after the last (0: never by time) and at the end of a scale. The state is copied,
    and a thread writes it while the run goes on, if there is room for a copy; else it is
    written at once, tensor by tensor. In a group of processes all call `keep` alike and rank 0 writes.
    """

    def __init__(self, path: Path, seconds: float, *, number: int = 0) -> None:
        self.path = path
        self.seconds = seconds
        self.number = number
        self.cost = 0.0
        """Seconds that checkpoints have taken from the run: those it waited, and those the thread computed."""
        self.problem: OutputError | None = None
        self._last = time.monotonic()
        self._pause = 0.0
        self._thread: threading.Thread | None = None

    def due(self) -> bool:
        """Say whether it is time, by the clock, to keep the state."""
        if self._thread is not None and self._thread.is_alive():
            return False
        if self.number == 0:
            return True
        return bool(self.seconds) and time.monotonic() - self._last >= max(self.seconds, BUSY * self._pause)

    def keep(self, state: State, group: Group, room: int) -> None:
        """Write a state. `room` is how many bytes of memory a copy may take. `told` says what went wrong."""
        began = time.monotonic()
        self._join()
        self.number += 1
        number = self.number
        beside = group.broadcast(state.bytes <= room if not group.rank else None)
        if beside:
            whole = state.whole(group)
            if not group.rank:
                self._thread = threading.Thread(target=self._write, args=(whole, number), name="checkpoint", daemon=True)
                self._thread.start()
        else:
            rows = state.rows(group)
            if not group.rank:
                self._attempt(dataclasses.replace(state, bands=((0, state.size[0]),)), number, rows)
            for _ in rows:  # the others send theirs, and a write that failed must not keep them waiting
                pass
        self._last = time.monotonic()
        self._pause = self._last - began
        self.cost += self._pause

    def _write(self, state: State, number: int) -> None:
        self._attempt(state, number, None)
        used = time.thread_time()
        self.cost += used
        self._pause += used

    def _attempt(self, state: State, number: int, tensors: Iterable[tuple[str, Tensor]] | None) -> None:
        try:
            save(self.path, state, number=number, tensors=tensors)
        except OutputError as error:
            self.problem = error

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def told(self) -> OutputError | None:
        """Return what went wrong in writing since the last call, or None."""
        problem, self.problem = self.problem, None
        return problem

    def last(self) -> State | None:
        """Return the newest state that was kept, or None."""
        self._join()
        try:
            found = newest(self.path)
        except CheckpointError:
            return None
        return None if found is None else found.state

    def close(self) -> None:
        """Wait until what is being written is written."""
        self._join()

    def remove(self) -> None:
        """Remove the checkpoints: the run is complete."""
        self._join()
        for place in (older(self.path), self.path):
            with contextlib.suppress(OSError):
                place.unlink()


def settle(found: Found, path: Path) -> None:
    """Make a state that was found the newest at `path`, so that the next one does not push it out before a damaged one."""
    if found.path != path:
        found.path.replace(path)


def set_aside(path: Path) -> Path | None:
    """Move the checkpoints of another run out of the way and return where the newest is; None if there are none.

    They go to PATH.previous and PATH.previous.old, or, if something is there, to PATH.previous-2, and so on.
    """
    if not any(map(os.path.lexists, (path, older(path)))):
        return None
    for number in itertools.count(1):
        kept = path.with_name(f"{path.name}.previous" + (f"-{number}" if number > 1 else ""))
        if not any(map(os.path.lexists, (kept, older(kept)))):
            break
    for place, target in ((older(path), older(kept)), (path, kept)):
        if os.path.lexists(place):
            place.replace(target)
    return kept
