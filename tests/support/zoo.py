"""Small networks of every family."""

from __future__ import annotations

from style_transfer.networks.spec import BGR, alexnet, caffenet, googlenet, nin, squeezenet, vgg

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
"""The networks with few channels."""
