"""The contrast of fine detail in bands: formula, gradient, tiles, masks, and that it sees lattices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import reference_losses
from support.equivalence import check
from support.settings import resolved
from support.tiny import picture
from torch import Tensor

from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import Limits
from style_transfer.losses.band_contrast import BandContrast
from style_transfer.losses.guidance import StageRegion
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

MakeNetwork = Callable[..., Network]
SIZE = (40, 52)
ALONE: dict[str, Any] = {"content_weight": 0.0, "style_factor": 0.0, "tv_weight": 0.0, "band_weight": 2.0}


def objective(network: Network, content: Tensor, style: Tensor, **about: Any) -> Objective:
    return Objective([network], content, [style], resolved(**ALONE | {"padding": "network"} | about))


def test_the_loss_by_its_formula(make_network: MakeNetwork) -> None:
    image, style = picture(3, *SIZE), picture(2, 64, 70)
    evaluated = objective(make_network(dtype=torch.float64), picture(1, *SIZE), style)
    assert [term.name for term in evaluated.terms] == ["bands picture"]
    logs = [np.log(reference_losses.band_magnitudes(x)) for x in (image, style)]
    expected = 2 * float(np.square(logs[0] - logs[1]).mean())
    assert expected > 0.01 and float(evaluated.evaluate(image).loss) == pytest.approx(expected, rel=1e-9)


def test_the_gradient_by_finite_differences(make_network: MakeNetwork) -> None:
    evaluated, image = objective(make_network(dtype=torch.float64), picture(1, *SIZE), picture(2, 64, 70)), picture(3, *SIZE)
    evaluated.evaluate(image)
    gradient, direction = image.grad, torch.randn(image.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert gradient is not None
    ends = [float(evaluated.evaluate(image + step * direction).loss) for step in (1e-6, -1e-6)]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


@pytest.mark.parametrize("padding", ["mirror", "network"])
@pytest.mark.parametrize("layers", [("relu1_1",), ("relu1_1", "relu4_1")], ids=["shallow", "deep"])
def test_tiles_and_devices_give_the_same_loss_and_gradient(
    layers: tuple[str, ...], padding: str, make_network: MakeNetwork
) -> None:
    about: dict[str, Any] = {"style_layers": layers, "content_layers": ("relu1_1",), "padding": padding, "band_weight": 2.0}
    limits = Limits(False, (60 * 60, 24 * 24)[: len(layers)], (4000, 1000)[: len(layers)])
    tiles = check(make_network(dtype=torch.float64), (205, 181), limits, 2, **about)
    assert tiles[0] > 1


def test_equal_pictures_have_no_loss_and_no_gradient(make_network: MakeNetwork) -> None:
    image = picture(2, *SIZE)
    evaluated = objective(make_network(dtype=torch.float64), picture(1, *SIZE), image.clone())
    assert float(evaluated.evaluate(image).loss) == 0
    assert image.grad is not None and not image.grad.any()


def test_flat_pictures_have_a_finite_loss(make_network: MakeNetwork) -> None:
    flat = torch.full((1, 3, *SIZE), 0.5, dtype=torch.float64)
    for image, style in ((flat, picture(2, *SIZE)), (picture(2, *SIZE), flat)):
        evaluated = objective(make_network(dtype=torch.float64), picture(1, *SIZE), style)
        assert math.isfinite(evaluated.evaluate(image.clone()).loss)


def test_a_region_is_compared_with_its_own_style(make_network: MakeNetwork) -> None:
    left = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    left[..., :26] = 1
    image, styles = picture(3, *SIZE), [picture(2, 64, 70), picture(4, 80, 48)]
    regions = [StageRegion(left, {0: None}), StageRegion(1 - left, {1: None})]
    settings = resolved(**ALONE, padding="network")
    evaluated = Objective([make_network(dtype=torch.float64)], picture(1, *SIZE), styles, settings, regions=regions)
    expected = 0.0
    for mask, style in ((left, styles[0]), (1 - left, styles[1])):
        logs = [np.log(reference_losses.band_magnitudes(image, mask)), np.log(reference_losses.band_magnitudes(style))]
        expected += 2 * float(mask.mean()) * float(np.square(logs[0] - logs[1]).mean())
    assert float(evaluated.evaluate(image).loss) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("across", [True, False])
def test_a_faint_lattice_is_seen(across: bool) -> None:
    """A lattice of one level in 50 changes its bands by more than a fifth, and others by less than half of that."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    smooth = (picture(2, 16, 20).repeat_interleave(4, 2).repeat_interleave(4, 3) - 0.5) * 0.05 + 0.5
    lattice = smooth + 0.02 * torch.sin(2 * math.pi * 0.4 * (x if across else y)).double()
    before, after = (BandContrast.statistic(p).means()["bands"] for p in (smooth, lattice))
    change = (after / before).log()
    own = 4 if across else 6  # frequency 0.4, waves along x or y
    assert change.argmax() == own and change[own] > 0.2
    assert change[[5, 7]].max() < change[own] / 2


def test_presets_of_other_programs_leave_it_out() -> None:
    assert Settings().resolve().band_weight > 0
    for name in ("style-transfer-pytorch", "neural-style", "neuralart", "fzliu", "sliced"):
        assert Settings(preset=name).resolve().band_weight == 0
