"""Caffe's weight files: real layouts, old and new, and hostile bytes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.formats import field, net, number, write
from support.tiny import picture, random_state, replace_network
from support.zoo import SMALL, default_layers
from torch import Tensor

from style_transfer import cli
from style_transfer.errors import WeightsError
from style_transfer.networks import NetworkSpec, caffe
from style_transfer.networks.forward import Network
from style_transfer.networks.loading import load_networks, load_weights
from style_transfer.pictures import to_pil
from style_transfer.pictures.tensors import to_pixels
from style_transfer.settings import Settings


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("name", ["vgg19-caffe", "nin", "googlenet", "caffenet", "squeezenet"])
def test_caffemodels_load(name: str, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SMALL[name]
    replace_network(name, spec, monkeypatch)
    state = random_state(spec, 3)
    path = write(tmp_path / "w.caffemodel", spec, state, old)
    (network,) = load_networks(Settings(network=name, weights=str(path)).resolve(), [torch.device("cpu")])
    expected = Network(spec, state, pooling="max")
    x = picture(1, 96, 96, torch.float32)
    for layer, value in expected.forward(x, default_layers(name)["style_layers"]).items():
        assert torch.equal(network.forward(x, [layer])[layer], value)
    assert network.pooling == "max" and network.source.startswith("w.caffemodel sha256:")


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
    replace_network("vgg19-caffe", spec, monkeypatch)
    path = tmp_path / "w.caffemodel"
    path.write_bytes(hostile(kind, spec, random_state(spec, 3)))
    with pytest.raises(WeightsError, match=r"w\.caffemodel") as caught:
        load_weights(Settings(network="vgg19-caffe", weights=str(path)).resolve())
    assert "\n" not in str(caught.value)


@given(st.binary(min_size=1, max_size=200))
@settings(deadline=None)
def test_any_bytes_give_a_format_error_or_weights(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".caffemodel") as file:
        Path(file.name).write_bytes(data)
        try:
            assert caffe.read(Path(file.name))
        except caffe.FormatError as error:
            assert "\n" not in str(error)


def test_a_run_with_a_caffemodel_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("c.png", "s.png")):
        to_pil(to_pixels(picture(seed, 90, 96))).save(name)
    spec = SMALL["googlenet"]
    replace_network("googlenet", spec, monkeypatch)
    write(Path("w.caffemodel"), spec, random_state(spec, 0), old=True)
    common = ["c.png", "s.png", "--network", "googlenet", "--weights", "w.caffemodel", "-s", "96", "-ii", "2", "--quiet"]
    assert cli.main([*common, "-ms", "96", "--tile", "48"]) == 0
    report = json.loads(Path("out.png.json").read_text())
    assert report["network"]["name"] == "googlenet" and report["settings"]["content_layers"] == ["inception_3a/output"]
