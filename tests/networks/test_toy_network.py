"""A network registered from outside the package runs through the command line, whole and in tiles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from support.tiny import picture, random_state

from style_transfer import cli
from style_transfer import pictures as images
from style_transfer.cli.help import help_text
from style_transfer.networks import PREPROCESSING, Conv, NetworkEntry, NetworkSpec, Pool
from style_transfer.pictures.tensors import to_pixels
from style_transfer.registry import NETWORKS

SPEC = NetworkSpec(
    "toy",
    (Conv("conv1", "first", 3, 8), Pool("pool1"), Conv("conv2", "second", 8, 12)),
    PREPROCESSING["torchvision"],
    cuts=("pool1",),
)
ENTRY = NetworkEntry(SPEC, "a toy with two convolutions", ("toy.safetensors",), ("relu2",), ("relu1", "relu2"), pooling="max")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the toy network, and write its weights and two pictures into the current folder."""
    monkeypatch.chdir(tmp_path)
    save_file(random_state(SPEC, 0), "toy.safetensors")
    for seed, name in enumerate(("content.png", "style.png")):
        images.save(name, to_pixels(picture(seed, 90, 96)))
    NETWORKS.register("toy")(ENTRY)
    yield
    NETWORKS.unregister("toy")


def test_a_registered_toy_network_gives_the_same_picture_in_tiles(toy: None) -> None:
    common = "content.png style.png --network toy --weights toy.safetensors -ms 96 -s 96 -ii 8 --precision fp32 --quiet".split()
    assert cli.main([*common, "-o", "whole.png"]) == 0
    assert cli.main([*common, "-o", "tiled.png", "--tile", "48"]) == 0
    whole, tiled, content = (images.load(name).pixels for name in ("whole.png", "tiled.png", "content.png"))
    assert np.abs(whole - tiled).max() < 2 / 255
    assert np.abs(whole - content[: whole.shape[0], : whole.shape[1]]).max() > 0.05
    page = help_text("networks")
    assert "a toy with two convolutions" in page and "\ntoy\n    weights: toy.safetensors\n" in page
