"""Pictures for the live page: when the run copies one, and a thread that encodes them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from ...compute.resampling import resize
from ...pictures.tensors import to_pixels
from .pyramid import Pyramid

if TYPE_CHECKING:
    from torch import Tensor

    from ...geometry.scales import Size
    from ...pictures import Pixels

T = TypeVar("T")

INTERVAL = 0.5
"""The least seconds between two pictures."""
SHARE = 0.01
"""The share of the machine's time that copying and encoding pictures may take."""
RETRY = 15.0
"""Seconds without a picture after memory ran out for one."""


class Pictures:
    """Takes pictures of the run for viewers, and encodes them in a thread of its own.

    The time between two pictures is so long that copying and encoding take at most `SHARE` of the machine's time. Only the thread
    of the run calls `take`. Any thread may set `wanted` to request a picture after the current step. `show` stores the picture of
    a scale, and returns that of the scale before if it has just been completed.
    """

    def __init__(self, show: Callable[[int, Pyramid], Pyramid | None]) -> None:
        self.wanted = False
        self._show = show
        self._due = 0.0
        self._lock = threading.Lock()
        self._encoding = 0.0
        """Seconds of processor time spent on encoding since the last picture was taken."""
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="live page")

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last picture."""
        return time.monotonic() >= self._due

    def take(self, index: int, picture: Callable[[], Pixels], finish: Callable[[Pixels], Pixels]) -> None:
        """Show `picture()`, float32 (H, W, 3) in [0, 1], as the newest picture of scale `index`.

        The encoding thread applies `finish`, which gives the picture its final colours. Without memory for a copy, nothing is
        shown.
        """
        began = time.perf_counter()
        self.wanted = False
        try:
            pixels = picture()
        except MemoryError:  # the run needs the memory more than the page
            self._due = time.monotonic() + RETRY
            return
        with self._lock:
            spent = time.perf_counter() - began + self._encoding / (os.cpu_count() or 1)
            self._encoding = 0.0
        self._due = time.monotonic() + max(INTERVAL, spent / SHARE)
        completed = self._show(index, Pyramid(pixels, finish))
        if completed is not None:
            self._encoder.submit(completed.to_8_bits)

    @staticmethod
    def of_content(content: Tensor, largest: Size) -> Pyramid:
        """Return the content picture, (1, 3, H, W) in [0, 1], for the page, reduced to `largest` if it is larger."""
        if largest[0] < content.shape[2]:
            content = resize(content, largest, antialias=True).clamp(0, 1)
        return Pyramid(to_pixels(content)).to_8_bits()

    def encode(self, work: Callable[[], T]) -> Future[T]:
        """Call `work` in the encoding thread. Its time counts towards the time until the next picture."""

        def timed() -> T:
            began = time.thread_time()
            try:
                return work()
            finally:
                with self._lock:
                    self._encoding += time.thread_time() - began

        return self._encoder.submit(timed)

    def close(self) -> None:
        """End the thread after the current call."""
        self._encoder.shutdown(wait=False, cancel_futures=True)
