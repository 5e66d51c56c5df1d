"""Whole runs against the float64 oracle, initial pictures, and arguments that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import reference
from support.settings import resolved
from support.tiny import REAL_WEIGHTS, SHARED, TOLERANCES, picture, tiny_weights
from torch import Tensor

from style_transfer import pictures as images
from style_transfer.compute.distributed import LOCAL, Request
from style_transfer.compute.resampling import resize
from style_transfer.engine import initial, schedule
from style_transfer.engine import loop as engine
from style_transfer.engine.control import Control
from style_transfer.engine.optimizers.adam import Adam
from style_transfer.errors import ImageError, SettingsError
from style_transfer.evaluation.objective import Objective
from style_transfer.networks.forward import Network
from style_transfer.networks.loading import load_networks
from style_transfer.pictures.tensors import to_tensor
from style_transfer.registry import OPTIMIZERS
from style_transfer.settings import INITS, Resolved

SHORT: dict[str, Any] = {"min_scale": 32, "end_scale": "46", "initial_iterations": 6, "iterations": 5}
MakeNetwork = Callable[..., Network]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pooling", ["average", "max", "l2"])
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein"])
def test_losses_and_pictures_agree_with_the_oracle(
    style_loss: str, pooling: str, dtype: torch.dtype, make_network: MakeNetwork
) -> None:
    content, styles = picture(1, 51, 60), [picture(2, 70, 55), picture(3, 33, 40)]
    settings = resolved(style_loss=style_loss, pooling=pooling, style_weights=(3, 1), **SHORT)
    oracle = reference.run(
        content, styles, tiny_weights(), pooling=pooling, style_loss=style_loss, style_weights=(3, 1),
        min_scale=32, end_scale=46, initial_iterations=6, iterations=5,
    )  # fmt: skip
    network = make_network(pooling=pooling, dtype=dtype)
    iterates = list(steps(content.to(dtype), [s.to(dtype) for s in styles], settings, network))
    expected = [loss for scale in oracle.losses for loss in scale]
    assert [loss for loss, _ in iterates] == pytest.approx(expected, rel=TOLERANCES[dtype])
    last = iterates[-1][1]
    assert last.shape == oracle.final.shape
    assert (last.double() - oracle.final).abs().max() < (1e-7 if dtype == torch.float64 else 0.02)


def steps(content: Tensor, styles: list[Tensor], settings: Resolved, network: Network) -> list[tuple[float, Tensor]]:
    """Return each iteration's loss and averaged picture."""
    return [(float(it.loss), it.image()) for it in engine.stylize(content, styles, settings, networks=[network])]


def test_the_guard_against_the_oracle_can_fail(make_network: MakeNetwork) -> None:
    """A second beta of 0.99 in place of 0.999 must show."""
    content, style = picture(1, 51, 60), picture(2, 70, 55)
    oracle = reference.run(content, [style], tiny_weights(), pooling="max", style_loss="gram", min_scale=32, end_scale=46,
                           initial_iterations=6, iterations=5)  # fmt: skip
    network = make_network(pooling="average", dtype=torch.float64)
    found = [loss for loss, _ in steps(content, [style], resolved(**SHORT), network)]
    assert found != pytest.approx([loss for scale in oracle.losses for loss in scale], rel=1e-3)


def test_two_devices_and_repeated_runs_are_bit_equal(make_network: MakeNetwork) -> None:
    content, style = picture(1, 40, 40, torch.float32), picture(2, 40, 40, torch.float32)
    settings = resolved(init="normal", random_seed=5, **SHORT)
    cpu = torch.device("cpu")
    first, again, two = (
        steps(content, [style], settings, make_network(devices=places)) for places in ((cpu,), (cpu,), (cpu, cpu))
    )
    assert torch.equal(first[-1][1], again[-1][1])
    assert torch.equal(first[-1][1], two[-1][1])
    other = steps(content, [style], resolved(init="normal", random_seed=6, **SHORT), make_network())
    assert not torch.equal(first[-1][1], other[-1][1])


