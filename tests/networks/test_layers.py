"""The algebra of layers: strides, receptive fields, sizes and segments agree with the forward pass."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import picture
from support.zoo import SMALL, default_layers, small_network
from torch import Tensor

from style_transfer.engine.schedule import plan_stages as plan
from style_transfer.errors import ImageError
from style_transfer.evaluation.sweep import Limits, Sweep
from style_transfer.geometry.tiles import Window
from style_transfer.networks import VGG19
from style_transfer.registry import NETWORKS
from style_transfer.settings import Settings


@pytest.mark.parametrize("name", SMALL)
def test_cells_depend_on_their_receptive_fields_alone(name: str) -> None:
    """Measured by the gradient of one cell far from every edge."""
    network = small_network(name, "mean")
    spec = network.spec
    for layer in default_layers(name)["style_layers"][1::2]:
        grid = spec.graph.receptive_fields[layer]
        span = grid.last - grid.first + 1
        cell = -(-(span + 40) // grid.stride)
        length = cell * grid.stride + grid.last + 60
        x = picture(1, length, length).requires_grad_()
        network.forward(x, [layer])[layer][0, :, cell, cell].sum().backward()
        rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        assert int(rows[0]) >= cell * grid.stride + grid.first and int(rows[-1]) <= cell * grid.stride + grid.last
        assert int(rows[-1]) - int(rows[0]) > span // 2


@pytest.mark.parametrize("name", SMALL)
def test_pictures_of_the_minimum_size_reach_a_layer_and_smaller_ones_are_refused(name: str) -> None:
    spec, network = SMALL[name], small_network(name)
    for layer in default_layers(name)["style_layers"]:
        side = spec.min_side(layer)
        features = network.forward(picture(1, side, side + 3), [layer])[layer]
        assert features.shape[2] == 1 and tuple(features.shape[2:]) == spec.sizes((side, side + 3))[layer]
        if side > 1:
            assert spec.sizes((side - 1, side + 3))[layer][0] == 0
    deepest = max(default_layers(name)["style_layers"], key=spec.min_side)
    if spec.min_side(deepest) > 8:
        chosen = Settings(min_scale=8, end_scale="64", content_layers=(deepest,), style_layers=(deepest,)).resolve()
        with pytest.raises(ImageError, match=f"needs at least {spec.min_side(deepest)} pixels each way"):
            spec.check_stages(plan((100, 100), [(60, 60)], chosen), chosen)


def test_published_strides_channels_and_receptive_fields() -> None:
    specs = {name: NETWORKS[name].spec for name in ("nin", "googlenet", "caffenet", "squeezenet")}
    assert [specs["nin"].strides[f"relu{i}"] for i in (0, 3, 7, 12)] == [4, 8, 16, 32]
    assert [specs["googlenet"].strides[f"inception_{m}/output"] for m in ("3a", "4e", "5a")] == [8, 16, 32]
    assert [specs["googlenet"].channels[f"inception_{m}/output"] for m in ("3a", "3b", "4a", "4d", "4e", "5b")] == [
        256, 480, 512, 528, 832, 1024]  # fmt: skip
    assert specs["caffenet"].strides["relu5"] == 16
    assert specs["squeezenet"].channels["fire9/concat"] == 512
    receptive = specs["caffenet"].graph.receptive_fields["relu5"]  # published for the fifth convolution of AlexNet
    assert receptive.last - receptive.first + 1 == 163


def test_only_layers_that_nothing_but_a_pool_reads_leave_their_relu_to_it() -> None:
    def pooled(*layers: str) -> set[str]:
        (segment,) = VGG19.segments(layers, cut=False)
        return set(segment.pooled)

    assert pooled("relu3_1") == {"conv1_2", "conv2_2"}
    assert pooled("relu3_1", "relu1_2") == {"conv2_2"}  # relu1_2 is requested
    assert pooled("relu3_1", "conv2_2") == {"conv1_2"}  # conv2_2 is requested, before its ReLU
    assert pooled("relu1_2") == set()


@given(st.sampled_from(sorted(SMALL)), st.integers(40, 150), st.integers(40, 150), st.integers(1, 20_000))
@settings(deadline=None, max_examples=25)
def test_every_cell_of_every_layer_is_visited_once(name: str, height: int, width: int, area: int) -> None:
    spec = SMALL[name]
    requested = [layer for layer in default_layers(name)["style_layers"] if spec.min_side(layer) <= 40]
    network = small_network(name)
    sweep = Sweep([network], (height, width), requested, Limits(False, (area, area, area), (0, 0, 0)))
    visits = {layer: torch.zeros(spec.sizes((height, width))[layer]) for layer in requested}

    def visit(layer: str, features: Tensor, window: Window) -> None:
        visits[layer][window.place.index] += 1

    sweep.forward(picture(1, height, width), visit)
    assert all(torch.equal(count, torch.ones_like(count)) for count in visits.values())
