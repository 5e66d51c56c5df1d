"""Presets: the loss at the first iteration is the formula of the program they are after; flags stay open; first steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
from support import reference
from support.settings import resolved
from support.tiny import TINY, picture, random_state, tiny_weights
from support.zoo import SMALL
from torch import Tensor

from style_transfer import cli
from style_transfer.api import StyleTransfer
from style_transfer.compute.distributed import LOCAL
from style_transfer.engine.initial import first_picture
from style_transfer.engine.iterate import Iterate
from style_transfer.engine.loop import stylize
from style_transfer.engine.optimizers.lbfgs import LBFGS
from style_transfer.errors import SettingsError
from style_transfer.evaluation.objective import Objective
from style_transfer.losses.style.sliced_wasserstein import SlicedWassersteinLoss
from style_transfer.networks.forward import Network
from style_transfer.networks.loading import load_networks
from style_transfer.pictures import to_pil
from style_transfer.pictures.tensors import to_pixels
from style_transfer.settings import PRESETS, Resolved, Settings

SIZE = (50, 61)
CONTENT, IMAGE = picture(1, *SIZE), picture(3, *SIZE)
STYLES = [picture(2, 55, 48), picture(4, 40, 62)]
BLOCKS = {"vgg19-caffe": (2, 2, 4, 4, 4), "vgg16-caffe": (2, 2, 3, 3, 3)}
VGG_STYLE = [f"relu{block}_1" for block in range(1, 6)]


def network_of(settings: Resolved, spec_name: str) -> tuple[Network, Mapping[str, Tensor]]:
    state = {k: v.double() for k, v in random_state(SMALL[spec_name], 1).items()}
    return Network(SMALL[spec_name].configured(settings), state, pooling=settings.pooling, dtype=torch.float64), state


def evaluated(settings: Resolved, network: Network, styles: list[Tensor]) -> tuple[float, Tensor]:
    """Return the loss and gradient of IMAGE."""
    image = IMAGE.clone()
    objective = Objective([network], CONTENT, styles, settings)
    loss = float(objective.evaluate(image).loss)
    assert image.grad is not None
    return loss, image.grad


def slope(function: Callable[[Tensor], Tensor]) -> tuple[float, Tensor]:
    image = IMAGE.clone().requires_grad_()
    loss = function(image)
    return float(loss.detach()), torch.autograd.grad(loss, image)[0]


def same(found: tuple[float, Tensor], expected: tuple[float, Tensor]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-9)
    assert float((found[1] - expected[1]).norm() / expected[1].norm()) < 1e-8


def test_neural_styles_loss_and_gradient() -> None:
    settings = resolved(preset="neural-style", network="vgg19-caffe", style_weights=(3, 1))
    network, state = network_of(settings, "vgg19-caffe")

    def see(x: Tensor) -> dict[str, Tensor]:
        return reference.vgg(reference.caffe_input(x, (103.939, 116.779, 123.68), 256), state, BLOCKS["vgg19-caffe"], "max")

    targets, styles = see(CONTENT), [see(style) for style in STYLES]

    def loss(x: Tensor) -> Tensor:
        smooth = 1e-3 * reference.inner_tv(256 * x)
        return smooth + reference.neural_style_loss(see(x), targets, styles, (0.75, 0.25), ["relu4_2"], VGG_STYLE)

    same(evaluated(settings, network, STYLES), slope(loss))


def test_neural_styles_normalised_gradients() -> None:
    """Each layer's gradient at the layer has the magnitude of its weight."""
    settings = resolved(preset="neural-style", normalize_gradients=True, tv_weight=0.0)
    network, state = network_of(settings, "vgg19-caffe")

    def see(x: Tensor) -> dict[str, Tensor]:
        return reference.vgg(reference.caffe_input(x, (103.939, 116.779, 123.68), 256), state, BLOCKS["vgg19-caffe"], "max")

    image = IMAGE.clone().requires_grad_()
    targets, style, found = see(CONTENT), see(STYLES[0]), see(image)
    total = torch.zeros_like(image)
    for layers, weight in (((["relu4_2"], []), 5.0), *((([], [layer]), 100.0) for layer in VGG_STYLE)):
        (layer,) = layers[0] + layers[1]
        loss = reference.neural_style_loss(found, targets, [style], [1.0], *layers, 1.0, 1.0)
        (at,) = torch.autograd.grad(loss, found[layer], retain_graph=True)
        (back,) = torch.autograd.grad(found[layer], image, weight * at / (at.abs().sum() + 1e-8), retain_graph=True)
        total += back
    gradient = evaluated(settings, network, STYLES[:1])[1]
    assert float((gradient - total).norm() / total.norm()) < 1e-8