def test_iterates_have_their_scale_size_step_and_losses(make_network: MakeNetwork) -> None:
    content, style = picture(1, 30, 60, torch.float32), picture(2, 40, 40, torch.float32)
    seen = []
    for it in engine.stylize(content, [style], resolved(**SHORT), networks=[make_network()]):
        seen.append((it.scale, it.size, it.step, it.steps, it.ends_scale, it.done))
        assert it.image().shape == (1, 3, *it.size)
        assert set(it.parts) == {"content relu4_2", "tv", *(f"style relu{i}_1" for i in range(1, 6))}
        assert float(it.loss) == pytest.approx(sum(map(float, it.parts.values())), rel=1e-5)
        assert it.memory > 0
    assert seen[0] == (33, (16, 33), 1, 6, False, 16 * 33)
    assert seen[5] == (33, (16, 33), 6, 6, True, 16 * 33 * 6)
    assert seen[-1] == (46, (23, 46), 5, 5, True, 16 * 33 * 6 + 23 * 46 * 5)


@pytest.mark.parametrize("count", range(2, 12))
def test_a_line_search_ends_at_the_best_point_it_measured(make_network: MakeNetwork, count: int) -> None:
    content, style, network = picture(1, 32, 32), picture(2, 32, 32), make_network(dtype=torch.float64)
    settings = resolved(end_scale="32", initial_iterations=count, init="gray", optimizer="lbfgs", line_search="strong-wolfe",
                        avg_decay=0, min_scale=32)  # fmt: skip
    found = list(engine.stylize(content, [style], settings, networks=[network]))
    judge = Objective([network], content, [style], settings)
    assert objective_value(judge, found[-1].image()) == pytest.approx(min(float(it.loss) for it in found), rel=1e-9)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [(Request.FINISH_SCALE, [(0, 1), (0, 2), (1, 1), (1, 2)]), (Request.FINISH, [(0, 1), (0, 2)])],
    ids=["finish the scale", "finish"],
)
def test_a_request_takes_effect_before_the_next_step(
    request_: Request, expected: list[tuple[int, int]], make_network: MakeNetwork
) -> None:
    control = Control()
    content, style = picture(1, 51, 60, torch.float32), picture(2, 70, 55, torch.float32)
    seen = []
    for it in engine.stylize(content, [style], resolved(**SHORT), networks=[make_network()], control=control):
        seen.append((it.index, it.step))
        if it.step == 2:
            control.request(request_)
    assert seen == expected
    assert Request.FINISH_SCALE not in control.requested  # it was met


def test_a_request_concerns_one_run_of_the_process(make_network: MakeNetwork) -> None:
    content, style, control = picture(1, 51, 60, torch.float32), picture(2, 70, 55, torch.float32), Control()
    one, other = (
        engine.stylize(content, [style], resolved(**SHORT), networks=[make_network()], control=each) for each in (control, None)
    )
    for _ in range(2):
        next(one), next(other)
    control.request(Request.FINISH_SCALE)
    assert [(it.index, it.step) for it in (next(other), next(one), next(other))] == [(0, 3), (1, 1), (0, 4)]


