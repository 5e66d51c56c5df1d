"""The loss of nearest neighbours: formula, targets, gradient, tiles, masks, several styles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import reference, reference_losses
from support.equivalence import check
from support.settings import resolved
from support.tiny import TINY, picture, tiny_weights
from torch import Tensor

from style_transfer.evaluation import objective as objective_module
from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import UNLIMITED, Limits
from style_transfer.losses.guidance import StageRegion
from style_transfer.losses.style import neighbors
from style_transfer.losses.style.neighbors import NeighborsLoss
from style_transfer.networks.forward import Network

MakeNetwork = Callable[..., Network]
SIZE = (75, 91)
LAYERS = ("relu1_1", "relu3_1", "relu4_1")
ABOUT: dict[str, Any] = {"style_loss": "neighbors", "style_layers": LAYERS, "content_weight": 0.0, "tv_weight": 0.0,
                         "extra_weight": 0.0}  # fmt: skip


def objective(network: Network, content: Tensor | None = None, styles: list[Tensor] | None = None, limits: Limits = UNLIMITED,
              **about: Any) -> Objective:  # fmt: skip
    content = picture(1, *SIZE, network.dtype) if content is None else content
    styles = [picture(2, 64, 70, network.dtype)] if styles is None else styles
    return Objective([network], content, styles, resolved(**ABOUT | about), limits)


def loss_of(evaluated: Objective) -> NeighborsLoss:
    (loss,) = (term.loss for term in evaluated.terms if term.name.startswith("style"))
    assert isinstance(loss, NeighborsLoss)
    return loss


def columns(image: Tensor) -> list[Tensor]:
    """Return the oracle's features of the squares of four pixels, (n, C) for each layer."""
    found, squares = reference.features(image, tiny_weights(), "average", LAYERS), []
    for layer in LAYERS:
        side = 4 // TINY.strides[layer]
        if side > 1:
            squares.append(F.avg_pool2d(found[layer], side).flatten(2)[0].T)
        else:
            middles = [(4 * i + 2, 4 * j + 2) for i in range(image.shape[2] // 4) for j in range(image.shape[3] // 4)]
            squares.append(reference.at_points(found[layer], middles, TINY.strides[layer]))
    return squares


def test_loss_and_targets_by_their_formulas(make_network: MakeNetwork) -> None:
    size = 31, 42
    content, style, image = picture(1, *size), picture(2, 34, 30), picture(3, *size)
    evaluated = objective(make_network(dtype=torch.float64), content, [style])
    found, loss = float(evaluated.evaluate(image).loss), loss_of(evaluated)
    expected, index = reference_losses.neighbors(columns(image), columns(content), columns(style))
    assert torch.equal(loss.index.flatten(), index) and len(index.unique()) > 5
    assert found == pytest.approx(neighbors.FACTOR * float(expected), rel=1e-9)


def test_the_gradient_by_finite_differences(make_network: MakeNetwork) -> None:
    evaluated, image = objective(make_network(dtype=torch.float64)), picture(3, *SIZE)
    evaluated.evaluate(image)
    gradient, direction = image.grad, torch.randn(image.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert gradient is not None
    ends = [float(evaluated.evaluate(image + step * direction).loss) for step in (1e-7, -1e-7)]
    assert (ends[0] - ends[1]) / 2e-7 == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


@pytest.mark.parametrize("limits", [
    Limits(True, (110 * 110,), (0,)), Limits(False, (60 * 70, 24 * 24), (0, 0)), Limits(False, (60 * 70, 24 * 24), (9000, 1000)),
])  # fmt: skip
@pytest.mark.parametrize("workers", [1, 2])
def test_tiles_and_devices_give_the_same_loss_and_gradient(limits: Limits, workers: int, make_network: MakeNetwork) -> None:
    about = ABOUT | {"content_weight": 0.1}
    tiles = check(make_network(dtype=torch.float64), (205, 181), limits, workers, **about)
    assert tiles[0] > 1


@pytest.mark.parametrize("size", [(16, 16), (17, 95), (33, 161)])
def test_every_shape_is_tiled_exactly(size: tuple[int, int], make_network: MakeNetwork) -> None:
    check(make_network(dtype=torch.float64), size, Limits(False, (1, 1), (0, 0)), 2, **ABOUT)


def test_targets_do_not_depend_on_the_tiles_of_the_search(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    content, network = picture(1, 192, 176), make_network(dtype=torch.float64)
    whole = loss_of(objective(network, content)).index
    monkeypatch.setattr(objective_module, "COLUMNS_AREA", 180 * 180)
    assert torch.equal(loss_of(objective(network, content)).index, whole)


def test_a_picture_that_is_the_style_has_no_loss(make_network: MakeNetwork) -> None:
    image = picture(2, 64, 72)
    evaluated = objective(make_network(dtype=torch.float64), image, [image.clone()])
    assert torch.equal(loss_of(evaluated).index.flatten(), torch.arange(16 * 18))
    assert abs(float(evaluated.evaluate(image).loss)) < 1e-12


def test_a_bank_has_as_many_points_as_allowed_shared_by_weight(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "BANK", 80)
    styles = [picture(2, 64, 70), picture(4, 80, 48)]
    loss = loss_of(objective(make_network(dtype=torch.float64), styles=styles, style_weights=(3.0, 1.0)))
    parts = loss.bank["relu1_1"].split([60, 20])
    for part, style in zip(parts, styles, strict=True):
        nearest = torch.cdist(part, columns(style)[0]).min(1)
        assert nearest.values.max() < 1e-6 and len(nearest.indices.unique()) == len(part)


def test_a_region_has_targets_of_its_own_style(make_network: MakeNetwork) -> None:
    left = torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    left[..., :44] = 1
    styles, content = [picture(2, 64, 70), picture(4, 80, 48)], picture(1, *SIZE)
    regions = [StageRegion(left, {0: None}), StageRegion(1 - left, {1: None})]
    evaluated = Objective([make_network(dtype=torch.float64)], content, styles, resolved(**ABOUT), regions=regions)
    image, expected = picture(3, *SIZE), 0.0
    parts = evaluated.evaluate(image).parts
    assert list(parts) == ["style neighbors 1", "style neighbors 2"]
    inside = torch.tensor([4 * j + 2 < 44 for _ in range(SIZE[0] // 4) for j in range(SIZE[1] // 4)])
    x, q = columns(image), columns(content)
    for mask, style, part in zip((inside, ~inside), styles, parts.values(), strict=True):
        bank = columns(style)
        _, index = reference_losses.neighbors(x, q, bank)
        y, k = (reference.weighted_columns(each, bank, [1.0] * 3) for each in (x, bank))
        distances = torch.stack([reference.cosine_distance(u, k[i]) for u, i in zip(y, index, strict=True)])
        expected = neighbors.FACTOR * float(distances[mask].mean())
        share = 44 / 91 if mask is inside else 47 / 91
        assert float(part) == pytest.approx(share * expected, rel=1e-6)
