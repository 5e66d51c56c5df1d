"""Checkpoint files.

A checkpoint is a safetensors file, tensors and a JSON header, without pickles, and is replaced atomically. The header holds a
schema number, a number that grows with every checkpoint of a run (clocks can be set back), and the SHA-256 of the whole file,
computed with zeros in its own place. The previous checkpoint stays as PATH.old; the newest undamaged one of the two counts.

Random numbers are only drawn for the first picture, from `Settings.random_seed`, so a state has none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from ..evaluation.sweep import Limits
from ..files import reason, replacing, shown
from .state import State, as_bytes

SCHEMA = 2
MAX_HEADER = 1 << 20
BLOCK = 1 << 24
DTYPES = {"F32": torch.float32, "F64": torch.float64}
NO_DIGEST = "0" * 64


def older(path: Path) -> Path:
    """Return the path of the previous checkpoint, PATH.old."""
    return path.with_name(path.name + ".old")


def save(path: str | Path, state: State, *, number: int = 1, tensors: Iterable[tuple[str, Tensor]] | None = None) -> None:
    """Write a whole state to `path`; an older checkpoint becomes PATH.old. Raises `OutputError`.

    `number` counts the checkpoints of a run. `tensors` yields the whole tensors in the order of `state.tensors`, where
    they are gathered one by one.
    """
    path = Path(path)

    def check(written: BinaryIO) -> None:
        entries, about = _read_header(written, os.fstat(written.fileno()).st_size)
        if list(entries) != list(state.tensors) or about["sha256"] == NO_DIGEST:
            raise OSError("the file read back differs from what was written")

    with replacing(path, check, keep_old=older(path)) as stream:
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
        data = as_bytes(tensor)
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
    """Return the entries of the tensors, and the metadata. Raises ValueError or KeyError if this is not a checkpoint."""
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ValueError("it is truncated or not a checkpoint")
    entries = json.loads(stream.read(length).decode())
    about = entries.pop("__metadata__")
    if int(about["schema"]) != SCHEMA:
        raise _SchemaError(f"it has schema {int(about['schema'])}, and this version of the program reads schema {SCHEMA}")
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


class _SchemaError(ValueError):
    """The checkpoint was written by another version of the program."""


def load(path: str | Path) -> State:
    """Return the state in a file. Raises `CheckpointError` if it cannot be read, is damaged or has another schema."""
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
    except _SchemaError as error:
        raise CheckpointError(f"{name} cannot be used: {error}; use the version that wrote it") from error
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {reason(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError, RuntimeError) as error:
        why = str(error) if type(error) is ValueError else "it is not a checkpoint of this program"
        raise CheckpointError(f"{name} cannot be used: {shown(why)[:200]}") from error


def _state(about: Mapping[str, Any], tensors: dict[str, Tensor]) -> State:
    """Return the state in a file's metadata and tensors. Raises ValueError, KeyError or TypeError if they are inconsistent."""
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
class Checkpoint:
    """A state read from a file: its path, its number, and remarks on files that could not be used."""

    path: Path
    number: int
    state: State
    remarks: tuple[str, ...]


def newest(path: str | Path) -> Checkpoint | None:
    """Return the newest undamaged checkpoint of PATH and PATH.old, or None if neither exists.

    Raises `CheckpointError` if all are damaged, or one was written by another version of the program.
    """
    path = Path(path)
    whole: list[Checkpoint] = []
    problems: list[CheckpointError] = []
    for place in (path, older(path)):
        if os.path.lexists(place):
            try:
                whole.append(Checkpoint(place, *_load(place), ()))
            except CheckpointError as error:
                if isinstance(error.__cause__, _SchemaError):
                    raise
                problems.append(error)
    if not whole and problems:
        raise problems[0]
    if not whole:
        return None
    found = max(whole, key=lambda each: each.number)
    return dataclasses.replace(found, remarks=tuple(f"{problem}; resuming from {shown(found.path)}" for problem in problems))


def make_current(checkpoint: Checkpoint, path: Path) -> None:
    """Move a checkpoint to `path`, so that the next one replaces a damaged file there and not this one."""
    if checkpoint.path != path:
        checkpoint.path.replace(path)


def set_aside(path: Path) -> Path | None:
    """Rename the checkpoints of another run and return the new path of the newest; None if there are none.

    They become PATH.previous and PATH.previous.old, or, if these exist, PATH.previous-2, and so on.
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
