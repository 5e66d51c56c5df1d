"""Networks of every family against oracles, against torchvision, and in tiles."""

from __future__ import annotations

import pytest
import torch
import torchvision
from support import reference
from support.equivalence import check
from support.tiny import picture, random_state
from support.zoo import SMALL, default_layers, small_network
from torch import Tensor

from style_transfer import cli
from style_transfer.evaluation.sweep import Limits
from style_transfer.geometry.tiles import Geometry
from style_transfer.networks import weights
from style_transfer.networks.forward import Network
from style_transfer.registry import NETWORKS
from style_transfer.settings import Settings


def test_every_network_has_its_name_and_its_default_layers() -> None:
    for name, entry in NETWORKS.items():
        assert entry.spec.name == name
        assert set(entry.content_layers + entry.style_layers) <= set(entry.spec.strides), name
        assert Settings(network=name).resolve().style_layers == entry.style_layers


def assert_close(features: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for layer, x in expected.items():
        assert torch.allclose(features[layer], x, rtol=1e-9, atol=1e-9), layer


@pytest.mark.parametrize("size", [(67, 67), (131, 75)])
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_caffes_networks_agree_with_the_oracle(pooling: str, size: tuple[int, int]) -> None:
    x = picture(1, *size)
    for name in ("caffenet", "nin", "googlenet", "googlenet without norms"):
        network = small_network(name, pooling)
        state = {k: v.double() for k, v in random_state(SMALL[name], 1).items()}
        if name.startswith("googlenet"):
            expected = reference.googlenet(x, state, pooling, lrn=name == "googlenet")
        else:
            expected = getattr(reference, name)(x, state, pooling)
        assert_close(network.forward(x, list(expected)), expected)


def layer_outputs(modules: torch.nn.Sequential, x: Tensor, names: dict[int, str]) -> dict[str, Tensor]:
    outputs = {}
    for index, module in enumerate(modules):
        x = module(x)
        if index in names:
            outputs[names[index]] = x.clone()
    return outputs


ALEXNET = {1: "relu1", 2: "pool1", 4: "relu2", 7: "relu3", 9: "relu4", 11: "relu5", 12: "pool5"}


SQUEEZENET = {1: "relu_conv1", 2: "pool1", 3: "fire2/concat", 5: "pool3", 7: "fire5/concat", 12: "fire9/concat"}


VGG16 = {1: "relu1_1", 4: "pool1", 11: "relu3_1", 20: "relu4_2", 29: "relu5_3"}


@pytest.mark.parametrize(("name", "layer_names"), [("alexnet", ALEXNET), ("squeezenet", SQUEEZENET), ("vgg16", VGG16)])
def test_torchvisions_networks_agree_with_torchvision(name: str, layer_names: dict[int, str]) -> None:
    """At an odd size, and for VGG-16 away from the edge, which its first convolution replicates here."""
    torch.manual_seed(0)
    model = {"squeezenet": "squeezenet1_1"}.get(name, name)
    features = torchvision.models.get_model(model, weights=None).features.double()
    spec = NETWORKS[name].spec
    state = weights.check({f"features.{k}": v for k, v in features.state_dict().items()}, spec, "torchvision")
    network = Network(spec, {k: v.double() for k, v in state.items()}, pooling="max", dtype=torch.float64)
    size = (95, 123)
    x = picture(1, *size)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (spec.preprocessing.mean, spec.preprocessing.std))
    with torch.no_grad():
        found = network.forward(x, list(layer_names.values()))
        features.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
        for layer, expected in layer_outputs(features, (x - mean) / std, layer_names).items():
            assert tuple(expected.shape[2:]) == spec.sizes(size)[layer]
            edge = 0 if name != "vgg16" else -(-spec.segments([layer], cut=False)[0].geometry.reach // spec.strides[layer]) + 1
            inner = (..., slice(edge, expected.shape[2] - edge), slice(edge, expected.shape[3] - edge))
            assert torch.allclose(found[layer][inner], expected[inner], rtol=1e-5, atol=1e-6), layer


SIZES = [(205, 181), (97, 160), (161, 66)]


TILES = {"whole": Limits(True, (150 * 150,), (0,)), "segments": Limits(False, (90 * 90, 24 * 24, 20 * 20), (4000, 300, 0))}


@pytest.mark.parametrize("limits", TILES.values(), ids=TILES)
@pytest.mark.parametrize("name", SMALL)
def test_tiles_give_the_same_loss_and_gradient(name: str, limits: Limits) -> None:
    tiles = 0
    for size, pooling, workers in zip(SIZES, ("max", "mean", "l2"), (1, 2, 1), strict=True):
        tiles = max(tiles, *check(small_network(name, pooling), size, limits, workers, **default_layers(name)))
    assert tiles > 1


@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_tiles_give_the_same_loss_and_gradient(name: str) -> None:
    limits = Limits(False, (1, 1, 1), (0, 0, 0))
    check(small_network(name, "mean"), (101, 75), limits, 2, **default_layers(name), style_loss="wasserstein")


@pytest.mark.parametrize("name", SMALL)
def test_layers_within_modules_and_before_their_relu(name: str) -> None:
    """Branches that no requested layer depends on are not run."""
    spec, network = SMALL[name], small_network(name)
    inner = [layer for step in spec.steps for layer in step.layers][5:23:4]
    check(network, (97, 111), TILES["segments"], content_layers=inner[:1], style_layers=inner[1:])
    if name == "googlenet":
        (segment,) = spec.segments(["inception_3a/relu_1x1"], cut=False)
        assert [step.name for step in segment.steps][-2:] == ["pool2/3x3_s2", "inception_3a/1x1"]


@pytest.mark.parametrize("name", ["googlenet", "caffenet", "squeezenet"])
def test_a_halo_that_is_one_stride_too_small_is_detected(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    halo = Geometry.halo.fget  # type: ignore[attr-defined]
    network = small_network(name, "mean")
    check(network, (205, 181), TILES["segments"], **default_layers(name))
    monkeypatch.setattr(Geometry, "halo", property(lambda self: halo(self) - self.stride))
    with pytest.raises(AssertionError):
        check(network, (205, 181), TILES["segments"], **default_layers(name))


def test_help_describes_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help-networks"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name}\n" in f"\n{out}" for name in NETWORKS)
    for word in ("405fc5acd08a3bb12de8ee5e23a96bec22f08204", "574671192 bytes", "dcbb9e9d", "inception_3a/output"):
        assert word in out
