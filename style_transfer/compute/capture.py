"""Work of a GPU for which the host does not wait: CUDA graphs, and transfers of tensors to the host."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Transfer:
    """A tensor in transfer to the host. Starting the transfer does not wait for the device."""

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
        """Whether the tensor has arrived, so that `get` does not wait."""
        return self._event is None or bool(self._event.query())

    def get(self) -> Tensor:
        """Return the tensor on the host, after waiting for it if it is not ready."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.cpu()


Replay = Callable[[], None]
Recorder = Callable[[torch.device, Callable[[], T]], tuple[Replay, T]]
"""Captures the operations of some work on a device without executing them; returns a function that executes them, and the
tensors that they write."""


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _record_cuda(device: torch.device, work: Callable[[], T]) -> tuple[Replay, T]:
    """Capture work as a CUDA graph, which one call of the host executes."""
    graph = torch.cuda.CUDAGraph()
    # cuBLAS's workspace belongs to a stream; a graph gets one of its own
    clear: Any = getattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)
    clear()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.cuda.device(device))
        stack.enter_context(torch.cuda.stream(torch.cuda.current_stream(device)))  # restored even if the capture fails
        # other threads, such as the live page's, may use their own tensors meanwhile
        stack.enter_context(torch.cuda.graph(graph, stream=_capture_stream(device), capture_error_mode="thread_local"))
        written = work()
    clear()
    return graph.replay, written


RECORDERS: dict[str, Recorder[Any]] = {"cuda": _record_cuda}
"""By the type of device."""
