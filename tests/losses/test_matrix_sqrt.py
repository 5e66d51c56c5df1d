"""Matrix square roots against float64 eigendecompositions and finite differences."""

from __future__ import annotations

import pytest
import torch
from support import reference

from style_transfer.losses import matrix_sqrt
from style_transfer.losses.matrix_sqrt import RunningTraceSqrt, decomposed_trace_sqrt, iterated_trace_sqrt, with_gradients


def trace_sqrt(a: torch.Tensor, root: torch.Tensor | None = None) -> torch.Tensor:
    """Return tr sqrt(R A R) for a symmetric `root` R, or tr sqrt(A), differentiable with respect to A."""
    root = torch.eye(len(a), dtype=torch.float64) if root is None else root
    value, gradient, _ = decomposed_trace_sqrt(a.detach(), root)
    return with_gradients(value, (a, gradient))


def psd(n: int, rank: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(n, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x @ x.T / rank


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (5, 5), (32, 9), (64, 200), (7, 1)])
def test_trace_of_the_square_root(n: int, rank: int) -> None:
    a = psd(n, rank)
    expected = reference.sqrtm_psd(a).trace().item()
    assert trace_sqrt(a).item() == pytest.approx(expected, rel=1e-7)
    assert float(RunningTraceSqrt(torch.eye(n, dtype=torch.float64))(a)[0]) == pytest.approx(expected, rel=1e-7)


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
    root = reference.sqrtm_psd(psd(12, 30, seed=1))
    x = torch.randn(12, cells, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    trace_sqrt(root @ x @ x.mT @ root / cells).backward()
    given = x.detach().clone().requires_grad_()
    trace_sqrt(given @ given.mT / cells, root).backward()
    assert torch.allclose(given.grad, x.grad, rtol=1e-9, atol=1e-12)
    u, _, vh = torch.linalg.svd(root @ x.detach() / cells**0.5, full_matrices=False)
    expected = root @ u @ vh / cells**0.5
    assert torch.allclose(x.grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cells", [100, 2000])
def test_rows_that_crowd_the_cache_change_nothing(cells: int) -> None:
    """256 rows are padded to 264 for the decomposition."""
    a = psd(256, cells)
    values, vectors = torch.linalg.eigh(a)
    roots = torch.where(values > 1e-9, values, 0).sqrt()
    inverse = (vectors * torch.where(roots > 0, 0.5 / roots, 0)) @ vectors.mT
    given = a.clone().requires_grad_()
    trace = trace_sqrt(given)
    trace.backward()
    assert trace.item() == pytest.approx(roots.sum().item(), rel=1e-6)
    assert torch.allclose(given.grad, inverse, rtol=1e-7, atol=1e-9)


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


def covariances(n: int, cells: int, seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a covariance as the Wasserstein loss has it, summed up in float32, and the root of another, both with a ridge."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for count in (cells, max(1, cells * 3 // 4)):
        x = (torch.randn(n, n, generator=random) / n**0.5 @ torch.randn(n, count, generator=random)).relu() * spread + spread
        mean = x.mean(1).double()
        found.append((x @ x.T / count).double() - torch.outer(mean, mean) + 1e-4 * torch.eye(n, dtype=torch.float64))
    return found[0], reference.sqrtm_psd(found[1])


@pytest.mark.parametrize(("n", "cells"), [(64, 5000), (64, 64), (96, 20), (128, 96), (7, 3), (1, 9)])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_the_iteration_comes_to_what_the_decomposition_does(n: int, cells: int, spread: float) -> None:
    a, root = covariances(n, cells, seed=n + cells, spread=spread)
    expected = trace_sqrt(a.requires_grad_(), root)
    (slope,) = torch.autograd.grad(expected, a)
    value, gradient = iterated_trace_sqrt(a.detach(), root)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    # what counts is the gradient of the features, that is, times a root of A
    side = reference.sqrtm_psd(a.detach())
    assert ((gradient - slope) @ side).norm() < 2e-3 * (slope @ side).norm()


def test_the_iteration_is_far_better_than_twelve_plain_steps() -> None:
    a, root = covariances(96, 20, seed=3)
    inner = root @ a @ root
    norm = inner.norm()
    y, z = inner / norm, torch.eye(96, dtype=torch.float64)
    for _ in range(12):
        t = (3 * torch.eye(96, dtype=torch.float64) - z @ y) / 2
        y, z = y @ t, t @ z
    exact = float(trace_sqrt(a, root))
    plain = abs(float(y.trace() * norm.sqrt()) / exact - 1)
    assert abs(float(iterated_trace_sqrt(a, root)[0]) / exact - 1) < plain / 1000


@pytest.mark.parametrize("least", [-1e-8, -1e-3, -1.0])
def test_without_a_root_the_iteration_gives_half_the_trace(least: float) -> None:
    values = torch.linspace(least, 1, 40, dtype=torch.float64)
    vectors, _ = torch.linalg.qr(psd(40, 60))
    eye = torch.eye(40, dtype=torch.float64)
    value, gradient = iterated_trace_sqrt((vectors * values) @ vectors.T, eye)
    assert value.item() == pytest.approx(float(values.sum()) / 2) and torch.equal(gradient, eye / 2)


def test_zero_and_huge_matrices_are_iterated_too() -> None:
    eye = torch.eye(5, dtype=torch.float64)
    assert all(x.isfinite().all() for x in iterated_trace_sqrt(torch.zeros(5, 5, dtype=torch.float64), eye))
    value, gradient = iterated_trace_sqrt(1e100 * eye, eye)
    assert value.item() == pytest.approx(5e50) and torch.allclose(gradient, eye * 0.5e-50, atol=0)


def test_a_run_of_matrices_is_decomposed_first_and_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        matrix_sqrt, "iterated_trace_sqrt", lambda a, root: calls.append("iterated") or iterated_trace_sqrt(a, root)
    )
    plain = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda a, **kind: calls.append("decomposed") or plain(a, **kind))
    a, root = covariances(12, 40, seed=1)
    on_cpu = RunningTraceSqrt(root @ root)
    calls.clear()
    expected = [float(on_cpu(a * k)[0]) for k in range(1, 4)]
    assert calls == ["decomposed"] * 3
    elsewhere = RunningTraceSqrt(root @ root)
    monkeypatch.setattr(matrix_sqrt, "_blocks_host", lambda a: True)
    calls.clear()
    assert [float(elsewhere(a * k)[0]) for k in range(1, 4)] == pytest.approx(expected, rel=1e-6)
    assert calls == ["decomposed", "iterated", "iterated"]
    for _ in range(RunningTraceSqrt.PERIOD - 3):
        elsewhere(a)
    calls.clear()
    flat = a - 0.5 * torch.eye(12, dtype=torch.float64) * a.norm()
    for matrix_ in (flat, flat, a, a):
        elsewhere(matrix_)
    assert calls == ["decomposed", "decomposed", "decomposed", "iterated"]


def test_a_run_of_matrices_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_sqrt, "_blocks_host", lambda a: True)
    monkeypatch.setattr(RunningTraceSqrt, "PERIOD", 5)
    a, root = covariances(12, 40, seed=1)

    def values(first: int) -> list[float]:
        running = RunningTraceSqrt(root @ root)
        running.restore_step(first)
        return [float(running(a * k)[0]) for k in range(first + 1, 20)]

    straight = values(0)
    for first in (1, 4, 5, 6, 12):
        assert values(first) == straight[first:]
    monkeypatch.setattr(RunningTraceSqrt, "restore_step", lambda self, count: None)
    assert values(6) != straight[6:]


