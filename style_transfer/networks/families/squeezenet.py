"""SqueezeNet 1.1 (Iandola et al. 2016), https://arxiv.org/abs/1602.07360."""

from __future__ import annotations

from collections.abc import Mapping

from ..layers import Concat, Conv, Pool, Step
from ..spec import IMAGENET, PREPROCESSING, NetworkEntry, NetworkSpec

FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}
"""Output channels of the squeezing convolution and of each expanding one, by the fire module's number."""


def squeezenet(name: str, stem: int, fires: Mapping[int, tuple[int, int]]) -> NetworkSpec:
    """Return SqueezeNet 1.1; `stem` are the first convolution's output channels, `fires` are as in `FIRES`.

    Layer names are those of its Caffe definition, keys are those of torchvision.
    """
    steps: list[Step] = [Conv("conv1", "features.0", 3, stem, 3, 2, 0, relu="relu_conv1"), Pool("pool1", 3, ceil=True)]
    index, inputs = 3, stem
    for number, (squeezed, expanded) in fires.items():
        at, key = f"fire{number}", f"features.{index}"
        small, left, right = f"{at}/relu_squeeze1x1", f"{at}/relu_expand1x1", f"{at}/relu_expand3x3"
        steps += [
            Conv(f"{at}/squeeze1x1", f"{key}.squeeze", inputs, squeezed, 1, 1, 0, relu=small),
            Conv(f"{at}/expand1x1", f"{key}.expand1x1", squeezed, expanded, 1, 1, 0, source=small, relu=left),
            Conv(f"{at}/expand3x3", f"{key}.expand3x3", squeezed, expanded, source=small, relu=right),
            Concat(f"{at}/concat", (left, right)),
        ]
        index, inputs = index + 1, 2 * expanded
        if number in (3, 5):
            steps.append(Pool(f"pool{number}", 3, ceil=True))
            index += 1
    return NetworkSpec(name, tuple(steps), PREPROCESSING["torchvision"], cuts=("pool3",))


NetworkEntry(
    squeezenet("squeezenet", 64, FIRES),
    f"SqueezeNet 1.1 (Iandola et al. 2016), trained by torchvision on {IMAGENET}; the smallest download",
    ("squeezenet1_1-b8a52dc0.pth from torchvision (5 MB, SHA-256 begins with b8a52dc0), downloaded once without --weights",),
    ("fire4/concat",),
    ("relu_conv1", "fire2/concat", "fire4/concat", "fire6/concat", "fire8/concat"),
    download="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
).register()
