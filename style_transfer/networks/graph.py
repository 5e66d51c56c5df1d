"""A network ready to run: its steps, pooling, padding, and its place on one or more devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..compute.devices import PRECISIONS, float32_math
from .spec import Concat, Conv, NetworkSpec, Norm, Segment
from .winograd import Convolution


def mean_pool(x: Tensor, kernel: int = 2, stride: int = 2, padding: int = 0, ceil: bool = False, *, relu: bool = False) -> Tensor:
    """Return the mean of each block; zeros of the padding count, as in Caffe."""
    return _means(x, kernel, stride, padding, ceil, relu, times=1)


def average_pool(
    x: Tensor, kernel: int = 2, stride: int = 2, padding: int = 0, ceil: bool = False, *, relu: bool = False
) -> Tensor:
    """Return twice the mean of each block, which keeps the magnitude of features about the same."""
    return _means(x, kernel, stride, padding, ceil, relu, times=2)


def _means(x: Tensor, kernel: int, stride: int, padding: int, ceil: bool, relu: bool, *, times: int) -> Tensor:
    if kernel == stride == 2 and padding == 0 and not ceil:  # in one pass: all blocks have the same number of cells
        return _averages(x, 4 // times, relu)
    means = F.avg_pool2d(_rectified(x, relu), kernel, stride, padding, ceil)
    return means if times == 1 else means * times


def l2_pool(x: Tensor, kernel: int = 2, stride: int = 2, padding: int = 0, ceil: bool = False, *, relu: bool = False) -> Tensor:
    """Return 0.78 times the L2 norm of each block; its gradient is zero where the block is all zero."""
    x = _rectified(x, relu)
    wide = x.float() if x.dtype == torch.float16 else x  # 256 squared is infinite there
    squares = F.avg_pool2d(wide.square(), kernel, stride, padding, ceil, divisor_override=1)
    return (squares.clamp_min(torch.finfo(x.dtype).tiny).sqrt() * 0.78).to(x.dtype)


def max_pool(x: Tensor, kernel: int = 2, stride: int = 2, padding: int = 0, ceil: bool = False, *, relu: bool = False) -> Tensor:
    """Return the maximum of each block."""
    return _rectified(F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil), relu)  # fewer cells, and the same


def _rectified(x: Tensor, relu: bool) -> Tensor:
    return F.relu(x, inplace=True) if relu else x


def _averages(x: Tensor, divisor: int, relu: bool) -> Tensor:
    """Return the sums of the 2 x 2 cells of whole blocks, divided; `relu` rectifies the features (B, C, H, W) in place before.

    MPS takes torch's own way back: its threshold_backward has been wrong for gradients without strides of their own, and for
    results with gaps (pytorch issues 175188 and 180201).
    """
    if not relu or x.device.type == "mps":
        return F.avg_pool2d(_rectified(x, relu), 2, divisor_override=divisor)
    result: Tensor = _Averages.apply(x, divisor)
    return result


def _blocks(x: Tensor) -> Tensor:
    """Return the whole blocks of features (B, C, H, W) as (B, C, h, 2, w, 2)."""
    height, width = (length // 2 for length in x.shape[2:])
    whole = x[:, :, : 2 * height, : 2 * width]
    return torch.unflatten(torch.unflatten(whole, 3, (width, 2)), 2, (height, 2))


class _Averages(torch.autograd.Function):
    """ReLU and pooling, whose gradient is made in one pass instead of three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, divisor: int) -> Tensor:
        ctx.divisor = divisor
        ctx.save_for_backward(x.relu_())
        return F.avg_pool2d(x, 2, divisor_override=divisor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        slope, found = grads[0] / ctx.divisor, torch.empty_like(x)
        found[:, :, 2 * slope.shape[2] :].zero_()
        found[:, :, :, 2 * slope.shape[3] :].zero_()
        cells, blocks = _blocks(x), _blocks(found)
        torch.ops.aten.threshold_backward(slope[:, :, :, None, :, None].expand_as(cells), cells, 0, grad_input=blocks)
        return found, None


def normalise(x: Tensor, step: Norm) -> Tensor:
    """Return local response normalisation across channels of features (1, C, H, W), its sums in float32 at least."""
    wide = x.float() if x.dtype.itemsize < 4 else x
    half = step.size // 2
    squares = F.pad(wide.square(), (0, 0, 0, 0, half, step.size - 1 - half))
    total = sum((squares[:, i : i + x.shape[1]] for i in range(1, step.size)), squares[:, : x.shape[1]])
    return (wide * (1 + step.alpha / step.size * total).pow(-step.beta)).to(x.dtype)


class Pooling(Protocol):
    """Returns features (1, C, H, W) pooled over kernel x kernel cells; blocks are 2 x 2 if nothing is said.

    With `relu` features are rectified before, perhaps in place.
    """

    def __call__(
        self, x: Tensor, kernel: int = 2, stride: int = 2, padding: int = 0, ceil: bool = False, *, relu: bool = False
    ) -> Tensor: ...


POOLINGS: dict[str, Pooling] = {"average": average_pool, "l2": l2_pool, "max": max_pool, "mean": mean_pool}
"""Pooling by name. The factors 2 and 0.78 are style-transfer-pytorch's, found empirically for blocks of 2 x 2."""


ALIGNED = 16
"""Channels of the picture's halves, a multiple of what units for short numbers read at a time: nine, two ones, zeros."""


def in_halves(x: Tensor, kind: torch.dtype) -> Tensor:
    """Return a picture (1, 3, H, W) as channels (1, 16, H, W) of a shorter type that lose next to nothing of it.

    x = h + l, the nearest short number and the nearest to what is left: h, l and h again, then ones. With `halved_weight` a
    convolution of these is that of the picture to twice the short type's digits, as units for short numbers add up in float32.
    The gradient goes through both h.
    """
    high = x.to(kind)
    low = (x.detach() - high.detach()).to(kind)
    one, zero = (high.new_full((1, 1, 1, 1), value).expand(1, n, *x.shape[2:]) for value, n in ((1, 2), (0, ALIGNED - 11)))
    return torch.cat([high, low, high, one, zero], 1).contiguous(memory_format=torch.channels_last)


def halved_weight(weight: Tensor, bias: Tensor, kind: torch.dtype) -> Tensor:
    """Return the weight (O, 16, k, k) for `in_halves` of a convolution (O, 3, k, k) and its bias, which stands at the ones."""
    middle = weight.shape[2] // 2
    center = weight.new_zeros(len(weight), 1, *weight.shape[2:])
    center[:, 0, middle, middle] = bias
    (high, low), (one, rest) = ((x.to(kind), (x - x.to(kind)).to(kind)) for x in (weight, center))
    zero = high.new_zeros(len(weight), ALIGNED - 11, *weight.shape[2:])
    return torch.cat([high, high, low, one, rest, zero], 1)


class Network:
    """A network with fixed weights.

    `state` holds the tensors `networks.weights.check` returns. With several devices, the layers in `split` are where the
    second and later ones begin (where memory balances, if left out). `dtype` is that of the pictures; the network runs in
    `features`, a lower one if given, the first convolution on the picture `in_halves`. `tf32` lets a GPU round float32.
    `winograd` lets a CPU convolve in float32 by Winograd's filtering: faster, with filters of four times the weights' memory.
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
        winograd: bool = True,
        source: str = "",
        digest: str = "",
        note: str | None = None,
    ) -> None:
        self.spec = spec
        self.measured: dict[Any, Any] = {}
        """What was found of its costs, by `memory`."""
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
        self._weights: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._winograd: dict[str, Convolution] = {}
        starts = list(split if split is not None else spec.shares(len(self.devices)))
        device, later = self.devices[0], list(self.devices[1:])
        self.features = features or dtype
        self.tf32 = tf32
        self._halves = self.features.itemsize < dtype.itemsize
        kind = dtype
        for step in spec.steps:
            if starts and starts[0] in (step.name, *step.layers):
                device = later.pop(0)
                del starts[0]
            self._place[step.name] = device
            if isinstance(step, Conv):
                weight, bias = (state[f"{step.key}.{part}"].to(device=device, dtype=kind) for part in ("weight", "bias"))
                if spec.bgr and step is spec.steps[0]:
                    weight = weight.flip(1)  # the same as turning the picture's channels around
                added: Tensor | None = bias
                if self._halves and step is spec.steps[0]:
                    weight, added = halved_weight(weight, bias, self.features), None
                weight = weight.to(memory_format=self.layout(device))
                self._weights[step.name] = weight, added
                if winograd and step.stride == step.padding == step.groups == 1 and Convolution.suits(weight):
                    self._winograd[step.name] = Convolution(weight, bias)
                kind = self.features
        # who learns weights may differentiate twice
        self._fixed = not any(weight.requires_grad for weight, _ in self._weights.values())

    @property
    def precision(self) -> str:
        """The name of what the network works in, as in `Settings.precision`, or fp64."""
        works_in = self.features, self.tf32
        return next((name for name, known in PRECISIONS.items() if (known.dtype, known.tf32) == works_in), "fp64")

    def layout(self, device: torch.device) -> torch.memory_format:
        """Return how features lie in memory on a device: channels last, where its units want that, or as they are made."""
        last = device.type == "cpu" or (device.type == "cuda" and (self.tf32 or self.features.itemsize < 4))
        return torch.channels_last if last and self.features.itemsize <= 4 else torch.preserve_format

    def float32_math(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which this network's convolutions, forward and backward, compute as it wants."""
        return float32_math(self.devices[0], tf32=self.tf32)

    @property
    def storages(self) -> frozenset[int]:
        """The addresses of the weights' memory."""
        return frozenset(x.untyped_storage().data_ptr() for pair in self._weights.values() for x in pair if x is not None)

    def forward(self, image: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Return the features (1, C, h, w) of a picture (1, 3, H, W) in [0, 1] at `layers`, by name.

        Nothing that these do not depend on is run.
        """
        (segment,) = self.spec.segments(layers, cut=False)
        features: dict[str, Tensor] = {}
        self.run(segment, image, features.__setitem__)
        return features

    def run(self, segment: Segment, x: Tensor, see: Callable[[str, Tensor], object]) -> Tensor:
        """Return a segment's output; `see` gets the name and the features of each of its layers once they are there.

        `x` is the picture or the last segment's output. What `see` adds to a graph has its place between the layers, so that on
        the way back its gradients are made one layer at a time, not all before the first: a third less memory at the peak.
        """
        uses = dict(segment.uses)
        if segment.first:
            x = (x - self._mean) / self._std
        values: dict[str | None, Tensor] = {segment.entry: x}
        late: set[str | None] = set()  # layers whose ReLU is left to pooling
        for step, read in zip(segment.steps, segment.graph.read, strict=True):
            device = self._place[step.name]
            inputs = [values[source].to(device, memory_format=self.layout(device)) for source in read]
            for source in read:
                uses[source] -= 1
                if not uses[source]:
                    del values[source]
            x = inputs[0]
            if isinstance(step, Conv):
                shown = step.name in segment.strides
                if step.name in segment.pooled and self._fixed and self._filtered(step, x) is None:
                    late.add(step.layers[-1])
                x = self._convolve(step, x, edge=read == (None,), relu=not shown and step.layers[-1] not in late)
                if shown:
                    see(step.name, x)
                    x = F.relu(x)
            elif isinstance(step, Norm):
                x = normalise(x, step)
            elif isinstance(step, Concat):
                x = torch.cat(inputs, 1)
            else:
                x = self._pool(x, step.kernel, step.stride, step.padding, step.ceil, relu=read[0] in late)
            inputs.clear()
            layer = step.layers[-1]
            values[layer] = x
            if layer in segment.strides:
                see(layer, x)
        return x

    def _convolve(self, step: Conv, x: Tensor, *, edge: bool, relu: bool) -> Tensor:
        """Return a convolution of features (1, C, h, w), rectified if `relu`. With `edge` they are the picture."""
        padding = step.padding
        if self.spec.replicate and edge:
            x = F.pad(x, (padding,) * 4, "replicate")
            padding = 0
        if self._halves and edge:
            x = in_halves(x, self.features)
        winograd = self._filtered(step, x)
        if winograd is not None:
            return winograd(x, relu=relu)
        x = F.conv2d(x, *self._weights[step.name], stride=step.stride, padding=padding, groups=step.groups)
        return F.relu(x, inplace=True) if relu else x

    def _filtered(self, step: Conv, x: Tensor) -> Convolution | None:
        """Return the Winograd convolution that a step takes for features (1, C, h, w), if it takes one."""
        winograd = self._winograd.get(step.name)
        return winograd if winograd is not None and winograd.worthwhile(x) else None
