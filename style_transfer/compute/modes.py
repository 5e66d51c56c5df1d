"""Global modes of torch that a block of code needs, restored to the caller's afterwards, also where threads' blocks overlap."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""An environment variable that makes cuBLAS deterministic if it is set before the first use of a GPU."""


class SharedMode:
    """A global mode that blocks of several threads may need at the same time.

    `change(exact)` is a context manager that sets the mode, or a looser one without `exact`, and restores the caller's. The first
    block to begin enters it, the last one to end leaves it. An exact block makes the mode exact for all until it ends.
    """

    def __init__(self, change: Callable[[bool], AbstractContextManager[None]]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._blocks: list[bool] = []
        self._held = contextlib.ExitStack()
        self._exact: bool | None = None

    @contextlib.contextmanager
    def block(self, *, exact: bool = True) -> Iterator[None]:
        """Within the block the mode is set."""
        try:
            with self._lock:
                self._blocks.append(exact)
                self._update()
            yield
        finally:
            with self._lock:
                self._blocks.remove(exact)
                self._update()

    def _update(self) -> None:
        wanted = any(self._blocks) if self._blocks else None
        if wanted == self._exact:
            return
        self._held.close()
        self._exact = None
        if wanted is not None:
            self._held.enter_context(self._change(wanted))
            self._exact = wanted


def convolution_precision(device: torch.device, *, tf32: bool) -> AbstractContextManager[None]:
    """Within the block a GPU's float32 convolutions round their factors to TF32, which is torch's default, if `tf32` is set."""
    return contextlib.nullcontext() if device.type != "cuda" else _convolutions.block(exact=not tf32)


@contextlib.contextmanager
def _change_convolutions(exact: bool) -> Iterator[None]:
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision
    conv.fp32_precision = "ieee" if exact else "tf32"
    try:
        yield
    finally:
        conv.fp32_precision = before


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Within the block products of float32 matrices are float32 on all devices, not TF32 or bfloat16."""
    with _products.block():
        yield


@contextlib.contextmanager
def _change_products(exact: bool) -> Iterator[None]:
    """Set exact products and restore what was before.

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


def deterministic(enabled: bool) -> AbstractContextManager[None]:
    """Within the block torch uses only algorithms that give the same bits every time, and warns where it has none.

    A caller that has used a GPU before must have set the environment variable `CUBLAS` even earlier, as the command line does.
    """
    return _algorithms.block() if enabled else contextlib.nullcontext()


@contextlib.contextmanager
def _change_algorithms(exact: bool) -> Iterator[None]:
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


_convolutions, _products, _algorithms = map(SharedMode, (_change_convolutions, _change_products, _change_algorithms))
