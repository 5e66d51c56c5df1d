"""Style statistics and error measures against plain formulas, their sums over parts, their gradients, and tiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from support.equivalence import check
from support.features import features
from support.settings import resolved
from support.tiny import picture
from torch import Tensor

from style_transfer.compute.resampling import resize
from style_transfer.engine.initial import first_picture
from style_transfer.engine.loop import stylize
from style_transfer.errors import SettingsError
from style_transfer.evaluation.sweep import Limits
from style_transfer.losses.loss import ERRORS
from style_transfer.losses.statistics import Stats, moments
from style_transfer.losses.style.histogram import BINS, HistogramLoss, histogram, spread
from style_transfer.losses.style.moments import MomentLoss
from style_transfer.networks.forward import Network
from style_transfer.registry import STYLE_LOSSES

X, STYLE = features(0, 6, 7, 11), features(1, 6, 9, 8)


def against(kind: str, style: Tensor, **settings: object) -> MomentLoss:
    """Return the loss by its name against one style."""
    chosen, loss = resolved(**settings), STYLE_LOSSES[kind]
    made: MomentLoss = loss(chosen, loss.blend(chosen, [loss.statistic(style)], [1.0]))
    return made


def plain(kind: str, x: Tensor) -> Tensor:
    f = x.flatten(2)[0]
    n = f.shape[1]
    if kind == "covariance":
        f = f - f.mean(1, keepdim=True)
    elif kind == "shifted-gram":
        f = f - 1
    elif kind == "mean-std":
        return torch.stack([f.mean(1), (f.var(1, correction=0) + 1e-6).sqrt()])
    return f @ f.T / n


def plain_error(kind: str, d: Tensor) -> float:
    squares = d.square().sum()
    return float({"scaled": squares / (d.abs().sum() + 1e-8), "mean": d.square().mean(), "sum": squares,
        "relative": squares / (2 * d).abs().mean()}[kind])  # fmt: skip


@pytest.mark.parametrize("kind", ["gram", "covariance", "shifted-gram", "mean-std"])
@pytest.mark.parametrize("measure", ["scaled", "mean", "sum", "relative"])
def test_statistics_and_errors_by_their_formulas(kind: str, measure: str) -> None:
    loss = against(kind, STYLE, style_error=measure)
    assert float(loss.score(loss.measure(X))) == pytest.approx(plain_error(measure, plain(kind, X) - plain(kind, STYLE)))
    parts = loss.measure(X[..., :4]) + loss.measure(X[..., 4:])
    assert float(loss.score(parts)) == pytest.approx(float(loss.score(loss.measure(X))))
    x = X[..., :3, :4].clone().requires_grad_()
    if measure != "relative":  # whose divisor is held constant
        assert torch.autograd.gradcheck(lambda x: loss.score(loss.measure(x)), x)


def test_norms_by_their_formulas() -> None:
    for norm, divide in (("elements", 6.0), ("raw", 0.0), ("raw-squared", 0.0)):
        loss = against("gram", STYLE, style_error="sum", gram_norm=norm)
        sums = [x.flatten(2)[0] @ x.flatten(2)[0].T for x in (X, STYLE)]
        d = (sums[0] / 77 - sums[1] / 72) / divide if divide else (sums[0] - sums[1]) / (6 * 77) ** (1 + (norm == "raw-squared"))
        assert float(loss.score(loss.measure(X))) == pytest.approx(float(d.square().sum()))


def test_weights_count_cells() -> None:
    """A weight of two is a cell that is there twice, a weight of zero none."""
    weights = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).repeat(26)[:77]
    picked = X.flatten(2)[..., torch.arange(77).repeat_interleave(weights.long())][..., None]
    for kind in ("gram", "mean-std"):
        loss = against(kind, STYLE, style_error="mean")
        assert float(loss.score(loss.statistic(X, None, weights))) == pytest.approx(float(loss.score(loss.measure(picked))))


def test_weighted_histograms_count_cells() -> None:
    weights = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).repeat(26)[:77]
    picked = X.flatten(2)[..., torch.arange(77).repeat_interleave(weights.long())][..., None]
    low, high = spread(moments(STYLE, second="diagonal").means())
    found, expected = histogram(X, None, weights, low, high).means(), histogram(picked, None, None, low, high).means()
    assert torch.allclose(found["counts"], expected["counts"], rtol=1e-12)


def test_cumulative_histograms() -> None:
    low, high = spread(moments(STYLE, second="diagonal").means())
    counts = histogram(STYLE, None, None, low, high)
    assert counts.sums["counts"].sum(1).tolist() == pytest.approx([72.0] * 6)
    loss = HistogramLoss(resolved(), counts.means(), low, high)
    assert float(loss.score(loss.measure(STYLE))) == 0
    shuffled = STYLE.flatten(2)[..., torch.randperm(72, generator=torch.Generator().manual_seed(0))].reshape(STYLE.shape)
    assert float(loss.score(loss.measure(shuffled))) < 1e-20
    parts = loss.measure(X[..., :4]) + loss.measure(X[..., 4:])
    assert float(loss.score(parts)) == pytest.approx(float(loss.score(loss.measure(X))))
    edges = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, BINS, dtype=torch.float64)
    step = (high - low)[:, None] / (BINS - 1)
    share = [((edges[:, :, None] + step[:, :, None] - f.flatten(2)[0][:, None]) / step[:, :, None]).clamp(0, 1).mean(2)
             for f in (X.clamp(low[:, None, None], high[:, None, None]), STYLE)]  # fmt: skip
    assert float(loss.score(loss.measure(X))) == pytest.approx(float((share[0] - share[1]).square().mean()), rel=1e-6)
    x = X.clone().requires_grad_()
    for _ in range(400):
        (g,) = torch.autograd.grad(loss.score(loss.measure(x)), x)
        x = (x - 200 * g).detach().requires_grad_()
    assert float(loss.score(loss.measure(x)).detach()) < 0.1 * float(loss.score(loss.measure(X)))


def test_relative_error_has_a_constant_divisor() -> None:
    d = torch.tensor([1.0, -3.0], dtype=torch.float64, requires_grad=True)
    found = ERRORS["relative"](d.square().sum(), d.abs().sum(), 2)
    assert float(found.detach()) == pytest.approx(10 / 4)
    assert torch.autograd.grad(found, d)[0].tolist() == pytest.approx([2 / 4, -6 / 4])
    assert float(ERRORS["relative"](torch.zeros(()), torch.zeros(()), 2)) == 0


SMALL_TILES = Limits(False, (60 * 70, 24 * 24), (0, 0))
CHOICES: dict[str, dict[str, object]] = {
    "covariance": {"style_loss": "covariance", "content_error": "relative"},
    "shifted": {"style_loss": "shifted-gram", "content_error": "sum"},
    "mean-std": {"style_loss": "mean-std", "content_layers": ("relu3_1", "relu4_2"), "content_layer_weights": (1, 3)},
    "histogram": {"style_loss": "histogram"},
    "raw": {"gram_norm": "raw", "style_error": "relative", "style_gradient": 0.5, "tv_loss": "inner"},
    "two": {"extra_loss": "histogram", "extra_weight": 2.0, "normalize_gradients": True},
}


@pytest.mark.parametrize("about", CHOICES.values(), ids=CHOICES)
def test_tiles_give_the_same_loss_and_gradient(about: dict[str, object], make_network: Callable[..., Network]) -> None:
    assert max(check(make_network(dtype=torch.float64), (99, 85), SMALL_TILES, 2, **about)) > 1


def run(network: Network, **about: object) -> list[float]:
    settings = resolved(min_scale=32, end_scale="32", initial_iterations=3, **about)  # type: ignore[arg-type]
    return [float(it.loss) for it in stylize(picture(1, 30, 32), [picture(2, 60, 70)], settings, networks=[network])]


def test_one_style_at_several_scales_is_the_average_of_its_statistics(make_network: Callable[..., Network]) -> None:
    network = make_network(dtype=torch.float64)
    assert run(network, style_scale=(1.0,)) == run(network)
    assert run(network, style_scale=(2.0,)) == pytest.approx(run(network, style_scale_fac=2.0))
    both = run(network, style_scale=(1.0, 2.0), style_weights=(1, 0))
    assert both == pytest.approx(run(network))
    assert run(network, style_scale=(1.0, 2.0)) != pytest.approx(both)
    assert resolved(style_scale=(0.5, 2.0)).expanded(2) == ((0, 0.5), (1, 2.0))
    with pytest.raises(SettingsError, match="--style-scale has 2 values for 3 style pictures"):
        resolved(style_scale=(0.5, 2.0)).expanded(3)


def test_the_styles_to_start_from() -> None:
    content, a, b = picture(1, 60, 64), picture(2, 30, 40), picture(3, 33, 21)
    start = partial(first_picture, content, [a, b], (60, 64))
    both = start(resolved(init="style", style_weights=(3, 1)))
    expected = 0.75 * resize(a, (60, 64), antialias=True) + 0.25 * resize(b, (60, 64), antialias=True)
    assert torch.allclose(both, expected.clamp(0, 1), atol=1e-9)
    mixed = start(resolved(init="style", style_weights=(3, 1), init_blend=0.95))
    assert torch.allclose(mixed, (0.05 * expected + 0.95 * content).clamp(0, 1), atol=1e-9)


def test_noise_to_start_from() -> None:
    content = picture(1, 60, 64)
    white, pink = (first_picture(content, [], (60, 64), resolved(init="noise", noise=kind, noise_deviation=0.1))
        for kind in ("white", "pink"))  # fmt: skip
    for noise in (white, pink):
        assert float(noise.mean()) == pytest.approx(0.5, abs=0.01) and float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert float((pink[..., 1:] - pink[..., :-1]).std()) < 0.6 * float((white[..., 1:] - white[..., :-1]).std())
    mixed = first_picture(content, [], (60, 64), resolved(init="noise", init_blend=1.0))
    assert torch.allclose(mixed, content)


def test_stats_with_an_area_are_divided_by_it() -> None:
    assert Stats({"area": torch.tensor(2.0), "x": torch.tensor(6.0)}, 5).means()["x"] == 3
