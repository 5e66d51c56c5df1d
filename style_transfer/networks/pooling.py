"""The kinds of pooling that a network can be run with, each optionally fused with the ReLU before it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def mean_pool(
    x: Tensor, kernel: int = 2, stride: int = 2, padding: int = 0, ceil: bool = False, *, relu: bool = False, factor: int = 1
) -> Tensor:
    """Return `factor` (1 or 2) times the mean of each window; zeros of the padding count, as in Caffe."""
    if kernel == stride == 2 and padding == 0 and not ceil:  # all windows have four cells, so that one division does both
        return _pool_2x2(x, 4 // factor, relu)
    means = F.avg_pool2d(_relu_(x, relu), kernel, stride, padding, ceil)
    return means if factor == 1 else means * factor


def l2_pool(x: Tensor, kernel: int = 2, stride: int = 2, padding: int = 0, ceil: bool = False, *, relu: bool = False) -> Tensor:
    """Return 0.78 times the L2 norm of each window; the gradient is zero where the window is all zero."""
    x = _relu_(x, relu)
    wide = x.float() if x.dtype == torch.float16 else x  # the square of 256 is infinite in float16
    squares = F.avg_pool2d(wide.square(), kernel, stride, padding, ceil, divisor_override=1)
    return (squares.clamp_min(torch.finfo(x.dtype).tiny).sqrt() * 0.78).to(x.dtype)


def max_pool(x: Tensor, kernel: int = 2, stride: int = 2, padding: int = 0, ceil: bool = False, *, relu: bool = False) -> Tensor:
    """Return the maximum of each window."""
    return _relu_(F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil), relu)  # a ReLU after it has fewer cells to process


POOLINGS: dict[str, Callable[..., Tensor]] = {
    "average": functools.partial(mean_pool, factor=2),  # about preserves the magnitude of features
    "l2": l2_pool,
    "max": max_pool,
    "mean": mean_pool,
}
"""Functions by `Settings.pooling` that pool features (B, C, H, W) over kernel x kernel cells; `relu` applies a ReLU before.

The factors 2 and 0.78 are those of style-transfer-pytorch, found empirically for 2 x 2 windows.
"""


def _relu_(x: Tensor, relu: bool) -> Tensor:
    """Return features after a ReLU in place if `relu`, else unchanged."""
    return F.relu(x, inplace=True) if relu else x


def _pool_2x2(x: Tensor, divisor: int, relu: bool) -> Tensor:
    """Return the sums of complete 2 x 2 windows of features (B, C, H, W) over `divisor`; `relu` applies a ReLU in place first.

    On MPS torch's own backward pass is used: threshold_backward there has been wrong for gradients that are expanded and for
    outputs that are not contiguous (pytorch issues 175188 and 180201).
    """
    if not relu or x.device.type == "mps":
        return F.avg_pool2d(_relu_(x, relu), 2, divisor_override=divisor)
    result: Tensor = _ReluPool2x2.apply(x, divisor)
    return result


class _ReluPool2x2(torch.autograd.Function):
    """ReLU in place and 2 x 2 sums over a divisor; the backward pass makes the gradient in one pass over memory, not three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, divisor: int) -> Tensor:
        ctx.divisor = divisor
        ctx.save_for_backward(x.relu_())
        return F.avg_pool2d(x, 2, divisor_override=divisor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        output_grad, input_grad = grads[0] / ctx.divisor, torch.empty_like(x)
        input_grad[:, :, 2 * output_grad.shape[2] :].zero_()
        input_grad[:, :, :, 2 * output_grad.shape[3] :].zero_()
        cells, result = _windows(x), _windows(input_grad)
        expanded = output_grad[:, :, :, None, :, None].expand_as(cells)
        torch.ops.aten.threshold_backward(expanded, cells, 0, grad_input=result)
        return input_grad, None


def _windows(x: Tensor) -> Tensor:
    """Return the complete 2 x 2 windows of features (B, C, H, W) as a view (B, C, H // 2, 2, W // 2, 2)."""
    height, width = (length // 2 for length in x.shape[2:])
    complete = x[:, :, : 2 * height, : 2 * width]
    return torch.unflatten(torch.unflatten(complete, 3, (width, 2)), 2, (height, 2))
