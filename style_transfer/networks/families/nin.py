"""Network in Network (Lin et al. 2013), https://arxiv.org/abs/1312.4400."""

from __future__ import annotations

from collections.abc import Sequence

from ..layers import Conv, Pool
from ..spec import CAFFE_MAGNITUDE, IMAGENET, PREPROCESSING, NetworkEntry, NetworkSpec


def nin(name: str, widths: Sequence[int]) -> NetworkSpec:
    """Return Network in Network; `widths` are the channels of its four blocks and of its last convolution.

    Layer names are those of nin_imagenet's definition, which has no relu4; keys are those of its conversion to torch.
    """
    one, two, three, four, five = widths
    steps = (
        Conv("conv1", "features.0", 3, one, 11, 4, 0, relu="relu0"),
        Conv("cccp1", "features.2", one, one, 1, 1, 0, relu="relu1"),
        Conv("cccp2", "features.4", one, one, 1, 1, 0, relu="relu2"),
        Pool("pool0", 3, ceil=True),
        Conv("conv2", "features.7", one, two, 5, 1, 2, relu="relu3"),
        Conv("cccp3", "features.9", two, two, 1, 1, 0, relu="relu5"),
        Conv("cccp4", "features.11", two, two, 1, 1, 0, relu="relu6"),
        Pool("pool2", 3, ceil=True),
        Conv("conv3", "features.14", two, three, 3, 1, 1, relu="relu7"),
        Conv("cccp5", "features.16", three, three, 1, 1, 0, relu="relu8"),
        Conv("cccp6", "features.18", three, three, 1, 1, 0, relu="relu9"),
        Pool("pool3", 3, ceil=True),  # followed by a dropout layer, which has an index in torch as well
        Conv("conv4-1024", "features.22", three, four, 3, 1, 1, relu="relu10"),
        Conv("cccp7-1024", "features.24", four, four, 1, 1, 0, relu="relu11"),
        Conv("cccp8-1024", "features.26", four, five, 1, 1, 0, relu="relu12"),
    )
    return NetworkSpec(name, steps, PREPROCESSING["caffe"], cuts=("pool2",))


NetworkEntry(
    nin("nin", (96, 256, 384, 1024, 1000)),
    f"Network in Network (Lin et al. 2013), trained on {IMAGENET}; needs little memory",
    (
        "nin_imagenet_conv.caffemodel (29 MB), linked from https://gist.github.com/mavenlin/d802a5849de39225bcc6",
        "nin_imagenet.pth (the same weights, converted)",
    ),
    ("relu7",),
    ("relu0", "relu3", "relu7", "relu12"),
    magnitude=CAFFE_MAGNITUDE,
).register()
