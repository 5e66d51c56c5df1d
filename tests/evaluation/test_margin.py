"""Pictures continued by their mirror image: the same features as of a picture that is continued before, and tiles stay exact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.equivalence import check, evaluate
from support.tiny import picture
from torch import Tensor

from style_transfer.compute.distributed import LOCAL
from style_transfer.evaluation.margin import Margin
from style_transfer.evaluation.sweep import UNLIMITED, Limits
from style_transfer.networks import VGG19
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

MakeNetwork = Callable[..., Network]


def with_margin(network: Network, margin: int = 16) -> Network:
    """Return the network, which now sees pictures with a margin."""
    network.spec = dataclasses.replace(network.spec, margin=margin)
    return network


def continued(x: Tensor, width: int) -> Tensor:
    """Return a picture (1, C, H, W) continued by NumPy's symmetric padding."""
    return torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (width, width), (width, width)), "symmetric"))


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (33, 16)], ids=str)
def test_the_picture_is_continued_and_the_gradient_is_folded(size: tuple[int, int]) -> None:
    margin = Margin(size, 16, LOCAL, ((0, size[0]),))
    x, gradient = picture(1, *size), torch.randn(1, 3, *margin.extended, dtype=torch.float64)
    assert torch.equal(margin.extend(x), continued(x, 16))
    folded = margin.fold(gradient.clone())  # the transpose of a linear map: <A x, g> = <x, A' g>
    assert math.isclose(float((continued(x, 16) * gradient).sum()), float((x * folded).sum()), rel_tol=1e-12)


def test_a_picture_smaller_than_the_margin_has_none() -> None:
    margin = Margin((15, 40), 16, LOCAL, ((0, 15),))
    assert margin.extended == (15, 40)
    assert margin.extend(picture(1, 15, 40)).shape == (1, 3, 15, 40)


def test_the_cells_of_the_picture_are_those_of_the_continued_picture(make_network: MakeNetwork) -> None:
    """The loss is that of features of a picture padded by NumPy, without the cells of the margin."""
    network = with_margin(make_network(dtype=torch.float64))
    loss, _, _, _ = evaluate(network, (64, 50), UNLIMITED, content_weight=0.0, tv_weight=0.0, style_layers=("relu3_1",))
    plain = make_network(dtype=torch.float64)
    grams = []
    for x in (picture(3, 64, 50), picture(2, 75, 90)):
        features = plain.forward(continued(x, 16), ["relu3_1"])["relu3_1"][..., 4:-4, 4:-4].flatten(2)[0]
        grams.append(features @ features.T / features.shape[1])
    d = grams[0] - grams[1]
    assert float(loss) == pytest.approx(float(d.square().sum() / d.abs().sum()), rel=1e-6)


@pytest.mark.parametrize("size", [(205, 181), (16, 16), (17, 300), (97, 33)], ids=str)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("tv_loss", ["axes", "nine-point", "inner"])
def test_tiles_stay_exact(size: tuple[int, int], workers: int, tv_loss: str, make_network: MakeNetwork) -> None:
    network = with_margin(make_network(dtype=torch.float64))
    for limits in (Limits(False, (48 * 48, 20 * 20), (0, 0)), Limits(True, (190 * 170,), (0,)), UNLIMITED):
        check(network, size, limits, workers, tv_loss=tv_loss, tv_weight=50.0)


@pytest.mark.parametrize("tv_loss", ["axes", "nine-point", "inner"])
def test_the_margin_does_not_count_for_the_total_variation(tv_loss: str, make_network: MakeNetwork) -> None:
    options = {"content_weight": 0.0, "style_factor": 0.0, "tv_loss": tv_loss}
    with_it = evaluate(with_margin(make_network(dtype=torch.float64)), (40, 50), UNLIMITED, **options)
    without = evaluate(make_network(dtype=torch.float64), (40, 50), UNLIMITED, **options)
    assert float(with_it[0]) == pytest.approx(float(without[0]), rel=1e-12)
    assert torch.allclose(with_it[2], without[2], rtol=1e-9, atol=1e-15)


def test_the_margin_is_a_multiple_of_the_strides() -> None:
    assert VGG19.configured(Settings().resolve()).margin == 16
    assert VGG19.configured(Settings(style_layers=("relu1_1", "pool5")).resolve()).margin == 32
    assert VGG19.configured(Settings(padding="network").resolve()).margin == 0


def test_a_flat_picture_has_equal_features_up_to_its_edges(make_network: MakeNetwork) -> None:
    """With the margin zeros of the padding lie outside the cells that count, as far as the layer's reach is below the margin."""
    network, x = make_network(dtype=torch.float64), torch.full((1, 3, 64, 64), 0.3, dtype=torch.float64)

    def spread(features: Tensor) -> float:
        return float((features.amax((2, 3)) - features.amin((2, 3))).max())

    assert spread(network.forward(x, ["relu2_1"])["relu2_1"]) > 1e-3
    assert spread(F.pad(network.forward(continued(x, 16), ["relu2_1"])["relu2_1"], (-8,) * 4)) < 1e-12
