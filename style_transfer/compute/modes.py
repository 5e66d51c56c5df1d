"""Global modes of torch that a block of code needs, restored to the caller's afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch

CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""An environment variable that makes cuBLAS deterministic if it is set before the first use of a GPU."""


@contextlib.contextmanager
def convolution_precision(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Within the block a GPU's float32 convolutions round their factors to TF32, which is torch's default, if `tf32` is set."""
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


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Within the block products of float32 matrices are float32 on all devices, not TF32 or bfloat16.

    A caller may have reduced it by `torch.set_float32_matmul_precision`, or by `fp32_precision` of torch's backends. torch raises
    if both were used and disagree; then only the latter is changed.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:
        legacy = "highest"
    if legacy == "highest" and all(mode in ("none", "ieee") for mode in before):
        yield
        return
    if legacy != "highest":
        torch.set_float32_matmul_precision("highest")
    for backend, mode in zip(backends, before, strict=True):
        if mode not in ("none", "ieee"):
            backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        if legacy != "highest":
            torch.set_float32_matmul_precision(legacy)
        for backend, mode in zip(backends, before, strict=True):
            if backend.fp32_precision != mode:
                backend.fp32_precision = "none"  # as inherited from `torch.backends.fp32_precision`
            if backend.fp32_precision != mode:
                backend.fp32_precision = mode


@contextlib.contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Within the block torch uses only algorithms that give the same bits every time, and warns where it has none.

    A caller that has used a GPU before must have set the environment variable `CUBLAS` even earlier, as the command line does.
    """
    if not enabled:
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
def no_autocast(types: Iterable[str]) -> Iterator[None]:
    """Within the block operations on devices of these types ignore the caller's autocast."""
    with contextlib.ExitStack() as stack:
        for kind in types:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
