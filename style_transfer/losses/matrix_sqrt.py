"""Traces of square roots of symmetric positive semi-definite matrices, and their gradients.

They are computed in float64, by an eigendecomposition, or by an iteration whose convergence is checked. The condition number of a
product of two covariances is beyond the precision of float32, and its smallest eigenvalues contribute most to the gradient.
Plain Newton-Schulz steps converge slowest for these: after twelve steps tr sqrt(A) is some per cent too large if there are fewer
pixels than channels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FLOAT64_DEVICES = ("cpu", "cuda")
NARROW = 128
"""Matrices of at most this many columns count as narrow."""
ALIASED, LINE = 256, 8
"""Rows whose length is a multiple of `ALIASED` numbers map to the same lines of a CPU's cache; `LINE` more zeros avoid that."""
LAST_FIRST = "U"
"""The triangle that makes eigh reduce the last row first, which is most accurate for small eigenvalues if rows are ascending."""


def to_float64(a: Tensor) -> Tensor:
    """Return `a` in float64, on its own device if that has float64, else on the CPU. Differentiable."""
    return a.to(torch.float64) if a.device.type in FLOAT64_DEVICES else a.cpu().to(torch.float64)


def symmetric_product(x: Tensor, y: Tensor) -> Tensor:
    """Return x^T y (C, C) of two matrices (n, C) whose product is symmetric.

    On a CPU most of the part below the diagonal of a wide product is copied, not computed: this takes two thirds of the time.
    """
    if x.shape[1] <= NARROW or x.device.type != "cpu":
        return x.mT @ y
    (x1, x2), (y1, y2) = x.chunk(2, 1), y.chunk(2, 1)
    across = x1.mT @ y2
    upper = torch.cat([symmetric_product(x1, y1), across], 1)
    lower = torch.cat([across.mT, symmetric_product(x2, y2)], 1)
    return torch.cat([upper, lower])


