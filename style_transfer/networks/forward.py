"""The forward pass: a network with its weights on one or more devices, run segment by segment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.devices import PRECISIONS
from ..compute.modes import convolution_precision
from .layers import Concat, Conv, Norm, Segment
from .pooling import POOLINGS
from .spec import NetworkSpec
from .winograd import WinogradConv


def local_response_norm(x: Tensor, step: Norm) -> Tensor:
    """Return features (1, C, H, W) normalised across channels as `step` specifies; sums are in float32 at least."""
    wide = x.float() if x.dtype.itemsize < 4 else x
    half = step.size // 2
    squares = F.pad(wide.square(), (0, 0, 0, 0, half, step.size - 1 - half))
    total = sum((squares[:, i : i + x.shape[1]] for i in range(1, step.size)), squares[:, : x.shape[1]])
    return (wide * (1 + step.alpha / step.size * total).pow(-step.beta)).to(x.dtype)


SPLIT_CHANNELS = 16
"""Channels of a picture split into high and low parts, a multiple of what tensor cores read at once: 9, 2 ones, 5 zeros."""


def split_picture(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a picture (1, 3, H, W) as channels (1, 16, H, W) of a shorter floating-point type with next to no loss.

    x = h + l, where h is x rounded to `dtype` and l is the rounded remainder. The channels are h, l, h, two of ones and zeros.
    Convolved with `split_weight` they give the convolution of the picture with twice the digits of `dtype`, since matrix units
    accumulate short types in float32. The gradient passes through both h.
    """
    high = x.to(dtype)
    low = (x.detach() - high.detach()).to(dtype)
    sizes = ((1, 2), (0, SPLIT_CHANNELS - 11))
    one, zero = (high.new_full((1, 1, 1, 1), value).expand(1, n, *x.shape[2:]) for value, n in sizes)
    return torch.cat([high, low, high, one, zero], 1).contiguous(memory_format=torch.channels_last)


