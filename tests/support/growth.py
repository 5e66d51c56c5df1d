"""A made-up run whose picture changes along a path that is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from style_transfer.compute.distributed import LOCAL

from .tiny import picture

SIZE = 48, 64
COARSE = [picture(seed, 3, 4, torch.float32) for seed in range(3)]
CORNERS = [
    torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).numpy() for coarse in COARSE
]
"""Smooth pictures, which lossy compression hardly changes."""


def painted(share: float) -> np.ndarray:
    """Return a picture on a path with a bend: from the first corner over the second to the third, float32 (H, W, 3)."""
    leg, part = divmod(min(share, 1 - 1e-9) * 2, 1)
    a, b = CORNERS[int(leg)], CORNERS[int(leg) + 1]
    return (a + (b - a) * np.float32(part)).astype(np.float32)


def seen(share: float) -> np.ndarray:
    """Return the same picture in 8 bits."""
    return np.rint(255 * painted(share)).astype(np.uint8)


def iterate(step: int, steps: int, share: float, index: int = 0, scales: int = 1, seconds: float | None = None) -> Any:
    """Return what observers need of an iterate whose picture is `share` of the path."""
    tensor = torch.from_numpy(painted(share)).permute(2, 0, 1)[None]
    ends = step == steps
    return SimpleNamespace(
        index=index, step=step, steps=steps, ends_scale=ends, ends_run=ends and index == scales - 1, group=LOCAL, blend_mask=None,
        seconds=float(step) if seconds is None else seconds, average=SimpleNamespace(value=lambda: tensor.clone()),
    )  # fmt: skip


def uneven(step: int, steps: int) -> float:
    """Return how far a run has come that changes most at the beginning, as real ones do."""
    return 1 - (1 - step / steps) ** 6
