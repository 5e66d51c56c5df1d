"""A simulated accelerator for machines without one: a device "sim" that computes on the CPU but keeps its tensors apart.

Importing this module registers the device with torch as the machine's accelerator, so it must be imported in a process of its
own. A tensor on the device wraps one on the CPU. An operation on tensors of both raises `RuntimeError`, as an accelerator's does;
`TRAFFIC` counts transfers to the device and to the host, and numbers that the host waits for. `record` captures operations as a
CUDA graph does: they are not executed, their results hold nothing until the graph is replayed, and no transfer is allowed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

TRAFFIC: Counter[str] = Counter()
"""The number of tensors transferred `to device` and `to host`, of numbers `read`, and of graphs `replayed`."""
READS = (
    "_local_scalar_dense", "equal", "nonzero", "masked_select", "_linalg_eigh", "index_fill.int_Tensor", "index_fill_.int_Tensor",
)  # fmt: skip
"""Operations in which the host waits: for numbers, for a size that depends on them, or for a solver's error code.

Filling at an index with a tensor reads it, as in the gradient of a trace.
"""


class _Module:
    """The functions that torch needs in a device's module."""

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        pass


backend_registration._setup_privateuseone_for_python_backend("sim", backend_module=_Module())
torch.accelerator.empty_cache = lambda: None  # it keeps no memory of its own
torch.accelerator.reset_peak_memory_stats = torch.accelerator.synchronize = lambda device: None
torch.accelerator.get_memory_info = lambda device: (8 * 10**9, 16 * 10**9)
torch.accelerator.memory_allocated = torch.accelerator.memory_reserved = lambda device: 0
torch.accelerator.max_memory_allocated = lambda device: 0


class Simulated(Tensor):
    """A tensor on the device, around one on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Simulated:
        self: Simulated = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device="sim:0"
        )
        self.held = held
        return self

    def __init__(self, held: Tensor) -> None:
        pass

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Simulated({self.held!r})"

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _host(x: Any) -> Any:
    """Return an argument with tensors and devices replaced by those of the CPU."""
    if isinstance(x, Simulated):
        return x.held
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == "sim" else x


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU, and wrap its results if they belong to the device."""
    name = func.overloadpacket.__name__
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    here = [x for x in tensors if isinstance(x, Simulated)]
    if name in READS or str(func).removeprefix("aten.") in READS:
        TRAFFIC["read"] += 1
        _not_recorded(name)
    if name == "copy_":
        on_device = isinstance(args[0], Simulated)
        _note(isinstance(args[1], Simulated), on_device)
    else:
        on_device = bool(here)
        if name != "_to_copy" and here and any(x.dim() for x in tensors if not isinstance(x, Simulated)):
            raise RuntimeError(f"{func}: expected all tensors on the same device, but some are on sim:0 and some on cpu")
    if kwargs.get("device") is not None:
        wanted = torch.device(kwargs["device"]).type == "sim"
        if name == "_to_copy":
            _note(on_device, wanted)
        on_device = wanted
        kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"} | {"device": torch.device("cpu")}
    given = {id(x.held): x for x in here} | {id(x): x for x in tensors}

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor) or id(x) in given:
            return given.get(id(x), x)
        return Simulated(x) if on_device else x

    return tree_map(placed, _call(func, tree_map(_host, args), tree_map(_host, kwargs)))


class Tape:
    """A graph of operations during and after its capture."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, Any, dict[str, Any], list[tuple[Tensor, int]]]] = []
        self.changed: list[tuple[Tensor, Tensor]] = []
        self.made: list[Tensor] = []

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation on the CPU for the shapes of its results, and store it and the tensors that it changes."""
        inputs = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            if argument.name in given and argument.alias_info is not None and argument.alias_info.is_write:
                self.changed += [(tensor, tensor.clone()) for tensor in tree_leaves(given[argument.name])]
        found = func(*args, **kwargs)
        fresh = [
            (x, place)
            for place, x in enumerate(tree_leaves(found))
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in inputs
        ]
        self.made += [x for x, _ in fresh]
        self.entries.append((func, args, kwargs, fresh))
        return found

    def end(self) -> None:
        """Undo all changes, and overwrite all results with NaN."""
        for tensor, before in reversed(self.changed):
            if tensor.shape == before.shape:  # else it was an empty output argument
                tensor.copy_(before)
        for tensor in self.made:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)

    def replay(self) -> None:
        """Execute all operations on the same tensors."""
        TRAFFIC["replayed"] += 1
        for func, args, kwargs, fresh in self.entries:
            found = tree_leaves(func(*args, **kwargs))
            for tensor, place in fresh:
                tensor.copy_(found[place])


_tape: Tape | None = None


def record(device: torch.device, work: Any) -> tuple[Any, Any]:
    """Capture work; a `capture.Recorder`."""
    global _tape
    _tape = Tape()
    try:
        found = work()
    finally:
        tape, _tape = _tape, None
        tape.end()
    return tape.replay, found


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs) if _tape is None else _tape.run(func, args, kwargs)


def _not_recorded(what: str) -> None:
    if _tape is not None:
        raise RuntimeError(f"operation not permitted while a graph is recorded: {what}")


def _note(source: bool, target: bool) -> None:
    if source != target:
        _not_recorded("copying between device and host")
        TRAFFIC["to device" if target else "to host"] += 1


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
    return Simulated(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return Simulated(torch.empty_strided(size, stride, dtype=dtype))


def _eye(n: int, *, dtype: Any = None, **_: Any) -> Tensor:
    return Simulated(torch.eye(n, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _note(isinstance(source, Simulated), isinstance(target, Simulated))
    _call(torch.ops.aten.copy_.default, (_host(target), _host(source)), {})
    return target


_ATEN = torch.library.Library("aten", "IMPL")
_ATEN.impl("empty.memory_format", _empty, "PrivateUse1")
_ATEN.impl("empty_strided", _empty_strided, "PrivateUse1")
_ATEN.impl("eye", _eye, "PrivateUse1")  # torch's own resizes an empty tensor, which a wrapper does not notice
_ATEN.impl("_copy_from", _copy_from, "PrivateUse1")
_ALL = torch.library.Library("_", "IMPL")
_ALL.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")  # type: ignore[no-untyped-call]
