"""Networks of every family with few channels, for tests."""

from __future__ import annotations

import torch

from style_transfer.networks import PREPROCESSING
from style_transfer.networks.families.caffenet import alexnet, caffenet
from style_transfer.networks.families.inception import googlenet
from style_transfer.networks.families.nin import nin
from style_transfer.networks.families.squeezenet import squeezenet
from style_transfer.networks.families.vgg import vgg
from style_transfer.networks.forward import Network
from style_transfer.registry import NETWORKS

from .tiny import random_state

BGR = PREPROCESSING["caffe"]
WIDTHS = (4, 6, 8, 8, 6)
MODULES = {module: (2, 2, 4, 2, 2, 2) for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")}


SMALL = {
    "vgg16": vgg("vgg16", ((4,) * 2, (6,) * 2, (8,) * 3, (8,) * 3, (8,) * 3)),
    "vgg19-caffe": vgg("vgg19-caffe", ((4,) * 2, (6,) * 2, (8,) * 4, (8,) * 4, (8,) * 4), BGR, replicate=False),
    "vgg16-caffe": vgg("vgg16-caffe", ((4,) * 2, (6,) * 2, (8,) * 3, (8,) * 3, (8,) * 3), BGR, replicate=False),
    "nin": nin("nin", WIDTHS),
    "googlenet": googlenet("googlenet", (4, 4, 6), MODULES),
    "googlenet without norms": googlenet("googlenet", (4, 4, 6), MODULES).without_norms(),
    "caffenet": caffenet("caffenet", WIDTHS),
    "alexnet": alexnet("alexnet", WIDTHS),
    "squeezenet": squeezenet("squeezenet", 6, {number: (2, 3 + number // 4) for number in range(2, 10)}),
}
"""By name; one is a variant without local response normalisation."""

VGG_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")


def small_network(name: str, pooling: str = "max", dtype: torch.dtype = torch.float64) -> Network:
    """Return a network of `SMALL` with random weights."""
    state = {key: value.double() for key, value in random_state(SMALL[name], 1).items()}
    return Network(SMALL[name], state, pooling=pooling, dtype=dtype)


def default_layers(name: str) -> dict[str, tuple[str, ...]]:
    """Return the default content and style layers of a network of `SMALL` as settings."""
    entry = NETWORKS[name.split()[0]]
    return {"content_layers": entry.content_layers, "style_layers": entry.style_layers}
