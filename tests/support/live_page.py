"""A live page under test, and iterates to show on it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from style_transfer.geometry.scales import Stage
from style_transfer.observers.console import TimeLeft
from style_transfer.observers.web import WebObserver

STAGES = tuple(Stage(scale=w, size=(h, w), style_sizes=(), steps=10) for h, w in ((8, 9), (16, 18)))


def pixels(size: tuple[int, int] = (8, 9)) -> np.ndarray:
    return np.full((*size, 3), 0.25, np.float32)


def iterate(step: int = 1, index: int = 0) -> Any:
    """Return what the page looks at of an iterate."""
    stage = STAGES[index]
    done = sum(s.work for s in STAGES[:index]) + stage.work // stage.steps * step
    ends = step == stage.steps
    return SimpleNamespace(
        stage=stage, index=index, stages=STAGES, step=step, steps=stage.steps, size=stage.size, tiles=(1,),
        loss=torch.tensor(3.0 / step), parts={"tv": torch.tensor(1.0 / step), "content relu4_2": torch.tensor(float("nan"))},
        seconds=float(step), memory=1 << 20, done=done, ends_scale=ends, ends_run=ends and index == 1,
    )  # fmt: skip


class Page(WebObserver):
    """The page with a shorter way to tell it of an iteration."""

    def tell(self, step: int, index: int = 0, picture: Callable[[], np.ndarray] | None = None) -> None:
        now = iterate(step, index)
        clock = TimeLeft(STAGES)
        left = clock.update(index, step, now.seconds)
        self.update(now, clock, left, picture or (lambda: pixels(now.size)))
