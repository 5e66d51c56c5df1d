"""Square roots of symmetric positive semi-definite matrices.

Both functions go through an eigendecomposition in float64. A product of two covariances has a condition number
beyond what float32 resolves, and its smallest eigenvalues carry the gradient: iterations of the Newton-Schulz kind damp
just those (twelve steps overstate tr sqrt(A) by some per cent when there are fewer pixels than channels).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

FLOAT64_DEVICES = ("cpu", "cuda")


def exact(a: Tensor) -> Tensor:
    """Return `a` in float64, on its own device if that has float64, else on the CPU. Differentiable."""
    return a.to(torch.float64) if a.device.type in FLOAT64_DEVICES else a.cpu().to(torch.float64)


def sqrt_psd(a: Tensor) -> Tensor:
    """Return the square root of a symmetric positive semi-definite matrix (C, C), in its dtype, without a gradient.

    Eigenvalues that rounding made negative count as zero.
    """
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(exact(a))
        root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
        return root.to(device=a.device, dtype=a.dtype)


def trace_sqrt(a: Tensor, root: Tensor | None = None) -> Tensor:
    """Return tr sqrt(A) of a symmetric positive semi-definite matrix (C, C), or tr sqrt(R A R) for a symmetric `root` R.

    A scalar of A's dtype. The gradient is half the inverse square root, (1/2) A^(-1/2), or (1/2) R (R A R)^(-1/2) R (Bhatia,
    Jain, Lim 2019, "On the Bures-Wasserstein distance between positive definite matrices"): it comes with the value, and
    there is no way back through the decomposition. On the numerical null space, eigenvalues below C times the largest
    times float64's epsilon, where no gradient exists, it is zero: the pseudo-inverse.
    """
    result: Tensor = _TraceSqrt.apply(a, root)
    return result


class _TraceSqrt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, root: Tensor | None) -> Tensor:
        inner = exact(a)
        if root is not None:
            inner = root @ inner @ root
            inner = (inner + inner.mT) / 2
        values, vectors = torch.linalg.eigh(inner)
        floor = values[-1].clamp_min(0) * a.shape[-1] * torch.finfo(values.dtype).eps
        kept = values > floor
        roots: Tensor = values.clamp_min(0).sqrt()
        half_inverse = torch.where(kept, 0.5 / torch.where(kept, roots, 1), 0)
        sides = vectors if root is None else root @ vectors
        gradient = (sides * half_inverse) @ sides.mT
        ctx.save_for_backward(gradient.to(device=a.device, dtype=a.dtype))
        return roots.sum().to(device=a.device, dtype=a.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        gradient: Tensor = ctx.saved_tensors[0]
        return grads[0] * gradient, None
