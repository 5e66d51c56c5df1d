"""Work on threads whose results keep their order."""

from __future__ import annotations

import threading

import pytest

from style_transfer.pictures import picture
from style_transfer.pictures.picture import in_order


def test_results_keep_their_order_and_few_are_ahead() -> None:
    started: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> int:
        with lock:
            started.append(number)
        return -number

    results = in_order(work, range(100))
    assert [next(results) for _ in range(5)] == [0, -1, -2, -3, -4]
    assert len(started) <= 5 + picture.THREADS + 1
    assert list(results) == [-number for number in range(5, 100)] and sorted(started) == list(range(100))
    assert list(in_order(work, [])) == []


def test_an_error_comes_at_its_place() -> None:
    results = in_order(lambda number: 6 // number, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
