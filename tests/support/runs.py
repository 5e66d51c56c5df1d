"""Commands, runs, steps and results as observers see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from style_transfer.compute.distributed import LOCAL
from style_transfer.engine.control import Control
from style_transfer.files import Task
from style_transfer.geometry.scales import Stage
from style_transfer.observers.history import History
from style_transfer.observers.observer import Progress, Result, RunInfo


@dataclass
class Asked:
    """A command with some options."""

    given: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False
    json: bool = False
    rank: int = 0

    def options(self, kind: type) -> Any:
        return kind(**{each.name: self.given[each.name] for each in fields(kind) if each.name in self.given})


def run_info(output: Path = Path("o.png"), stages: Sequence[Stage] = (Stage(64, (48, 64), (), 4),), **about: Any) -> RunInfo:
    """Return what is known of a run before its first step."""
    values: dict[str, Any] = {
        "task": Task("c.png", ("s.png",), output), "content": torch.zeros(1, 3, 48, 64), "start": None, "stages": stages,
        "finish": lambda pixels: pixels, "recipe": {"program": "style_transfer 1"}, "identity": "x", "inputs": (),
        "max_pixels": 10**9, "checkpoint": None, "resumed": None, "seconds": 0.0, "history": History(), "control": Control(),
        "group": LOCAL, "report": lambda text: None,
    }  # fmt: skip
    return RunInfo(**values | about)


def progress(iterate: Any, left: float = 0.0, paused: float = 0.0, picture: Callable[[], np.ndarray] | None = None) -> Progress:
    """Return a completed step."""
    return Progress(iterate, left, left, 1.0, paused, picture or (lambda: np.zeros((48, 64, 3), np.float32)))


def result(iterate: Any = None, path: Path = Path("o.png"), status: str = "finished", **about: Any) -> Result:
    """Return how a run ended, after an iterate; without one, it was complete before it was resumed."""
    last = None if iterate is None else progress(iterate)
    return Result(path, status, (48, 64), last, resumable=False, **about)
