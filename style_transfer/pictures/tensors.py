"""Pictures as tensors (1, 3, H, W) and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .picture import Picture, Pixels


def to_tensor(picture: Picture) -> Tensor:
    """Return a loaded picture as a float32 tensor (1, 3, H, W) in [0, 1]."""
    return from_pixels(picture.pixels)


def from_pixels(pixels: Pixels) -> Tensor:
    """Return float32 pixels (H, W, 3) as a tensor (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def to_pixels(image: Tensor) -> Pixels:
    """Return a tensor (1, C, H, W) as float32 pixels (H, W, C) on the CPU."""
    return image[0].permute(1, 2, 0).to(device="cpu", dtype=torch.float32).contiguous().numpy()
