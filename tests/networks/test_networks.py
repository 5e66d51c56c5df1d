"""Networks: layout, geometry, pooling, weights files."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import reference
from support.tiny import TINY, WIDTHS, picture, tiny_weights

from style_transfer import networks
from style_transfer.errors import ImageError, SettingsError, WeightsError
from style_transfer.geometry.scales import plan
from style_transfer.networks import VGG19, weights
from style_transfer.networks.graph import POOLINGS, Network, l2_pool
from style_transfer.networks.spec import Conv
from style_transfer.settings.settings import Settings

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")


def test_vgg19_layout_is_torchvisions() -> None:
    convs = [step for step in VGG19.steps if isinstance(step, Conv)]
    assert [c.key for c in convs] == [f"features.{i}" for i in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)]
    assert [(c.inputs, c.outputs) for c in convs[:3]] == [(3, 64), (64, 64), (64, 128)]
    assert {layer: VGG19.strides[layer] for layer in LAYERS} == dict(zip(LAYERS, (1, 2, 4, 8, 8, 16), strict=True))


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
@pytest.mark.parametrize(("height", "width"), [(16, 16), (37, 53)])
def test_features_agree_with_the_oracle(pooling: str, height: int, width: int, make_network: Callable[..., Network]) -> None:
    network = make_network(pooling=pooling, dtype=torch.float64)
    x = picture(1, height, width)
    found = network.forward(x, LAYERS)
    expected = reference.features(x, tiny_weights(), pooling, LAYERS)
    for layer in LAYERS:
        assert torch.allclose(found[layer], expected[layer], rtol=1e-10, atol=1e-12), layer


def test_features_before_the_relu_are_left_alone(make_network: Callable[..., Network]) -> None:
    found = make_network(dtype=torch.float64).forward(picture(1, 20, 20), ["conv2_1", "relu2_1", "pool1"])
    assert found["conv2_1"].min() < 0
    assert torch.equal(found["conv2_1"].relu(), found["relu2_1"])
    assert found["pool1"].shape == (1, WIDTHS[0], 10, 10)


def test_two_devices_give_the_same_features(make_network: Callable[..., Network]) -> None:
    cpu = torch.device("cpu")
    one, two = make_network(), make_network(devices=(cpu, cpu))
    x = picture(1, 32, 32, torch.float32)
    for layer, value in one.forward(x, LAYERS).items():
        assert torch.equal(value, two.forward(x, LAYERS)[layer])


@pytest.mark.parametrize(
    ("devices", "split", "first"),
    [(2, None, 2), (2, ("relu2_1",), 2), (3, ("relu1_2", "pool4"), 1), (1, None, 16), (16, None, 1)],
)
def test_layers_go_to_the_devices_in_order(devices: int, split: tuple[str, ...] | None, first: int) -> None:
    places = [torch.device("cpu"), *[torch.device("meta")] * (devices - 1)]
    network = Network(TINY, tiny_weights(), devices=places, split=split)
    kinds = [network._place[step.name].type for step in TINY.steps if isinstance(step, Conv)]
    assert kinds == ["cpu"] * first + ["meta"] * (16 - first)


def test_vgg19_is_shared_where_memory_balances() -> None:
    assert VGG19.shares(1) == ()
    assert VGG19.shares(2) == ("conv2_2",)  # 64 + 64 + 16 + 32 numbers a pixel before it, 150 from there on
    assert VGG19.shares(3) == ("pool1", "conv3_3")


@pytest.mark.parametrize(
    ("split", "devices", "words"),
    [("relu2_2,relu2_1", 3, "in the network's order"), ("relu2_1", 3, r"one fewer than --devices has \(3 now\)"),
     ("relu2_9", 2, "no layer 'relu2_9'")],
)  # fmt: skip
def test_splits_that_make_no_sense_are_refused(split: str, devices: int, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        VGG19.check_split(Settings(sharding="layers", split=split, devices=("cpu",) * devices))


def test_l2_pool_has_a_finite_gradient_on_zeros() -> None:
    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    x[..., 0, 0] = 3
    x.requires_grad_()
    y = l2_pool(x)
    y.sum().backward()
    assert y.flatten().tolist() == pytest.approx([0.78 * 3, 0, 0, 0], abs=1e-12)
    assert x.grad[0, 0, 0, 0].item() == pytest.approx(0.78)
    assert x.grad.isfinite().all()


def test_unknown_layers_are_named_with_the_near_miss() -> None:
    with pytest.raises(SettingsError, match=r"--style-layers: vgg19 has no layer 'relu_4_1' \(did you mean 'relu4_1'\?\)"):
        VGG19.check_layers(Settings(style_layers=("relu_4_1",)))


def test_pictures_too_small_for_the_deepest_layer_are_refused() -> None:
    settings = Settings(min_scale=64, end_scale=128)
    VGG19.check_stages(plan((100, 100), [(16, 16)], settings), settings)
    with pytest.raises(ImageError, match="the content picture is 64x6 at scale 64, but relu5_1 needs at least 16"):
        VGG19.check_stages(plan((10, 100), [(50, 50)], settings), settings)
    with pytest.raises(ImageError, match="style picture 2 is 15x15"):
        VGG19.check_stages(plan((100, 100), [(50, 50), (15, 15)], settings), settings)
    shallow = Settings(min_scale=64, end_scale=128, style_layers=("relu1_1",), content_layers=("relu2_1",))
    VGG19.check_stages(plan((10, 100), [(1, 1)], shallow), shallow)


@pytest.fixture
def small_vgg(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Put the tiny layout in VGG-19's place, and return float32 weights for it."""
    monkeypatch.setitem(networks.SPECS, "vgg19", TINY)
    return {k: v.float() for k, v in tiny_weights().items()}


