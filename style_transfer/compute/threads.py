"""Several pieces of work at once, each on a CPU thread of its own.

Torch's own threads share each operation and meet after it, which is slow for many small ones, above all when other programs
want the processor too.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

T = TypeVar("T")


@functools.cache
def _workers(threads: int) -> ThreadPoolExecutor:
    """Return as many workers as torch has threads, each of which works on one."""

    def begin() -> None:
        torch.get_num_threads()  # a new thread takes the number that was set last when it first asks
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(threads, "worker", begin)
    begun = threading.Barrier(threads)
    for future in [pool.submit(begun.wait) for _ in range(threads)]:
        future.result()
    torch.set_num_threads(threads)  # so that later threads do
    return pool


@functools.cache
def _hand(index: int) -> ThreadPoolExecutor:
    """Return the thread that drives a device: always the same, since cuDNN keeps its plans a thread and never frees them."""
    return ThreadPoolExecutor(1, f"hand-{index}")


def for_each(count: int, work: Callable[[int], T]) -> list[T]:
    """Return what `work` returns for each number below `count`, all at once, each number always in the same thread."""
    futures = [_hand(index).submit(work, index) for index in range(count)]
    wait(futures)
    return [future.result() for future in futures]


def at_once(work: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each of `work` returns, at the same time, on one CPU thread each."""
    threads = torch.get_num_threads()
    if threads == 1 or len(work) < 2:
        return [task() for task in work]
    return list(_workers(threads).map(lambda task: task(), work))
