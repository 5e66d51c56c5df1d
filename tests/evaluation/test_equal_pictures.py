"""Pictures that equal the content or the style differ from it by exactly zero in any tiles.

The gradient of scaled errors has the same size for differences of any size, so that it would magnify rounding errors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from support.equivalence import distance
from support.settings import resolved
from support.tiny import picture, random_state
from torch import Tensor

from style_transfer.evaluation.objective import Evaluation, Objective
from style_transfer.evaluation.sweep import UNLIMITED, Limits
from style_transfer.networks.families.vgg import vgg
from style_transfer.networks.forward import Network

MakeNetwork = Callable[..., Network]
SIZE = 205, 101
TILES = {
    "one": UNLIMITED,
    "whole network": Limits(True, (195 * 101,), (0,)),
    "in segments": Limits(False, (60 * 70, 24 * 24), (0, 0)),
    "some kept": Limits(False, (60 * 70, 24 * 24), (9000, 1000)),
    "by side": Limits(False, (10**9, 10**9), (0, 0), 64),
}
WIDE = vgg("wide", [(8,) * 2, (16,) * 2, (128,) * 4, (128,) * 4, (8,) * 4])
"""A network of which a part is convolved by Winograd's method on a CPU."""


def first_evaluation(
    network: Network, limits: Limits, workers: int = 1, *, later: Limits | None = None, **about: object
) -> tuple[Evaluation, Tensor]:
    """Return the evaluation of the content picture and its gradient, within the limits `later` if the first did not suffice."""
    content, style = (picture(n, *size, network.dtype) for n, size in ((1, SIZE), (2, (75, 90))))
    objective = Objective([network] * workers, content, [style], resolved(**about), limits)
    image = content.clone()
    found = objective.evaluate(image, later)
    assert image.grad is not None
    return found, image.grad


@pytest.mark.parametrize("limits", TILES.values(), ids=TILES)
@pytest.mark.parametrize(("workers", "dtype"), [(1, torch.float64), (2, torch.float32), (1, torch.bfloat16)])
def test_the_content_has_no_content_loss(limits: Limits, workers: int, dtype: torch.dtype, make_network: MakeNetwork) -> None:
    short = dtype == torch.bfloat16
    network = make_network(dtype=torch.float32, features=dtype) if short else make_network(dtype=dtype)
    found, gradient = first_evaluation(network, limits, workers, content_layers=("relu2_2", "relu4_2"))
    assert [float(part) for name, part in found.parts.items() if name.startswith("content")] == [0.0, 0.0]
    if not short:
        _, expected = first_evaluation(network, UNLIMITED, content_weight=0.0)
        assert distance(gradient, expected) < {torch.float64: 1e-12, torch.float32: 2e-4}[dtype]


@pytest.mark.parametrize("limits", TILES.values(), ids=TILES)
def test_winograd_s_method_rounds_alike(limits: Limits) -> None:
    network = Network(WIDE, random_state(WIDE, 1))
    assert network._winograd
    found, gradient = first_evaluation(network, limits, content_weight=1.0)
    _, expected = first_evaluation(network, UNLIMITED, content_weight=0.0)
    assert float(found.parts["content relu4_2"]) == 0 and distance(gradient, expected) < 1e-3


@pytest.mark.parametrize(("first", "later"), [*itertools.permutations(["one", "in segments", "by side"], 2)])
def test_tiles_that_change_before_the_first_evaluation_change_nothing(first: str, later: str, make_network: MakeNetwork) -> None:
    """Where memory runs out, the first evaluation is repeated in smaller tiles."""
    found, gradient = first_evaluation(make_network(dtype=torch.float64), TILES[first], later=TILES[later])
    expected, other = first_evaluation(make_network(dtype=torch.float64), TILES[later])
    assert float(found.parts["content relu4_2"]) == 0
    assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-12) and distance(gradient, other) < 1e-12


@pytest.mark.parametrize("limits", TILES.values(), ids=TILES)
def test_the_style_has_no_style_loss(limits: Limits, make_network: MakeNetwork) -> None:
    style = picture(2, *SIZE, torch.float32)
    settings = resolved(content_weight=0.0, tv_weight=0.0)
    objective = Objective([make_network()], picture(1, *SIZE, torch.float32), [style], settings, limits)
    image = style.clone()
    assert float(objective.evaluate(image).loss) == 0
    assert image.grad is not None and not image.grad.any()


def test_the_content_picture_is_kept_until_the_first_evaluation_only(make_network: MakeNetwork) -> None:
    content, style = picture(1, 48, 40, torch.float32), picture(2, 48, 40, torch.float32)
    objective = Objective([make_network()], content, [style], resolved())
    assert objective._content is not None
    objective.evaluate(content.clone())
    assert objective._content is None
