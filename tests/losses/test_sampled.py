"""Losses at random points: formulas, gradients, points, tiles, masks, settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import reference
from support.equivalence import check
from support.settings import resolved
from support.tiny import TINY, picture, tiny_weights
from torch import Tensor

from style_transfer.errors import SettingsError
from style_transfer.evaluation.objective import Objective
from style_transfer.evaluation.sweep import UNLIMITED, Limits
from style_transfer.geometry.tiles import Box, Window
from style_transfer.losses import sampling
from style_transfer.losses.content import self_similarity
from style_transfer.losses.content.base import ContentTarget
from style_transfer.losses.content.self_similarity import SelfSimilarityLoss
from style_transfer.losses.guidance import StageRegion
from style_transfer.losses.loss import PICTURE
from style_transfer.losses.sampling import PointSampler
from style_transfer.losses.statistics import Stats
from style_transfer.losses.style import relaxed_emd
from style_transfer.losses.style.relaxed_emd import RelaxedEMDLoss
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

MakeNetwork = Callable[..., Network]
SIZE = (75, 91)
LAYERS = ("relu1_1", "relu3_1", "relu4_1")
STYLE: dict[str, Any] = {"style_loss": "relaxed-emd", "style_layers": LAYERS}
CONTENT: dict[str, Any] = {"content_loss": "self-similarity", "content_layers": ("relu2_1", "relu4_1")}


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LEAST", 40)
    monkeypatch.setattr(self_similarity, "POINTS", 40)


def objective(network: Network, limits: Limits = UNLIMITED, workers: int = 1, **about: Any) -> Objective:
    styles = [picture(2, 64, 70, network.dtype), picture(4, 80, 48, network.dtype)]
    return Objective([network] * workers, picture(1, *SIZE, network.dtype), styles, resolved(**about), limits)


def features_at(image: Tensor, layers: tuple[str, ...], points: Tensor) -> list[Tensor]:
    """Return the oracle's features at points, of the picture itself first."""
    found = reference.features(image, tiny_weights(), "average", layers)
    pairs = [(int(y), int(x)) for y, x in points]
    deep = [reference.at_points(found[layer], pairs, TINY.strides[layer]) for layer in layers]
    return [reference.at_points(image, pairs, 1), *deep]


def emd_loss(bank: dict[str, Tensor], **about: Any) -> RelaxedEMDLoss:
    return RelaxedEMDLoss(resolved(**STYLE | about), bank, PointSampler(SIZE, {PICTURE: 1} | TINY.strides))


