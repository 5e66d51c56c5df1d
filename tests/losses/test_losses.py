"""Losses: additive statistics, scores against the oracle, gradients."""

from __future__ import annotations

import pytest
import torch
from support import reference
from support.features import features
from support.settings import resolved
from support.tiny import picture
from torch import Tensor

from style_transfer.losses.content import features as content
from style_transfer.losses.content.base import ContentTarget
from style_transfer.losses.content.features import FeatureLoss
from style_transfer.losses.statistics import blend, gram
from style_transfer.losses.style.moments import GramLoss
from style_transfer.losses.style.wasserstein import WassersteinLoss
from style_transfer.losses.total_variation import AxesTV, InnerTV, NinePointTV

DEFAULTS = resolved()


def wasserstein(style: Tensor) -> WassersteinLoss:
    return WassersteinLoss(DEFAULTS, blend([WassersteinLoss.statistic(style)], [1.0]))


@pytest.mark.parametrize("loss", [GramLoss, WassersteinLoss])
def test_style_statistics_of_parts_add_up_to_the_whole(loss: type[GramLoss] | type[WassersteinLoss]) -> None:
    x = features(0, 6, 7, 11)
    parts = loss.statistic(x[..., :4]) + loss.statistic(x[..., 4:])
    whole = loss.statistic(x)
    assert parts.count == whole.count == 77
    for name, value in whole.sums.items():
        assert torch.allclose(parts.sums[name], value, rtol=1e-12)


@pytest.mark.parametrize("kind", ["scaled", "mean", "sum", "relative"])
def test_content_statistics_of_parts_add_up(kind: str) -> None:
    x, target = features(0, 6, 7, 11), features(1, 6, 7, 11)
    left, right, whole = (FeatureLoss(ContentTarget(part), error=kind) for part in (target[..., :4], target[..., 4:], target))
    parts = left.measure(x[..., :4]) + right.measure(x[..., 4:])
    assert whole.score(parts).item() == pytest.approx(whole.score(whole.measure(x)).item(), rel=1e-12)


def test_scaled_squared_error_gradient_has_an_l1_norm_of_about_one() -> None:
    x, target = features(0, 6, 7, 11).requires_grad_(), features(1, 6, 7, 11)
    loss = FeatureLoss(ContentTarget(target))
    loss.score(loss.measure(x)).backward()
    assert 0.5 < x.grad.abs().sum().item() < 2


def test_content_loss_by_hand() -> None:
    x, target = torch.tensor([[[[1.0, 4.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    assert FeatureLoss(ContentTarget(target)).score(FeatureLoss(ContentTarget(target)).measure(x)).item() == pytest.approx(5 / 3)
    mean = FeatureLoss(ContentTarget(target), error="mean")
    assert mean.score(mean.measure(x)).item() == pytest.approx(2.5)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(0, 4), (1, 1), (7, 11), (5, 64)])
@pytest.mark.parametrize("last", [False, True])
def test_differences_block_by_block(
    size: tuple[int, int], kind: torch.dtype, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "DIFFERENCES", 6 * size[1] * 2)  # two rows at a time
    x, target = (features(seed, 6, *size).to(kind) for seed in (0, 1))
    given = (x.contiguous(memory_format=torch.channels_last) if last else x.clone()).requires_grad_()
    sums = FeatureLoss(ContentTarget(target)).measure(given).sums
    d = x.double() - target.double()
    near = {"rtol": 1e-12 if kind == torch.float64 else 1e-5, "atol": 1e-12}
    assert {value.dtype for value in sums.values()} == {torch.float64 if kind == torch.float64 else torch.float32}
    assert torch.allclose(sums["squares"].double(), d.square().sum(), **near)
    assert torch.allclose(sums["magnitudes"].double(), d.abs().sum(), **near)
    (slope,) = torch.autograd.grad(0.7 * sums["squares"] - 0.3 * sums["magnitudes"], given)
    near["atol"] = 10 * torch.finfo(kind).eps
    assert slope.dtype == kind and torch.allclose(slope.double(), 2 * 0.7 * d - 0.3 * d.sign(), **near)


def test_gram_loss_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]], dtype=torch.float64)
    loss = GramLoss(DEFAULTS, {"second": torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=torch.float64)})
    # X X^T / 2 = [[2.5, 1], [1, 0.5]]; d = [[.5, 0], [0, -.5]]
    assert loss.score(loss.measure(x)).item() == pytest.approx(0.5 / 1)


@pytest.mark.parametrize("cells", [1, 1535, 1536, 1537, 6144, 6145, 9999])
@pytest.mark.parametrize("channels", [1, 64, 130, 261])
def test_gram_matrices_of_any_length_and_layout(channels: int, cells: int) -> None:
    x = torch.randn(channels, cells, generator=torch.Generator().manual_seed(cells), dtype=torch.float64)
    for like in (x, x.mT.contiguous().mT):
        given = like.clone().requires_grad_()
        assert torch.allclose(gram(given), x @ x.mT)
        assert torch.autograd.gradcheck(gram, given[:3, :40].detach().requires_grad_())
        (slope,) = torch.autograd.grad((gram(given) * gram(given)).sum(), given)
        assert torch.allclose(slope, 4 * (x @ x.mT) @ x)


@pytest.mark.parametrize("cells", [5, 7000])
@pytest.mark.parametrize("channels", [64, 200])
def test_gram_matrices_of_short_numbers_are_summed_in_float32(channels: int, cells: int) -> None:
    x = torch.randn(cells, channels, generator=torch.Generator().manual_seed(cells)).relu().bfloat16()
    found = gram(x.mT)
    assert found.dtype == torch.float32 and torch.equal(found, found.mT)
    assert torch.allclose(found.double(), x.double().mT @ x.double(), rtol=1e-5, atol=1e-5)