@pytest.mark.parametrize(("n", "rank", "other"), [(64, 20, 15), (96, 40, 30), (40, 1, 1), (40, 5, 27), (33, 26, 0)])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_few_cells_are_decomposed_in_what_they_span(n: int, rank: int, other: int, spread: float) -> None:
    random = torch.Generator().manual_seed(n + rank)
    ridge = 1e-4
    a, square = (
        spread * x @ x.mT + ridge * torch.eye(n, dtype=torch.float64)
        for x in (torch.randn(n, r, generator=random, dtype=torch.float64) for r in (rank, other))
    )
    running = RunningTraceSqrt(square, ridge=ridge, rank=other)
    assert rank <= running.max_rank
    expected, slope, _ = decomposed_trace_sqrt(a, reference.sqrtm_psd(square))
    value, gradient = running._on_cpu(a, rank)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9)
    side = reference.sqrtm_psd(a)  # the gradient of features
    assert ((gradient - slope) @ side).norm() < 1e-6 * (slope @ side).norm()


def test_a_rank_that_is_smaller_than_was_said_does_no_harm() -> None:
    """Flat pictures, a picture equal to its style: the products with random vectors are partly, or all, rounding errors."""
    square = psd(50, 12) + 1e-4 * torch.eye(50, dtype=torch.float64)
    running = RunningTraceSqrt(square, ridge=1e-4, rank=20)
    for a in (square, 1e-4 * torch.eye(50, dtype=torch.float64), psd(50, 3) + 1e-4 * torch.eye(50, dtype=torch.float64)):
        expected, slope, _ = decomposed_trace_sqrt(a, reference.sqrtm_psd(square))
        value, gradient = running._on_cpu(a, 20)
        assert value.item() == pytest.approx(expected.item(), rel=1e-9) and (gradient - slope).norm() < 1e-5 * slope.norm()


def test_a_subspace_is_taken_where_it_is_much_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda a, **kind: sizes.append(len(a)) or plain(a, **kind))
    a, root = covariances(50, 20, seed=1)
    running = RunningTraceSqrt(root @ root, ridge=1e-4, rank=15)
    sizes.clear()
    values = [float(running(a, rank)[0]) for rank in (20, 25, 26, None)]
    assert sizes == [35, 40, 50, 50] and values == pytest.approx([values[-1]] * 4, rel=1e-4)