def load(path: Path) -> Network:
    return networks.load(Settings(weights=str(path)), [torch.device("cpu")])[0]


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_local_weights_load_and_classifier_keys_are_ignored(
    name: str, tmp_path: Path, small_vgg: dict[str, torch.Tensor]
) -> None:
    state = small_vgg | {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    network = load(path)
    assert torch.equal(network._weights["conv3_2"][0], small_vgg["features.12.weight"])
    assert network.source.startswith(f"{name} sha256:")


def broken(kind: str, path: Path, state: dict[str, torch.Tensor]) -> None:
    if kind == "missing key":
        del state["features.5.bias"]
    elif kind == "extra key":
        state["features.99.weight"] = torch.zeros(1)
    elif kind == "wrong shape":
        state["features.0.weight"] = torch.zeros(4, 3, 5, 5)
    elif kind == "integers":
        state["features.0.bias"] = torch.zeros(4, dtype=torch.int32)
    elif kind == "not finite":
        state["features.2.bias"][1] = torch.nan
    save_file(state, path)
    if kind == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "web page":
        path.write_bytes(b"\n<!DOCTYPE html><html></html>")
    elif kind == "LFS":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    elif kind == "forged header":
        path.write_bytes((2**63).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing key", "has no features.5.bias"),
        ("extra key", "has features.99.weight"),
        ("wrong shape", r"features.0.weight is \(4, 3, 5, 5\), but tiny needs \(4, 3, 3, 3\)"),
        ("integers", "features.0.bias is torch.int32"),
        ("not finite", "features.2.bias holds numbers that are not finite"),
        ("cut", "damaged"),
        ("empty", "is empty"),
        ("web page", "a web page"),
        ("LFS", "a Git LFS pointer"),
        ("forged header", "damaged"),
    ],
)
def test_bad_weights_are_refused(kind: str, words: str, tmp_path: Path, small_vgg: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    broken(kind, path, small_vgg)
    with pytest.raises(WeightsError, match=words):
        load(path)


class Bomb:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("kind", ["whole-number keys", "sparse", "meta", "overflows", "broken directory"])
def test_odd_pickles_are_refused(kind: str, tmp_path: Path, small_vgg: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "w.pth"
    key = "features.0.weight"
    odd: dict[object, torch.Tensor] = dict(small_vgg)
    if kind == "whole-number keys":
        odd[0] = torch.zeros(1)
    elif kind == "sparse":
        odd[key] = small_vgg[key].to_sparse()
    elif kind == "meta":
        odd[key] = small_vgg[key].to("meta")
    elif kind == "overflows":
        odd[key] = torch.full_like(small_vgg[key], 1e300, dtype=torch.float64)
    torch.save(odd, path)
    if kind == "broken directory":
        data = bytearray(path.read_bytes())
        at = data.rindex(b"PK\x01\x02")
        data[at : at + 4] = b"XXXX"
        path.write_bytes(data)
    with pytest.raises(WeightsError):
        load(path)


def test_a_pickle_that_runs_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_vgg: dict[str, torch.Tensor]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("w.pth").open("wb") as file:
        pickle.dump(Bomb(), file)
    with pytest.raises(WeightsError, match=r"w\.pth is damaged, or holds more than tensors"):
        load(Path("w.pth"))
    assert not Path("executed").exists()
    torch.save(small_vgg | {"x": Bomb()}, "v.pth")
    with pytest.raises(WeightsError):
        load(Path("v.pth"))
    assert not Path("executed").exists()


def test_missing_and_unknown_files_are_refused(tmp_path: Path, small_vgg: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="is not a file"):
        load(tmp_path)
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"must end in \.safetensors, \.pth, \.npz or \.caffemodel"):
        load(tmp_path / "w.onnx")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="state dictionary"):
        load(tmp_path / "list.pth")