@pytest.mark.parametrize("inception", [False, True])
def test_neuralarts_loss_and_gradient(inception: bool) -> None:
    settings = resolved(preset="neuralart-inception" if inception else "neuralart")
    network, state = network_of(settings, "googlenet" if inception else "vgg19-caffe")

    def see(x: Tensor) -> dict[str, Tensor]:
        if inception:
            return reference.googlenet(x, state, "mean", True, (104.0, 117.0, 123.0))
        return reference.vgg(reference.caffe_input(x, (104.0, 117.0, 123.0)), state, BLOCKS["vgg19-caffe"], "mean")

    layers = (settings.content_layers, settings.style_layers)
    targets, style = see(CONTENT), see(STYLES[0])
    loss, _ = slope(lambda x: reference.neuralart_loss(see(x), targets, style, *layers, inception=inception)[0])
    _, follow = slope(lambda x: reference.neuralart_loss(see(x), targets, style, *layers, inception=inception)[1])
    same(evaluated(settings, network, STYLES[:1]), (loss, follow))


@pytest.mark.parametrize("model", ["vgg16", "googlenet", "caffenet"])
def test_fzlius_loss_and_gradient(model: str) -> None:
    more: dict[str, object] = {} if model == "vgg16" else {"network": model}
    if model == "googlenet":
        more |= {"lrn": "off", "content_layers": ("conv2/relu_3x3", "inception_3a/output"),
                 "content_layer_weights": (2e-4, 1 - 2e-4)}  # fmt: skip
    settings = resolved(preset="fzliu", **more)  # type: ignore[arg-type]
    network, state = network_of(settings, "vgg16-caffe" if model == "vgg16" else model)

    def see(x: Tensor) -> dict[str, Tensor]:
        if model == "googlenet":
            return reference.googlenet(x, state, "mean", False)
        if model == "caffenet":
            return reference.caffenet(x, state, "mean")
        return reference.vgg(reference.caffe_input(x, (104.007, 116.669, 122.679)), state, BLOCKS["vgg16-caffe"], "mean")

    targets, style = see(CONTENT), see(STYLES[0])
    weights = {layer: 0.2 for layer in settings.style_layers}
    content = {"conv2/relu_3x3": 2e-4, "inception_3a/output": 1 - 2e-4} if model == "googlenet" else {
        settings.content_layers[0]: 1.0}  # fmt: skip
    expected = slope(lambda x: reference.fzliu_loss(see(x), targets, style, content, weights))
    same(evaluated(settings, network, STYLES[:1]), expected)


def test_the_sliced_loss_and_gradient_are_those_of_sorted_values() -> None:
    settings = resolved(preset="sliced", padding="network")
    network, state = network_of(settings, "vgg19-caffe")
    objective, image = Objective([network], CONTENT, STYLES[:1], settings), IMAGE.clone()
    value = float(objective.evaluate(image).loss)

    def see(x: Tensor) -> dict[str, Tensor]:
        return reference.vgg(reference.caffe_input(x, (103.939, 116.779, 123.68)), state, BLOCKS["vgg19-caffe"], "mean")

    def loss(x: Tensor) -> Tensor:
        found, style, terms = see(x), see(STYLES[0]), []
        for term in objective.terms:
            assert isinstance(term.loss, SlicedWassersteinLoss)
            directions = F.normalize(term.loss.slices.projections[term.loss._chosen][0])
            terms.append(reference.sliced_wasserstein(found[term.layers[0]], style[term.layers[0]], directions))
        assert len(terms) == 12
        return torch.stack(terms).sum()

    expected, gradient = slope(loss)
    assert value == pytest.approx(expected, rel=5e-3)
    assert image.grad is not None and torch.cosine_similarity(image.grad.flatten(), gradient.flatten(), 0) > 0.999


@pytest.mark.parametrize("year", ["", "-2023"])
def test_style_transfer_pytorchs_losses(year: str) -> None:
    settings = resolved(preset=f"style-transfer-pytorch{year}", min_scale=50, end_scale="50", initial_iterations=1)
    network = Network(TINY, tiny_weights(), pooling=settings.pooling, dtype=torch.float64)
    (iterate,) = stylize(CONTENT, STYLES, settings, networks=[network])
    expected = reference.run(CONTENT, STYLES, tiny_weights(), pooling="max", style_loss="wasserstein" if year else "gram",
        min_scale=50, end_scale=50, iterations=1, initial_iterations=1)  # fmt: skip
    assert float(iterate.loss) == pytest.approx(expected.losses[0][0], rel=1e-9)


