"""AlexNet (Krizhevsky et al. 2012): CaffeNet, its variant in Caffe, and torchvision's variant with one tower."""

from __future__ import annotations

from collections.abc import Sequence

from ..layers import Conv, Norm, Pool
from ..spec import CAFFE_MAGNITUDE, IMAGENET, PREPROCESSING, NetworkEntry, NetworkSpec

STYLE_LAYERS = ("relu1", "relu2", "relu3", "relu4", "relu5")


def caffenet(name: str, widths: Sequence[int]) -> NetworkSpec:
    """Return Caffe's reference network: AlexNet with groups, pooling before normalisation, and no padding of the input.

    `widths` are the output channels of its five convolutions.
    """
    one, two, three, four, five = widths
    steps = (
        Conv("conv1", "conv1", 3, one, 11, 4, 0), Pool("pool1", 3, ceil=True), Norm("norm1"),
        Conv("conv2", "conv2", one, two, 5, 1, 2, 2), Pool("pool2", 3, ceil=True), Norm("norm2"),
        Conv("conv3", "conv3", two, three),
        Conv("conv4", "conv4", three, four, groups=2),
        Conv("conv5", "conv5", four, five, groups=2), Pool("pool5", 3, ceil=True),
    )  # fmt: skip
    return NetworkSpec(name, steps, PREPROCESSING["fzliu"], cuts=("pool2",))


def alexnet(name: str, widths: Sequence[int]) -> NetworkSpec:
    """Return torchvision's AlexNet (Krizhevsky 2014, https://arxiv.org/abs/1404.5997).

    `widths` are the output channels of its five convolutions.
    """
    one, two, three, four, five = widths
    steps = (
        Conv("conv1", "features.0", 3, one, 11, 4, 2), Pool("pool1", 3),
        Conv("conv2", "features.3", one, two, 5, 1, 2), Pool("pool2", 3),
        Conv("conv3", "features.6", two, three),
        Conv("conv4", "features.8", three, four),
        Conv("conv5", "features.10", four, five), Pool("pool5", 3),
    )  # fmt: skip
    return NetworkSpec(name, steps, PREPROCESSING["torchvision"], cuts=("pool2",))


NetworkEntry(
    caffenet("caffenet", (96, 256, 384, 384, 256)),
    f"CaffeNet, AlexNet (Krizhevsky et al. 2012) with pooling before normalisation (see --lrn), trained on {IMAGENET}",
    (
        "bvlc_reference_caffenet.caffemodel (233 MB, SHA-1 4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46), "
        "http://dl.caffe.berkeleyvision.org/bvlc_reference_caffenet.caffemodel",
    ),
    ("relu4",),
    STYLE_LAYERS,
    magnitude=CAFFE_MAGNITUDE,
).register()
NetworkEntry(
    alexnet("alexnet", (64, 192, 384, 256, 256)),
    f"AlexNet with one tower (Krizhevsky 2014), trained by torchvision on {IMAGENET}",
    ("alexnet-owt-7be5be79.pth from torchvision (233 MB, SHA-256 begins with 7be5be79), downloaded once without --weights",),
    ("relu4",),
    STYLE_LAYERS,
    download="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    namesake="caffenet, which fzliu's post calls AlexNet",
).register()
