"""One tile, many tiles and several devices give the same loss and gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from support.equivalence import check, distance, evaluate
from support.tiny import picture
from torch import Tensor

from style_transfer.engine.loop import stylize
from style_transfer.evaluation.sweep import PICTURE, UNLIMITED, Limits, Sweep
from style_transfer.geometry.tiles import Geometry
from style_transfer.networks import VGG19
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings

MakeNetwork = Callable[..., Network]


MANY = {
    "whole network": Limits(True, (190 * 170,), (0,)),
    "in segments": Limits(False, (60 * 70, 24 * 24), (0, 0)),
    "some kept": Limits(False, (60 * 70, 24 * 24), (9000, 1000)),
    "one kept tile of two segments": Limits(False, (10**9, 10**9), (10**9, 10**9)),
}


@pytest.mark.parametrize("limits", MANY.values(), ids=MANY)
@pytest.mark.parametrize("pooling", ["average", "max", "l2"])
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein", "sliced-wasserstein"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tiles_give_the_same_loss_and_gradient(
    limits: Limits, pooling: str, style_loss: str, dtype: torch.dtype, make_network: MakeNetwork
) -> None:
    network = make_network(pooling=pooling, dtype=dtype)
    tiles = check(network, (205, 181), limits, style_loss=style_loss)
    assert limits.areas[0] == 10**9 or min(tiles[:1]) > 1


@pytest.mark.parametrize("size", [(16, 16), (17, 300), (300, 17), (97, 96), (96, 97), (95, 159), (161, 33)], ids=str)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_shape_is_tiled_exactly(size: tuple[int, int], workers: int, make_network: MakeNetwork) -> None:
    """Strips, pictures a pixel larger than a tile, pictures too small to share."""
    network = make_network(dtype=torch.float64)
    smallest, small = Limits(False, (1, 1), (0, 0)), Limits(False, (48 * 48, 20 * 20), (0, 0))
    for limits in (smallest, small, Limits(True, (176 * 176,), (0,)), UNLIMITED):
        check(network, size, limits, workers)


def test_devices_share_a_picture_that_would_fit_on_one(make_network: MakeNetwork) -> None:
    tiles = check(make_network(dtype=torch.float64), (256, 128), Limits(False, (2**62,) * 2, (2**62,) * 2), 2)
    assert tiles == (2, 2)


def test_layers_and_losses_in_any_choice(make_network: MakeNetwork) -> None:
    network = make_network(dtype=torch.float64)
    limits = MANY["some kept"]
    check(network, (100, 90), limits, content_layers=("relu3_1", "pool3", "conv4_2"), style_layers=("relu1_1", "relu4_4"))
    check(network, (100, 90), limits, content_layers=("relu1_2",), style_layers=("relu1_1",))
    check(network, (100, 90), limits, style_layers=("pool4", "relu4_2", "relu5_4"))
    check(network, (100, 90), limits, content_weight=0.0, style_layers=("pool3",))
    check(network, (100, 90), limits, tv_weight=0.0)


@pytest.mark.parametrize("whole", [True, False])
def test_a_halo_one_step_too_small_is_seen(whole: bool, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard of the tests above: they would fail if tiles read too little."""
    network = make_network(dtype=torch.float64)
    size, limits = (240, 220), Limits(whole, (200 * 200, 20 * 20), (0, 0))
    _, _, gradient, _ = evaluate(network, size, UNLIMITED)
    _, _, right, _ = evaluate(network, size, limits)
    halo = Geometry.halo.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Geometry, "halo", property(lambda self: halo(self) - self.stride))
    _, _, wrong, tiles = evaluate(network, size, limits)
    assert tiles[0] > 1
    assert distance(right, gradient) < 1e-10 < 1e-6 < distance(wrong, gradient)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_whole_runs_are_the_same(optimizer: str, make_network: MakeNetwork) -> None:
    network = make_network(dtype=torch.float64)
    content, styles = picture(1, 70, 91), [picture(2, 60, 70), picture(3, 91, 40)]

    def run(workers: int, tile: str) -> list[float]:
        settings = Settings(optimizer=optimizer, min_scale=64, end_scale="91", initial_iterations=4, iterations=3, tile=tile)
        return [float(iterate.loss) for iterate in stylize(content, styles, settings, networks=[network] * workers)]

    expected = run(1, "off")
    tolerance = {"adam": 1e-7, "lbfgs": 1e-5}[optimizer]  # differences of gradients lose digits
    for workers, tile in ((1, "40"), (2, "40"), (3, "off")):
        assert run(workers, tile) == pytest.approx(expected, rel=tolerance)


def test_the_published_reaches_of_vgg19() -> None:
    geometries = [VGG19.segments([layer], cut=False)[0].geometry for layer in ("relu4_2", "relu5_1")]
    assert [(geometry.stride, geometry.reach) for geometry in geometries] == [(8, 38), (16, 70)]
    front, deep = VGG19.segments(["relu1_1", "relu5_1"])
    assert (front.geometry, deep.geometry) == (Geometry(8, 22), Geometry(2, 6))
    assert (front.channels, front.last, deep.first, deep.last) == (256, False, False, True)


def test_the_first_sweep_visits_every_cell_once(make_network: MakeNetwork) -> None:
    network = make_network()
    size = (113, 99)
    layers = (PICTURE, "relu1_1", "relu3_2", "pool3", "relu5_1")
    for limits, workers in itertools.product(MANY.values(), (1, 2)):
        sweep = Sweep([network] * workers, size, layers, limits)
        strides = {PICTURE: 1, **{layer: network.spec.strides[layer] for layer in layers[1:]}}
        seen = {layer: torch.zeros(size[0] // stride, size[1] // stride) for layer, stride in strides.items()}

        def visit(layer: str, features: Tensor, window: object, seen: dict[str, Tensor] = seen) -> None:
            seen[layer][window.place.index] += 1  # type: ignore[attr-defined]
            assert window.whole == tuple(seen[layer].shape)  # type: ignore[attr-defined]

        sweep.forward(picture(1, *size, torch.float32), visit)
        assert all(torch.equal(count, torch.ones_like(count)) for count in seen.values())
