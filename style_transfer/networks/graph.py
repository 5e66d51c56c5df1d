"""A network ready to run: padding, pooling, and its place on one or two devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .spec import Conv, NetworkSpec


def average_pool(x: Tensor) -> Tensor:
    """Return twice the mean of each 2x2 block, which keeps the magnitude of features about the same."""
    return F.avg_pool2d(x, 2) * 2


def l2_pool(x: Tensor) -> Tensor:
    """Return 0.78 times the L2 norm of each 2x2 block; its gradient is zero where the block is all zero."""
    squares = F.avg_pool2d(x.square(), 2) * 4
    return squares.clamp_min(torch.finfo(x.dtype).tiny).sqrt() * 0.78


def max_pool(x: Tensor) -> Tensor:
    """Return the maximum of each 2x2 block."""
    return F.max_pool2d(x, 2)


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {"average": average_pool, "l2": l2_pool, "max": max_pool}
"""Pooling by name. The factors 2 and 0.78 are style-transfer-pytorch's, found empirically."""


class Network:
    """A network with fixed weights.

    `state` holds the tensors `networks.weights.check` returns. With two devices, the steps from `spec.split` on
    run on the second. The dtype of all computation is that of the picture given to `forward`.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        state: Mapping[str, Tensor],
        *,
        pooling: str = "average",
        devices: Sequence[torch.device] = (torch.device("cpu"),),
        dtype: torch.dtype = torch.float32,
        source: str = "",
    ) -> None:
        self.spec = spec
        self.pooling = pooling
        self.devices = tuple(devices)
        self.dtype = dtype
        self.source = source
        self._pool = POOLINGS[pooling]
        self._mean = torch.tensor(spec.mean, dtype=dtype, device=self.devices[0]).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, dtype=dtype, device=self.devices[0]).view(1, 3, 1, 1)
        self._place: dict[str, torch.device] = {}
        self._weights: dict[str, tuple[Tensor, Tensor]] = {}
        device = self.devices[0]
        for step in spec.steps:
            if step.name == spec.split:
                device = self.devices[-1]
            self._place[step.name] = device
            if isinstance(step, Conv):
                weight, bias = (state[f"{step.key}.{kind}"].to(device=device, dtype=dtype) for kind in ("weight", "bias"))
                self._weights[step.name] = weight, bias

    def forward(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return the features (1, C, h, w) of a picture (1, 3, H, W) in [0, 1] at `layers`, by name.

        The first convolution sees the picture's edge replicated, the others zeros. Nothing beyond the deepest layer is run.
        """
        wanted = set(layers)
        features: dict[str, Tensor] = {}
        x = F.pad((image - self._mean) / self._std, (1, 1, 1, 1), "replicate")
        padding = 0
        for step in self.spec.steps:
            if len(features) == len(wanted):
                break
            x = x.to(self._place[step.name])
            if isinstance(step, Conv):
                before, after = step.layers
                x = F.conv2d(x, *self._weights[step.name], padding=padding)
                padding = 1
                if before in wanted:
                    features[before] = x
                x = F.relu(x, inplace=before not in wanted)
                if after in wanted:
                    features[after] = x
            else:
                x = self._pool(x)
                if step.name in wanted:
                    features[step.name] = x
        return features
