"""Winograd convolution equals the direct one, forward and backward, up to rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from style_transfer.networks.winograd import WinogradConv, convolve, transform_weight


@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 8, 13, 67])
@pytest.mark.parametrize("width", [1, 4, 6, 7, 31, 600])
def test_it_equals_the_direct_sum(height: int, width: int) -> None:
    random = torch.Generator().manual_seed(100 * height + width)
    x = torch.randn(1, 3, height, width, generator=random)
    weight, bias = torch.randn(5, 3, 3, 3, generator=random), torch.randn(5, generator=random)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    found = convolve(x, transform_weight(weight), bias=bias)
    assert found.shape == expected.shape and found.is_contiguous(memory_format=torch.channels_last)
    assert float((found - expected).abs().max()) < 2e-5 * float(expected.abs().max())
    assert torch.equal(convolve(x, transform_weight(weight), bias=bias, relu=True), found.relu())


@pytest.mark.parametrize("height", [1, 3, 4, 9, 66])
@pytest.mark.parametrize("width", [1, 6, 7, 600])
def test_the_backward_pass_uses_the_same_filters(height: int, width: int) -> None:
    random = torch.Generator().manual_seed(100 * height + width)
    weight = torch.randn(5, 3, 3, 3, generator=random)
    gradient, gate = (torch.randn(1, 5, height, width, generator=random) for _ in range(2))
    expected = F.conv_transpose2d((gradient * (gate > 0)).double(), weight.double(), padding=1)
    found = convolve(gradient, transform_weight(weight), transpose=True, gate=gate)
    assert float((found - expected).abs().max()) <= 2e-5 * float(expected.abs().max())


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_its_gradient_equals_the_direct_one(relu: bool, batch: int, layout: torch.memory_format) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 64, 19, 23, generator=random).contiguous(memory_format=layout).requires_grad_()
    weight, bias = torch.randn(70, 64, 3, 3, generator=random) / 24, torch.randn(70, generator=random)
    weights = torch.randn(batch, 70, 19, 23, generator=random)
    y = WinogradConv(weight, bias)(x, relu=relu)
    (found,) = torch.autograd.grad((y * weights).sum(), x)
    exact = x.detach().double().requires_grad_()
    z = F.conv2d(exact, weight.double(), bias.double(), padding=1)
    z = F.relu(z) if relu else z
    (expected,) = torch.autograd.grad((z * weights).sum(), exact)
    assert float((y - z).detach().abs().max()) < 2e-5 * float(z.detach().abs().max())
    # an output within rounding of zero may be on the other side of the ReLU's kink
    assert float((found - expected).norm() / expected.norm()) < 1e-3


def test_it_supports_wide_float32_weights_on_the_cpu_and_needs_enough_tiles() -> None:
    wide = torch.zeros(128, 128, 3, 3)
    assert WinogradConv.supports(wide)
    trained = wide.clone().requires_grad_()
    small = wide[:, :64], wide[:64], torch.zeros(128, 128, 5, 5)
    for other in (*small, wide.double(), wide.bfloat16(), wide.to("meta"), trained):
        assert not WinogradConv.supports(other)
    assert WinogradConv.worthwhile(torch.zeros(1, 1, 9, 13)) and not WinogradConv.worthwhile(torch.zeros(1, 1, 8, 16))