class RunningTraceSqrt:
    """tr sqrt(R A R), and its gradient, of a sequence of slowly changing matrices A for a fixed R.

    The gradient is (1/2) R (R A R)^(-1/2) R (Bhatia, Jain, Lim 2019, "On the Bures-Wasserstein distance between positive
    definite matrices"). On the numerical null space, eigenvalues below C times the largest times float64's epsilon, where no
    gradient exists, it is zero: the pseudo-inverse.

    R^2 and each A are (C, C), the sum of a `ridge` on the diagonal and a matrix of known rank, as covariances of few cells are.
    On the CPU each A is decomposed, within the subspace that A and R^2 span if that is clearly smaller; products are computed in
    `dtype`, the one in which the matrices were summed. On an accelerator a decomposition takes longer than a small network's
    whole pass, and the host waits for it. There the first A is decomposed, and then one in `PERIOD`; for the others
    `iterated_trace_sqrt` is used, provided that rounding made no eigenvalue of the last decomposition more negative than the
    iteration tolerates. Pictures of a single colour have such eigenvalues.
    """

    PERIOD = 64
    NEGATIVE = 1e-13
    """How far below zero an eigenvalue may be, as a share of the largest."""
    SHARE = 0.8
    """The largest subspace, as a share of all dimensions, that is decomposed instead of the whole: larger ones save no time."""

    def __init__(self, square: Tensor, dtype: torch.dtype = torch.float64, ridge: float = 0, rank: int | None = None) -> None:
        """Prepare for R^2 = `square` (C, C), the sum of the ridge and a matrix of this rank, if the rank is known."""
        with torch.no_grad():
            values, vectors = torch.linalg.eigh(to_float64(square), UPLO=LAST_FIRST)
            values = values.clamp_min(0)
            root: Tensor = (vectors * values.sqrt()) @ vectors.mT
        size = len(values)
        self.ridge = ridge
        self._dtype = dtype
        self._root = root.to(device=square.device, dtype=square.dtype)
        self._roots, self._vectors = values.sqrt(), vectors.to(dtype)
        own = size if rank is None else min(rank, size)
        self._own = self._roots[size - own :], vectors[:, size - own :].contiguous()
        """R's eigenvalues above the ridge, and the basis of their subspace."""
        self.max_rank = int(self.SHARE * size) - own
        """The highest rank of A for which the subspace is small enough."""
        random = torch.Generator().manual_seed(0)
        self._random = torch.randn(size, max(0, self.max_rank), device="cpu", dtype=values.dtype, generator=random)
        self._since = self.PERIOD

    @property
    def iterates(self) -> bool:
        """Whether the next value is computed by iteration: always the same operations, and the host never waits."""
        return self._since + 1 < self.PERIOD

    def increment(self) -> None:
        """Count a value that was computed without a call."""
        self._since += 1

    def restore_step(self, count: int) -> None:
        """Continue as after `count` values, so that a resumed run computes the same bits."""
        self._since = (count - 1) % self.PERIOD if count else self.PERIOD

    def __call__(self, a: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the value and the gradient (C, C) for a float64 A (C, C): the ridge plus a matrix of at most this rank."""
        if not _blocks_host(a):
            return self._on_cpu(a, rank)
        iterates = self.iterates
        self.increment()
        if iterates:
            return iterated_trace_sqrt(a, self._root)
        value, gradient, values = decomposed_trace_sqrt(a, self._root, self._dtype)
        if bool(values[0] >= -self.NEGATIVE * values[-1]):
            self._since = 0
        return value, gradient

    def _on_cpu(self, a: Tensor, rank: int | None) -> tuple[Tensor, Tensor]:
        """Return the value and the gradient on a CPU.

        In the basis of R's eigenvectors products in `dtype` are accurate enough: their rounding errors are scaled by R's
        eigenvalues like those of A's sums. The subspace that few cells span is separated from its complement in float64, since
        larger rounding errors would fill the complement. In the complement R and sqrt(A) are the square root of the ridge: each
        dimension adds the ridge to the value, and the gradient is one half.
        """

        def scaled(vectors: Tensor) -> Tensor:
            sides: Tensor = roots.to(self._dtype)[:, None] * vectors.to(self._dtype)
            return sides

        if rank is None or rank > self.max_rank:
            basis, roots = self._vectors, self._roots
            inner = roots[:, None] * symmetric_product(basis, a.to(self._dtype) @ basis) * roots
            value, gradient, _ = _trace_sqrt(inner, lambda vectors: basis @ scaled(vectors))
            return value, gradient
        basis, roots = self._subspace(a, rank)
        inner = roots[:, None] * symmetric_product(basis, a @ basis) * roots
        value, within, _ = _trace_sqrt(inner, scaled)
        within.diagonal().sub_(0.5)
        basis = basis.to(self._dtype)
        gradient = symmetric_product(within @ basis.mT, basis.mT)
        gradient.diagonal().add_(0.5)
        return value + (len(a) - len(roots)) * self.ridge, gradient

    def _subspace(self, a: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Return an orthonormal basis of the subspace of R^2 and A without the ridge, and the diagonal of R in it, ascending.

        A's part is spanned by A times as many random vectors as its rank (Halko, Martinsson, Tropp 2011, "Finding structure with
        randomness", https://arxiv.org/abs/0909.4061).
        """
        roots, own = self._own
        # a small part of the ridge is kept, so that the products with random vectors are not zero where A is the ridge alone
        rest = a - (1 - 1e-9) * self.ridge * torch.eye(len(a), device="cpu", dtype=a.dtype)
        more = rest @ self._random[:, :rank]
        short = 100 * torch.finfo(a.dtype).eps / torch.finfo(self._dtype).eps * more.norm()
        more, triangle = torch.linalg.qr(more - own @ (own.mT @ more))
        if bool(triangle.diagonal().abs().min() < short):  # nearly dependent vectors became rounding errors of unit length
            more, _ = torch.linalg.qr(more - own @ (own.mT @ more))
        return torch.cat([more, own], 1), torch.cat([roots.new_full((rank,), self.ridge**0.5), roots])


def decomposed_trace_sqrt(a: Tensor, root: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return tr sqrt(R A R) of a symmetric positive semi-definite A for R = `root`, its gradient, and the eigenvalues of R A R.

    Eigenvalues are ascending. All is computed in float64, except the products of the gradient, in which nothing cancels: they are
    in `dtype`.
    """
    return _trace_sqrt(_between(a, root), lambda vectors: root.to(dtype) @ vectors.to(dtype))


def _trace_sqrt(inner: Tensor, sides_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return tr sqrt(M) of M = V D V^T, the gradient S D^(-1/2) S^T / 2 for S = `sides_of(V)`, and the eigenvalues D."""
    # eigh raises for a matrix that is not finite; other terms make the loss not finite then, which the engine checks
    inner = torch.where(inner.sum().isfinite(), inner, 0)
    size = len(inner)
    # leading rows and columns of zeros avoid cache conflicts, and only add eigenvalues that are zero
    more = LINE if size % ALIASED == 0 and not _blocks_host(inner) else 0
    values, vectors = torch.linalg.eigh(torch.nn.functional.pad(inner, (more, 0, more, 0)), UPLO=LAST_FIRST)
    vectors = vectors[more:]
    floor = values[-1].clamp_min(0) * size * torch.finfo(values.dtype).eps
    kept = values > floor
    roots: Tensor = values.clamp_min(0).sqrt()
    half_inverse = torch.where(kept, 0.5 / torch.where(kept, roots, 1), 0)
    sides = sides_of(vectors)
    sides = (sides * half_inverse.sqrt().to(sides.dtype)).mT
    return roots.sum(), symmetric_product(sides, sides), values


LEAST = 1e-5
"""The square root of the smallest eigenvalue, as a share of the largest's, for which the iteration is designed."""
RESIDUAL = 1e-6


@functools.cache
def _scales() -> tuple[float, ...]:
    """Return the factors of the scaled Newton-Schulz iteration, until a value of `LEAST` has grown to 1."""
    scales, low = [], LEAST
    while 1 - low > 1e-7:
        scale = math.sqrt(3 / (1 + low + low * low))
        scales.append(scale)
        low = scale * low * (3 - (scale * low) ** 2) / 2
    return tuple(scales)


def iterated_trace_sqrt(a: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return tr sqrt(R A R) of a symmetric positive semi-definite matrix A (C, C), and its gradient, by matrix products alone.

    The coupled Newton-Schulz iteration in float64, Y -> sqrt(M) and Z -> M^(-1/2), with the scaling of Chen and Chow (2014), "A
    stable scaling of Newton-Schulz for improving the sign function computation of a Hermitian matrix": 16 steps in place of 29.
    The host reads nothing. For covariances of VGG-19's features the relative error of the value is at most 1e-5 and that of the
    gradient 1e-3, where twelve plain steps have errors of 1e-1 in both. A matrix with clearly negative eigenvalues has no root,
    and the iteration diverges: then the result is half the trace of A, and its gradient, so that tr A - 2 tr sqrt(R A R) is 0.
    """
    inner = _between(a, root)
    norm = inner.norm().clamp_min(torch.finfo(inner.dtype).tiny)
    start = inner / norm
    eye = torch.eye(len(a), dtype=inner.dtype, device=inner.device)
    y, z = start, eye
    for scale in _scales():
        product, one, three = z @ y, 1.5 * scale, -0.5 * scale**3
        y, z = torch.addmm(y, y, product, beta=one, alpha=three), torch.addmm(z, product, z, beta=one, alpha=three)
    size = norm.sqrt()
    value, gradient = y.trace() * size, (root @ z @ root) * (0.5 / size)
    converged = (torch.addmm(start, y, y, alpha=-1).norm() < RESIDUAL) & gradient.isfinite().all()
    return torch.where(converged, value, a.trace() / 2), torch.where(converged, gradient, eye / 2)


def _blocks_host(a: Tensor) -> bool:
    """Return whether the host waits for a decomposition of a matrix on its device."""
    return a.device.type != "cpu"


def _between(a: Tensor, root: Tensor) -> Tensor:
    """Return R A R in float64, exactly symmetric."""
    inner = root @ to_float64(a) @ root
    return (inner + inner.mT) / 2


def with_gradients(value: Tensor, *gradients: tuple[Tensor, Tensor]) -> Tensor:
    """Return a scalar with custom gradients: pairs of a tensor and the gradient with respect to it, of its shape.

    The scalar has the first tensor's dtype and device.
    """
    inputs = [x for x, _ in gradients]
    result: Tensor = _WithGradients.apply(value.to(inputs[0]), *(gradient.to(x) for x, gradient in gradients), *inputs)
    return result


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[: len(tensors) // 2])
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        return None, *(None for _ in gradients), *(grads[0] * gradient for gradient in gradients)