def test_flags_come_after_the_preset_and_networks_bring_their_own_layers() -> None:
    settings = resolved(preset="neural-style", content_weight=0.015, pooling="average")
    assert (settings.content_weight, settings.pooling, settings.style_factor, settings.avg_decay) == (0.015, "average", 500, 0)
    assert Settings.from_dict(settings.as_dict()).resolve() == settings
    nin = resolved(preset="neural-style", network="nin")
    assert nin.style_layers == ("relu0", "relu3", "relu7", "relu12") and set(nin.layer_weights.values()) == {0.25}
    assert nin.preprocessing == "auto" and resolved(preset="neural-style").preprocessing == "neural-style"
    assert nin.style_factor == 500
    assert resolved(preset="fzliu", style_layers=("relu1_1", "relu2_1")).layer_weights == {"relu1_1": 0.5, "relu2_1": 0.5}
    assert resolved(preset="fzliu", network="vgg19").style_layers == resolved().style_layers
    usual = resolved(preset="neural-style", network="vgg19").style_factor  # activations are so much smaller there
    assert usual == pytest.approx(500 * (256 * 0.226) ** 2)
    assert resolved(preset="neural-style", network="vgg19", style_factor=7).style_factor == 7
    for preset in ("neural-style", "neuralart-inception"):
        named, found = (resolved(preset=preset, network=network).as_dict() for network in ("vgg19", "auto"))
        assert found == named | {"network": "auto"}
    assert resolved(preset="neuralart-inception", network="vgg19").style_factor == 2e9  # errors without a scale
    with pytest.raises(SettingsError, match="--preset 'neuralstyle' is not one of .* \\(did you mean 'neural-style'\\?\\)"):
        resolved(preset="neuralstyle")
    with pytest.raises(SettingsError, match="--gram-norm raw does not go with --style-loss covariance"):
        resolved(preset="fzliu", style_loss="covariance")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_paints_with_any_network(name: str) -> None:
    settings = resolved(preset=name, network="compact", min_scale=40, end_scale="40", initial_iterations=6, iterations=2)
    assert settings.network == "compact"
    networks = load_networks(settings, [torch.device("cpu")])
    losses = [float(it.loss) for it in stylize(CONTENT.float(), [STYLES[0].float()], settings, networks=networks)]
    assert all(loss == loss and loss < float("inf") for loss in losses)
    assert min(losses[1:]) < losses[0]


def test_the_help_describes_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help-presets"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name}\n" in out for name in PRESETS)
    assert "--style-factor 500" in out and "inception_4e/output" in out and "different: " in out


def test_neural_style_starts_from_the_networks_gray_and_steps_as_torch_does() -> None:
    settings = resolved(preset="neural-style")
    start = first_picture(CONTENT, STYLES, SIZE, settings)
    seen = reference.caffe_input(start, (103.939, 116.779, 123.68), 256)
    assert abs(float(seen.mean())) < 1e-4 and float(seen.std()) == pytest.approx(1e-3, rel=0.05)
    optimizer = LBFGS.from_settings(settings, LOCAL, 1.0)
    assert (optimizer.history, optimizer.bounded, optimizer.search) == ((100,), False, False)
    image, caffe = start.clone(), (256 * start).requires_grad_()
    torchs = torch.optim.LBFGS([caffe], max_iter=1, history_size=100, tolerance_grad=-1, tolerance_change=-1)

    def loss(x: Tensor) -> Tensor:
        return ((x - 60).square() * torch.linspace(0.5, 1.5, x.shape[3], dtype=x.dtype)).mean()

    def closure() -> Tensor:
        caffe.grad = torch.autograd.grad(loss(caffe), caffe)[0]
        return loss(caffe)

    for _ in range(12):
        x = image.clone().requires_grad_()
        image.grad = torch.autograd.grad(loss(256 * x), x)[0]
        optimizer.step(image)
        torchs.step(closure)
        assert torch.allclose(256 * image, caffe.detach(), rtol=1e-7)


def test_a_preset_in_python() -> None:
    painter = StyleTransfer(devices=["cpu"], preset="neural-style", network="compact")
    seen: list[Iterate] = []
    content, style = (to_pil(to_pixels(x)) for x in (CONTENT, STYLES[0]))
    painter.stylize(content, style, end_scale=40, initial_iterations=2, callback=seen.append)
    assert [iterate.size for iterate in seen] == [(33, 40)] * 2 and painter.settings.resolve().init == "network_mean"
    with pytest.raises(SettingsError, match="preset is an argument of StyleTransfer"):
        painter.stylize(content, style, preset="fzliu")
