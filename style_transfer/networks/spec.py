"""What networks are made of, as data: no tensors, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..config import Settings
from ..errors import ImageError, SettingsError, near_miss
from ..schedule import Stage


@dataclass(frozen=True)
class Conv:
    """A 3x3 convolution of stride 1 and its ReLU; `key` is the stem of its weights' names in a file."""

    name: str
    key: str
    inputs: int
    outputs: int

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its outputs, before and after the ReLU."""
        return self.name, self.name.replace("conv", "relu")


@dataclass(frozen=True)
class Pool:
    """Pooling over 2x2 cells with stride 2, an odd last row or column dropped."""

    name: str

    @property
    def layers(self) -> tuple[str, ...]:
        """The name of its output."""
        return (self.name,)


@dataclass(frozen=True)
class NetworkSpec:
    """A chain of convolutions and poolings, and what its input must look like.

    Pictures are RGB in [0, 1]; `mean` is subtracted and the rest divided by `std`, channel by channel.
    `split` names the first convolution that goes to the second of two devices.
    """

    name: str
    steps: tuple[Conv | Pool, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    split: str

    @cached_property
    def strides(self) -> dict[str, int]:
        """Each layer's stride in pixels: also the smallest side a picture must have to reach it."""
        strides, stride = {}, 1
        for step in self.steps:
            stride *= 2 if isinstance(step, Pool) else 1
            strides.update(dict.fromkeys(step.layers, stride))
        return strides

    def check_layers(self, settings: Settings) -> None:
        """Raise `SettingsError` if a content or style layer does not exist."""
        for flag, layers in (("--content-layers", settings.content_layers), ("--style-layers", settings.style_layers)):
            for layer in layers:
                if layer not in self.strides:
                    raise SettingsError(
                        f"{flag}: {self.name} has no layer {layer!r}{near_miss(layer, self.strides)}; "
                        f"it has {', '.join(self.strides)}"
                    )

    def check_stages(self, stages: Sequence[Stage], settings: Settings) -> None:
        """Raise `ImageError` if a picture or a style is too small at some stage for the layers it must reach."""
        deepest = max((*settings.content_layers, *settings.style_layers), key=self.strides.__getitem__)
        style_deepest = max(settings.style_layers, key=self.strides.__getitem__)
        for stage in stages:
            _check_side("the content picture", stage.size, stage, self.strides[deepest], deepest)
            for number, size in enumerate(stage.style_sizes, 1):
                _check_side(f"style picture {number}", size, stage, self.strides[style_deepest], style_deepest)


def _check_side(what: str, size: tuple[int, int], stage: Stage, least: int, layer: str) -> None:
    if min(size) < least:
        raise ImageError(
            f"{what} is {size[1]}x{size[0]} at scale {stage.scale}, but {layer} needs at least {least} pixels each way; "
            "raise --min-scale, take a larger picture, or leave out deep layers"
        )


def vgg(name: str, counts: Sequence[int], widths: Sequence[int], split: str) -> NetworkSpec:
    """Return a VGG network with `counts` convolutions of `widths` channels in its blocks, under torchvision's key names."""
    steps: list[Conv | Pool] = []
    index, inputs = 0, 3
    for block, (count, outputs) in enumerate(zip(counts, widths, strict=True), 1):
        for conv in range(1, count + 1):
            steps.append(Conv(f"conv{block}_{conv}", f"features.{index}", inputs, outputs))
            index, inputs = index + 2, outputs
        steps.append(Pool(f"pool{block}"))
        index += 1
    return NetworkSpec(name, tuple(steps), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), split)


VGG19 = vgg("vgg19", (2, 2, 4, 4, 4), (64, 128, 256, 512, 512), split="conv2_1")
"""VGG-19 of Simonyan and Zisserman (2014), https://arxiv.org/abs/1409.1556, with torchvision's preprocessing."""
