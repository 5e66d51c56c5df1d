"""What networks are made of, as data: no tensors, no files."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..config import Settings
from ..errors import ImageError, SettingsError, near_miss
from ..schedule import Stage
from ..tiling import Geometry


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
class Segment:
    """Consecutive steps of a network, from the picture or from another segment's output.

    `strides` are of its wanted layers, `geometry` is of them all together, both in cells of its input. `channels` are the
    output's. `first` says that the input is the picture, `last` that the output goes nowhere.
    """

    steps: tuple[Conv | Pool, ...]
    strides: dict[str, int]
    geometry: Geometry
    channels: int
    first: bool
    last: bool

    @property
    def inputs(self) -> int:
        """The channels of its input."""
        return next((conv.inputs for conv, _ in self.convs), 3)

    @cached_property
    def convs(self) -> tuple[tuple[Conv, int], ...]:
        """Its convolutions, each with the stride of its output in cells of the segment's input."""
        stride, found = 1, []
        for step in self.steps:
            if isinstance(step, Conv):
                found.append((step, stride))
            else:
                stride *= 2
        return tuple(found)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of its output for an input of `size`."""
        return size[0] // self.geometry.stride, size[1] // self.geometry.stride

    @staticmethod
    def of(steps: Sequence[Conv | Pool], layers: Collection[str], *, first: bool, last: bool) -> Segment:
        """Return the segment of `steps`."""
        stride, reach, channels, strides = 1, 0, 0, {}
        for step in steps:
            if isinstance(step, Conv):
                reach += stride
                channels = step.outputs
            else:
                stride *= 2
            strides.update({layer: stride for layer in step.layers if layer in layers})
        return Segment(tuple(steps), strides, Geometry(stride, max(reach, 1)), channels, first, last)


@dataclass(frozen=True)
class NetworkSpec:
    """A chain of convolutions and poolings, and what its input must look like.

    Pictures are RGB in [0, 1]; `mean` is subtracted and the rest divided by `std`, channel by channel.
    `cuts` are the poolings at which the network falls into segments when pictures are worked on in tiles.
    """

    name: str
    steps: tuple[Conv | Pool, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    cuts: tuple[str, ...] = ()

    @cached_property
    def strides(self) -> dict[str, int]:
        """Each layer's stride in pixels: also the smallest side a picture must have to reach it."""
        strides, stride = {}, 1
        for step in self.steps:
            stride *= 2 if isinstance(step, Pool) else 1
            strides.update(dict.fromkeys(step.layers, stride))
        return strides

    @property
    def stride(self) -> int:
        """The stride of the deepest layer, in pixels."""
        return max(self.strides.values())

    @cached_property
    def channels(self) -> dict[str, int]:
        """Each layer's channels."""
        channels, last = {}, 3
        for step in self.steps:
            last = step.outputs if isinstance(step, Conv) else last
            channels.update(dict.fromkeys(step.layers, last))
        return channels

    def geometry(self, layer: str) -> Geometry:
        """Return the stride and reach of a layer in pixels."""
        (segment,) = self.segments([layer], cut=False)
        return segment.geometry

    def segments(self, layers: Collection[str], *, cut: bool = True) -> tuple[Segment, ...]:
        """Return the steps that `layers` need, in one segment, or in several if `cut`."""
        found: list[Segment] = []
        missing = set(layers)
        steps: list[Conv | Pool] = []
        for step in self.steps:
            if not missing:
                break
            steps.append(step)
            missing.difference_update(step.layers)
            if cut and missing and step.name in self.cuts:
                found.append(Segment.of(steps, layers, first=not found, last=False))
                steps = []
        if steps or not found:
            found.append(Segment.of(steps, layers, first=not found, last=True))
        return tuple(found)

    def shares(self, devices: int) -> tuple[str, ...]:
        """Return the steps at which the second and later devices begin, so that the largest share of the activations is least."""
        sizes = [self.channels[step.layers[-1]] / self.strides[step.layers[-1]] ** 2 for step in self.steps]
        for limit in sorted(sum(sizes[a:b]) for a, b in itertools.combinations(range(len(sizes) + 1), 2)):
            starts, filled = [], 0.0
            for step, size in zip(self.steps, sizes, strict=True):
                if filled + size > limit:
                    starts.append(step.name)
                    filled = 0.0
                filled += size
            if max(sizes) <= limit and len(starts) < devices:
                return tuple(starts)
        return ()

    def check_split(self, settings: Settings) -> None:
        """Raise `SettingsError` unless `split` names layers in the network's order, one for each device after the first."""
        layers = settings.split_layers
        if layers is None:
            return
        order = [layer for step in self.steps for layer in step.layers]
        for layer in layers:
            if layer not in order:
                raise SettingsError(f"--split: {self.name} has no layer {layer!r}{near_miss(layer, order)}")
        places = [order.index(layer) for layer in layers]
        devices = len(settings.devices or ("one",))
        if places != sorted(set(places)) or len(places) != devices - 1:
            raise SettingsError(
                f"--split {settings.split} must name layers in the network's order, one fewer than --devices has ({devices} now)"
            )

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
        deepest = max(settings.layers, key=self.strides.__getitem__)
        style_deepest = max(settings.style_layers, key=self.strides.__getitem__)
        for stage in stages:
            _check_side("the content picture", stage.size, stage, self.strides[deepest], deepest, "raise --min-scale")
            for number, size in enumerate(stage.style_sizes, 1):
                way_out = "raise --min-scale, --style-size or --style-scale-fac"
                _check_side(f"style picture {number}", size, stage, self.strides[style_deepest], style_deepest, way_out)


def _check_side(what: str, size: tuple[int, int], stage: Stage, least: int, layer: str, way_out: str) -> None:
    if min(size) < least:
        raise ImageError(
            f"{what} is {size[1]}x{size[0]} at scale {stage.scale}, but {layer} needs at least {least} pixels each way; "
            f"{way_out}, take a larger picture, or leave out deep layers"
        )


def vgg(name: str, blocks: Sequence[Sequence[int]]) -> NetworkSpec:
    """Return a VGG network: `blocks` holds the channels of each block's convolutions. Key names are torchvision's."""
    steps: list[Conv | Pool] = []
    index, inputs = 0, 3
    for block, widths in enumerate(blocks, 1):
        for number, outputs in enumerate(widths, 1):
            steps.append(Conv(f"conv{block}_{number}", f"features.{index}", inputs, outputs))
            index, inputs = index + 2, outputs
        steps.append(Pool(f"pool{block}"))
        index += 1
    return NetworkSpec(name, tuple(steps), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), cuts=("pool3",))


VGG19 = vgg("vgg19", ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4))
"""VGG-19 of Simonyan and Zisserman (2014), https://arxiv.org/abs/1409.1556, with torchvision's preprocessing."""

COMPACT = vgg("compact", ((32, 24), (64, 64), (128, 128), (192, 192), (256,)))
"""The built-in network: VGG-19's layers with an eighth of the work, trained by this project (see training/)."""
