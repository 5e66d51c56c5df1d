"""Tasks in parallel, each on a CPU thread of its own.

Torch's own threads divide each operation and synchronise after it, which is slow for many small operations, above all when other
programs use the processor too.
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
def _task_threads(threads: int) -> ThreadPoolExecutor:
    """Return a pool of `threads` threads, in each of which torch uses one thread."""

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread adopts the number that was set last
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(threads, "task", start)
    started = threading.Barrier(threads)
    for future in [pool.submit(started.wait) for _ in range(threads)]:
        future.result()
    torch.set_num_threads(threads)  # for threads that start later
    return pool


@functools.cache
def _worker(index: int) -> ThreadPoolExecutor:
    """Return the thread of a device, always the same: cuDNN stores its plans for each thread and never frees them."""
    return ThreadPoolExecutor(1, f"worker-{index}")


def for_each(count: int, work: Callable[[int], T]) -> list[T]:
    """Return `work(index)` for each index below `count`, computed in parallel, each index always in the same thread."""
    futures = [_worker(index).submit(work, index) for index in range(count)]
    wait(futures)
    return [future.result() for future in futures]


def in_parallel(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Return the results of tasks, computed in parallel on one CPU thread each."""
    threads = torch.get_num_threads()
    if threads == 1 or len(tasks) < 2:
        return [task() for task in tasks]
    return list(_task_threads(threads).map(lambda task: task(), tasks))