def split_weight(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight (O, 16, k, k) to convolve `split_picture` with, from a weight (O, 3, k, k) and a bias (O,).

    The bias is the central weight of the channels of ones.
    """
    middle = weight.shape[2] // 2
    center = weight.new_zeros(len(weight), 1, *weight.shape[2:])
    center[:, 0, middle, middle] = bias
    (high, low), (one, rest) = ((x.to(dtype), (x - x.to(dtype)).to(dtype)) for x in (weight, center))
    zero = high.new_zeros(len(weight), SPLIT_CHANNELS - 11, *weight.shape[2:])
    return torch.cat([high, high, low, one, rest, zero], 1)


def _assign_devices(spec: NetworkSpec, devices: Sequence[torch.device], split: Sequence[str] | None) -> dict[str, torch.device]:
    """Return the device of each step; the second and later devices begin at the layers in `split`."""
    starts = list(split if split is not None else spec.balanced_split(len(devices)))
    device, later = devices[0], list(devices[1:])
    assigned = {}
    for step in spec.steps:
        if starts and starts[0] in (step.name, *step.layers):
            device = later.pop(0)
            del starts[0]
        assigned[step.name] = device
    return assigned


class Network:
    """A network with fixed weights.

    `state` holds the tensors that `weights.check` returns. With several devices, `split` names the layers at which the second
    and later ones begin (if None, such that memory is balanced). `dtype` is that of pictures; the network computes in
    `features`, a shorter type if given, and then reads the picture as `split_picture` returns it. `tf32` lets a GPU round
    float32 operands to TF32. `winograd` lets a CPU use Winograd convolution in float32: faster, but its filters take four times
    the memory of the weights. `source` describes where the weights come from, `digest` is their hash, `note` is a remark for the
    user.
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
        winograd: bool = True,
        source: str = "",
        digest: str = "",
        note: str | None = None,
    ) -> None:
        self.spec = spec
        self.measured: dict[Any, Any] = {}
        """Costs of its segments, cached here by `evaluation.costs`."""
        self.pooling = pooling
        self.devices = tuple(devices)
        self.dtype = dtype
        self.features = features or dtype
        self.tf32 = tf32
        self.source = source
        self.digest = digest
        self.note = note
        self._pool = POOLINGS[pooling]
        values = spec.preprocessing.mean, spec.preprocessing.std
        self._mean, self._std = (torch.tensor(x, dtype=dtype, device=self.devices[0]).view(1, 3, 1, 1) for x in values)
        self._split = self.features.itemsize < dtype.itemsize
        self._devices = _assign_devices(spec, self.devices, split)
        self._weights: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._winograd: dict[str, WinogradConv] = {}
        for step in spec.steps:
            if isinstance(step, Conv):
                self._add_conv(step, state, winograd=winograd)
        # training differentiates with respect to weights, possibly twice, which the fused operations do not support
        self._fixed = not any(weight.requires_grad for weight, _ in self._weights.values())

    def _add_conv(self, step: Conv, state: Mapping[str, Tensor], *, winograd: bool) -> None:
        """Convert a convolution's weight and bias to the types and the memory layout that it runs in."""
        first = step is self.spec.steps[0]
        device, dtype = self._devices[step.name], self.dtype if first else self.features
        weight, bias = (state[f"{step.key}.{part}"].to(device=device, dtype=dtype) for part in ("weight", "bias"))
        if self.spec.preprocessing.bgr and first:
            weight = weight.flip(1)  # equivalent to reversing the picture's channels
        added: Tensor | None = bias
        if self._split and first:
            weight, added = split_weight(weight, bias, self.features), None
        weight = weight.to(memory_format=self.memory_format(device))
        self._weights[step.name] = weight, added
        if winograd and step.stride == step.padding == step.groups == 1 and WinogradConv.supports(weight):
            self._winograd[step.name] = WinogradConv(weight, bias)

    @property
    def precision(self) -> str:
        """The name of the precision that it computes in, as in `Settings.precision`, or fp64."""
        precision = self.features, self.tf32
        return next((name for name, known in PRECISIONS.items() if (known.dtype, known.tf32) == precision), "fp64")

    def memory_format(self, device: torch.device) -> torch.memory_format:
        """Return the memory format of features on a device: channels last where convolutions are faster with it."""
        last = device.type == "cpu" or (device.type == "cuda" and (self.tf32 or self.features.itemsize < 4))
        return torch.channels_last if last and self.features.itemsize <= 4 else torch.preserve_format

    def float32_math(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which convolutions, forward and backward, round float32 operands to TF32 only with `tf32`."""
        return convolution_precision(self.devices[0], tf32=self.tf32)

    @property
    def storages(self) -> frozenset[int]:
        """The addresses of the weights' memory."""
        return frozenset(x.untyped_storage().data_ptr() for pair in self._weights.values() for x in pair if x is not None)

    def preprocess(self, image: Tensor) -> Tensor:
        """Return a picture (B, 3, H, W) in [0, 1] minus the mean, over the standard deviation, on the first device."""
        return (image - self._mean) / self._std

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Return the features (B, C, h, w) of a picture (B, 3, H, W) in [0, 1] at `layers`, by name.

        Only the steps that these layers depend on are run.
        """
        (segment,) = self.spec.segments(layers, cut=False)
        features: dict[str, Tensor] = {}
        self.run(segment, image, features.__setitem__)
        return features

    def run(self, segment: Segment, x: Tensor, visit: Callable[[str, Tensor], object]) -> Tensor:
        """Return a segment's output for `x`, the picture or the output of the segment before.

        `visit` is called with the name and the features of each requested layer as soon as they are computed. Operations that it
        adds to the autograd graph lie between the layers, so that in the backward pass the gradients of features are made one
        layer at a time instead of all before the first layer: a third less memory at the peak.
        """
        uses = dict(segment.uses)
        if segment.first:
            x = self.preprocess(x)
        values: dict[str | None, Tensor] = {segment.entry: x}
        deferred: set[str | None] = set()  # layers whose ReLU the pooling step applies
        for step, sources in zip(segment.steps, segment.graph.sources, strict=True):
            device = self._devices[step.name]
            inputs = [values[source].to(device, memory_format=self.memory_format(device)) for source in sources]
            for source in sources:
                uses[source] -= 1
                if not uses[source]:
                    del values[source]
            x = inputs[0]
            if isinstance(step, Conv):
                requested = step.name in segment.strides
                if step.name in segment.pooled and self._fixed and self._winograd_for(step, x) is None:
                    deferred.add(step.layers[-1])
                x = self._convolve(step, x, edge=sources == (None,), relu=not requested and step.layers[-1] not in deferred)
                if requested:
                    visit(step.name, x)
                    x = F.relu(x)
            elif isinstance(step, Norm):
                x = local_response_norm(x, step)
            elif isinstance(step, Concat):
                x = torch.cat(inputs, 1)
            else:
                x = self._pool(x, step.kernel, step.stride, step.padding, step.ceil, relu=sources[0] in deferred)
            inputs.clear()
            layer = step.layers[-1]
            values[layer] = x
            if layer in segment.strides:
                visit(layer, x)
        return x

    def _convolve(self, step: Conv, x: Tensor, *, edge: bool, relu: bool) -> Tensor:
        """Return a convolution of features (B, C, h, w), followed by a ReLU if `relu`. With `edge` they are the picture."""
        padding = step.padding
        if self.spec.replicate and edge:
            x = F.pad(x, (padding,) * 4, "replicate")
            padding = 0
        if self._split and edge:
            x = split_picture(x, self.features)
        winograd = self._winograd_for(step, x)
        if winograd is not None:
            return winograd(x, relu=relu)
        x = F.conv2d(x, *self._weights[step.name], stride=step.stride, padding=padding, groups=step.groups)
        return F.relu(x, inplace=True) if relu else x

    def _winograd_for(self, step: Conv, x: Tensor) -> WinogradConv | None:
        """Return the Winograd convolution of a step if it is faster for features (B, C, h, w), else None."""
        winograd = self._winograd.get(step.name)
        return winograd if winograd is not None and winograd.worthwhile(x) else None
