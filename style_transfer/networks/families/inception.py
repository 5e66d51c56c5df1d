"""GoogLeNet, the first Inception network (Szegedy et al. 2014), https://arxiv.org/abs/1409.4842."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..layers import Concat, Conv, Norm, Pool, Step
from ..spec import CAFFE_MAGNITUDE, IMAGENET, PREPROCESSING, NetworkEntry, NetworkSpec

MODULES = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
"""Output channels in each module: 1x1, 3x3 (reduction, convolution), 5x5 (reduction, convolution), projection after the pool."""


def _conv(module: str, kind: str, inputs: int, outputs: int, source: str | None = None) -> Conv:
    """Return a convolution with the names that it has in Caffe; `kind` begins with the kernel's size, or is a projection."""
    size = {"3": 3, "5": 5, "7": 7}.get(kind[0], 1) if "reduce" not in kind else 1
    name = f"{module}/{kind}"
    relu = f"{module}/relu_{kind.removesuffix('_s2')}"
    return Conv(name, name, inputs, outputs, size, 2 if size == 7 else 1, size // 2, source=source, relu=relu)


def googlenet(name: str, stem: tuple[int, int, int], modules: Mapping[str, Sequence[int]]) -> NetworkSpec:
    """Return GoogLeNet up to inception_5b; layer names are those of Caffe.

    `stem` are the output channels of its first three convolutions, `modules` are as in `MODULES`.
    """
    one, two, three = stem
    steps: list[Step] = [
        _conv("conv1", "7x7_s2", 3, one), Pool("pool1/3x3_s2", 3, ceil=True), Norm("pool1/norm1"),
        _conv("conv2", "3x3_reduce", one, two), _conv("conv2", "3x3", two, three), Norm("conv2/norm2"),
        Pool("pool2/3x3_s2", 3, ceil=True),
    ]  # fmt: skip
    before, inputs = "pool2/3x3_s2", three
    for module, (a, b3, b, c5, c, d) in modules.items():
        at = f"inception_{module}"
        if module in ("4a", "5a"):
            pool = f"pool{int(module[0]) - 1}/3x3_s2"
            steps.append(Pool(pool, 3, ceil=True, source=before))
            before = pool
        steps += [
            _conv(at, "1x1", inputs, a, before),
            _conv(at, "3x3_reduce", inputs, b3, before), _conv(at, "3x3", b3, b),
            _conv(at, "5x5_reduce", inputs, c5, before), _conv(at, "5x5", c5, c),
            Pool(f"{at}/pool", 3, 1, 1, source=before), _conv(at, "pool_proj", inputs, d),
            Concat(f"{at}/output", tuple(f"{at}/relu_{kind}" for kind in ("1x1", "3x3", "5x5", "pool_proj"))),
        ]  # fmt: skip
        before, inputs = f"{at}/output", a + b + c + d
    return NetworkSpec(name, tuple(steps), PREPROCESSING["fzliu"], cuts=("pool2/3x3_s2", "pool3/3x3_s2"))


NetworkEntry(
    googlenet("googlenet", (64, 64, 192), MODULES),
    f"GoogLeNet (Szegedy et al. 2014) with local response normalisation (see --lrn), trained on {IMAGENET}",
    (
        "bvlc_googlenet.caffemodel (51 MB, SHA-1 405fc5acd08a3bb12de8ee5e23a96bec22f08204), "
        "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
    ),
    ("inception_3a/output",),
    ("conv1/relu_7x7", "conv2/relu_3x3", "inception_3a/output", "inception_4a/output", "inception_5a/output"),
    magnitude=CAFFE_MAGNITUDE,
).register()
