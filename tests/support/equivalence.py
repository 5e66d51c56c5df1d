"""The check that tiles, devices and the whole picture give the same loss and gradient."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor

from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import UNLIMITED, Limits
from style_transfer.networks.forward import Network
from support.settings import resolved
from support.tiny import picture

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Relative tolerances of tiled losses and gradients against untiled ones.

In float32 a ReLU whose argument is zero but for rounding errors may be active in one and not in the other. In a tiny network one
such cell changes the gradient by 1e-3, so there the median over three pictures is checked.
"""


def evaluate(
    network: Network,
    size: tuple[int, int],
    limits: Limits,
    workers: int = 1,
    seed: int = 3,
    **about: object,
) -> tuple[Tensor, dict[str, Tensor], Tensor, tuple[int, ...]]:
    settings = resolved(**about)  # type: ignore[arg-type]
    content, style, image = (picture(n, *s, network.dtype) for n, s in ((1, size), (2, (75, 90)), (seed, size)))
    objective = Objective([network] * workers, content, [style], settings, limits)
    found = objective.evaluate(image)
    assert image.grad is not None
    return found.loss, found.parts, image.grad, objective.sweep.tiles


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def check(network: Network, size: tuple[int, int], limits: Limits, workers: int = 1, **about: object) -> tuple[int, ...]:
    tolerance, distances = TOLERANCES[network.dtype], []
    for seed in (3,) if network.dtype == torch.float64 else (3, 4, 5):
        loss, parts, gradient, _ = evaluate(network, size, UNLIMITED, seed=seed, **about)
        tiled_loss, tiled_parts, tiled_gradient, tiles = evaluate(network, size, limits, workers, seed=seed, **about)
        assert float(tiled_loss) == pytest.approx(float(loss), rel=tolerance)
        for name, part in parts.items():
            assert float(tiled_parts[name]) == pytest.approx(float(part), rel=tolerance, abs=tolerance * float(loss))
        distances.append(distance(tiled_gradient, gradient))
    assert statistics.median(distances) < tolerance
    return tiles
