"""VGG-19 and VGG-16 of Simonyan and Zisserman (2014), https://arxiv.org/abs/1409.1556, and the built-in network.

VGG-19 and VGG-16 exist as trained by torchvision and as trained by their authors in Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..layers import Conv, Pool, Step
from ..spec import CAFFE_MAGNITUDE, IMAGENET, PREPROCESSING, NetworkEntry, NetworkSpec, Preprocessing

VGG19_BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
VGG16_BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


def vgg(
    name: str,
    blocks: Sequence[Sequence[int]],
    preprocessing: Preprocessing = PREPROCESSING["torchvision"],
    *,
    replicate: bool = True,
) -> NetworkSpec:
    """Return a VGG network; `blocks` holds the output channels of each block's convolutions. Keys are those of torchvision."""
    steps: list[Step] = []
    index, inputs = 0, 3
    for block, widths in enumerate(blocks, 1):
        for number, outputs in enumerate(widths, 1):
            steps.append(Conv(f"conv{block}_{number}", f"features.{index}", inputs, outputs))
            index, inputs = index + 2, outputs
        steps.append(Pool(f"pool{block}"))
        index += 1
    return NetworkSpec(name, tuple(steps), preprocessing, cuts=("pool3",), replicate=replicate)


def _caffe(name: str, blocks: Sequence[Sequence[int]]) -> NetworkSpec:
    return vgg(name, blocks, PREPROCESSING["caffe"], replicate=False)


VGG19 = vgg("vgg19", VGG19_BLOCKS)
"""VGG-19 with torchvision's preprocessing."""
COMPACT = vgg("compact", ((32, 24), (64, 64), (128, 128), (192, 192), (256,)))
"""The built-in network: the layers of VGG-19 with an eighth of the multiplications, trained by this project (see training/)."""

NetworkEntry(
    VGG19,
    f"VGG-19 (Simonyan and Zisserman 2014), trained by torchvision on {IMAGENET}",
    ("vgg19-dcbb9e9d.pth from torchvision (548 MB, SHA-256 begins with dcbb9e9d), downloaded once without --weights",),
    pooling="average",
    download="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
).register()
NetworkEntry(
    vgg("vgg16", VGG16_BLOCKS),
    f"VGG-16, trained by torchvision on {IMAGENET}",
    ("vgg16-397923af.pth from torchvision (528 MB, SHA-256 begins with 397923af), downloaded once without --weights",),
    pooling="average",
    download="https://download.pytorch.org/models/vgg16-397923af.pth",
).register()
NetworkEntry(
    _caffe("vgg19-caffe", VGG19_BLOCKS),
    f"VGG-19, trained by its authors in Caffe on {IMAGENET}; input is BGR from 0 to 255 minus the mean",
    (
        "VGG_ILSVRC_19_layers.caffemodel by the authors (574671192 bytes, SHA-1 239785e7862442717d831f682bb824055e51e9ba), "
        "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_19_layers.caffemodel",
        "vgg19-d01eb7cb.pth (the same weights, converted; SHA-256 begins with d01eb7cb)",
        "vgg_conv.pth of Gatys et al. (input BGR as well)",
    ),
    magnitude=CAFFE_MAGNITUDE,
).register()
NetworkEntry(
    _caffe("vgg19-normalized", VGG19_BLOCKS),
    f"vgg19-caffe with each channel's weights divided by its mean activation (Gatys et al. 2015) on {IMAGENET}",
    (
        "vgg_normalised.caffemodel of Gatys et al. (80 MB), "
        "http://bethgelab.org/media/uploads/deeptextures/vgg_normalised.caffemodel",
    ),
    magnitude=0.5,  # the mean activation is 1 instead of about 2
).register()
NetworkEntry(
    _caffe("vgg16-caffe", VGG16_BLOCKS),
    f"VGG-16, trained by its authors in Caffe on {IMAGENET}; input is BGR from 0 to 255 minus the mean",
    (
        "VGG_ILSVRC_16_layers.caffemodel by the authors (528 MB, SHA-1 9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24), "
        "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
        "vgg16-00b39a1b.pth (the same weights, converted; SHA-256 begins with 00b39a1b)",
    ),
    magnitude=CAFFE_MAGNITUDE,
).register()
NetworkEntry(
    COMPACT,
    "built in: the layers of VGG-19 with an eighth of the work, trained by this project to predict the features of VGG-19",
    ("compact.safetensors, part of the program",),
    pooling="average",
    built_in=True,
).register()