def test_the_gradient_is_that_of_the_loss(make_network: MakeNetwork) -> None:
    network = make_network(dtype=torch.float64)
    content, style = picture(1, 18, 20), picture(2, 20, 20)
    for style_loss in ("gram", "wasserstein"):
        objective = Objective([network], content, [style], resolved(style_loss=style_loss))
        image = picture(3, 18, 20).requires_grad_()
        objective.evaluate(image)
        direction = picture(4, 18, 20) - 0.5
        with torch.no_grad():
            ends = [objective_value(objective, image + sign * 1e-6 * direction) for sign in (1, -1)]
        assert (image.grad * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def objective_value(objective: Objective, image: Tensor) -> float:
    with torch.enable_grad():
        return float(objective.evaluate(image.detach().clone().requires_grad_()).loss)


def test_zero_weights_leave_terms_out(make_network: MakeNetwork) -> None:
    settings = resolved(content_weight=0, tv_weight=0, style_layers=("relu1_1", "relu2_1"), style_layer_weights=(1, 0))
    objective = Objective([make_network()], picture(1, 20, 20).float(), [picture(2, 20, 20).float()], settings)
    assert [term.name for term in objective.terms] == ["style relu1_1"]


def test_a_run_whose_terms_all_have_weight_zero_ends(make_network: MakeNetwork) -> None:
    settings = resolved(content_weight=0, tv_weight=0, style_layers=("relu1_1",), **SHORT)
    found = steps(picture(1, 40, 40).float(), [picture(2, 40, 40).float()], settings, make_network())
    assert len(found) == 11


@pytest.mark.parametrize("init", INITS)
def test_initial_pictures_are_in_range_and_repeatable(init: str) -> None:
    content, styles = picture(1, 40, 50, torch.float32), [picture(2, 30, 30, torch.float32) * 0.5]
    a, b = (initial.first_picture(content, styles, (32, 40), resolved(init=init, random_seed=3)) for _ in range(2))
    assert a.shape == (1, 3, 32, 40) and a.dtype == torch.float32
    assert torch.equal(a, b)
    assert a.min() >= 0 and a.max() <= 1


def test_initial_pictures_have_the_statistics_of_their_names() -> None:
    style = picture(2, 64, 64, torch.float32) * 0.3 + 0.35
    size = (200, 200)

    def made(init: str) -> Tensor:
        return initial.first_picture(style, [style], size, resolved(init=init))

    assert (made("gray") - 0.5).abs().max() <= 0.5 / 255 + 1e-6
    assert made("gray").std() > 1e-4
    assert made("uniform").std().item() == pytest.approx(12**-0.5, rel=0.02)
    assert made("normal").mean().item() == pytest.approx(0.5, abs=0.01)
    assert (made("style_mean").mean((2, 3)) - style.mean((2, 3))).abs().max() < 1e-3
    assert (made("style_stats").std((2, 3)) - style.std((2, 3))).abs().max() < 0.01
    assert (made("style_stats").mean((2, 3)) - style.mean((2, 3))).abs().max() < 0.01


def test_a_picture_to_start_from_is_used(make_network: MakeNetwork) -> None:
    content, style, init = (picture(i, 40, 40, torch.float32) for i in (1, 2, 3))
    settings = resolved(avg_decay=0.0, step_size=1e-9, **SHORT)
    first = next(engine.stylize(content, [style], settings, networks=[make_network()], init=init))
    expected = resize(init, (33, 33), antialias=True).clamp(0, 1)
    assert torch.allclose(first.image(), expected, atol=1e-6)


def test_auto_follows_its_schedule_at_every_scale(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "AUTO", schedule.StepSchedule(3, 4, 0.08, 0.02, 0.5, (0.95, 0.99), 2))
    taken: list[tuple[float, tuple[float, float]]] = []
    original = Adam.step

    def step(self: Adam, image: Tensor, loss: Tensor) -> None:
        taken.append((round(self.step_size, 4), self.betas))
        original(self, image, loss)

    monkeypatch.setattr(Adam, "step", step)
    settings = resolved(min_scale=32, end_scale="46", iterations="auto")
    found = list(engine.stylize(picture(1, 40, 40).float(), [picture(2, 40, 40).float()], settings, networks=[make_network()]))
    assert [size for size, _ in taken] == [0.08, 0.05, 0.02, 0.08, 0.02]
    assert {betas for _, betas in taken} == {(0.95, 0.99)} and found[-1].average.decay == 0.5


@pytest.mark.parametrize(
    "about", [{}, {"optimizer": "lbfgs"}, {"optimizer": "lbfgs", "line_search": "strong-wolfe"}, {"optimizer": "sgd"}]
)
@pytest.mark.parametrize("white", [1.0, 255.0])
def test_half_the_step_size_is_half_the_step(about: dict[str, str], white: float) -> None:
    moved = []
    for factor in (1.0, 0.5):
        x = torch.full((1, 3, 4, 5), 0.5, dtype=torch.float64)
        x.grad = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)
        settings = resolved(**about, optimizer_range=white)
        OPTIMIZERS[settings.optimizer].from_settings(settings, LOCAL, factor).step(x, torch.ones(()))
        moved.append(x - 0.5)
    assert moved[0].abs().max() > 0 and torch.allclose(moved[1], 0.5 * moved[0], rtol=1e-6, atol=0)


def test_lbfgs_lowers_the_loss(make_network: MakeNetwork) -> None:
    content, style = picture(1, 40, 40, torch.float32), picture(2, 40, 40, torch.float32)
    settings = resolved(optimizer="lbfgs", min_scale=32, end_scale="32", initial_iterations=30)
    losses = [loss for loss, _ in steps(content, [style], settings, make_network())]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein"])
