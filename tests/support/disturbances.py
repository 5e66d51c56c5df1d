"""Disturbances of a run in this process: signals at a certain iteration, numbers that are not finite."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from style_transfer import engine
from style_transfer.engine.iterate import Iterate
from style_transfer.evaluation.objective import Evaluation, Objective


def at_each_iteration(monkeypatch: pytest.MonkeyPatch, do: Callable[[Iterate], object]) -> None:
    """Make the engine of the command line call `do` with each iterate before it yields it."""
    original = engine.run

    def watched(*args: Any, **more: Any) -> Iterator[Iterate]:
        iterates = original(*args, **more)

        def each() -> Iterator[Iterate]:
            for iterate in iterates:
                do(iterate)
                yield iterate

        return each()

    monkeypatch.setattr(engine, "run", watched)


def stop_at(monkeypatch: pytest.MonkeyPatch, index: int, step: int, number: int = signal.SIGTERM) -> None:
    """Send a signal to this process at a step of the scale `index`."""
    at_each_iteration(monkeypatch, lambda it: os.kill(os.getpid(), number) if (it.index, it.step) == (index, step) else None)


def make_not_finite(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> list[int]:
    """Make loss and gradient NaN in the evaluations that `when` names, counted from 1; return the list of their numbers."""
    evaluate, calls, hit = Objective.evaluate, [0], []

    def bad(self: Objective, image: Tensor, *more: Any) -> Evaluation:
        found = evaluate(self, image, *more)
        calls[0] += 1
        if when(calls[0]):
            hit.append(calls[0])
            assert image.grad is not None
            image.grad *= torch.nan
            return Evaluation(found.loss * torch.nan, found.parts)
        return found

    monkeypatch.setattr(Objective, "evaluate", bad)
    return hit
