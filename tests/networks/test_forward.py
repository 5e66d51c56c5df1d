"""The forward pass against the oracle, on several devices and in reduced precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support import reference
from support.tiny import TINY, WIDTHS, picture, random_state, tiny_weights
from support.zoo import SMALL, VGG_LAYERS, default_layers

from style_transfer.networks import Conv
from style_transfer.networks.forward import Network
from style_transfer.networks.pooling import POOLINGS
from style_transfer.registry import NETWORKS


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
@pytest.mark.parametrize(("height", "width"), [(16, 16), (37, 53)])
def test_features_agree_with_the_oracle(pooling: str, height: int, width: int, make_network: Callable[..., Network]) -> None:
    network = make_network(pooling=pooling, dtype=torch.float64)
    x = picture(1, height, width)
    found = network.forward(x, VGG_LAYERS)
    expected = reference.features(x, tiny_weights(), pooling, VGG_LAYERS)
    for layer in VGG_LAYERS:
        assert torch.allclose(found[layer], expected[layer], rtol=1e-10, atol=1e-12), layer


def test_features_before_the_relu_are_not_overwritten(make_network: Callable[..., Network]) -> None:
    found = make_network(dtype=torch.float64).forward(picture(1, 20, 20), ["conv2_1", "relu2_1", "pool1"])
    assert found["conv2_1"].min() < 0
    assert torch.equal(found["conv2_1"].relu(), found["relu2_1"])
    assert found["pool1"].shape == (1, WIDTHS[0], 10, 10)


def test_two_devices_give_the_same_features(make_network: Callable[..., Network]) -> None:
    cpu = torch.device("cpu")
    one, two = make_network(), make_network(devices=(cpu, cpu))
    x = picture(1, 32, 32, torch.float32)
    for layer, value in one.forward(x, VGG_LAYERS).items():
        assert torch.equal(value, two.forward(x, VGG_LAYERS)[layer])


@pytest.mark.parametrize(
    ("devices", "split", "first"),
    [(2, None, 2), (2, ("relu2_1",), 2), (3, ("relu1_2", "pool4"), 1), (1, None, 16), (16, None, 1)],
)
def test_layers_go_to_the_devices_in_order(devices: int, split: tuple[str, ...] | None, first: int) -> None:
    places = [torch.device("cpu"), *[torch.device("meta")] * (devices - 1)]
    network = Network(TINY, tiny_weights(), devices=places, split=split)
    kinds = [network._devices[step.name].type for step in TINY.steps if isinstance(step, Conv)]
    assert kinds == ["cpu"] * first + ["meta"] * (16 - first)


def test_layers_of_one_module_may_be_on_several_devices() -> None:
    name = "googlenet"
    cpu = torch.device("cpu")
    state = random_state(SMALL[name], 1)
    one = Network(SMALL[name], state, pooling="max")
    wanted = NETWORKS[name].style_layers
    x = picture(1, 96, 96, torch.float32)
    for split in (None, ("inception_3b/3x3",), ("inception_4a/output",)):
        two = Network(SMALL[name], state, pooling="max", devices=(cpu, cpu), split=split)
        for layer, value in one.forward(x, wanted).items():
            assert torch.equal(value, two.forward(x, wanted)[layer])


def test_reduced_precision_comes_close() -> None:
    for name in ("googlenet", "caffenet", "squeezenet"):
        state = random_state(SMALL[name], 1)
        wanted = default_layers(name)["style_layers"]
        x = picture(1, 96, 96, torch.float32)
        full, low = (Network(SMALL[name], state, pooling="mean", features=f).forward(x, wanted) for f in (None, torch.bfloat16))
        for layer in wanted:
            assert float((low[layer].float() - full[layer]).norm() / full[layer].norm()) < 0.05
