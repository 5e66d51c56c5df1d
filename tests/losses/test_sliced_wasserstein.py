"""The sliced Wasserstein loss against sorted values, its directions, and pictures for which it is zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from support import reference
from support.equivalence import distance
from support.features import features
from support.settings import resolved
from support.tiny import picture
from torch import Tensor

from style_transfer.errors import SettingsError
from style_transfer.evaluation.objective import Objective
from style_transfer.losses.statistics import Stats
from style_transfer.losses.style.base import StyleStatistic
from style_transfer.losses.style.moments import GramLoss
from style_transfer.losses.style.sliced_wasserstein import BASES, PARTS, SlicedWassersteinLoss, basis
from style_transfer.networks.forward import Network


class Styles:
    """Features (1, C, h, w) of style pictures at one layer, in place of the pictures."""

    def __init__(self, *styles: Tensor, weights: Sequence[float] = (1.0,), masks: Sequence[Tensor | None] = (None,)) -> None:
        self.styles, self.weights, self.masks = styles, weights, masks
        self.guides: dict[str, Tensor] = {}

    def measure(self, statistic: StyleStatistic) -> dict[str, list[Stats]]:
        pairs = zip(self.styles, self.masks * len(self.styles), strict=False)
        return {"layer": [statistic("layer", x, None, mask) for x, mask in pairs]}  # type: ignore[arg-type]


def prepared(*styles: Tensor, **about: Sequence[object]) -> SlicedWassersteinLoss:
    settings = resolved(style_loss="sliced-wasserstein")
    return SlicedWassersteinLoss.prepare(settings, Styles(*styles, **about))["layer"]  # type: ignore[arg-type]


def evaluated(loss: SlicedWassersteinLoss, x: Tensor) -> tuple[float, Tensor]:
    x = x.clone().requires_grad_()
    value = loss.score(loss.measure(x))
    return value.item(), torch.autograd.grad(value, x)[0]


def directions(channels: int, index: int) -> Tensor:
    """Return the directions of a set, as they must be: those of a quarter of a basis, or the last ones."""
    count = -(-channels // PARTS)
    first = min(index % PARTS * count, channels - count)
    return basis(channels, 0, index // PARTS).double()[first : first + count]


def coloured(seed: int, channels: int, height: int, width: int) -> Tensor:
    """Return features with dependent channels, many zeros and rare large values."""
    mix = torch.randn(channels, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = features(seed, channels, height, width) ** 2
    return torch.einsum("ab,nbhw->nahw", mix, x).relu()


@pytest.mark.parametrize("channels", [1, 7, 24])
@pytest.mark.parametrize(("size", "style_size"), [((64, 64), (64, 64)), ((256, 192), (256, 192)), ((64, 48), (96, 64))])
def test_the_loss_and_its_gradient_are_those_of_sorted_values(
    size: tuple[int, int], style_size: tuple[int, int], channels: int
) -> None:
    style, x = coloured(1, channels, *style_size), coloured(2, channels, *size) + 0.1
    loss = prepared(style)
    for index in (0, PARTS + 3):
        loss.draw(index)
        value, gradient = evaluated(loss, x)
        sorted_x = x.clone().requires_grad_()
        expected = reference.sliced_wasserstein(sorted_x, style, directions(channels, index))
        (slope,) = torch.autograd.grad(expected, sorted_x)
        assert value == pytest.approx(expected.item(), rel=5e-3)
        assert torch.cosine_similarity(gradient.flatten(), slope.flatten(), 0) > 0.999
        assert float(gradient.norm() / slope.norm()) == pytest.approx(1, abs=1e-2)


def test_the_gradient_is_that_of_the_loss() -> None:
    loss, x = prepared(coloured(1, 6, 40, 30)), coloured(2, 6, 20, 40)
    step = 1e-4 * features(3, 6, 20, 40)
    change = evaluated(loss, x + step)[0] - evaluated(loss, x - step)[0]
    assert change == pytest.approx(2 * float((evaluated(loss, x)[1] * step).sum()), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (80, 60)])
def test_equal_features_cost_nothing(size: tuple[int, int], dtype: torch.dtype) -> None:
    loss, style = prepared(coloured(1, 9, *size).to(dtype)), coloured(1, 9, *size).to(dtype)
    value, gradient = evaluated(loss, style)
    _, other = evaluated(loss, coloured(2, 9, *size).to(dtype))
    assert abs(value) < 1e-15 and float(gradient.abs().max()) < 1e-6 * float(other.abs().max())


@pytest.mark.parametrize("style", [torch.full((1, 5, 8, 8), 2.0), torch.zeros(1, 5, 8, 8)], ids=["one colour", "zero"])
def test_a_style_of_one_value_pulls_everything_there(style: Tensor) -> None:
    loss, x = prepared(style.double()), style.double() + 0.3 * torch.randn(1, 5, 8, 8, dtype=torch.float64)
    before, gradient = evaluated(loss, x)
    assert 0 < evaluated(loss, x - 0.1 * gradient * x.numel())[0] < before
    assert torch.isnan(torch.tensor(evaluated(loss, x * torch.nan)[0]))


def test_features_of_equal_gram_matrices_are_told_apart() -> None:
    """Channels of the values -1 and 1 have the same means and products as normal noise."""
    random = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (4, 4096), generator=random).double() * 2 - 1
    noise = torch.randn(4, 4096, generator=random, dtype=torch.float64)
    white = []
    for x in (signs, noise):
        x = x - x.mean(1, keepdim=True)
        white.append((torch.linalg.inv(torch.linalg.cholesky(x @ x.mT / 4096)) @ x).reshape(1, 4, 64, 64))
    grams = [GramLoss.statistic(x).means()["second"] for x in white]
    assert torch.allclose(*grams, atol=1e-12)
    loss = prepared(white[0])
    values = []
    for index in range(PARTS * BASES):
        loss.draw(index)
        values.append(evaluated(loss, white[1])[0])
    assert min(values) > 0.01


def test_blended_styles_are_mixed() -> None:
    a, b = coloured(1, 6, 20, 30), coloured(2, 6, 20, 30)
    loss = prepared(a, b, weights=(0.25, 0.75))
    value, gradient = evaluated(loss, torch.cat([a, b, b, b], 2))
    assert abs(value) < 1e-12 and float(gradient.abs().max()) < 1e-10


def test_a_cell_of_weight_two_counts_twice() -> None:
    style, x = coloured(1, 6, 20, 30), coloured(2, 6, 30, 20)
    mask = torch.ones(20, 30, dtype=torch.float64)
    mask[:10], mask[15:] = 2, 0
    loss, same = prepared(style, masks=(mask.flatten(),)), prepared(torch.cat([style[:, :, :10], style[:, :, :15]], 2))
    loss.guide = torch.ones(1, 1, 30, 20, dtype=torch.float64)
    loss.guide[:, :, 20:] = 2
    value, gradient = evaluated(loss, x)
    expected, slope = evaluated(same, torch.cat([x, x[:, :, 20:]], 2))
    assert value == pytest.approx(expected, rel=1e-9)
    slope[:, :, 20:30] += slope[:, :, 30:]
    assert distance(gradient, slope[:, :, :30]) < 1e-9


def test_directions_are_orthogonal_and_differ_from_set_to_set() -> None:
    for channels in (1, 2, 9, 64):
        q = basis(channels, 5, 1).double()
        assert torch.allclose(q @ q.mT, torch.eye(channels, dtype=torch.float64), atol=1e-6)
        assert channels == 1 or not torch.equal(basis(channels, 5, 2), basis(channels, 5, 1))
        assert channels == 1 or not torch.equal(basis(channels, 6, 1), basis(channels, 5, 1))
    assert float(torch.stack([basis(8, seed, 0)[0, 0] for seed in range(200)]).mean().abs()) < 0.1


def test_every_seed_draws_one_set() -> None:
    loss, x, values = prepared(coloured(1, 6, 20, 30)), coloured(2, 6, 20, 30), {}
    for seed in (0, 1, 7, PARTS * BASES, 2**62 + 7):
        loss.draw(seed)
        values[seed] = evaluated(loss, x)[0]
    assert values[0] == values[PARTS * BASES] != values[1] and values[7] == values[2**62 + 7]


def test_a_line_search_cannot_compare_random_losses() -> None:
    for flag, about in (("style", {}), ("extra", {"extra_weight": 1.0})):
        with pytest.raises(
            SettingsError, match="sliced-wasserstein is a random loss, which --line-search strong-wolfe cannot compare"
        ):
            resolved(optimizer="lbfgs", line_search="strong-wolfe", **{f"{flag}_loss": "sliced-wasserstein"}, **about)
    assert resolved(optimizer="lbfgs", style_loss="sliced-wasserstein").style_factor == 10


def test_an_objective_in_short_numbers_is_close_to_one_in_long_ones(make_network: Callable[..., Network]) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        network = make_network(dtype=torch.float32, features=dtype)
        content, style, image = (picture(n, 96, 80, torch.float32) for n in (1, 2, 3))
        settings = resolved(style_loss="sliced-wasserstein", content_weight=0.0, tv_weight=0.0)
        loss = Objective([network], content, [style], settings).evaluate(image).loss
        found.append((float(loss), image.grad))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.05)
    assert torch.cosine_similarity(found[0][1].flatten(), found[1][1].flatten(), 0) > 0.98
