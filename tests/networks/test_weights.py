"""Weights from files: every format, and files that are damaged, hostile or belong to another network."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.formats import write
from support.tiny import picture, random_state, replace_network, tiny_weights, use_tiny_vgg19
from support.zoo import SMALL, VGG_LAYERS

from style_transfer.errors import WeightsError
from style_transfer.networks import Conv, weights
from style_transfer.networks.forward import Network
from style_transfer.networks.loading import load_networks, load_weights
from style_transfer.registry import NETWORKS
from style_transfer.settings import Settings


@pytest.fixture
def small_vgg(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Replace VGG-19 by the tiny network and return float32 weights for it."""
    use_tiny_vgg19(monkeypatch)
    return {k: v.float() for k, v in tiny_weights().items()}


def load(path: Path) -> Network:
    return load_networks(Settings(weights=str(path)).resolve(), [torch.device("cpu")])[0]


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


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_file_of_parameters_is_read_as_one_of_tensors(
    requires_grad: bool, tmp_path: Path, small_vgg: dict[str, torch.Tensor]
) -> None:
    parameters = {key: torch.nn.Parameter(tensor, requires_grad) for key, tensor in small_vgg.items()}
    torch.save(parameters, tmp_path / "w.pth")
    torch.save(small_vgg, tmp_path / "plain.pth")
    network, plain = load(tmp_path / "w.pth"), load(tmp_path / "plain.pth")
    assert network.digest == plain.digest
    image = torch.rand(1, 3, 40, 40).requires_grad_()
    features = network.forward(image, ["relu2_1"])["relu2_1"]
    assert torch.equal(features, plain.forward(image, ["relu2_1"])["relu2_1"])
    features.sum().backward()
    assert image.grad is not None and not any(weight.requires_grad for weight, _ in network._weights.values())


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
        ("not finite", "features.2.bias holds values that are not finite"),
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


def test_the_built_in_network_is_complete_and_small() -> None:
    (network,) = load_networks(Settings(network="compact").resolve(), [torch.device("cpu")])
    found = network.forward(picture(1, 64, 80, torch.float32), VGG_LAYERS)
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


def test_an_installation_without_the_built_in_network_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUILT_IN", tmp_path / "compact.safetensors")
    with pytest.raises(WeightsError, match="install style_transfer again"):
        load_networks(Settings(network="compact").resolve(), [torch.device("cpu")])


@pytest.mark.parametrize("suffix", [".npz", ".pth", ".safetensors"])
def test_keys_may_be_the_names_of_layers(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in vgg_conv.pth."""
    name = "vgg19-caffe"
    spec = SMALL[name]
    replace_network(name, spec, monkeypatch)
    state = random_state(spec, 3)
    names = {step.key: step.name for step in spec.steps if isinstance(step, Conv)}
    renamed = {f"{names[k.rsplit('.', 1)[0]]}.{k.rsplit('.', 1)[1]}": v for k, v in state.items()}
    for tensors in (state, renamed):
        path = write(tmp_path / f"w{suffix}", spec, tensors)
        found = weights.check(weights.read(path), spec, "w")
        assert all(torch.equal(found[k], state[k]) for k in state)


def test_hostile_archives_of_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(WeightsError, match="damaged"):
        weights.read(path)
    np.savez(path, **{"conv1_1.weight": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(WeightsError, match="damaged, or holds more than tensors"):
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


@pytest.mark.parametrize("name", [name for name, entry in NETWORKS.items() if not entry.download and not entry.built_in])
def test_networks_without_a_download_name_the_files_that_fit(name: str) -> None:
    with pytest.raises(WeightsError, match=f"--network {name} needs a file with its weights.*caffemodel"):
        load_weights(Settings(network=name).resolve())
