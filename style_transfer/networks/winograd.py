"""3x3 convolutions of stride 1 by Winograd's minimal filtering, for float32 on CPUs.

F(4x4, 3x3) of Lavin and Gray (2015), "Fast Algorithms for Convolutional Neural Networks", https://arxiv.org/abs/1509.09308: a
tile of 6x6 inputs gives 4x4 outputs with 36 multiplications for each pair of channels instead of 144. The transforms of inputs
and outputs and the sum over channels are matrix products. They are computed for one block of tiles after the other, so that
intermediate results stay in the processor's caches. Bias and ReLU are fused. The gradient with respect to the input is a
convolution of the same kind; weights are fixed and have no gradient. Results differ from the direct sum by rounding, 1e-6
relative.
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

from ..compute.threads import in_parallel

TILE = 4
"""Outputs of a tile along each axis."""
POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
"""The interpolation points of the Toom-Cook algorithm besides infinity, one fewer than a tile has inputs along an axis.

The rounding error is half of that with the usual 0, 1, -1, 2, -2, and 1.4 times that of the direct sum. The reciprocal of each
point is a point too, so that a reversed kernel has the same transformed values in another order, scaled: the backward pass
needs no filters of its own."""
SPAN = TILE + 2
"""Inputs of a tile along each axis."""
BLOCK = 192
"""Tiles in a block: with fewer the matrix products are slow, more exceed the caches."""
MIN_CHANNELS = 128
"""With fewer channels the transforms cost more than the products save."""
MIN_TILES = 12
"""With fewer tiles, reading the filters, four times as large as the weights, costs more than the products save."""


class WinogradConv:
    """A 3x3 convolution of stride 1 with zero padding, a fixed weight (O, I, 3, 3) and a bias (O,), float32 on the CPU."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.bias = bias
        self.filters = transform_weight(weight)

    @staticmethod
    def supports(weight: Tensor) -> bool:
        """Return whether this weight is fixed, float32, on the CPU, 3x3, and has enough channels for a gain."""
        fixed = weight.device.type == "cpu" and weight.dtype == torch.float32 and not weight.requires_grad
        return fixed and weight.shape[2:] == (3, 3) and min(weight.shape[:2]) >= MIN_CHANNELS

    @staticmethod
    def worthwhile(x: Tensor) -> bool:
        """Return whether features (B, I, H, W) are large enough for a gain."""
        return -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE) >= MIN_TILES

    def __call__(self, x: Tensor, *, relu: bool) -> Tensor:
        """Return the convolution of `x` (B, I, H, W), after a ReLU if `relu`: (B, O, H, W), channels last. Differentiable."""
        result: Tensor = _Convolve.apply(x, self, relu)
        return result


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: WinogradConv, relu: bool) -> Tensor:
        y = _map_images(lambda image: convolve(image, conv.filters, bias=conv.bias, relu=relu), x)
        ctx.conv = conv
        ctx.save_for_backward(*([y] if relu else []))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        filters = ctx.conv.filters

        def image_grad(grad: Tensor, output: Tensor | None = None) -> Tensor:
            return convolve(grad, filters, transpose=True, gate=output)

        return _map_images(image_grad, grads[0], *ctx.saved_tensors), None, None


