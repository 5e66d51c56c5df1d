"""Specifications of networks: preprocessing, splits over devices, and checks of settings."""

from __future__ import annotations

import pytest
import torch
from support import reference
from support.tiny import picture, random_state
from support.zoo import VGG_LAYERS

from style_transfer.engine.schedule import plan_stages as plan
from style_transfer.errors import ImageError, SettingsError
from style_transfer.networks import VGG19, Conv, Norm, network_spec
from style_transfer.networks.forward import Network
from style_transfer.registry import NETWORKS
from style_transfer.settings import Settings


def test_vgg19_layout_is_torchvisions() -> None:
    convs = [step for step in VGG19.steps if isinstance(step, Conv)]
    assert [c.key for c in convs] == [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)]
    assert [(c.inputs, c.outputs) for c in convs[:3]] == [(3, 64), (64, 64), (64, 128)]
    assert {layer: VGG19.strides[layer] for layer in VGG_LAYERS} == dict(zip(VGG_LAYERS, (1, 2, 4, 8, 8, 16), strict=True))


def test_a_split_of_vgg19_balances_memory() -> None:
    assert VGG19.balanced_split(1) == ()
    assert VGG19.balanced_split(2) == ("conv2_2",)  # 64 + 64 + 16 + 32 values per pixel before it, 150 from there on
    assert VGG19.balanced_split(3) == ("pool1", "conv3_3")


@pytest.mark.parametrize(
    ("split", "devices", "words"),
    [("relu2_2,relu2_1", 3, "in the network's order"), ("relu2_1", 3, r"one fewer than --devices has \(3 now\)"),
     ("relu2_9", 2, "no layer 'relu2_9'")],
)  # fmt: skip
def test_impossible_splits_are_refused(split: str, devices: int, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        VGG19.check_split(Settings(sharding="layers", split=split, devices=("cpu",) * devices).resolve())


def test_unknown_layers_are_named_with_the_near_miss() -> None:
    with pytest.raises(SettingsError, match=r"--style-layers: vgg19 has no layer 'relu_4_1' \(did you mean 'relu4_1'\?\)"):
        VGG19.check_layers(Settings(style_layers=("relu_4_1",)).resolve())


def test_pictures_too_small_for_the_deepest_layer_are_refused() -> None:
    settings = Settings(min_scale=64, end_scale=128).resolve()
    VGG19.check_stages(plan((100, 100), [(16, 16)], settings), settings)
    with pytest.raises(ImageError, match="the content picture is 64x6 at scale 64, but relu5_1 needs at least 16"):
        VGG19.check_stages(plan((10, 100), [(50, 50)], settings), settings)
    with pytest.raises(ImageError, match="style picture 2 is 15x15"):
        VGG19.check_stages(plan((100, 100), [(50, 50), (15, 15)], settings), settings)
    shallow = Settings(min_scale=64, end_scale=128, style_layers=("relu1_1",), content_layers=("relu2_1",)).resolve()
    VGG19.check_stages(plan((10, 100), [(1, 1)], shallow), shallow)


def test_preprocessing_is_a_setting() -> None:
    spec = network_spec(Settings(network="vgg19-caffe", preprocessing="neural-style").resolve())
    network = Network(spec, random_state(NETWORKS["vgg19-caffe"].spec, 0), dtype=torch.float64)
    x = picture(1, 16, 16)
    seen = torch.stack([(x[:, c] - network._mean[:, c]) / network._std[:, c] for c in (2, 1, 0)], 1)
    assert torch.allclose(seen, reference.caffe_input(x, (103.939, 116.779, 123.68), 256))
    assert network.spec.preprocessing.bgr and not network.spec.replicate
    assert not any(isinstance(step, Norm) for step in network_spec(Settings(network="googlenet", lrn="off").resolve()).steps)
