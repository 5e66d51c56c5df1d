"""Square roots of symmetric positive semi-definite matrices, and the traces of such roots.

They go through an eigendecomposition in float64, or through an iteration in float64 that is checked. A product of two covariances
has a condition number beyond what float32 resolves, and its smallest eigenvalues carry the gradient: plain Newton-Schulz
steps damp just those (twelve overstate tr sqrt(A) by some per cent when there are fewer pixels than channels).
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
"""Matrices of at most so many columns count as narrow."""
ALIASED, LINE = 256, 8
"""Rows of so many numbers, or multiples, crowd a CPU's cache, which a line of numbers more spares them."""
LAST_FIRST = "U"
"""Has eigh reduce the last row first: small eigenvalues come out best so where rows grow from the first to the last."""


def exact(a: Tensor) -> Tensor:
    """Return `a` in float64, on its own device if that has float64, else on the CPU. Differentiable."""
    return a.to(torch.float64) if a.device.type in FLOAT64_DEVICES else a.cpu().to(torch.float64)


def symmetric(x: Tensor, y: Tensor) -> Tensor:
    """Return x^T y (C, C) of two matrices (n, C) with a symmetric product.

    On a CPU, where they are wide, without most of what lies below the diagonal: two thirds of the time of a whole product.
    """
    if x.shape[1] <= NARROW or x.device.type != "cpu":
        return x.mT @ y
    (x1, x2), (y1, y2) = x.chunk(2, 1), y.chunk(2, 1)
    across = x1.mT @ y2
    upper, lower = torch.cat([symmetric(x1, y1), across], 1), torch.cat([across.mT, symmetric(x2, y2)], 1)
    return torch.cat([upper, lower])


def sqrt_psd(a: Tensor) -> Tensor:
    """Return the square root of a symmetric positive semi-definite matrix (C, C), in its dtype, without a gradient.

    Eigenvalues that rounding made negative count as zero.
    """
    return _root(*_eigen(a), like=a)


