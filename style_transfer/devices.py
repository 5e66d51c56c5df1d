"""Which devices there are, and whether they compute right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import DeviceError, SettingsError, near_miss

SELF_TEST_TOLERANCE = 2e-2


def available() -> tuple[str, ...]:
    """Return the names of all devices that can be used, the accelerator's first, the CPU last."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ("cpu",)
    names = [f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count())]
    return (*names, "cpu")


def gradient_error(device: torch.device) -> float:
    """Return the relative error of a small network's gradient on `device` against the CPU in float64.

    The network has what this program uses: replicate padding, convolutions, ReLU, average pooling and a Gram matrix.
    """

    def gradient(device: torch.device, dtype: torch.dtype) -> Tensor:
        random = torch.Generator().manual_seed(0)
        image = torch.rand(1, 3, 33, 47, generator=random).to(device, dtype).requires_grad_()
        first = (torch.randn(16, 3, 3, 3, generator=random) / 5).to(device, dtype)
        second = (torch.randn(32, 16, 3, 3, generator=random) / 12).to(device, dtype)
        x = F.relu(F.conv2d(F.pad(image, (1, 1, 1, 1), "replicate"), first))
        x = F.relu(F.conv2d(F.avg_pool2d(x, 2) * 2, second, padding=1)).flatten(2)[0]
        (grad,) = torch.autograd.grad((x @ x.mT / x.shape[1]).square().sum(), image)
        return grad.cpu().to(torch.float64)

    exact = gradient(torch.device("cpu"), torch.float64)
    return float((gradient(device, torch.float32) - exact).norm() / exact.norm())


def resolve(names: Sequence[str] | None) -> tuple[tuple[torch.device, ...], tuple[str, ...]]:
    """Return the devices to work on, and one-line notes for the user.

    Without names: the accelerator (CUDA or ROCm, XPU, MPS) if there is one and its gradients are right, else the CPU.
    Raises `SettingsError` for a device that does not exist, `DeviceError` for a named one whose gradients are wrong.
    """
    known = available()
    if names is None:
        if known[0] == "cpu":
            return (torch.device("cpu"),), ()
        problem = _problem(torch.device(known[0]))
        if problem is None:
            return (torch.device(known[0]),), ()
        return (torch.device("cpu"),), (f"{known[0]} {problem}; working on the CPU instead",)
    devices = []
    for name in names:
        full = name if ":" in name or name == "cpu" else f"{name}:0"
        if full not in known:
            raise SettingsError(f"--devices {name!r} is not there{near_miss(name, known)}; this machine has {', '.join(known)}")
        devices.append(torch.device(full))
    for device in dict.fromkeys(devices):
        if device.type != "cpu" and (problem := _problem(device)) is not None:
            raise DeviceError(f"--devices {device} {problem}; take another, such as cpu")
    return tuple(devices), ()


def _problem(device: torch.device) -> str | None:
    """Return what is wrong with a device, or None."""
    try:
        error = gradient_error(device)
    except (RuntimeError, NotImplementedError) as failure:
        return f"cannot be used ({str(failure).splitlines()[0][:200]})"
    if not error < SELF_TEST_TOLERANCE:
        return f"computes wrong gradients (relative error {error:.1e})"
    return None
