"""The history of loss terms over a run."""

from __future__ import annotations

import threading
from typing import Any

import torch
from support.live_page import iterate

from style_transfer.observers.history import History


def step(loss: float, **parts: float) -> Any:
    now = iterate(1)
    now.loss, now.parts = torch.tensor(loss), {name: torch.tensor(value) for name, value in parts.items()}
    return now


def test_curves_stay_within_memory() -> None:
    history = History(limit=100)
    for number in range(1, 2001):
        history.add(step(float(number), tv=1.0))
    history.read()
    assert len(history.rows) <= 101
    assert history.rows[0][:2] == (1, 1.0)
    steps = [int(row[0] or 0) for row in history.rows]
    assert steps == sorted(steps) and steps[-1] > 1900
    assert all(row[0] == row[1] for row in history.rows)
    first = history.since(-1, 0)
    assert first["rows"] == history.rows
    assert history.since(first["generation"], 10)["rows"] == history.rows[10:]
    assert history.since(first["generation"] - 1, 10)["from"] == 0


def test_rows_follow_the_names_of_terms_when_some_come_or_go() -> None:
    history = History()
    for parts in ({"a": 1.0, "tv": 2.0}, {"a": 1.0, "b": 3.0, "tv": 2.0}, {"tv": 5.0}):
        history.add(step(9.0, **parts))
        history.read()
    assert history.names == ("a", "tv", "b")
    assert history.rows == ((1, 9, 1, 2, None), (2, 9, 1, 2, 3), (3, 9, None, 5, None))


def test_names_and_rows_belong_together_before_a_new_term_is_read() -> None:
    history = History()
    history.add(step(9.0, a=1.0))
    history.read()
    history.add(step(9.0, a=1.0, b=2.0))
    curves = history.since(-1, 0)
    assert all(len(row) == 2 + len(curves["names"]) for row in curves["rows"])


def test_an_iterate_that_two_observers_add_counts_once() -> None:
    history = History(steps=10)
    now = step(1.0)
    history.add(now)
    history.add(now)
    assert (history.first, history.steps) == (10, 11)


def test_another_thread_always_sees_whole_rows() -> None:
    history = History(limit=20)
    over = threading.Event()
    broken: list[dict[str, Any]] = []

    def look() -> None:
        while not over.is_set():
            curves = history.since(-1, 0)
            every, rows = 1 << curves["generation"], curves["rows"]
            if any(len(row) != 2 + len(curves["names"]) for row in rows) or any(row[0] % every for row in rows[1:]):
                broken.append(curves)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(1, 3000):
        history.add(step(1.0, **{f"term {number // 200}": 1.0}))
        history.read()
    over.set()
    reader.join()
    assert not broken