def random_bank(seed: int, count: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    sizes = {PICTURE: 3, "relu1_1": 4, "relu3_1": 8, "relu4_1": 10}
    return {layer: torch.rand(count, size, generator=random, dtype=torch.float64) for layer, size in sizes.items()}


def test_the_style_loss_by_its_formula(make_network: MakeNetwork) -> None:
    evaluated = objective(make_network(dtype=torch.float64), content_weight=0.0, tv_weight=0.0, **STYLE)
    (term,) = evaluated.terms
    image, loss = picture(3, *SIZE), term.loss
    assert isinstance(loss, RelaxedEMDLoss)
    found = float(evaluated.evaluate(image).loss)
    random, banks = PointSampler((1, 1), {}), []
    for style in (picture(2, 64, 70), picture(4, 80, 48)):
        random.size = (style.shape[2], style.shape[3])
        random.draw(relaxed_emd.BANK * 40 // 2, 0)
        banks.append(features_at(style, LAYERS, random.points))
    bank = [torch.cat(parts) for parts in zip(*banks, strict=True)]
    emd, moments, palette = reference.strotss_style(features_at(image, LAYERS, loss.sampler.points), bank, [1.0, 1.0, 1.0])
    expected = emd + relaxed_emd.MOMENTS * moments + relaxed_emd.PALETTE * palette
    assert min(emd, moments, palette) > 0
    assert found == pytest.approx(relaxed_emd.FACTOR * float(expected), rel=1e-9)


def test_self_similarity_by_its_formula(make_network: MakeNetwork) -> None:
    about = CONTENT | {"content_layer_weights": (1.0, 3.0), "style_factor": 0.0, "tv_weight": 0.0, "content_weight": 0.5}
    evaluated = objective(make_network(dtype=torch.float64), **about)
    (term,) = evaluated.terms
    image, loss = picture(3, *SIZE), term.loss
    assert isinstance(loss, SelfSimilarityLoss)
    found = float(evaluated.evaluate(image).loss)
    x, y = (features_at(p, CONTENT["content_layers"], loss.sampler.points)[1:] for p in (image, picture(1, *SIZE)))
    expected = 0.5 * self_similarity.FACTOR * reference.self_similarity(x, y, [1.0, 3.0])
    assert expected > 0 and found == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("about", [STYLE | {"content_weight": 0.0}, CONTENT | {"style_factor": 0.0}], ids=["style", "content"])
def test_gradients_by_finite_differences(about: dict[str, Any], make_network: MakeNetwork) -> None:
    evaluated = objective(make_network(dtype=torch.float64), tv_weight=0.0, **about)
    image = picture(3, *SIZE)
    evaluated.evaluate(image)
    gradient, direction = image.grad, torch.randn(image.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert gradient is not None
    values = []
    for step in (1e-7, -1e-7):
        evaluated.restore_step(0)  # the same points
        values.append(float(evaluated.evaluate(image + step * direction).loss))
    assert (values[0] - values[1]) / 2e-7 == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_a_gradient_normalized_over_its_layers_keeps_its_direction(make_network: MakeNetwork) -> None:
    units = []
    for normalized in (False, True):
        about = STYLE | {"content_weight": 0.0, "tv_weight": 0.0, "normalize_gradients": normalized}
        evaluated, image = objective(make_network(dtype=torch.float64), **about), picture(3, *SIZE)
        evaluated.evaluate(image)
        assert image.grad is not None
        units.append(image.grad / image.grad.norm())
    assert torch.allclose(*units, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("limits", [
    Limits(True, (110 * 110,), (0,)), Limits(False, (60 * 70, 24 * 24), (0, 0)), Limits(False, (60 * 70, 24 * 24), (9000, 1000)),
])  # fmt: skip
@pytest.mark.parametrize("workers", [1, 2])
def test_tiles_and_devices_give_the_same_loss_and_gradient(limits: Limits, workers: int, make_network: MakeNetwork) -> None:
    about = STYLE | CONTENT | {"extra_loss": "gram", "extra_weight": 1.0}
    tiles = check(make_network(dtype=torch.float64), (205, 181), limits, workers, **about)
    assert min(tiles[:1]) > 1


@pytest.mark.parametrize("size", [(16, 16), (17, 95), (33, 161)])
def test_every_shape_is_tiled_exactly(size: tuple[int, int], make_network: MakeNetwork) -> None:
    check(make_network(dtype=torch.float64), size, Limits(False, (1, 1), (0, 0)), 2, **STYLE | CONTENT)


def test_each_point_has_the_features_of_its_cell_in_one_window_alone() -> None:
    sampler = PointSampler((13, 10), {"a": 4})
    sampler.draw(2000, 1)
    assert {tuple(point) for point in sampler.points.tolist()} == {(y, x) for y in range(13) for x in range(10)}
    cells = torch.arange(6.0).reshape(1, 1, 3, 2)  # row 12 and columns 8 and 9 lie beyond the last complete stride
    boxes = (Box(0, 0, 3, 1), Box(0, 1, 1, 2), Box(1, 1, 3, 2))
    parts = [sampler.gather("a", cells[box.index], Window(box, box, (3, 2))) for box in boxes]
    rows, columns = (sampler.points // 4).clamp(max=torch.tensor([2, 1])).unbind(1)
    assert torch.equal(sum(parts), (2.0 * rows + columns)[:, None])
    assert all((part.count_nonzero() > 0) and (part.count_nonzero() < 2000) for part in parts)


def test_points_have_the_density_of_a_mask() -> None:
    mask = torch.zeros(1, 1, 300, 11)
    mask[..., 100:, 3], mask[..., 100:, 9] = 1, 0.25
    sampler = PointSampler((300, 11), {}, mask)
    assert sampler.area == 250
    sampler.draw(5000, 1)
    rows, columns = sampler.points.unbind(1)
    assert int(rows.min()) == 100 and int(rows.max()) == 299 and set(columns.tolist()) == {3, 9}
    assert float((columns == 3).double().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(rows.double().mean()) == pytest.approx(199.5, abs=3)


def test_the_order_of_points_and_of_the_bank_does_not_matter() -> None:
    x, bank = random_bank(1, 30), random_bank(2, 50)
    order, other = torch.randperm(30), torch.randperm(50)
    loss, shuffled = emd_loss(bank), emd_loss({layer: values[other] for layer, values in bank.items()})
    value = float(loss.score(Stats(x, 0)))
    assert value > 0
    assert float(shuffled.score(Stats({layer: values[order] for layer, values in x.items()}, 0))) == pytest.approx(
        value, rel=1e-12
    )


def test_the_style_itself_costs_nothing_and_has_no_gradient() -> None:
    bank = random_bank(1, 30)
    bank["relu3_1"][:5] = 0  # with cells where nothing is active
    x = {layer: values.clone().requires_grad_() for layer, values in bank.items()}
    value = emd_loss(bank).score(Stats(x, 0))
    gradients = torch.autograd.grad(value, list(x.values()))
    assert abs(float(value.detach())) < 1e-12 and all(float(gradient.abs().max()) < 1e-12 for gradient in gradients)


@pytest.mark.parametrize("flat", [False, True])
def test_the_content_itself_costs_nothing_and_has_no_gradient(flat: bool) -> None:
    x = torch.zeros(1, 6, 8, 9) if flat else torch.rand(1, 6, 8, 9, generator=torch.Generator().manual_seed(1))
    sampler = PointSampler((16, 18), TINY.strides)
    loss = SelfSimilarityLoss(resolved(content_layers=("relu2_1",)), {"relu2_1": ContentTarget(x)}, sampler)
    loss.draw(1)
    box, features = Box(0, 0, 8, 9), x.clone().requires_grad_()
    value = loss.score(loss.measure_at("relu2_1", features, Window(box, box, (8, 9))))
    (gradient,) = torch.autograd.grad(value, features)
    assert float(value.detach()) == 0 and not gradient.any()


def test_a_style_pulls_on_its_own_region_alone(make_network: MakeNetwork) -> None:
    network, left = make_network(dtype=torch.float64), torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    left[..., :40] = 1
    settings = resolved(content_weight=0.0, tv_weight=0.0, style_loss="relaxed-emd", style_layers=("relu1_1", "relu2_1"))
    style, losses = picture(2, 64, 70), []
    for seed in (7, 8):
        style[..., 30:] = picture(seed, 64, 40)  # beyond the style's mask
        mask = torch.zeros(1, 1, 64, 70)
        mask[..., :20] = 1
        image = picture(3, *SIZE)
        regions = [StageRegion(left, {0: mask})]
        losses.append(float(Objective([network], picture(1, *SIZE), [style], settings, regions=regions).evaluate(image).loss))
        assert image.grad is not None
        assert image.grad[..., :40].abs().mean() > 0 and not image.grad[..., 46:].any()
    assert losses[0] == losses[1] > 0


def test_styles_have_shares_of_the_points_by_their_weights(make_network: MakeNetwork) -> None:
    evaluated = objective(make_network(), style_weights=(3.0, 1.0), **STYLE)
    (loss,) = [term.loss for term in evaluated.terms if isinstance(term.loss, RelaxedEMDLoss)]
    colours = {tuple(colour) for colour in picture(2, 64, 70, torch.float32)[0].flatten(1).T.tolist()}
    assert [tuple(colour) in colours for colour in loss.colours.tolist()] == [True] * 60 + [False] * 20


def test_points_are_new_in_each_evaluation_and_graphs_are_not_captured(make_network: MakeNetwork) -> None:
    evaluated = objective(make_network(), **STYLE)
    losses = [float(evaluated.evaluate(picture(3, *SIZE, torch.float32)).loss) for _ in range(3)]
    evaluated.restore_step(0)
    losses.append(float(evaluated.evaluate(picture(3, *SIZE, torch.float32)).loss))
    assert len(set(losses)) == 3 and losses[3] == losses[0]
    assert not evaluated.capturable


@pytest.mark.parametrize("about", [STYLE, CONTENT, {"extra_loss": "relaxed-emd", "extra_weight": 0.5}], ids=str)
def test_optimizers_that_need_the_same_loss_at_each_step_are_refused(about: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="is a random loss, which --optimizer lbfgs cannot minimize; use adam"):
        resolved(optimizer="lbfgs", **about)
    assert resolved(optimizer="sgd", **about).optimizer == "sgd"


def test_self_similarity_compares_deep_layers_unless_others_are_chosen() -> None:
    usual = Settings(content_loss="self-similarity").resolve()
    assert usual.content_layers == ("relu3_1", "relu4_1", "relu5_1") != Settings().resolve().content_layers
    chosen = Settings(content_loss="self-similarity", content_layers=("relu4_2",)).resolve()
    assert chosen.content_layers == ("relu4_2",)


def test_features_of_short_numbers(make_network: MakeNetwork) -> None:
    values = []
    for features in (None, torch.bfloat16):
        evaluated, image = objective(make_network(features=features), **STYLE | CONTENT), picture(3, *SIZE, torch.float32)
        values.append(float(evaluated.evaluate(image).loss))
        assert image.grad is not None and image.grad.isfinite().all() and image.grad.any()
    assert values[1] == pytest.approx(values[0], rel=0.02)
