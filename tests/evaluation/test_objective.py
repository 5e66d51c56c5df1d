"""Gradients of terms that are scaled apart from their values, and styles larger than accelerators can index."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.settings import resolved
from support.tiny import picture
from torch import Tensor

from style_transfer.evaluation import costs
from style_transfer.evaluation.objective import Objective
from style_transfer.losses.content.features import FeatureLoss
from style_transfer.networks import Segment
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


def test_a_style_too_large_to_index_is_cut_where_the_content_is_not(
    make_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, content, style = make_network(dtype=torch.float64), picture(1, 48, 40), picture(2, 400, 380)

    def loss() -> float:
        return float(Objective([network], content, [style], resolved(tile="off")).evaluate(picture(3, 48, 40)).loss)

    expected, largest, run = loss(), [], network.run

    def watched(segment: Segment, x: Tensor, visit: Callable[[str, Tensor], object]) -> Tensor:
        return run(segment, x, lambda layer, features: largest.append(features.numel()) or visit(layer, features))

    monkeypatch.setattr(network, "run", watched)
    monkeypatch.setattr(costs, "MAX_ELEMENTS", 4 * 200**2)
    assert loss() == pytest.approx(expected, rel=1e-10)
    assert 4 * 100**2 < max(largest) <= 4 * 200**2


def test_every_evaluation_has_its_own_seed_and_a_resumed_run_the_same_ones(
    make_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, drawn = make_network(dtype=torch.float64), []
    monkeypatch.setattr(FeatureLoss, "draw", lambda self, seed: drawn.append(seed))

    def seeds(first: int, count: int, **options: int) -> list[int]:
        drawn.clear()
        objective = Objective([network], picture(1, 32, 40), [picture(2, 32, 32)], resolved(**options))
        objective.restore_step(first)
        for _ in range(count):
            objective.evaluate(picture(3, 32, 40))
        return list(drawn)

    whole = seeds(0, 4)
    assert len(set(whole)) == len(whole)
    assert seeds(2, 2) == whole[len(whole) // 2 :]
    assert not set(whole) & set(seeds(0, 4, random_seed=1))
