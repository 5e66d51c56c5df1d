"""Optimizers against torch's own, the average against values worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from style_transfer.compute.resampling import resize
from style_transfer.engine.optimizers import Average, Optimizer
from style_transfer.engine.optimizers.adam import Adam
from style_transfer.engine.optimizers.lbfgs import LBFGS
from style_transfer.engine.optimizers.line_search import LineSearch
from style_transfer.engine.optimizers.sgd import SGD


def quadratic(x: torch.Tensor) -> torch.Tensor:
    scale = torch.linspace(0.1, 3, x.numel(), dtype=x.dtype).view_as(x)
    return (scale * (x - 0.4).square()).sum() + (x[..., 1:] * x[..., :-1]).sum() * 0.05


def start(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(x: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(quadratic(x), x)[0]


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.99)])
def test_adam_is_torchs_adam_with_clamping(betas: tuple[float, float]) -> None:
    ours, theirs = start().requires_grad_(), start().requires_grad_()
    adam = Adam(step_size=0.0625, betas=betas)  # the step size is kept in float32
    torchs = torch.optim.Adam([theirs], lr=0.0625, betas=betas)
    for _ in range(30):
        ours.grad = gradient(ours)
        adam.step(ours)
        theirs.grad = gradient(theirs)
        torchs.step()
        theirs.data.clamp_(0, 1)
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_adam_takes_gradients_of_any_layout() -> None:
    ours, theirs = start().requires_grad_(), start().requires_grad_()
    for x, form in ((ours, torch.channels_last), (theirs, torch.contiguous_format)):
        x.grad = gradient(x).contiguous(memory_format=form)
        Adam(step_size=0.0625).step(x)
    assert torch.equal(ours, theirs)


def test_adam_clamps_to_the_range_of_pixels() -> None:
    x = torch.tensor([[[[0.001, 0.999]]]], requires_grad=True)
    x.grad = torch.tensor([[[[1.0, -1.0]]]])
    Adam(step_size=0.5).step(x)
    assert x.flatten().tolist() == [0, 1]


def test_adam_is_resized_with_its_moments_and_step_count() -> None:
    x = start().requires_grad_()
    adam = Adam(step_size=0.02)
    for _ in range(3):
        x.grad = gradient(x) * 100
        adam.step(x)
    resized = adam.resized(lambda x, mode: resize(x, (7, 10), mode))
    assert resized.steps == 3
    assert resized.first is not None and resized.second is not None
    assert adam.first is not None and adam.second is not None
    assert torch.equal(resized.first, F.interpolate(adam.first, (7, 10), mode="bicubic", align_corners=False))
    assert torch.equal(resized.second, F.interpolate(adam.second, (7, 10), mode="bilinear", align_corners=False))
    assert resized.second.min() >= 0


def test_lbfgs_is_torchs_with_one_evaluation_a_step() -> None:
    ours, theirs = start().requires_grad_(), start().requires_grad_()
    lbfgs = LBFGS(history=(10,))
    torchs = torch.optim.LBFGS([theirs], max_iter=1, history_size=10, tolerance_grad=-1, tolerance_change=-1)

    def closure() -> torch.Tensor:
        theirs.grad = gradient(theirs)
        return quadratic(theirs)

    for _ in range(25):
        ours.grad = gradient(ours)
        lbfgs.step(ours)
        torchs.step(closure)
        assert torch.allclose(ours, theirs, rtol=1e-7, atol=1e-9)
    assert quadratic(ours) < 1e-2 * quadratic(start()) or gradient(ours).norm() < 1e-3 * gradient(start().requires_grad_()).norm()


def test_lbfgs_does_not_stop_on_tiny_gradients() -> None:
    x = start().requires_grad_()
    lbfgs = LBFGS()
    for _ in range(40):
        x.grad = gradient(x) * 1e-9
        lbfgs.step(x)
    assert gradient(x).norm() < 1e-2 * gradient(start().requires_grad_()).norm()


def test_lbfgs_survives_a_zero_gradient() -> None:
    x = start().requires_grad_()
    lbfgs = LBFGS()
    for _ in range(3):
        x.grad = torch.zeros_like(x)
        lbfgs.step(x)
    assert torch.equal(x.detach(), start())


def test_average_by_hand() -> None:
    average = Average(0.9)
    average.update(torch.tensor([1.0]))
    assert average.value().item() == pytest.approx(1)
    average.update(torch.tensor([3.0]))
    assert average.value().item() == pytest.approx((0.09 * 1 + 0.1 * 3) / 0.19)


def test_average_without_decay_is_the_last_iterate() -> None:
    average = Average(0.0)
    for value in (1.0, 5.0):
        average.update(torch.tensor([value]))
    assert average.value().item() == 5


def test_resize_to_the_same_size_is_the_same_tensor() -> None:
    x = start()
    assert resize(x, (5, 7), antialias=True) is x


def rosenbrock(x: torch.Tensor) -> torch.Tensor:
    a, b = x[..., :-1] * 4 - 2, x[..., 1:] * 4 - 2
    return (100 * (b - a * a).square() + (1 - a).square()).sum()


def minimise(lbfgs: LBFGS, steps: int, function=rosenbrock) -> tuple[torch.Tensor, list[float]]:  # type: ignore[no-untyped-def]
    x, losses = start()[..., :1, :].clone(), []
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        loss = function(leaf)
        x.grad = torch.autograd.grad(loss, leaf)[0]
        losses.append(float(loss.detach()))
        lbfgs.step(x, loss.detach())
    return x, losses


def test_a_line_search_finds_the_minimum_of_rosenbrocks_function() -> None:
    x, losses = minimise(LBFGS(search=True), 160)
    assert losses[-1] < 1e-6 and torch.allclose(x, torch.full_like(x, 0.75), atol=1e-3)


def test_a_line_search_meets_the_strong_wolfe_conditions() -> None:
    for scale in (1e-3, 0.3, 1.0, 40.0, 1e4):

        def value(t: float, scale: float = scale) -> tuple[float, float]:
            u = t / scale
            return (u - 1) ** 2 + 0.05 * math.sin(5 * u), (2 * (u - 1) + 0.25 * math.cos(5 * u)) / scale

        first = value(0)
        line = LineSearch(*first, limit=40)
        length: float | None = line.tried
        while length is not None:
            at, length = length, line.next(*value(length))
        assert line.best == at > 0
        loss, slope = value(at)
        assert loss <= first[0] + 1e-4 * at * first[1] and abs(slope) <= 0.9 * abs(first[1])


def test_a_line_search_goes_back_to_its_best_point_when_it_gives_up() -> None:
    line = LineSearch(1.0, -1.0, limit=3)
    assert line.next(math.nan, math.nan) == pytest.approx(0.1)
    assert line.next(0.95, 5.0) is not None
    assert line.next(2.0, 9.0) is None
    assert line.best == pytest.approx(0.1) and line.tried != line.best


@pytest.mark.parametrize("search", [False, True])
def test_bounded_steps_stay_valid_and_reach_the_minimum_at_the_bounds(search: bool) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        wanted = torch.linspace(-0.6, 1.6, x.numel(), dtype=x.dtype).view_as(x)
        return ((1 + 9 * wanted.abs()) * (x - wanted).square()).sum()

    x, _ = minimise(LBFGS(search=search, bounded=True), 40, function)
    wanted = torch.linspace(-0.6, 1.6, x.numel(), dtype=x.dtype).view_as(x).clamp(0, 1)
    assert x.min() >= 0 and x.max() <= 1
    assert torch.allclose(x, wanted, atol=1e-6)


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_a_search_begins_with_steps_that_float32_holds(size: float, bounded: bool) -> None:
    """With a first step of min(1, 1 / sum |g|) nothing moved at 512 px: each pixel's share was below float32's resolution."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 512, 512, generator=random)
    wanted = torch.rand(1, 3, 512, 512, generator=random)
    lbfgs = LBFGS(search=True, bounded=bounded, white=255.0)
    before = float((x - wanted).square().mean())
    for _ in range(20):
        x.grad = 2 * size * (x - wanted)
        lbfgs.step(x, size * (x - wanted).square().sum())
    assert float((x - wanted).square().mean()) < 0.01 * before


