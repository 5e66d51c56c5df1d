"""Which devices there are, whether they compute right, and in which precision they are fast."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DeviceError, SettingsError, near_miss

T = TypeVar("T")
SELF_TEST_TOLERANCE = 2e-2
REDUCED_TOLERANCE = 5e-2
"""How far gradients in reduced precision may be off: bfloat16 rounds to 0.4 %, and errors of many values average out."""


@dataclass(frozen=True)
class Precision:
    """What a network works in: the type of its features, and whether a GPU may round float32 factors to TF32."""

    name: str
    dtype: torch.dtype
    tf32: bool = False


PRECISIONS = {
    "fp32": Precision("fp32", torch.float32),
    "tf32": Precision("tf32", torch.float32, tf32=True),
    "bf16": Precision("bf16", torch.bfloat16),
    "fp16": Precision("fp16", torch.float16),
}
"""By `Settings.precision`."""


def available() -> tuple[str, ...]:
    """Return the names of all devices that can be used, the accelerator's first, the CPU last."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ("cpu",)
    names = [f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count())]
    return (*names, "cpu")


@contextlib.contextmanager
def float32_math(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Within the block a GPU's convolutions round float32 to TF32, or do not; torch's default is that they do."""
    if device.type != "cuda":
        yield
        return
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision
    conv.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        conv.fp32_precision = before


class Transfer:
    """A tensor on its way to the host. Beginning it does not wait for the device."""

    def __init__(self, values: Tensor) -> None:
        self._event: Any = None
        self._values = values
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, device="cpu", dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(values.device))

    @property
    def ready(self) -> bool:
        """Whether the tensor has arrived, so that nothing is waited for."""
        return self._event is None or bool(self._event.query())

    def get(self) -> Tensor:
        """Return the tensor on the host; waits for it if it is not ready."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.cpu()


Play = Callable[[], None]
Record = Callable[[torch.device, Callable[[], T]], tuple[Play, T]]
"""Records the operations of some work on a device without doing them; returns what does them again, and what they change."""


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _record_cuda(device: torch.device, work: Callable[[], T]) -> tuple[Play, T]:
    """Record work as a CUDA graph: one call of the host has all of it done."""
    graph = torch.cuda.CUDAGraph()
    # what cuBLAS works in belongs to a stream; a recording gets memory for it of its own
    clear: Any = getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)
    clear()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.cuda.stream(torch.cuda.current_stream(device)))  # comes back even if the recording fails
        # other threads, of the live page say, may look at their own tensors meanwhile
        stack.enter_context(torch.cuda.graph(graph, stream=_capture_stream(device), capture_error_mode="thread_local"))
        found = work()
    clear()
    return graph.replay, found


RECORDERS: dict[str, Record[Any]] = {"cuda": _record_cuda}
"""By the type of device."""


CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""With this variable of the environment, set before a GPU is first used, cuBLAS gives the same bits every time."""


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within the block torch takes only algorithms that give the same bits every time; where it has none, it warns.

    Who uses a GPU before sets the variable `CUBLAS` first, as the command line does.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault(*CUBLAS)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def no_autocast(kinds: Iterable[str]) -> Iterator[None]:
    """Let operations compute in the types of their tensors on devices of these types, whatever the caller's autocast says."""
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def gradient_error(device: torch.device, features: torch.dtype = torch.float32) -> float:
    """Return the relative error of a small network's gradient on `device` against the CPU in float64.

    The network has what this program uses: replicate padding, convolutions, ReLU, average pooling and a Gram matrix. Its
    features are of the type `features` after the first convolution.
    """

    def gradient(device: torch.device, dtype: torch.dtype, features: torch.dtype) -> Tensor:
        random = torch.Generator().manual_seed(0)
        image = torch.rand(1, 3, 33, 47, generator=random).to(device, dtype).requires_grad_()
        first = (torch.randn(16, 3, 3, 3, generator=random) / 5).to(device, dtype)
        second = (torch.randn(32, 16, 3, 3, generator=random) / 12).to(device, features)
        x = F.relu(F.conv2d(F.pad(image, (1, 1, 1, 1), "replicate"), first)).to(features)
        x = F.relu(F.conv2d(F.avg_pool2d(x, 2) * 2, second, padding=1)).flatten(2)[0].to(dtype)
        (grad,) = torch.autograd.grad((x @ x.mT / x.shape[1]).square().sum(), image)
        return grad.cpu().to(torch.float64)

    exact = gradient(torch.device("cpu"), torch.float64, torch.float64)
    return float((gradient(device, torch.float32, features) - exact).norm() / exact.norm())


