"""Tasks in parallel."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from style_transfer.compute.threads import in_parallel


def test_tasks_run_in_parallel_on_one_thread_each_and_return_in_order() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        meeting = threading.Barrier(3, timeout=30)

        def task(number: int) -> torch.Tensor:
            meeting.wait()
            return torch.tensor([number, torch.get_num_threads()])

        found = in_parallel([functools.partial(task, number) for number in range(6)])
        assert [x.tolist() for x in found] == [[number, 1] for number in range(6)]
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
