"""3x3 convolutions of stride 1 by Winograd's minimal filtering: a fraction of the multiplications, for float32 on CPUs.

F(4x4, 3x3) of Lavin and Gray (2015), "Fast Algorithms for Convolutional Neural Networks", https://arxiv.org/abs/1509.09308: a
tile of 6x6 inputs gives 4x4 outputs with 36 multiplications for each pair of channels instead of 144. Input and output
transforms and the sum over channels are matrix products, block by block of tiles, so that what is between them stays in the
processor's caches. Bias and ReLU are applied on the way, and the gradient with respect to the input is a convolution of
the same kind; weights are fixed and need none. Results differ from the direct sum by rounding, 1e-6 relative.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..compute.threads import at_once

TILE = 4
"""Outputs of a tile each way."""
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
"""Where polynomials are evaluated, beside infinity: one for each input of a tile but one.

With these the rounding error is half that of the usual 0, 1, -1, 2, -2, and 1.4 times the direct sum's. With each point there is
its reciprocal, so that a kernel read backwards has the same values in another order, scaled: the way back needs no filters of
its own."""
SPAN = TILE + 2
"""Inputs of a tile each way."""
BLOCK = 192
"""Tiles that are worked on at a time: fewer make the matrix products slow, more fall out of the caches."""
CHANNELS = 128
"""With fewer channels the transforms cost more than the products save."""
FEW = 12
"""With fewer tiles reading the filters, four times as large as the weights, costs more than the products save."""


class Convolution:
    """A 3x3 convolution of stride 1, padded by zeros, with a fixed weight (O, I, 3, 3) and bias (O,), float32 on the CPU."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.bias = bias
        self.filters = transformed(weight)

    @staticmethod
    def suits(weight: Tensor) -> bool:
        """Say whether a convolution with this weight is faster so."""
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and not weight.requires_grad
        return plain and weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= CHANNELS

    @staticmethod
    def worthwhile(x: Tensor) -> bool:
        """Say whether features (B, I, H, W) are large enough."""
        return -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE) >= FEW

    def __call__(self, x: Tensor, *, relu: bool) -> Tensor:
        """Return the convolution of `x` (B, I, H, W), rectified if `relu`: (B, O, H, W), channels last. Differentiable."""
        result: Tensor = _Convolve.apply(x, self, relu)
        return result


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, convolution: Convolution, relu: bool) -> Tensor:
        y = _each(lambda image: correlate(image, convolution.filters, bias=convolution.bias, relu=relu), x)
        ctx.convolution = convolution
        ctx.save_for_backward(*([y] if relu else []))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        filters = ctx.convolution.filters
        back = _each(lambda grad, gate=None: correlate(grad, filters, back=True, gate=gate), grads[0], *ctx.saved_tensors)
        return back, None, None


