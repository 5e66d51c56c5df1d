"""The networks beside VGG-19: their features, their geometry, tiles, weights from files of every kind."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reference
from support.equivalence import check
from support.formats import field, net, number, write
from support.tiny import picture, random_state
from support.zoo import SMALL
from torch import Tensor

from style_transfer import cli, networks
from style_transfer.api import to_pixels
from style_transfer.errors import ImageError, WeightsError
from style_transfer.evaluation.sweep import Limits, Sweep
from style_transfer.geometry.scales import plan
from style_transfer.networks import SPECS, caffemodel, weights
from style_transfer.networks.graph import POOLINGS, Network
from style_transfer.networks.spec import Conv, NetworkSpec, Norm
from style_transfer.pictures.images import to_pil
from style_transfer.settings import catalog
from style_transfer.settings.settings import Settings


def small(name: str, pooling: str = "max", dtype: torch.dtype = torch.float64) -> Network:
    spec = SMALL[name]
    return Network(spec, {k: v.double() for k, v in random_state(spec, 1).items()}, pooling=pooling, dtype=dtype)


def layers(name: str) -> dict[str, tuple[str, ...]]:
    known = catalog.NETWORKS[name.split()[0]]
    return {"content_layers": known.content_layers, "style_layers": known.style_layers}


def test_every_network_has_a_layout_a_description_and_its_default_layers() -> None:
    assert list(SPECS) == list(catalog.NETWORKS)
    for name, known in catalog.NETWORKS.items():
        assert set(known.content_layers + known.style_layers) <= set(SPECS[name].strides), name
        assert Settings(network=name).style_layers == known.style_layers


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for layer, x in expected.items():
        assert torch.allclose(found[layer], x, rtol=1e-9, atol=1e-9), layer


@pytest.mark.parametrize("size", [(67, 67), (131, 75)])
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_caffes_networks_agree_with_the_oracle(pooling: str, size: tuple[int, int]) -> None:
    x = picture(1, *size)
    for name in ("caffenet", "nin", "googlenet", "googlenet without norms"):
        network = small(name, pooling)
        state = {k: v.double() for k, v in random_state(SMALL[name], 1).items()}
        if name.startswith("googlenet"):
            expected = reference.googlenet(x, state, pooling, lrn=name == "googlenet")
        else:
            expected = getattr(reference, name)(x, state, pooling)
        agree(network.forward(x, list(expected)), expected)


def outputs(modules: torch.nn.Sequential, x: Tensor, names: dict[int, str]) -> dict[str, Tensor]:
    found = {}
    for index, module in enumerate(modules):
        x = module(x)
        if index in names:
            found[names[index]] = x.clone()
    return found


ALEXNET = {1: "relu1", 2: "pool1", 4: "relu2", 7: "relu3", 9: "relu4", 11: "relu5", 12: "pool5"}
SQUEEZENET = {1: "relu_conv1", 2: "pool1", 3: "fire2/concat", 5: "pool3", 7: "fire5/concat", 12: "fire9/concat"}
VGG16 = {1: "relu1_1", 4: "pool1", 11: "relu3_1", 20: "relu4_2", 29: "relu5_3"}


@pytest.mark.parametrize(("name", "layer_names"), [("alexnet", ALEXNET), ("squeezenet", SQUEEZENET), ("vgg16", VGG16)])
def test_torchvisions_networks_agree_with_torchvision(name: str, layer_names: dict[int, str]) -> None:
    """At an odd size; of VGG-16 the middle, since its first convolution sees the edge replicated here."""
    torch.manual_seed(0)
    model = {"squeezenet": "squeezenet1_1"}.get(name, name)
    features = torchvision.models.get_model(model, weights=None).features.double()
    spec = SPECS[name]
    state = weights.check({f"features.{k}": v for k, v in features.state_dict().items()}, spec, "torchvision")
    network = Network(spec, {k: v.double() for k, v in state.items()}, pooling="max", dtype=torch.float64)
    size = (95, 123)
    x = picture(1, *size)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    with torch.no_grad():
        found = network.forward(x, list(layer_names.values()))
        features.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
        for layer, expected in outputs(features, (x - mean) / std, layer_names).items():
            assert tuple(expected.shape[2:]) == spec.sizes(size)[layer]
            edge = 0 if name != "vgg16" else -(-spec.geometry(layer).reach // spec.strides[layer]) + 1
            inner = (..., slice(edge, expected.shape[2] - edge), slice(edge, expected.shape[3] - edge))
            assert torch.allclose(found[layer][inner], expected[inner], rtol=1e-5, atol=1e-6), layer


def test_strides_and_names_are_those_that_users_know() -> None:
    found = {name: SPECS[name] for name in ("nin", "googlenet", "caffenet", "squeezenet")}
    assert [found["nin"].strides[f"relu{i}"] for i in (0, 3, 7, 12)] == [4, 8, 16, 32]
    assert [found["googlenet"].strides[f"inception_{m}/output"] for m in ("3a", "4e", "5a")] == [8, 16, 32]
    assert [found["googlenet"].channels[f"inception_{m}/output"] for m in ("3a", "3b", "4a", "4d", "4e", "5b")] == [
        256, 480, 512, 528, 832, 1024]  # fmt: skip
    assert found["caffenet"].geometry("relu5").stride == 16
    assert found["squeezenet"].channels["fire9/concat"] == 512
    receptive = SPECS["caffenet"].graph.grids["relu5"]  # of AlexNet's fifth convolution
    assert receptive.last - receptive.first + 1 == 163


@pytest.mark.parametrize("name", SMALL)
def test_a_layers_cells_see_what_its_grid_says_and_no_more(name: str) -> None:
    """By the gradient of one cell far from every edge."""
    network = small(name, "mean")
    spec = network.spec
    for layer in layers(name)["style_layers"][1::2]:
        grid = spec.graph.grids[layer]
        span = grid.last - grid.first + 1
        cell = -(-(span + 40) // grid.stride)
        length = cell * grid.stride + grid.last + 60
        x = picture(1, length, length).requires_grad_()
        network.forward(x, [layer])[layer][0, :, cell, cell].sum().backward()
        rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        assert int(rows[0]) >= cell * grid.stride + grid.first and int(rows[-1]) <= cell * grid.stride + grid.last
        assert int(rows[-1]) - int(rows[0]) > span // 2


@pytest.mark.parametrize("name", SMALL)
def test_pictures_of_the_least_size_reach_a_layer_and_smaller_ones_are_refused(name: str) -> None:
    spec, network = SMALL[name], small(name)
    for layer in layers(name)["style_layers"]:
        least = spec.least(layer)
        found = network.forward(picture(1, least, least + 3), [layer])[layer]
        assert found.shape[2] == 1 and tuple(found.shape[2:]) == spec.sizes((least, least + 3))[layer]
        if least > 1:
            assert spec.sizes((least - 1, least + 3))[layer][0] == 0
    deepest = max(layers(name)["style_layers"], key=spec.least)
    if spec.least(deepest) > 8:
        chosen = Settings(min_scale=8, end_scale="64", content_layers=(deepest,), style_layers=(deepest,))
        with pytest.raises(ImageError, match=f"needs at least {spec.least(deepest)} pixels each way"):
            spec.check_stages(plan((100, 100), [(60, 60)], chosen), chosen)


SIZES = [(205, 181), (97, 160), (161, 66)]
TILES = {"whole": Limits(True, (150 * 150,), (0,)), "segments": Limits(False, (90 * 90, 24 * 24, 20 * 20), (4000, 300, 0))}


@pytest.mark.parametrize("limits", TILES.values(), ids=TILES)
@pytest.mark.parametrize("name", SMALL)
def test_tiles_give_the_same_loss_and_gradient(name: str, limits: Limits) -> None:
    tiles = 0
    for size, pooling, hands in zip(SIZES, ("max", "mean", "l2"), (1, 2, 1), strict=True):
        tiles = max(tiles, *check(small(name, pooling), size, limits, hands, **layers(name)))
    assert tiles > 1


@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_tiles_too(name: str) -> None:
    check(small(name, "mean"), (101, 75), Limits(False, (1, 1, 1), (0, 0, 0)), 2, **layers(name), style_loss="wasserstein")


@pytest.mark.parametrize("name", SMALL)
def test_layers_within_modules_and_before_their_relu(name: str) -> None:
    """Branches that nothing needs are not run."""
    spec, network = SMALL[name], small(name)
    inner = [layer for step in spec.steps for layer in step.layers][5:23:4]
    check(network, (97, 111), TILES["segments"], content_layers=inner[:1], style_layers=inner[1:])
    if name == "googlenet":
        (segment,) = spec.segments(["inception_3a/relu_1x1"], cut=False)
        assert [step.name for step in segment.steps][-2:] == ["pool2/3x3_s2", "inception_3a/1x1"]


@pytest.mark.parametrize("name", ["googlenet", "caffenet", "squeezenet"])
def test_a_halo_one_step_too_small_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from style_transfer.geometry.tiles import Geometry

    halo = Geometry.halo.fget  # type: ignore[attr-defined]
    network = small(name, "mean")
    check(network, (205, 181), TILES["segments"], **layers(name))
    monkeypatch.setattr(Geometry, "halo", property(lambda self: halo(self) - self.stride))
    with pytest.raises(AssertionError):
        check(network, (205, 181), TILES["segments"], **layers(name))


@given(st.sampled_from(sorted(SMALL)), st.integers(40, 150), st.integers(40, 150), st.integers(1, 20_000))
@settings(deadline=None, max_examples=25)
def test_every_cell_of_every_layer_is_visited_once(name: str, height: int, width: int, area: int) -> None:
    spec = SMALL[name]
    wanted = [layer for layer in layers(name)["style_layers"] if spec.least(layer) <= 40]
    network = small(name)
    sweep = Sweep([network], (height, width), wanted, Limits(False, (area, area, area), (0, 0, 0)))
    seen = {layer: torch.zeros(spec.sizes((height, width))[layer]) for layer in wanted}

    def visit(layer: str, features: Tensor, window: object) -> None:
        seen[layer][window.place.index] += 1  # type: ignore[attr-defined]

    sweep.forward(picture(1, height, width), visit)
    assert all(torch.equal(count, torch.ones_like(count)) for count in seen.values())


def test_layers_may_be_spread_over_devices_within_a_module() -> None:
    name = "googlenet"
    cpu = torch.device("cpu")
    state = random_state(SMALL[name], 1)
    one = Network(SMALL[name], state, pooling="max")
    wanted = catalog.NETWORKS[name].style_layers
    x = picture(1, 96, 96, torch.float32)
    for split in (None, ("inception_3b/3x3",), ("inception_4a/output",)):
        two = Network(SMALL[name], state, pooling="max", devices=(cpu, cpu), split=split)
        for layer, value in one.forward(x, wanted).items():
            assert torch.equal(value, two.forward(x, wanted)[layer])


def test_reduced_precision_comes_close() -> None:
    for name in ("googlenet", "caffenet", "squeezenet"):
        state = random_state(SMALL[name], 1)
        wanted = layers(name)["style_layers"]
        x = picture(1, 96, 96, torch.float32)
        full, low = (Network(SMALL[name], state, pooling="mean", features=f).forward(x, wanted) for f in (None, torch.bfloat16))
        for layer in wanted:
            assert float((low[layer].float() - full[layer]).norm() / full[layer].norm()) < 0.05


def test_preprocessing_is_a_setting() -> None:
    spec = networks.layout(Settings(network="vgg19-caffe", preprocessing="neural-style"))
    network = Network(spec, random_state(SPECS["vgg19-caffe"], 0), dtype=torch.float64)
    x = picture(1, 16, 16)
    seen = torch.stack([(x[:, c] - network._mean[:, c]) / network._std[:, c] for c in (2, 1, 0)], 1)
    assert torch.allclose(seen, reference.caffe_input(x, (103.939, 116.779, 123.68), 256))
    assert network.spec.bgr and not network.spec.replicate
    assert not any(isinstance(step, Norm) for step in networks.layout(Settings(network="googlenet", lrn="off")).steps)


# weights from files


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("name", ["vgg19-caffe", "nin", "googlenet", "caffenet", "squeezenet"])
def test_caffemodels_load(name: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SMALL[name]
    monkeypatch.setitem(SPECS, name, spec)
    state = random_state(spec, 3)
    path = write(tmp_path / "w.caffemodel", spec, state, old)
    (network,) = networks.load(Settings(network=name, weights=str(path)), [torch.device("cpu")])
    expected = Network(spec, state, pooling="max")
    x = picture(1, 96, 96, torch.float32)
    for layer, value in expected.forward(x, layers(name)["style_layers"]).items():
        assert torch.equal(network.forward(x, [layer])[layer], value)
    assert network.pooling == "max" and network.source.startswith("w.caffemodel sha256:")


@pytest.mark.parametrize("suffix", [".npz", ".pth", ".safetensors"])
def test_files_may_have_the_layers_names(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vgg_conv.pth has."""
    name = "vgg19-caffe"
    spec = SMALL[name]
    monkeypatch.setitem(SPECS, name, spec)
    state = random_state(spec, 3)
    names = {step.key: step.name for step in spec.steps if isinstance(step, Conv)}
    renamed = {f"{names[k.rsplit('.', 1)[0]]}.{k.rsplit('.', 1)[1]}": v for k, v in state.items()}
    for tensors in (state, renamed):
        path = write(tmp_path / f"w{suffix}", spec, tensors)
        found = weights.check(weights.read(path), spec, "w")
        assert all(torch.equal(found[k], state[k]) for k in state)


