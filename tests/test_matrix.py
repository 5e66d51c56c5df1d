"""Matrix square roots against float64 eigendecompositions and finite differences."""

from __future__ import annotations

import pytest
import reference
import torch

from style_transfer.matrix import sqrt_psd, trace_sqrt


def psd(n: int, rank: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(n, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x @ x.T / rank


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (5, 5), (32, 9), (64, 200), (7, 1)])
def test_square_root_squared_is_the_matrix(n: int, rank: int) -> None:
    a = psd(n, rank)
    root = sqrt_psd(a)
    assert torch.allclose(root @ root, a, atol=1e-10)
    assert torch.allclose(root, reference.sqrtm_psd(a), atol=1e-7)
    assert trace_sqrt(a).item() == pytest.approx(root.trace().item(), rel=1e-9)


def test_zero_matrix_is_finite() -> None:
    a = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    trace_sqrt(a).backward()
    assert trace_sqrt(a).item() == 0
    assert torch.equal(a.grad, torch.zeros(4, 4, dtype=torch.float64))


def test_gradient_of_the_trace_on_full_rank() -> None:
    a = psd(6, 12).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: trace_sqrt((m + m.mT) / 2), a, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("cells", [3, 8, 40])
def test_gradient_through_a_covariance_with_fewer_cells_than_channels(cells: int) -> None:
    """d/dX of tr sqrt(R (X X^T / n) R), the nuclear norm of R X / sqrt(n), whose gradient comes from an SVD."""
    root = sqrt_psd(psd(12, 30, seed=1))
    x = torch.randn(12, cells, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    trace_sqrt(root @ x @ x.mT @ root / cells).backward()
    given = x.detach().clone().requires_grad_()
    trace_sqrt(given @ given.mT / cells, root).backward()
    assert torch.allclose(given.grad, x.grad, rtol=1e-9, atol=1e-12)
    u, _, vh = torch.linalg.svd(root @ x.detach() / cells**0.5, full_matrices=False)
    expected = root @ u @ vh / cells**0.5
    assert torch.allclose(x.grad, expected, rtol=1e-6, atol=1e-9)


def test_plain_newton_schulz_would_fail_here() -> None:
    """The guard for the two tests above: twelve Newton-Schulz steps are off on a rank-deficient matrix."""
    a = psd(32, 9) + 1e-8 * torch.eye(32, dtype=torch.float64)
    norm = a.norm()
    y, z, eye = a / norm, torch.eye(32, dtype=torch.float64), torch.eye(32, dtype=torch.float64)
    for _ in range(12):
        t = (3 * eye - z @ y) / 2
        y, z = y @ t, t @ z
    inverse = z / norm.sqrt() / 2
    exact = torch.linalg.inv(reference.sqrtm_psd(a)) / 2
    assert (inverse - exact).norm() > 0.5 * exact.norm()


def test_float32_in_float32_out() -> None:
    a = psd(16, 4).float().requires_grad_()
    value = trace_sqrt(a)
    value.backward()
    assert value.dtype == a.grad.dtype == torch.float32
    assert value.item() == pytest.approx(trace_sqrt(a.detach().double()).item(), rel=1e-5)