def test_identical_content_and_style_cost_nothing_and_stay_finite() -> None:
    x = features(0, 6, 5, 5).requires_grad_()
    for loss in (FeatureLoss(ContentTarget(x.detach())), GramLoss(DEFAULTS, blend([GramLoss.statistic(x.detach())], [1.0]))):
        (grad,) = torch.autograd.grad(loss.score(loss.measure(x)), x)
        assert torch.equal(grad, torch.zeros_like(x))


@pytest.mark.parametrize(("channels", "height", "width"), [(12, 9, 13), (12, 3, 2), (12, 1, 1), (40, 3, 4), (40, 1, 1)])
def test_wasserstein_agrees_with_the_oracle_on_any_rank(channels: int, height: int, width: int) -> None:
    x, style = features(0, channels, height, width), features(1, channels, 5, 4)
    x.requires_grad_()
    loss = wasserstein(style)
    value = loss.score(loss.measure(x))
    (grad,) = torch.autograd.grad(value, x)
    oracle = oracle_wasserstein(x, style)
    (expected,) = torch.autograd.grad(oracle, x)
    assert value.item() == pytest.approx(oracle.item(), rel=1e-9)
    assert torch.allclose(grad, expected, rtol=1e-5, atol=1e-9)


def oracle_wasserstein(x: Tensor, style: Tensor) -> Tensor:
    """Return the loss by an independent route: tr (S'^1/2 S S'^1/2)^1/2 is the nuclear norm of S'^1/2 S^1/2's factor."""
    eye = 1e-4 * torch.eye(x.shape[1], dtype=x.dtype)

    def gaussian(f: Tensor) -> tuple[Tensor, Tensor]:
        f = f.flatten(2)[0]
        centred = (f - f.mean(1, keepdim=True)) / f.shape[1] ** 0.5
        return f.mean(1), torch.cat([centred, 1e-2 * torch.eye(f.shape[0], dtype=f.dtype)], 1)

    (mean, factor), (target_mean, target_factor) = gaussian(x), gaussian(style)
    target = target_factor @ target_factor.mT
    assert torch.allclose(target, reference.sqrtm_psd(target) @ reference.sqrtm_psd(target)) and eye.trace() > 0
    nuclear = torch.linalg.svdvals(reference.sqrtm_psd(target) @ factor).sum()
    traces = factor.square().sum() + target_factor.square().sum() - 2 * nuclear
    return (mean - target_mean).square().mean() + traces / x.shape[1]


def test_wasserstein_in_float32_is_close_to_float64() -> None:
    x, style = features(0, 64, 6, 5), features(1, 64, 7, 6)
    exact = wasserstein(style)
    single = WassersteinLoss(DEFAULTS, {k: v.float() for k, v in exact.target.items()})
    value = exact.score(exact.measure(x)).item()
    assert single.score(single.measure(x.float())).item() == pytest.approx(value, rel=1e-4)


def test_a_covariance_of_few_cells_is_spanned_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """One dimension more than it has would be rounding, which takes a second decomposition."""
    qr, taken = torch.linalg.qr, []
    monkeypatch.setattr(torch.linalg, "qr", lambda x: taken.append(tuple(x.shape)) or qr(x))
    x, style = features(0, 64, 5, 4).float(), features(1, 64, 4, 5).float()
    loss = wasserstein(style)
    loss.score(loss.measure(x))
    assert taken == [(64, 19)]


@pytest.mark.parametrize(("height", "width"), [(9, 13), (1, 5), (1, 1)])
def test_total_variations_agree_with_the_oracle(height: int, width: int) -> None:
    x = picture(3, height, width)
    for loss, oracle in ((AxesTV(), reference.tv), (NinePointTV(), reference.nine_point_tv)):
        assert loss.score(loss.measure(x)).item() == pytest.approx(float(oracle(x)), rel=1e-12, abs=1e-15)


def test_tv_by_hand() -> None:
    x = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    x[..., 0, 0] = 1
    assert AxesTV().score(AxesTV().measure(x)).item() == pytest.approx(2 / 4)


def test_blend_averages_means_not_sums() -> None:
    a, b = features(0, 4, 3, 3), features(1, 4, 9, 9)
    mixed = blend([GramLoss.statistic(a), GramLoss.statistic(b)], [0.25, 0.75])["second"]
    expected = 0.25 * GramLoss.statistic(a).means()["second"] + 0.75 * GramLoss.statistic(b).means()["second"]
    assert torch.allclose(mixed, expected)


@pytest.mark.parametrize("kind", [GramLoss, WassersteinLoss])
def test_gradcheck(kind: type[GramLoss] | type[WassersteinLoss]) -> None:
    loss = kind(DEFAULTS, blend([kind.statistic(features(1, 4, 5, 4))], [1.0]))
    x = (features(0, 4, 4, 5) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: loss.score(loss.measure(f)), x, atol=1e-6)


def test_inner_total_variation_has_neural_styles_gradient() -> None:
    x = picture(1, 5, 6).requires_grad_()
    loss = InnerTV(256.0)
    (found,) = torch.autograd.grad(loss.score(loss.measure(x)), x)
    right, down = ((x[..., :-1, :-1] - other).detach() for other in (x[..., :-1, 1:], x[..., 1:, :-1]))
    expected = torch.zeros_like(x)
    expected[..., :-1, :-1] += right + down
    expected[..., :-1, 1:] -= right
    expected[..., 1:, :-1] -= down
    assert torch.allclose(found, 256**2 * expected)