def hostile(kind: str, spec: NetworkSpec, state: dict[str, Tensor]) -> bytes:
    good = net(spec, state, old=False)
    name = field(1, b"conv1_1")
    return {
        "no layers": field(1, b"a net"),
        "cut in a layer": good[: len(good) // 2],
        "endless number": b"\xff" * 30,
        "number of 65 bits": b"\x08" + b"\xff" * 9 + b"\x02" + good,
        "length past the end": number(100 << 3 | 2) + number(2**40) + b"x",
        "count is not the shape": field(100, name + field(7, field(7, field(1, number(9))) + field(5, bytes(16)))),
        "shape that overflows": field(100, name + field(7, field(7, field(1, number(2**33) * 4)) + field(5, bytes(4)))),
        "nothing of a huge shape": field(100, name + field(7, field(7, field(1, number(0) + number(2**62))))),
        "endless shape": field(100, name + field(7, field(7, field(1, number(1) * 100_000)) + field(5, bytes(4)))),
        "half a float": field(100, name + field(7, field(5, bytes(7)))),
        "twice": good + good,
        "many layers": field(100, b"") * 20_000,
        "name that is not text": field(100, field(1, b"\xff\xfe") + field(7, field(5, bytes(4)))),
        "group": b"\x0b\x0b\x0b",
        "not finite": net(spec, state | {"features.0.bias": torch.full((4,), torch.nan)}, old=True),
        "another network": net(SMALL["vgg16"], random_state(SMALL["vgg16"], 0), old=True),
        "text": b"hello, this is no model at all",
    }[kind]


KINDS = ("no layers", "cut in a layer", "endless number", "number of 65 bits", "length past the end",
    "count is not the shape", "shape that overflows", "nothing of a huge shape", "endless shape", "half a float", "twice",
    "many layers", "name that is not text", "group", "not finite", "another network", "text")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_caffemodels_are_refused_with_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SMALL["vgg19-caffe"]
    monkeypatch.setitem(SPECS, "vgg19-caffe", spec)
    path = tmp_path / "w.caffemodel"
    path.write_bytes(hostile(kind, spec, random_state(spec, 3)))
    with pytest.raises(WeightsError, match=r"w\.caffemodel") as caught:
        networks.fetch(Settings(network="vgg19-caffe", weights=str(path)))
    assert "\n" not in str(caught.value)


@given(st.binary(min_size=1, max_size=200))
@settings(deadline=None)
def test_any_bytes_give_a_format_error_or_weights(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".caffemodel") as file:
        Path(file.name).write_bytes(data)
        try:
            assert caffemodel.read(Path(file.name))
        except caffemodel.FormatError as error:
            assert "\n" not in str(error)


def test_hostile_archives_of_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(WeightsError, match="damaged"):
        weights.read(path)
    np.savez(path, **{"conv1_1.weight": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(WeightsError, match="damaged, or holds more than numbers"):
        weights.read(path)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 9), }"
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conv1_1.weight.npy", body)
    with pytest.raises(WeightsError, match="damaged"):
        weights.read(path)
    np.savez(path, **{"conv1_1.weight": np.array(["text"])})
    with pytest.raises(WeightsError):
        weights.check(weights.read(path), SMALL["vgg19-caffe"], "w")


@pytest.mark.parametrize("name", [name for name, known in catalog.NETWORKS.items() if not known.download and name != "compact"])
def test_networks_without_a_download_say_which_file_fits(name: str) -> None:
    with pytest.raises(WeightsError, match=f"--network {name} needs a file of yours.*caffemodel"):
        networks.fetch(Settings(network=name))


def test_downloads_know_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(url: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr(weights, "_knock", offline)
    assert set(weights.TORCHVISION) == {name for name, known in catalog.NETWORKS.items() if known.download}
    for name in weights.TORCHVISION:
        with pytest.raises(weights.UnreachableError) as caught:
            networks.fetch(Settings(network=name))
        file = str(caught.value).split("put ")[1].split(" ")[0].rsplit("/", 1)[1]
        assert any(file in known for known in catalog.NETWORKS[name].files)


def test_the_help_tells_of_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help-networks"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n{name}\n" in f"\n{out}" for name in catalog.NETWORKS)
    for word in ("405fc5acd08a3bb12de8ee5e23a96bec22f08204", "574671192 bytes", "dcbb9e9d", "inception_3a/output"):
        assert word in out


def test_a_run_with_a_caffemodel_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("c.png", "s.png")):
        to_pil(to_pixels(picture(seed, 90, 96))).save(name)
    spec = SMALL["googlenet"]
    monkeypatch.setitem(SPECS, "googlenet", spec)
    write(Path("w.caffemodel"), spec, random_state(spec, 0), old=True)
    common = ["c.png", "s.png", "--network", "googlenet", "--weights", "w.caffemodel", "-s", "96", "-ii", "2", "--quiet"]
    assert cli.main([*common, "-ms", "96", "--tile", "48"]) == 0
    told = json.loads(Path("out.png.json").read_text())
    assert told["network"]["name"] == "googlenet" and told["settings"]["content_layers"] == ["inception_3a/output"]


@pytest.mark.parametrize("window", [(2, 2, 0, False), (3, 2, 0, True), (3, 1, 1, True)], ids=str)
def test_poolings_of_any_window_agree_with_the_oracle(window: tuple[int, int, int, bool]) -> None:
    x = picture(1, 10, 12)
    kernel, stride, padding, ceil = window
    mean, most = (reference.caffe_pool(x, kind, kernel, stride, padding) for kind in ("mean", "max"))
    found = {name: pool(x, kernel, stride, padding, ceil) for name, pool in POOLINGS.items()}
    assert torch.allclose(found["max"], most) and torch.allclose(found["mean"], mean)
    assert torch.allclose(found["average"], 2 * mean)
    sums = torch.nn.functional.unfold(x, kernel, padding=padding, stride=stride).reshape(3, kernel**2, -1).square().sum(1)
    assert torch.allclose(found["l2"][0, :, 0, 0], 0.78 * sums[:, 0].sqrt())