def _each(work: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """Return what `work` makes of the images of a batch, one by one."""
    found = [work(*(batch[i : i + 1] for batch in batches)) for i in range(len(batches[0]))]
    return found[0] if len(found) == 1 else torch.cat(found)


@functools.cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return what transforms the inputs (6, 6), the weights (6, 3) and the outputs (4, 6) along one axis, in float64.

    The Toom-Cook construction: inputs and weights become values of polynomials at `POINTS` and at infinity, products of them are
    the values of the product, and the outputs follow by transposition. Rows are scaled by powers of two so that
    inputs and weights grow alike.
    """
    about: dict[str, Any] = {"device": "cpu", "dtype": torch.float64}
    outputs = torch.tensor([[p**i for p in POINTS] + [float(i == TILE - 1)] for i in range(TILE)], **about)
    weights = torch.tensor([[p**i for i in range(3)] for p in POINTS] + [[0, 0, 1]], **about)
    inputs = torch.zeros(SPAN, SPAN, **about)
    for row, p in enumerate((*POINTS, None)):
        others = [q for q in POINTS if q != p]
        inputs[row, : len(others) + 1] = torch.from_numpy(np.poly(others)[::-1].copy())
        if p is not None:
            weights[row] /= math.prod(p - q for q in others)
    scale = torch.exp2(torch.log2(weights.norm(dim=1) / inputs.norm(dim=1)).div(2).round())[:, None]
    return inputs * scale, weights / scale, outputs


@functools.cache
def _planes(back: bool) -> tuple[Tensor, Tensor]:
    """Return the transforms of inputs (36, 36) and outputs (16, 36) along both axes, in float32.

    With `back` they are for kernels read backwards along both axes, whose values at p are p^2 times those at 1/p.
    """
    inputs, weights, outputs = transforms()
    if back:
        points = [*POINTS, math.inf]
        order = [points.index(math.inf if p == 0 else 0.0 if p == math.inf else 1 / p) for p in points]
        scale = (weights.flip(1) * weights[order]).sum(1) / weights[order].square().sum(1)
        inputs, outputs = inputs[order], (outputs * scale)[:, order]
    return torch.kron(inputs, inputs).float(), torch.kron(outputs, outputs).float()


def transformed(weight: Tensor) -> Tensor:
    """Return the filters of a weight (O, I, 3, 3) for each of the 36 products: (36, I, O)."""
    _, weights, _ = transforms()
    found = torch.einsum("ai,bj,ocij->abco", weights, weights, weight.double())
    return found.flatten(0, 1).to(weight.dtype).contiguous()


def correlate(
    x: Tensor,
    filters: Tensor,
    *,
    bias: Tensor | None = None,
    relu: bool = False,
    back: bool = False,
    gate: Tensor | None = None,
) -> Tensor:
    """Return the 3x3 correlation of `x` (1, I, H, W), padded by zeros, with `filters` of `transformed`: (1, O, H, W).

    `bias` (O,) is added and then, with `relu`, negative values become zero. With `back` it is the way back through such a
    correlation instead, from (1, O, H, W) to (1, I, H, W), and where `gate`, of the shape of `x`, is not positive, `x` counts
    as zero: the way back through a ReLU. Tensors have their channels last in memory.
    """
    if back:
        filters = filters.mT
    _, inputs, outputs = filters.shape
    height, width = x.shape[2:]
    result = torch.empty((1, outputs, height, width), device="cpu", dtype=x.dtype, memory_format=torch.channels_last)
    source, target = x[0].permute(1, 2, 0), result[0].permute(1, 2, 0)
    positive = None if gate is None else gate[0].permute(1, 2, 0)
    into, out = _planes(back)
    down, across = -(-height // TILE), -(-width // TILE)
    step = max(1, BLOCK // across)
    starts = range(0, down, step)

    def work(first: int) -> None:
        rows = min(step, down - first)
        count = rows * across
        # what is no longer needed makes room for what comes next: tiles for products, changed tiles for outputs
        padded, one, other = _room.take(
            (TILE * rows + 2) * (TILE * across + 2) * inputs,
            SPAN**2 * count * max(inputs, outputs),
            count * max(SPAN**2 * inputs, TILE**2 * outputs),
        )
        block = padded.view(TILE * rows + 2, TILE * across + 2, inputs)
        start = TILE * first - 1
        top, bottom = max(0, start), min(height, start + TILE * rows + 2)
        inner = block[top - start : bottom - start, 1 : width + 1]
        if positive is None:
            inner.copy_(source[top:bottom])
        else:
            torch.ops.aten.threshold_backward.grad_input(source[top:bottom], positive[top:bottom], 0, grad_input=inner)
        for edge in (block[: top - start], block[bottom - start :], block[:, :1], block[:, width + 1 :]):
            edge.zero_()
        tiles = one[: SPAN**2 * count * inputs].view(SPAN, SPAN, rows, across, inputs)
        tiles.copy_(block.unfold(0, SPAN, TILE).unfold(1, SPAN, TILE).permute(3, 4, 0, 1, 2))
        changed = other[: SPAN**2 * count * inputs].view(SPAN**2, count, inputs)
        torch.mm(into, tiles.view(SPAN**2, -1), out=changed.view(SPAN**2, -1))
        products = one[: SPAN**2 * count * outputs].view(SPAN**2, count, outputs)
        torch.bmm(changed, filters, out=products)
        found = other[: TILE**2 * count * outputs].view(TILE, TILE, rows, across, outputs)
        torch.mm(out, products.view(SPAN**2, -1), out=found.view(TILE**2, -1))
        if bias is not None:
            found += bias
        _put(target[TILE * first : TILE * (first + rows)], found, relu)

    def share(number: int, of: int) -> None:
        with torch.no_grad():
            for first in starts[number::of]:
                work(first)

    threads = torch.get_num_threads()
    if len(starts) >= threads:  # a thread works on whole blocks, and waits for the others once
        at_once([functools.partial(share, number, threads) for number in range(threads)])
    else:
        share(0, 1)
    return result


class _Room(threading.local):
    """Memory that each thread keeps for blocks of tiles: taking it anew each time costs more than the sums."""

    def __init__(self) -> None:
        self.flat = torch.empty(0, device="cpu", dtype=torch.float32)

    def take(self, *sizes: int) -> tuple[Tensor, ...]:
        """Return flat tensors of these sizes that hold anything, valid until the next call in this thread."""
        if len(self.flat) < sum(sizes):
            self.flat = torch.empty(sum(sizes), device="cpu", dtype=torch.float32)
        return self.flat[: sum(sizes)].split_with_sizes(sizes)


_room = _Room()


def _put(target: Tensor, found: Tensor, relu: bool) -> None:
    """Write tiles (4, 4, down, across, O), rectified if `relu`, to rows and columns (H, W, O), which may end within the last."""
    height, width = target.shape[:2]
    ends = [[(0, length // TILE, TILE), (length // TILE, -(-length // TILE), length % TILE)] for length in (height, width)]
    for (top, bottom, high), (left, right, wide) in itertools.product(*ends):
        if top < bottom and left < right:
            place = target[TILE * top : TILE * bottom, TILE * left : TILE * right]
            place = place.view(bottom - top, high, right - left, wide, -1)
            tiles = found[:high, :wide, top:bottom, left:right].permute(2, 0, 3, 1, 4)
            if relu:
                torch.clamp_min(tiles, 0, out=place)
            else:
                place.copy_(tiles)