@pytest.mark.parametrize("pooling", ["average", "l2"])
def test_flat_pictures_stay_finite(level: float, style_loss: str, pooling: str, make_network: MakeNetwork) -> None:
    flat = torch.full((1, 3, 40, 40), level)
    found = steps(flat, [flat], resolved(style_loss=style_loss, **SHORT), make_network(pooling=pooling))
    assert all(torch.tensor(loss).isfinite() and image.isfinite().all() for loss, image in found)


@pytest.mark.parametrize(
    "bad", [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 0, 8), torch.full((1, 3, 8, 8), torch.nan),
            torch.full((1, 3, 8, 8), 255.0), torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
            np.zeros((1, 3, 8, 8), np.float32), "c.png"]
)  # fmt: skip
def test_tensors_that_are_not_pictures_are_refused_before_the_first_step(bad: Tensor, make_network: MakeNetwork) -> None:
    good = picture(1, 40, 40, torch.float32)
    for content, styles, init in ((bad, [good], None), (good, [bad], None), (good, [good], bad)):
        with pytest.raises(ImageError):
            engine.stylize(content, styles, resolved(**SHORT), networks=[make_network()], init=init)


def test_wrong_arguments_are_refused_before_the_first_step(make_network: MakeNetwork) -> None:
    good = picture(1, 40, 40, torch.float32)
    with pytest.raises(SettingsError, match="at least one style"):
        engine.stylize(good, [], resolved(**SHORT), networks=[make_network()])
    with pytest.raises(SettingsError, match="init 'file.png' is not one of"):
        engine.stylize(good, [good], resolved(init="file.png", **SHORT), networks=[make_network()])
    with pytest.raises(SettingsError, match="no layer 'relu9_9'"):
        engine.stylize(good, [good], resolved(style_layers=("relu9_9",), **SHORT), networks=[make_network()])
    with pytest.raises(ImageError, match="too|needs at least 16"):
        engine.stylize(good, [good], resolved(min_scale=8, end_scale=9), networks=[make_network()])


@pytest.mark.weights
@pytest.mark.skipif(not REAL_WEIGHTS.exists(), reason="VGG-19's weights are not here")
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein"])
def test_a_real_run_cuts_the_style_loss_tenfold(style_loss: str) -> None:
    content = to_tensor(images.load(SHARED / "images/content/tubingen.jpg"))
    style = to_tensor(images.load(SHARED / "images/style/starry_night.jpg"))
    settings = resolved(style_loss=style_loss, end_scale=181, initial_iterations=120, iterations=40, content_weight=0.0,
                        weights=str(REAL_WEIGHTS))  # fmt: skip
    (network,) = load_networks(settings, [torch.device("cpu")])
    at_start: dict[str, float] = {}
    for it in engine.stylize(content, [style], settings, networks=[network]):
        if it.step == 1 and not at_start:
            at_start = {name: float(part) for name, part in it.parts.items()}
    before, after = (sum(float(v) for k, v in parts.items() if k.startswith("style")) for parts in (at_start, it.parts))
    assert after < before / 10


def test_the_representation_of_an_iterate_is_one_line(make_network: MakeNetwork) -> None:
    settings = resolved(min_scale=32, end_scale="32", initial_iterations=1)
    (iterate,) = engine.stylize(picture(1, 40, 30), [picture(2, 40, 40)], settings, networks=[make_network()])
    assert repr(iterate) == f"<Iterate 24x32, step 1 of 1, loss {float(iterate.loss):.6g}>"


def test_equal_pictures_have_no_relative_error_and_no_gradient(make_network: MakeNetwork) -> None:
    settings = resolved(content_error="relative", content_weight=100, **SHORT)
    found = steps(picture(1, 40, 40).float(), [picture(2, 40, 40).float()], settings, make_network(dtype=torch.float32))
    assert all(math.isfinite(loss) for loss, _ in found) and found[-1][1].isfinite().all()


def test_weights_that_are_all_zero_are_refused(make_network: MakeNetwork) -> None:
    settings = resolved(content_weight=0, tv_weight=0, style_factor=0, **SHORT)
    with pytest.raises(SettingsError, match="every weight is 0"):
        steps(picture(1, 40, 40).float(), [picture(2, 40, 40).float()], settings, make_network())