def test_download_failure_names_address_place_and_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*args: object, **more: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(weights, "_knock", lambda url: None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(weights.UnreachableError) as caught:
        weights.download()
    for word in ("vgg19-dcbb9e9d.pth", "dcbb9e9d...", str(tmp_path), "--weights", "Name or service not known"):
        assert word in str(caught.value)


def test_a_damaged_file_in_the_cache_is_found_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth"
    cached.parent.mkdir()
    cached.write_bytes(b"half of it")
    with pytest.raises(WeightsError, match="is damaged"):
        weights.download()


def test_a_server_that_does_not_answer_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "START_SECONDS", 0.3)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the connection and says nothing
        start = time.perf_counter()
        with pytest.raises(TimeoutError):
            weights._knock(f"http://127.0.0.1:{server.getsockname()[1]}/vgg19.pth")
        assert time.perf_counter() - start < 2
        port = server.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        weights._knock(f"http://127.0.0.1:{port}/vgg19.pth")


def test_the_built_in_network_is_whole_and_small() -> None:
    (network,) = networks.load(Settings(network="compact"), [torch.device("cpu")])
    found = network.forward(picture(1, 64, 80, torch.float32), LAYERS)
    assert {layer: tuple(x.shape[1:]) for layer, x in found.items()} == {
        "relu1_1": (32, 64, 80),
        "relu2_1": (64, 32, 40),
        "relu3_1": (128, 16, 20),
        "relu4_1": (192, 8, 10),
        "relu4_2": (192, 8, 10),
        "relu5_1": (256, 4, 5),
    }
    assert all(x.isfinite().all() and x.std() > 0 for x in found.values())
    assert weights.BUILT_IN.stat().st_size < 4e6


def test_an_installation_without_its_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUILT_IN", tmp_path / "compact.safetensors")
    with pytest.raises(WeightsError, match="install style_transfer again"):
        networks.load(Settings(network="compact"), [torch.device("cpu")])


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
@pytest.mark.parametrize("size", [(8, 6), (9, 13), (2, 3)], ids=str)
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=str)
def test_pooling_that_rectifies_has_the_gradient_of_both(pooling: str, size: tuple[int, int], form: torch.memory_format) -> None:
    pool, random = POOLINGS[pooling], torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, *size, generator=random, dtype=torch.float64).contiguous(memory_format=form).requires_grad_()
    plain, fused = pool(x.relu()), pool(x.clone(), relu=True)
    slope = torch.randn(plain.shape, generator=random, dtype=torch.float64)
    (expected,), (found,) = (torch.autograd.grad(y, x, slope) for y in (plain, fused))
    assert torch.equal(plain, fused) and torch.equal(expected, found)
    assert expected.abs().sum() > 0


def test_only_what_pooling_alone_reads_is_rectified_there() -> None:
    def pooled(*layers: str) -> set[str]:
        (segment,) = VGG19.segments(layers, cut=False)
        return set(segment.pooled)

    assert pooled("relu3_1") == {"conv1_2", "conv2_2"}
    assert pooled("relu3_1", "relu1_2") == {"conv2_2"}  # wanted itself
    assert pooled("relu3_1", "conv2_2") == {"conv1_2"}  # wanted before its ReLU
    assert pooled("relu1_2") == set()