def choose_precision(wanted: str, devices: Sequence[torch.device], *, large: bool = False) -> Precision:
    """Return the precision that `Settings.precision` asks for on all of `devices`.

    `auto` is bfloat16 on GPUs that have it (compute capability 8.0 and later, ROCm, XPU) and on CPUs with instructions for it
    (AVX512-BF16, AMX), float16 on GPUs of 7.0 and later, if a gradient comes out right in it, and float32 elsewhere. Where
    gradients are `large`, beyond float16's range, it is not float16. Raises `DeviceError` if a device cannot work in the
    precision that is named.
    """
    distinct = tuple(dict.fromkeys(devices))
    if wanted == "auto":
        names = {_fast(device) for device in distinct}
        name = names.pop() if len(names) == 1 else "fp32"
        chosen = PRECISIONS["fp32" if large and name == "fp16" else name]
        return PRECISIONS["fp32"] if any(_unfit(device, chosen) for device in distinct) else chosen
    chosen = PRECISIONS[wanted]
    for device in distinct:
        if problem := _unfit(device, chosen):
            raise DeviceError(f"--precision {wanted} {problem} on {device}; take fp32, or leave it at auto")
    return chosen


def _fast(device: torch.device) -> str:
    """Return the name of the precision that a device is fast in by what it can do."""
    if device.type == "xpu" or (device.type == "cpu" and _cpu_multiplies_bfloat16()):
        return "bf16"
    if device.type != "cuda":
        return "fp32"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip or capability >= (8, 0):
        return "bf16"
    return "fp16" if capability >= (7, 0) else "fp32"


def _cpu_multiplies_bfloat16() -> bool:
    """Say whether the CPU has instructions for products of bfloat16, and oneDNN, which does the convolutions, may use them."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL"
    if limit.upper() not in ("ALL", "DEFAULT") and not any(name in limit.upper() for name in ("BF16", "AMX", "FP16", "AVX10")):
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


@functools.cache
def _unfit(device: torch.device, precision: Precision) -> str | None:
    """Return why a device cannot work in a precision, or None."""
    if precision.tf32 and device.type != "cuda":
        return "is not there"
    if precision.dtype == torch.float32:
        return None
    try:
        error = gradient_error(device, precision.dtype)
    except (RuntimeError, NotImplementedError) as failure:
        return f"does not work ({str(failure).splitlines()[0][:200]})"
    return None if error < REDUCED_TOLERANCE else f"gives wrong gradients (relative error {error:.1e})"


def resolve(names: Sequence[str] | None) -> tuple[tuple[torch.device, ...], tuple[str, ...]]:
    """Return the devices to work on, and one-line notes for the user.

    Without names: the accelerator (CUDA or ROCm, XPU, MPS) if there is one and its gradients are right, else the CPU.
    Raises `SettingsError` for a device that does not exist, `DeviceError` for a named one whose gradients are wrong.
    """
    known = available()
    if names is None:
        if known[0] == "cpu":
            return (torch.device("cpu"),), ()
        wrong = problem(torch.device(known[0]))
        if wrong is None:
            return (torch.device(known[0]),), ()
        return (torch.device("cpu"),), (f"{known[0]} {wrong}; working on the CPU instead; see --doctor",)
    devices = _named(names, known)
    for device in dict.fromkeys(devices):
        _check(device)
    return devices, ()


def of_local_rank(names: Sequence[str] | None, local_rank: int) -> torch.device:
    """Return the device of one of several processes by its number on its machine.

    They take turns in `names`; left out, each has the GPU of its number, or the CPU if there are none. Raises as `resolve` does.
    """
    known = names or [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    device = _named(known, available())[local_rank % len(known)]
    _check(device)
    return device


def _named(names: Sequence[str], known: Sequence[str]) -> tuple[torch.device, ...]:
    """Return devices by their names, of which a type is its first. Raises `SettingsError` for one that is not among `known`."""
    found = []
    for name in names:
        full = name if ":" in name or name == "cpu" else f"{name}:0"
        if full not in known:
            raise SettingsError(f"--devices {name!r} is not there{near_miss(name, known)}; this machine has {', '.join(known)}")
        found.append(torch.device(full))
    return tuple(found)


def _check(device: torch.device) -> None:
    """Raise `DeviceError` if a device's gradients are wrong."""
    if device.type != "cpu" and (wrong := problem(device)) is not None:
        raise DeviceError(f"--devices {device} {wrong}; take another, such as cpu")


def problem(device: torch.device) -> str | None:
    """Return what is wrong with a device's gradients, or None."""
    try:
        error = gradient_error(device)
    except (RuntimeError, NotImplementedError) as failure:
        return f"cannot be used ({str(failure).splitlines()[0][:200]})"
    if not error < SELF_TEST_TOLERANCE:
        return f"computes wrong gradients (relative error {error:.1e})"
    return None