def _eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (C,) of such a matrix, ascending and none below zero, and its eigenvectors (C, C), in float64."""
    with torch.no_grad():
        values, vectors = torch.linalg.eigh(exact(a), UPLO=LAST_FIRST)
        return values.clamp_min(0), vectors


def _root(values: Tensor, vectors: Tensor, like: Tensor) -> Tensor:
    root: Tensor = (vectors * values.sqrt()) @ vectors.mT
    return root.to(device=like.device, dtype=like.dtype)


def trace_sqrt(a: Tensor, root: Tensor | None = None) -> Tensor:
    """Return tr sqrt(A) of a symmetric positive semi-definite matrix (C, C), or tr sqrt(R A R) for a symmetric `root` R.

    A scalar of A's dtype. The gradient is half the inverse square root, (1/2) A^(-1/2), or (1/2) R (R A R)^(-1/2) R (Bhatia,
    Jain, Lim 2019, "On the Bures-Wasserstein distance between positive definite matrices"): it comes with the value, and
    there is no way back through the decomposition. On the numerical null space, eigenvalues below C times the largest
    times float64's epsilon, where no gradient exists, it is zero: the pseudo-inverse.
    """
    value, gradient, _ = _decomposed(a.detach(), root)
    return given(value, (a, gradient))


class RunningTraceSqrt:
    """`trace_sqrt(A, R)` of matrices A that come one after the other and change little, for a fixed R.

    R^2 and each A are (C, C), each a `ridge` on the diagonal and of some rank beside, as covariances of few cells are. On the
    CPU each A is decomposed, within the dimensions that it and R^2 span if those are clearly fewer; products are in the type
    `kind`, which is enough for what was summed up in it. On an accelerator a decomposition takes longer than a small network's
    whole pass, and the host waits for it; there the first is decomposed, and one in `PERIOD` after it, and those between are
    found by `iterated`, if the last decomposition had no eigenvalue that rounding made negative beyond what that bears. Flat
    pictures have such.
    """

    PERIOD = 64
    NEGATIVE = 1e-13
    """How far below zero an eigenvalue may be, as a share of the largest."""
    SHARE = 0.8
    """How many dimensions may be spanned, as a share of all: with more the whole takes no longer."""

    def __init__(self, square: Tensor, kind: torch.dtype = torch.float64, ridge: float = 0, rank: int | None = None) -> None:
        """Take R^2 (C, C), and its rank beside the ridge if that is known."""
        values, vectors = _eigen(square)
        size = len(values)
        self.ridge = ridge
        self._kind = kind
        self._root = _root(values, vectors, like=square)
        self._roots, self._vectors = values.sqrt(), vectors.to(kind)
        own = size if rank is None else min(rank, size)
        self._own = self._roots[size - own :], vectors[:, size - own :].contiguous()
        """R's values beside the ridge, and the basis of what it spans there."""
        self.most = int(self.SHARE * size) - own
        """The highest rank of A with which the two span few enough dimensions."""
        random = torch.Generator().manual_seed(0)
        self._random = torch.randn(size, max(0, self.most), device="cpu", dtype=values.dtype, generator=random)
        self._since = self.PERIOD

    @property
    def settled(self) -> bool:
        """Whether the next value is found by iteration: the same operations every time, and nobody waits."""
        return self._since + 1 < self.PERIOD

    def advance(self) -> None:
        """Count a value that is found without a call."""
        self._since += 1

    def go_on(self, count: int) -> None:
        """Do as after so many values: a run that is resumed comes to the same bits."""
        self._since = (count - 1) % self.PERIOD if count else self.PERIOD

    def __call__(self, a: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the value for a matrix (C, C) in float64, of at most this rank beside the ridge, and the gradient (C, C)."""
        if not _waits(a):
            return self._decomposed(a, rank)
        settled = self.settled
        self.advance()
        if settled:
            return iterated(a, self._root)
        value, gradient, values = _decomposed(a, self._root, self._kind)
        if bool(values[0] >= -self.NEGATIVE * values[-1]):
            self._since = 0
        return value, gradient

    def _decomposed(self, a: Tensor, rank: int | None) -> tuple[Tensor, Tensor]:
        """Do so on a CPU.

        In R's own basis, where R is diagonal, products in `kind` are enough: what they lose is scaled down by R's values like
        what was lost in A's sums. What few cells span is kept apart from the rest in float64, or those losses would fill it.
        Outside of that both are the ridge, which is the root's trace for each dimension there, and the gradient is one half.
        """

        def scaled(vectors: Tensor) -> Tensor:
            return roots.to(self._kind)[:, None] * vectors.to(self._kind)

        if rank is None or rank > self.most:
            basis, roots = self._vectors, self._roots
            inner = roots[:, None] * symmetric(basis, a.to(self._kind) @ basis) * roots
            return _rooted(inner, lambda vectors: basis @ scaled(vectors))[:2]
        basis, roots = self._spanned(a, rank)
        inner = roots[:, None] * symmetric(basis, a @ basis) * roots
        value, slope, _ = _rooted(inner, scaled)
        slope.diagonal().sub_(0.5)
        basis = basis.to(self._kind)
        gradient = symmetric(slope @ basis.mT, basis.mT)
        gradient.diagonal().add_(0.5)
        return value + (len(a) - len(roots)) * self.ridge, gradient

    def _spanned(self, a: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Return an orthonormal basis of what R^2 and A span beside the ridge, and R's values there, ascending: it is diagonal.

        A's part is spanned by A times as many random vectors as its rank (Halko, Martinsson, Tropp 2011, "Finding structure with
        randomness", https://arxiv.org/abs/0909.4061).
        """
        roots, own = self._own
        # a trace of the ridge stays, so that the random vectors have a place where A is nothing else
        rest = a - (1 - 1e-9) * self.ridge * torch.eye(len(a), device="cpu", dtype=a.dtype)
        more = rest @ self._random[:, :rank]
        short = 100 * torch.finfo(a.dtype).eps / torch.finfo(self._kind).eps * more.norm()
        more, triangle = torch.linalg.qr(more - own @ (own.mT @ more))
        if bool(triangle.diagonal().abs().min() < short):  # what was nearly dependent is rounding now, at full length
            more, _ = torch.linalg.qr(more - own @ (own.mT @ more))
        return torch.cat([more, own], 1), torch.cat([roots.new_full((rank,), self.ridge**0.5), roots])


def _decomposed(a: Tensor, root: Tensor | None, kind: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return `trace_sqrt` of a matrix, its gradient, and the eigenvalues, ascending.

    All in float64 but the gradient's products, which are in `kind`: nothing cancels in them.
    """
    if root is None:
        return _rooted(exact(a), lambda vectors: vectors.to(kind))
    return _rooted(_between(a, root), lambda vectors: root.to(kind) @ vectors.to(kind))


def _rooted(inner: Tensor, sides_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the trace of a matrix's root, its gradient between what `sides_of` makes of eigenvectors, and the eigenvalues."""
    # who is not finite has no decomposition, and raises; the loss is not finite by other terms, which somebody looks for
    inner = torch.where(inner.sum().isfinite(), inner, 0)
    size = len(inner)
    # rows as far apart as a cache is wide fall on the same few places of it; added ones of zeros add zeros to the eigenvalues
    more = LINE if size % ALIASED == 0 and not _waits(inner) else 0
    values, vectors = torch.linalg.eigh(torch.nn.functional.pad(inner, (more, 0, more, 0)), UPLO=LAST_FIRST)
    vectors = vectors[more:]
    floor = values[-1].clamp_min(0) * size * torch.finfo(values.dtype).eps
    kept = values > floor
    roots: Tensor = values.clamp_min(0).sqrt()
    half_inverse = torch.where(kept, 0.5 / torch.where(kept, roots, 1), 0)
    sides = sides_of(vectors)
    sides = (sides * half_inverse.sqrt().to(sides.dtype)).mT
    return roots.sum(), symmetric(sides, sides), values


LEAST = 1e-5
"""The square root of the least eigenvalue, as a share of the largest's, that `iterated` is made for."""
RESIDUAL = 1e-6


@functools.cache
def _scales() -> tuple[float, ...]:
    """Return the factors of the scaled Newton-Schulz iteration, until what began at `LEAST` has come to 1."""
    found, low = [], LEAST
    while 1 - low > 1e-7:
        scale = math.sqrt(3 / (1 + low + low * low))
        found.append(scale)
        low = scale * low * (3 - (scale * low) ** 2) / 2
    return tuple(found)


def iterated(a: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return tr sqrt(R A R) of a symmetric positive semi-definite matrix A (C, C), and its gradient, from matrix products alone.

    The coupled Newton-Schulz iteration in float64, Y -> sqrt(M) and Z -> M^(-1/2), with the scaling of Chen and Chow (2014), "A
    stable scaling of Newton-Schulz for improving the sign function computation of a Hermitian matrix": 16 steps do what takes 29
    without. Nothing is read back. Off by 1e-5 at most for covariances of VGG-19's features, and 1e-3 in the gradient, where
    twelve plain steps are off by 1e-1 in both. A matrix with clearly negative eigenvalues has no root, and the iteration
    grows without bound: then half the trace of A comes back, with its gradient, which takes tr A - 2 tr sqrt(R A R) to 0.
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
    found = (torch.addmm(start, y, y, alpha=-1).norm() < RESIDUAL) & gradient.isfinite().all()
    return torch.where(found, value, a.trace() / 2), torch.where(found, gradient, eye / 2)


def _waits(a: Tensor) -> bool:
    """Say whether the host waits for a decomposition of a matrix on another device."""
    return a.device.type != "cpu"


def _between(a: Tensor, root: Tensor) -> Tensor:
    """Return R A R, symmetric to the last bit, in float64."""
    inner = root @ exact(a) @ root
    return (inner + inner.mT) / 2


def given(value: Tensor, *slopes: tuple[Tensor, Tensor]) -> Tensor:
    """Return a scalar whose gradients are known: pairs of a tensor and the gradient with respect to it, of its shape.

    The scalar has the first tensor's dtype and device.
    """
    inputs = [x for x, _ in slopes]
    result: Tensor = _Given.apply(value.to(inputs[0]), *(slope.to(x) for x, slope in slopes), *inputs)
    return result


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[: len(tensors) // 2])
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        return None, *(None for _ in gradients), *(grads[0] * gradient for gradient in gradients)
