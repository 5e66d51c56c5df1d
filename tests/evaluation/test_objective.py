"""Gradients of terms that are scaled apart from their values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.settings import resolved
from support.tiny import picture

from style_transfer.evaluation.objective import Objective
from style_transfer.networks.forward import Network


@pytest.mark.parametrize("normalized", [False, True])
def test_the_factor_of_the_styles_gradient_scales_it_normalized_or_not(
    normalized: bool, make_network: Callable[..., Network]
) -> None:
    network, gradients = make_network(dtype=torch.float64), []
    for factor in (1.0, 0.5):
        settings = resolved(content_weight=0.0, tv_weight=0.0, style_gradient=factor, style_factor=1e6,
                            normalize_gradients=normalized)  # fmt: skip
        objective = Objective([network], picture(1, 48, 40), [picture(2, 40, 48)], settings)
        image = picture(3, 48, 40)
        objective.evaluate(image)
        assert image.grad is not None
        gradients.append(image.grad)
    assert torch.allclose(gradients[1], 0.5 * gradients[0], rtol=1e-5, atol=0)
    assert gradients[0].abs().sum() > 0
