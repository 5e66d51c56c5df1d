"""A network ready to run: padding, pooling, and its place on one or two devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import PRECISIONS, float32_math
from .spec import Conv, NetworkSpec, Segment


def average_pool(x: Tensor) -> Tensor:
    """Return twice the mean of each 2x2 block, which keeps the magnitude of features about the same."""
    return F.avg_pool2d(x, 2, divisor_override=2)


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

    `state` holds the tensors `networks.weights.check` returns. With several devices, the layers in `split` are where the
    second and later ones begin (where memory balances, if left out). `dtype` is that of the pictures; all but the first
    convolution run in `features`, a lower one if given, which is the type of all features. `tf32` lets a GPU round float32.
    `source` says where the weights come from, `digest` is a hash of them, `note` what the user should know of them.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        state: Mapping[str, Tensor],
        *,
        pooling: str = "average",
        devices: Sequence[torch.device] = (torch.device("cpu"),),
        split: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
        features: torch.dtype | None = None,
        tf32: bool = False,
        source: str = "",
        digest: str = "",
        note: str | None = None,
    ) -> None:
        self.spec = spec
        self.pooling = pooling
        self.devices = tuple(devices)
        self.dtype = dtype
        self.source = source
        self.digest = digest
        self.note = note
        self._pool = POOLINGS[pooling]
        self._mean = torch.tensor(spec.mean, dtype=dtype, device=self.devices[0]).view(1, 3, 1, 1)
        self._std = torch.tensor(spec.std, dtype=dtype, device=self.devices[0]).view(1, 3, 1, 1)
        self._place: dict[str, torch.device] = {}
        self._weights: dict[str, tuple[Tensor, Tensor]] = {}
        starts = list(split if split is not None else spec.shares(len(self.devices)))
        device, later = self.devices[0], list(self.devices[1:])
        self.features = features or dtype
        self.tf32 = tf32
        kind = dtype
        for step in spec.steps:
            if starts and starts[0] in (step.name, *step.layers):
                device = later.pop(0)
                del starts[0]
            self._place[step.name] = device
            if isinstance(step, Conv):
                weight, bias = (state[f"{step.key}.{part}"].to(device=device, dtype=kind) for part in ("weight", "bias"))
                self._weights[step.name] = weight, bias
                if self._last_channels(device):
                    weight = weight.contiguous(memory_format=torch.channels_last)
                    self._weights[step.name] = weight, bias
                kind = self.features

    @property
    def precision(self) -> str:
        """The name of what the network works in, as in `Settings.precision`, or fp64."""
        works_in = self.features, self.tf32
        return next((name for name, known in PRECISIONS.items() if (known.dtype, known.tf32) == works_in), "fp64")

    def _last_channels(self, device: torch.device) -> bool:
        """Say whether tensors on a device have their channels last in memory, as units for short numbers want them."""
        return device.type in ("cuda", "cpu") and (self.tf32 or self.features.itemsize < 4)

    def float32_math(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which this network's convolutions, forward and backward, compute as it wants."""
        return float32_math(self.devices[0], tf32=self.tf32)

    @property
    def storages(self) -> frozenset[int]:
        """The addresses of the weights' memory."""
        return frozenset(x.untyped_storage().data_ptr() for pair in self._weights.values() for x in pair)

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Return the features (1, C, h, w) of a picture (1, 3, H, W) in [0, 1] at `layers`, by name.

        The first convolution sees the picture's edge replicated, the others zeros. Nothing beyond the deepest layer is run.
        """
        (segment,) = self.spec.segments(layers, cut=False)
        return self.run(segment, image)[0]

    def run(self, segment: Segment, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the features at the segment's layers, and its output. `x` is the picture or the last segment's output."""
        features: dict[str, Tensor] = {}
        padding = 1
        if segment.first:
            x = F.pad((x - self._mean) / self._std, (1, 1, 1, 1), "replicate")
            padding = 0
        for step in segment.steps:
            device = self._place[step.name]
            x = x.to(device, memory_format=torch.channels_last if self._last_channels(device) else torch.preserve_format)
            if isinstance(step, Conv):
                before, after = step.layers
                x = F.conv2d(x, *self._weights[step.name], padding=padding)
                padding = 1
                if before in segment.strides:
                    features[before] = x
                x = F.relu(x, inplace=before not in segment.strides).to(self.features)
                if after in segment.strides:
                    features[after] = x
            else:
                x = self._pool(x)
                if step.name in segment.strides:
                    features[step.name] = x
        return features, x
