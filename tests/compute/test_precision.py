"""Reduced precision: gradients are close to those of float32, statistics are float32, unsupported precisions are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from support.settings import resolved
from support.tiny import picture
from torch import Tensor

from style_transfer import StyleTransfer
from style_transfer.compute import devices as precision
from style_transfer.compute import modes
from style_transfer.engine.loop import stylize
from style_transfer.errors import DeviceError
from style_transfer.evaluation.objective import Evaluation, Objective
from style_transfer.evaluation.sweep import UNLIMITED, Limits, Sweep
from style_transfer.geometry.tiles import Window
from style_transfer.losses.statistics import Stats, gram
from style_transfer.losses.style.moments import GramLoss
from style_transfer.networks.forward import Network, split_picture, split_weight
from style_transfer.networks.loading import load_networks
from style_transfer.networks.pooling import POOLINGS
from style_transfer.settings import INITS, Settings

MakeNetwork = Callable[..., Network]
CPU = torch.device("cpu")
LOW = [torch.bfloat16, torch.float16]
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16"}


def evaluate(network: Network, limits: Limits = UNLIMITED, loss: str = "gram") -> tuple[float, Tensor]:
    content, style, image = (picture(seed, 96, 128, torch.float32) for seed in (1, 2, 3))
    found = Objective([network], content, [style], resolved(style_loss=loss), limits).evaluate(image)
    assert image.grad is not None and image.grad.dtype == torch.float32 and found.loss.dtype == torch.float32
    return float(found.loss), image.grad


@pytest.mark.parametrize("loss", ["gram", "wasserstein"])
@pytest.mark.parametrize("features", LOW)
def test_gradients_stay_near_those_of_float32(features: torch.dtype, loss: str, make_network: MakeNetwork) -> None:
    exact, gradient = evaluate(make_network(), loss=loss)
    found, rough = evaluate(make_network(features=features), loss=loss)
    tolerance = {torch.bfloat16: 0.1, torch.float16: 0.02}[features]
    assert found == pytest.approx(exact, rel=tolerance / 5)
    assert 1e-5 < float((rough - gradient).norm() / gradient.norm()) < tolerance


@pytest.mark.parametrize(("features", "digits"), [(torch.bfloat16, 2**-16), (torch.float16, 2**-21)])
def test_the_first_convolution_loses_nothing_of_the_picture(features: torch.dtype, digits: float) -> None:
    random = torch.Generator().manual_seed(0)
    x = (4 * torch.rand(1, 3, 21, 33, generator=random) - 2).requires_grad_()
    weight, bias = torch.randn(8, 3, 3, 3, generator=random), torch.randn(8, generator=random)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    halves, short = split_picture(x, features), split_weight(weight, bias, features)
    assert halves.dtype == short.dtype == features
    found = F.conv2d(halves.float(), short.float(), padding=1)
    rounded = F.conv2d(x.to(features).float(), weight.to(features).float(), bias.to(features).float(), padding=1)
    size = float(exact.detach().abs().max())
    assert float((found - exact).detach().abs().max()) < 4 * digits * size < float((rounded - exact).detach().abs().max())
    slope = torch.randn(exact.shape, generator=random)
    expected, gradient = (torch.autograd.grad((y * slope).sum(), x)[0] for y in (exact, found))
    assert float((gradient - expected).norm() / expected.norm()) < {torch.bfloat16: 4e-3, torch.float16: 5e-4}[features]


@pytest.mark.parametrize("features", LOW)
def test_tiles_come_to_the_same_in_reduced_precision(features: torch.dtype, make_network: MakeNetwork) -> None:
    network = make_network(features=features)
    whole, gradient = evaluate(network)
    tiled, pieces = evaluate(network, Limits(False, (60 * 70, 24 * 24), (0, 0)))
    assert tiled == pytest.approx(whole, rel=0.01)
    assert float((pieces - gradient).norm() / gradient.norm()) < 0.1


@pytest.mark.parametrize("limits", [UNLIMITED, Limits(False, (60 * 70, 24 * 24), (0, 0))])
def test_float16_keeps_gradients_that_are_too_small_for_it(limits: Limits, make_network: MakeNetwork) -> None:
    """Weights of 1e-9, as at print size, are zero in float16 by themselves."""

    def measure(layer: str, x: Tensor, window: Window) -> dict[str, Stats]:
        return {layer: GramLoss.statistic(x, window)}

    found = []
    for network in (make_network(), make_network(features=torch.float16)):
        sweep = Sweep([network], (192, 224), ["relu1_1", "relu4_1"], limits)
        stats, sources = sweep.measure(picture(3, 192, 224, torch.float32), measure)
        weights = {layer: {"second": torch.full_like(stats[layer].sums["second"], 1e-9)} for layer in stats}
        found.append(sweep.gradient(sources, measure, weights))
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 0.02


@pytest.mark.parametrize("features", LOW)
def test_sums_of_many_features_are_float32(features: torch.dtype) -> None:
    """In bfloat16 itself a sum of 40000 ones stops at 256."""
    x = torch.ones(3, 40_000, dtype=features).requires_grad_()
    found = gram(x)
    assert found.dtype == torch.float32 and torch.equal(found, torch.full((3, 3), 40_000.0))
    (gradient,) = torch.autograd.grad((found * torch.tensor([[1.0, 2, 0], [0, 1, 0], [0, 0, 0.5]])).sum(), x)
    assert torch.equal(gradient[:, 0], torch.tensor([4.0, 4.0, 1.0], dtype=features))


@pytest.mark.parametrize("features", LOW)
def test_a_run_ends_within_a_percent_of_float32(features: torch.dtype, make_network: MakeNetwork) -> None:
    content, style = picture(1, 64, 80, torch.float32), picture(2, 64, 80, torch.float32)
    settings = resolved(min_scale=60, end_scale="80", initial_iterations=60, iterations=60)
    judge = Objective([make_network()], content, [style], settings)
    ends = []
    for network in (make_network(), make_network(features=features)):
        for iterate in stylize(content, [style], settings, networks=[network]):
            last = iterate
        ends.append(float(judge.evaluate(last.image()).loss))
    assert 0.9 * ends[0] < ends[1] < 1.01 * ends[0]  # runs differ in their noise, either way; worse by a per cent is worse


def test_auto_is_float32_where_nothing_else_is_fast() -> None:
    assert precision.choose_precision("auto", [CPU]).name == "fp32"
    assert precision.choose_precision("bf16", [CPU, CPU]).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("known", "limit", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, None, "fp32"),
        ({"avx512_bf16": True}, None, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "ALL", "bf16"),
        ({"avx512_bf16": True}, "AVX512_CORE_BF16", "bf16"),
        ({"avx512_bf16": True}, "avx512_core_vnni", "fp32"),
        ({"neon": True, "bf16": True}, None, "fp32"),
    ],
)
def test_auto_is_bfloat16_on_cpus_that_multiply_it(
    known: dict[str, bool], limit: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")  # conftest sets it
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert precision.choose_precision("auto", [CPU]).name == expected


def test_a_torch_that_does_not_list_capabilities_is_asked_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert precision.choose_precision("auto", [CPU]).name == "bf16"
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert precision.choose_precision("auto", [CPU]).name == "fp32"


def test_a_precision_that_a_device_has_not_or_gets_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="--precision tf32 is not available on cpu; take fp32"):
        precision.choose_precision("tf32", [CPU])
    monkeypatch.setattr(precision, "gradient_error", lambda device, features: 0.4)
    precision._unfit.cache_clear()
    try:
        with pytest.raises(DeviceError, match="--precision bf16 computes wrong gradients .relative error 4.0e-01. on cpu"):
            precision.choose_precision("bf16", [CPU])
        monkeypatch.setattr(precision, "_fast", lambda device: "bf16")
        assert precision.choose_precision("auto", [CPU]).name == "fp32"
    finally:
        precision._unfit.cache_clear()


def test_each_gpu_is_asked_for_itself_and_large_gradients_get_no_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = torch.device("cuda", 0), torch.device("cuda", 1)
    capabilities = {new: (8, 0), old: (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    monkeypatch.setattr(precision, "_unfit", lambda device, precision: None)
    assert precision.choose_precision("auto", [old]).name == "fp16"
    assert precision.choose_precision("auto", [new, old]).name == "fp32"
    for large in (False, True):
        assert precision.choose_precision("auto", [new], large=large).name == "bf16"
    assert precision.choose_precision("auto", [old], large=True).name == "fp32"


@pytest.mark.parametrize(("preset", "expected"), [("style-transfer-pytorch", "fp16"), ("fzliu", "fp32"), ("neuralart", "fp32")])
def test_presets_with_sums_of_squares_do_not_work_in_float16_by_themselves(
    preset: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_fast", lambda device: "fp16")
    assert load_networks(resolved(preset=preset, network="compact"), [CPU])[0].precision == expected


def test_l2_pooling_in_float16_squares_what_float16_cannot() -> None:
    assert POOLINGS["l2"](torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)).item() == pytest.approx(0.78 * 600, rel=1e-3)


def test_auto_takes_what_the_device_is_fast_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_fast", lambda device: "bf16")
    assert precision.choose_precision("auto", [CPU]).name == "bf16"
    monkeypatch.setattr(precision, "_fast", lambda device: "bf16" if device.index else "fp32")
    assert precision.choose_precision("auto", [CPU, torch.device("cpu", 1)]).name == "fp32"


def test_deterministic_mode_lasts_as_long_as_the_run(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(modes.CUBLAS[0], raising=False)
    settings = Settings(min_scale=32, end_scale="32", initial_iterations=2, deterministic=True)
    content, style = picture(1, 40, 40, torch.float32), picture(2, 40, 40, torch.float32)
    seen = []
    evaluate = Objective.evaluate

    def watched(self: Objective, *args: Any) -> Evaluation:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ[modes.CUBLAS[0]]))
        return evaluate(self, *args)

    monkeypatch.setattr(Objective, "evaluate", watched)
    for _ in stylize(content, [style], settings, networks=[make_network()]):
        assert not torch.are_deterministic_algorithms_enabled()  # the caller's own work is not meant
    assert seen == [(True, ":4096:8")] * 2
    one, two = (stylize(content, [style], settings, networks=[make_network()]) for _ in range(2))
    next(one), next(two)
    one.close()
    next(two)
    assert seen == [(True, ":4096:8")] * 5
    two.close()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein"])
def test_the_callers_modes_of_torch_do_not_reach_into_a_run(mode: Callable[[], Any], style_loss: str) -> None:
    settings = Settings(
        network="compact", min_scale=32, end_scale="40", initial_iterations=2, iterations=2, style_loss=style_loss
    )

    def run() -> Tensor:
        content, style = picture(1, 40, 40, torch.float32), picture(2, 40, 40, torch.float32)
        *_, last = stylize(content, [style], settings, init=content + 0)
        return last.image()

    with mode():
        found = run()
        assert not torch.is_grad_enabled()
    assert torch.equal(found, run())


@pytest.mark.parametrize(
    "about",
    [{"style_loss": "wasserstein"}, {"color": "match-style", "optimizer": "lbfgs"}, *({"init": init} for init in INITS)],
    ids=str,
)
def test_the_callers_default_device_does_not_reach_into_a_run(about: dict[str, Any]) -> None:
    """Nothing can be computed on "meta"."""
    pictures = [Image.fromarray((picture(seed, 40, 48)[0] * 255).byte().permute(1, 2, 0).numpy()) for seed in (1, 2)]

    def run() -> np.ndarray:
        done = StyleTransfer(network="compact").stylize(
            pictures[0], pictures[1:], min_scale=32, end_scale=48, initial_iterations=2, iterations=2, **about
        )
        return np.asarray(done)

    before = run()
    torch.set_default_device("meta")
    try:
        found = run()
    finally:
        torch.set_default_device(None)
    assert np.array_equal(found, before)


def test_the_callers_autocast_does_not_reach_into_a_run() -> None:
    settings = Settings(network="compact", min_scale=32, end_scale="32", initial_iterations=2, precision="fp32")

    def run() -> Tensor:
        content, style = picture(1, 32, 32, torch.float32), picture(2, 32, 32, torch.float32)
        *_, last = stylize(content, [style], settings)
        return last.image()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run()
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(found, run())
