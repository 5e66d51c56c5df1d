"""Kinds of pooling: values against the oracle, gradients with and without the fused ReLU."""

from __future__ import annotations

import pytest
import torch
from support import reference
from support.tiny import picture

from style_transfer.networks.pooling import POOLINGS, l2_pool


def test_l2_pool_has_a_finite_gradient_on_zeros() -> None:
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    x[..., 0, 0] = 3
    x.requires_grad_()
    y = l2_pool(x)
    y.sum().backward()
    assert y.flatten().tolist() == pytest.approx([0.78 * 3, 0, 0, 0], abs=1e-12)
    assert x.grad[0, 0, 0, 0].item() == pytest.approx(0.78)
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
@pytest.mark.parametrize("size", [(8, 6), (9, 13), (2, 3)], ids=str)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_fused_relu_has_the_gradient_of_relu_then_pool(pooling: str, size: tuple[int, int], form: torch.memory_format) -> None:
    pool, random = POOLINGS[pooling], torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, *size, generator=random, dtype=torch.float64).contiguous(memory_format=form).requires_grad_()
    plain, fused = pool(x.relu()), pool(x.clone(), relu=True)
    gradient = torch.randn(plain.shape, generator=random, dtype=torch.float64)
    (expected,), (found,) = (torch.autograd.grad(y, x, gradient) for y in (plain, fused))
    assert torch.equal(plain, fused) and torch.equal(expected, found)
    assert expected.abs().sum() > 0


@pytest.mark.parametrize("window", [(2, 2, 0, False), (3, 2, 0, True), (3, 1, 1, True)], ids=str)
def test_poolings_of_any_window_agree_with_the_oracle(window: tuple[int, int, int, bool]) -> None:
    x = picture(1, 10, 12)
    kernel, stride, padding, ceil = window
    mean, most = (reference.caffe_pool(x, kind, kernel, stride, padding) for kind in ("mean", "max"))
    found = {name: pool(x, kernel, stride, padding, ceil) for name, pool in POOLINGS.items()}
    assert torch.allclose(found["max"], most) and torch.allclose(found["mean"], mean)
    assert torch.allclose(found["average"], 2 * mean)
    sums = torch.nn.functional.unfold(x, kernel, padding=padding, stride=stride).reshape(3, kernel**2, -1).square().sum(1)
    assert torch.allclose(found["l2"][0, :, 0, 0], 0.78 * sums[:, 0].sqrt())