def _map_images(function: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """Return the results of `function` for each image of the batches, as a batch."""
    images = [function(*(batch[i : i + 1] for batch in batches)) for i in range(len(batches[0]))]
    return images[0] if len(images) == 1 else torch.cat(images)


@functools.cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices that transform inputs (6, 6), weights (6, 3) and outputs (4, 6) along one axis, in float64.

    By the Toom-Cook algorithm inputs and weights become values of polynomials at `POINTS` and at infinity, products of these are
    the values of the product, and the outputs follow by transposition. Rows are scaled by powers of two so that inputs and
    weights are magnified alike.
    """
    options: dict[str, Any] = {"device": "cpu", "dtype": torch.float64}
    outputs = torch.tensor([[p**i for p in POINTS] + [float(i == TILE - 1)] for i in range(TILE)], **options)
    weights = torch.tensor([[p**i for i in range(3)] for p in POINTS] + [[0, 0, 1]], **options)
    inputs = torch.zeros(SPAN, SPAN, **options)
    for row, p in enumerate((*POINTS, None)):
        others = [q for q in POINTS if q != p]
        inputs[row, : len(others) + 1] = torch.from_numpy(np.poly(others)[::-1].copy())
        if p is not None:
            weights[row] /= math.prod(p - q for q in others)
    scale = torch.exp2(torch.log2(weights.norm(dim=1) / inputs.norm(dim=1)).div(2).round())[:, None]
    return inputs * scale, weights / scale, outputs


@functools.cache
def _transforms_2d(transpose: bool) -> tuple[Tensor, Tensor]:
    """Return the transforms of inputs (36, 36) and outputs (16, 36) along both axes, in float32.

    With `transpose` they are for kernels reversed along both axes, whose values at p are p^2 times those at 1/p.
    """
    inputs, weights, outputs = transforms()
    if transpose:
        points = [*POINTS, math.inf]
        order = [points.index(math.inf if p == 0 else 0.0 if p == math.inf else 1 / p) for p in points]
        scale = (weights.flip(1) * weights[order]).sum(1) / weights[order].square().sum(1)
        inputs, outputs = inputs[order], (outputs * scale)[:, order]
    return torch.kron(inputs, inputs).float(), torch.kron(outputs, outputs).float()


def transform_weight(weight: Tensor) -> Tensor:
    """Return the filters of a weight (O, I, 3, 3), one matrix for each of the 36 products: (36, I, O)."""
    _, weights, _ = transforms()
    filters = torch.einsum("ai,bj,ocij->abco", weights, weights, weight.double())
    return filters.flatten(0, 1).to(weight.dtype).contiguous()


def convolve(
    x: Tensor,
    filters: Tensor,
    *,
    bias: Tensor | None = None,
    relu: bool = False,
    transpose: bool = False,
    gate: Tensor | None = None,
) -> Tensor:
    """Return the 3x3 correlation of `x` (1, I, H, W), zero-padded, with `filters` of `transform_weight`: (1, O, H, W).

    `bias` (O,) is added, then, with `relu`, a ReLU is applied. With `transpose` the result is the gradient with respect to the
    input of such a correlation, from (1, O, H, W) to (1, I, H, W); values of `x` count as zero where `gate`, of the same shape,
    is not positive, which is the gradient of a ReLU. Tensors are channels last in memory.
    """
    if transpose:
        filters = filters.mT
    outputs, (height, width) = filters.shape[2], x.shape[2:]
    result = torch.empty((1, outputs, height, width), device="cpu", dtype=x.dtype, memory_format=torch.channels_last)
    source, target = x[0].permute(1, 2, 0), result[0].permute(1, 2, 0)
    positive = None if gate is None else gate[0].permute(1, 2, 0)
    down, across = -(-height // TILE), -(-width // TILE)
    step = max(1, BLOCK // across)
    starts = range(0, down, step)

    def work(number: int, of: int) -> None:
        with torch.no_grad():
            for first in starts[number::of]:
                top = TILE * first
                rows = target[top : top + TILE * step]
                _convolve_block(source, positive, top, rows, filters, _transforms_2d(transpose), bias, relu)

    threads = torch.get_num_threads()
    if len(starts) >= threads:  # each thread computes whole blocks, so that threads synchronise only once
        in_parallel([functools.partial(work, number, threads) for number in range(threads)])
    else:
        work(0, 1)
    return result


class _Buffers(threading.local):
    """Memory for blocks of tiles that each thread keeps: to allocate it for each block takes longer than to compute the block."""

    def __init__(self) -> None:
        self.flat = torch.empty(0, device="cpu", dtype=torch.float32)

    def take(self, *sizes: int) -> tuple[Tensor, ...]:
        """Return uninitialised flat tensors of these sizes, valid until the next call in this thread."""
        if len(self.flat) < sum(sizes):
            self.flat = torch.empty(sum(sizes), device="cpu", dtype=torch.float32)
        return self.flat[: sum(sizes)].split_with_sizes(sizes)


_buffers = _Buffers()


def _convolve_block(
    source: Tensor,
    gate: Tensor | None,
    top: int,
    target: Tensor,
    filters: Tensor,
    matrices: tuple[Tensor, Tensor],
    bias: Tensor | None,
    relu: bool,
) -> None:
    """Write to `target` (h, W, O) the rows from `top` on of the convolution of `source` (H, W, I), as in `convolve`."""
    (height, width, inputs), outputs = source.shape, filters.shape[2]
    down, across = -(-target.shape[0] // TILE), -(-width // TILE)
    count = down * across
    # the second buffer holds the tiles, then the products; the third holds the transformed tiles, then the outputs
    padded, second, third = _buffers.take(
        (TILE * down + 2) * (TILE * across + 2) * inputs,
        SPAN**2 * count * max(inputs, outputs),
        count * max(SPAN**2 * inputs, TILE**2 * outputs),
    )
    block = padded.view(TILE * down + 2, TILE * across + 2, inputs)
    start = top - 1
    upper, lower = max(0, start), min(height, start + TILE * down + 2)
    inner = block[upper - start : lower - start, 1 : width + 1]
    if gate is None:
        inner.copy_(source[upper:lower])
    else:
        torch.ops.aten.threshold_backward.grad_input(source[upper:lower], gate[upper:lower], 0, grad_input=inner)
    for edge in (block[: upper - start], block[lower - start :], block[:, :1], block[:, width + 1 :]):
        edge.zero_()
    tiles = second[: SPAN**2 * count * inputs].view(SPAN, SPAN, down, across, inputs)
    tiles.copy_(block.unfold(0, SPAN, TILE).unfold(1, SPAN, TILE).permute(3, 4, 0, 1, 2))
    transformed = third[: SPAN**2 * count * inputs].view(SPAN**2, count, inputs)
    torch.mm(matrices[0], tiles.view(SPAN**2, -1), out=transformed.view(SPAN**2, -1))
    products = second[: SPAN**2 * count * outputs].view(SPAN**2, count, outputs)
    torch.bmm(transformed, filters, out=products)
    result = third[: TILE**2 * count * outputs].view(TILE, TILE, down, across, outputs)
    torch.mm(matrices[1], products.view(SPAN**2, -1), out=result.view(TILE**2, -1))
    if bias is not None:
        result += bias
    _write_tiles(target, result, relu)


def _write_tiles(target: Tensor, tiles: Tensor, relu: bool) -> None:
    """Write tiles (4, 4, down, across, O), after a ReLU if `relu`, to `target` (H, W, O), which may end within the last ones."""
    height, width = target.shape[:2]
    ends = [[(0, length // TILE, TILE), (length // TILE, -(-length // TILE), length % TILE)] for length in (height, width)]
    for (top, bottom, high), (left, right, wide) in itertools.product(*ends):
        if top < bottom and left < right:
            place = target[TILE * top : TILE * bottom, TILE * left : TILE * right]
            place = place.view(bottom - top, high, right - left, wide, -1)
            part = tiles[:high, :wide, top:bottom, left:right].permute(2, 0, 3, 1, 4)
            if relu:
                torch.clamp_min(part, 0, out=place)
            else:
                place.copy_(part)
