"""The devices of this machine, whether they compute gradients right, and the precisions that they are fast at."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DeviceError, SettingsError, near_miss
from ..files import reason

TOLERANCE, REDUCED_TOLERANCE = 2e-2, 5e-2
"""The largest relative errors of gradients in float32, and in reduced precision: bfloat16 rounds to 0.4 %, and many errors
average out."""


@dataclass(frozen=True)
class Precision:
    """The dtype of a network's features, and whether a GPU may round the factors of float32 products to TF32."""

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
    """Return the names of all available devices, the accelerator's first, the CPU last."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ("cpu",)
    names = [f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count())]
    return (*names, "cpu")


def synchronize(devices: Sequence[torch.device]) -> None:
    """Wait until accelerators have done all work that was given to them."""
    for device in dict.fromkeys(devices):
        if device.type != "cpu":
            torch.accelerator.synchronize(device)


def lost(error: BaseException, device: torch.device | str = "the accelerator") -> DeviceError:
    """Return the error of a device that failed, with the contents of its memory, as `torch.AcceleratorError` reports it."""
    return DeviceError(
        f"{device} failed ({reason(error)}), and its memory is lost; resume from a checkpoint, and see style_transfer --doctor"
    )


def gradient_error(device: torch.device, features: torch.dtype = torch.float32) -> float:
    """Return the relative error of a small network's gradient on `device` against the CPU in float64.

    The network consists of what this program uses: replicate padding, convolutions, ReLU, average pooling and a Gram matrix.
    After the first convolution its features have the dtype `features`.
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


def resolve(names: Sequence[str] | None) -> tuple[tuple[torch.device, ...], tuple[str, ...]]:
    """Return the devices with these names, and one-line notes for the user.

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
        return (torch.device("cpu"),), (f"{known[0]} {wrong}; using the CPU instead; see --doctor",)
    devices = _named(names, known)
    for device in dict.fromkeys(devices):
        _check(device)
    return devices, ()


def of_local_rank(names: Sequence[str] | None, local_rank: int) -> torch.device:
    """Return the device of one of several processes by its number on its machine.

    `names` are assigned in turn; left out, each process has the GPU of its number, or the CPU if there are none. Raises as
    `resolve` does.
    """
    known = names or [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    device = _named(known, available())[local_rank % len(known)]
    _check(device)
    return device


def _named(names: Sequence[str], known: Sequence[str]) -> tuple[torch.device, ...]:
    """Return devices by name; a type without a number is its first. Raises `SettingsError` for one that is not in `known`."""
    named = []
    for name in names:
        full = name if ":" in name or name == "cpu" else f"{name}:0"
        if full not in known:
            raise SettingsError(
                f"--devices {name!r} is not available{near_miss(name, known)}; this machine has {', '.join(known)}"
            )
        named.append(torch.device(full))
    return tuple(named)


def _check(device: torch.device) -> None:
    """Raise `DeviceError` if a device's gradients are wrong."""
    if device.type != "cpu" and (wrong := problem(device)) is not None:
        raise DeviceError(f"--devices {device} {wrong}; take another, such as cpu")


def problem(device: torch.device, features: torch.dtype = torch.float32) -> str | None:
    """Return what is wrong with a device's gradients, or None. `features` is the dtype of a network's features."""
    try:
        error = gradient_error(device, features)
    except (RuntimeError, NotImplementedError) as failure:
        return f"cannot be used ({reason(failure)})"
    if error < (TOLERANCE if features == torch.float32 else REDUCED_TOLERANCE):
        return None
    return f"computes wrong gradients (relative error {error:.1e})"


def choose_precision(name: str, devices: Sequence[torch.device], *, large: bool = False) -> Precision:
    """Return the precision for all of `devices` by its name in `PRECISIONS`, or chosen by what they support for `auto`.

    `auto` is bfloat16 on GPUs that have it (compute capability 8.0 and later, ROCm, XPU) and on CPUs with instructions for it
    (AVX512-BF16, AMX), and float16 on GPUs of 7.0 and later, if a test gradient is right. It is float32 elsewhere, and in place
    of float16 where gradients are `large`, beyond its range. Raises `DeviceError` if a device cannot work in the named precision.
    """
    distinct = tuple(dict.fromkeys(devices))
    if name == "auto":
        names = {_fast(device) for device in distinct}
        fast = names.pop() if len(names) == 1 else "fp32"
        chosen = PRECISIONS["fp32" if large and fast == "fp16" else fast]
        return PRECISIONS["fp32"] if any(_unfit(device, chosen) for device in distinct) else chosen
    chosen = PRECISIONS[name]
    for device in distinct:
        if wrong := _unfit(device, chosen):
            raise DeviceError(f"--precision {name} {wrong} on {device}; take fp32 or auto")
    return chosen


def _fast(device: torch.device) -> str:
    """Return the name of the fastest precision that a device supports."""
    if device.type == "xpu" or (device.type == "cpu" and _cpu_multiplies_bfloat16()):
        return "bf16"
    if device.type != "cuda":
        return "fp32"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip or capability >= (8, 0):
        return "bf16"
    return "fp16" if capability >= (7, 0) else "fp32"


def _cpu_multiplies_bfloat16() -> bool:
    """Return whether the CPU has instructions for products of bfloat16 that oneDNN, which computes convolutions, may use."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "ALL"
    if limit.upper() not in ("ALL", "DEFAULT") and not any(name in limit.upper() for name in ("BF16", "AMX", "FP16", "AVX10")):
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


@functools.cache
def _unfit(device: torch.device, precision: Precision) -> str | None:
    """Return why a device cannot compute in a precision, or None."""
    if precision.tf32 and device.type != "cuda":
        return "is not available"
    return None if precision.dtype == torch.float32 else problem(device, precision.dtype)