def test_sgd_is_torchs_with_momentum_and_decays() -> None:
    ours, theirs = start().requires_grad_(), start().requires_grad_()
    sgd = SGD(step_size=0.01, momentum=0.8, decay=0.5, bounded=False)
    torchs = torch.optim.SGD([theirs], lr=0.01, momentum=0.8)
    for step in range(203):
        torchs.param_groups[0]["lr"] = 0.01 * 0.5 ** (step // 100)
        ours.grad, theirs.grad = gradient(ours), gradient(theirs)
        sgd.step(ours)
        torchs.step()
    assert torch.allclose(ours, theirs, rtol=1e-9)
    resized = sgd.resized(lambda x, mode: resize(x, (7, 10), mode))
    assert resized.steps == 203 and resized.velocity is not None and tuple(resized.velocity.shape[2:]) == (7, 10)
    x = start().requires_grad_()
    x.grad = torch.full_like(x, -1e3)
    SGD(step_size=1.0).step(x)
    assert x.eq(1).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Adam(step_size=0.02),
        lambda: SGD(step_size=1e-5),
        lambda: LBFGS(history=(3,)),
        lambda: LBFGS(history=(3,), search=True),
        lambda: LBFGS(history=(3,), search=True, bounded=True, length=0.1),
    ],
    ids=["adam", "sgd", "lbfgs", "search", "bounded search"],
)
def test_an_optimizer_restored_from_its_state_takes_the_same_steps_to_the_bit(make: Callable[[], Optimizer]) -> None:
    """After each step, in the middle of line searches too."""

    def step(optimizer: Optimizer, x: torch.Tensor) -> None:
        leaf = x.clone().requires_grad_()
        loss = rosenbrock(leaf)
        x.grad = torch.autograd.grad(loss, leaf)[0]
        optimizer.step(x, loss.detach())

    optimizer, x, searches = make(), start()[..., :1, :].clone(), 0.0
    for _ in range(40):
        tensors, numbers = optimizer.state(x)
        assert all(tensor.shape == x.shape for tensor in tensors.values())
        searches += numbers.get("count", 0)
        heir, copy = make(), x.clone()
        heir.restore({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(numbers)))
        step(optimizer, x)
        step(heir, copy)
        assert torch.equal(x, copy)
    assert searches or not isinstance(optimizer, LBFGS) or not optimizer.search
