"""Networks as data: steps, input preprocessing, checks of settings against them, and entries of the registry."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import ImageError, SettingsError, near_miss
from ..geometry.scales import Size, Stage
from ..registry import NETWORKS
from ..settings import Resolved, network_entry
from .layers import Conv, Graph, Norm, Pool, Segment, Step

VGG_STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CAFFE_MAGNITUDE = 256 * 0.226
"""Ratio of the standard deviations of the inputs that Caffe's and torchvision's preprocessing make of a picture."""
MARGIN = 16
"""The least number of pixels by which `--padding mirror` continues a picture; the margin is a multiple of all layers' strides."""
IMAGENET = "ImageNet (ILSVRC 2012)"


@dataclass(frozen=True)
class Preprocessing:
    """How RGB in [0, 1] becomes a network's input: minus `mean`, divided by `std`, with channels in the order BGR if `bgr`.

    `mean` and `std` are in the order RGB.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


def _caffe(mean: Sequence[float], white: float = 255.0) -> Preprocessing:
    """Return the preprocessing of Caffe's networks: BGR from 0 to `white`, minus `mean`, which is in the order BGR as well."""
    blue, green, red = (value / white for value in mean)
    return Preprocessing((red, green, blue), (1 / white,) * 3, bgr=True)


PREPROCESSING = {
    "torchvision": Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": _caffe((103.939, 116.779, 123.68)),
    "neural-style": _caffe((103.939, 116.779, 123.68), 256.0),
    "neuralart": _caffe((104.0, 117.0, 123.0)),
    "fzliu": _caffe((104.007, 116.669, 122.679)),
}
"""By `Settings.preprocessing`. White is 256 in neural-style; fzliu/style-transfer subtracts the mean of ilsvrc_2012_mean.npy."""


@dataclass(frozen=True)
class NetworkSpec:
    """The steps of a network and its preprocessing.

    `cuts` are the steps after which the network is divided into segments when pictures are processed in tiles. With `replicate`
    the first convolution pads the picture by replicating its edge, otherwise by zeros. The network sees pictures continued by
    `margin` pixels of their mirror image on each side.
    """

    name: str
    steps: tuple[Step, ...]
    preprocessing: Preprocessing
    cuts: tuple[str, ...] = ()
    replicate: bool = False
    margin: int = 0

    @cached_property
    def graph(self) -> Graph:
        """The graph of its steps."""
        return Graph(self.steps, None, 3)

    @cached_property
    def strides(self) -> dict[str, int]:
        """The stride of each layer in pixels."""
        return {layer: self.graph.receptive_fields[layer].stride for step in self.steps for layer in step.layers}

    def extended(self, size: Size) -> Size:
        """Return the size of a picture with its margin; a picture with a side shorter than the margin has none."""
        margin = self.margin if min(size) >= self.margin else 0
        return size[0] + 2 * margin, size[1] + 2 * margin

    @property
    def stride(self) -> int:
        """The largest stride of all layers, in pixels."""
        return max(self.strides.values())

    @cached_property
    def channels(self) -> dict[str, int]:
        """The number of channels of each layer."""
        return {layer: self.graph.channels[layer] for layer in self.strides}

    def min_side(self, layer: str) -> int:
        """Return the smallest side of a picture for which a layer has a cell."""
        return self.graph.min_length(layer)

    def sizes(self, size: Size) -> dict[str, Size]:
        """Return the (height, width) of every layer for a picture of `size`."""
        sizes = self.graph.sizes(size)
        return {layer: sizes[layer] for layer in self.strides}

    def segments(self, layers: Collection[str], *, cut: bool = True) -> tuple[Segment, ...]:
        """Return the steps that `layers` depend on as one segment, or, with `cut`, divided after the steps in `cuts`."""
        segments: list[Segment] = []
        missing = set(layers)
        steps: list[Step] = []
        entry, inputs = None, 3
        for step in self.steps:
            if not missing:
                break
            steps.append(step)
            missing.difference_update(step.layers)
            if cut and missing and step.name in self.cuts:
                segments.append(Segment.of(steps, layers, entry=entry, inputs=inputs, last=False))
                steps, entry, inputs = [], step.name, segments[-1].channels
        if steps or not segments:
            segments.append(Segment.of(steps, layers, entry=entry, inputs=inputs, last=True))
        return tuple(segments)

    def configured(self, settings: Resolved) -> NetworkSpec:
        """Return the network with the margin, the preprocessing and the normalisation that `settings` request."""
        spec = self
        if settings.padding == "mirror":
            stride = max(self.strides.get(layer, 1) for layer in settings.layers)
            spec = dataclasses.replace(spec, margin=-(-MARGIN // stride) * stride)
        if settings.preprocessing != "auto":
            spec = dataclasses.replace(spec, preprocessing=PREPROCESSING[settings.preprocessing])
        return spec if settings.lrn == "on" else spec.without_norms()

    def without_norms(self) -> NetworkSpec:
        """Return the network without its local response normalisations."""
        pairs = zip(self.steps, self.graph.sources, strict=True)
        replaced = {step.name: sources[0] for step, sources in pairs if isinstance(step, Norm)}
        steps: list[Step] = []
        for step in self.steps:
            if isinstance(step, Conv | Pool) and step.source in replaced:
                step = dataclasses.replace(step, source=replaced[step.source])
            if not isinstance(step, Norm):
                steps.append(step)
        cuts = tuple(cut for cut in self.cuts if cut not in replaced)
        return dataclasses.replace(self, steps=tuple(steps), cuts=cuts)

    def balanced_split(self, devices: int) -> tuple[str, ...]:
        """Return the first step of each device after the first, such that the largest share of the activations is minimal."""
        if devices == 1:
            return ()
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

    def check_split(self, settings: Resolved) -> None:
        """Raise `SettingsError` unless `split` names layers in the network's order, one for each device after the first."""
        layers = settings.split_layers
        if layers is None:
            return
        order = [layer for step in self.steps for layer in step.layers]
        for layer in layers:
            if layer not in order:
                raise SettingsError(f"--split: {self.name} has no layer {layer!r}{near_miss(layer, order)}")
        positions = [order.index(layer) for layer in layers]
        devices = len(settings.devices or ("one",))
        if positions != sorted(set(positions)) or len(positions) != devices - 1:
            raise SettingsError(
                f"--split {settings.split} must name layers in the network's order, one fewer than --devices has ({devices} now)"
            )

    def check_layers(self, settings: Resolved) -> None:
        """Raise `SettingsError` if the network lacks a content or style layer."""
        for flag, layers in (("--content-layers", settings.content_layers), ("--style-layers", settings.style_layers)):
            for layer in layers:
                if layer not in self.strides:
                    raise SettingsError(
                        f"{flag}: {self.name} has no layer {layer!r}{near_miss(layer, self.strides)}; "
                        f"it has {', '.join(self.strides)}"
                    )

    def check_stages(self, stages: Sequence[Stage], settings: Resolved) -> None:
        """Raise `ImageError` if the content or a style picture is too small at some scale for its deepest layer."""
        deepest = max(settings.layers, key=self.min_side)
        style_deepest = max(settings.style_layers, key=self.min_side)
        for stage in stages:
            self._check_side("the content picture", stage.size, stage.scale, deepest, "raise --min-scale")
            for number, size in enumerate(stage.style_sizes, 1):
                hint = "raise --min-scale, --style-size or --style-scale-fac"
                self._check_side(f"style picture {number}", size, stage.scale, style_deepest, hint)

    def _check_side(self, picture: str, size: Size, scale: int, layer: str, hint: str) -> None:
        if min(size) < self.min_side(layer):
            raise ImageError(
                f"{picture} is {size[1]}x{size[0]} at scale {scale}, but {layer} needs at least {self.min_side(layer)} pixels "
                f"each way; {hint}, take a larger picture, or leave out deep layers"
            )


@dataclass(frozen=True)
class NetworkEntry:
    """All that the program knows about a network; `registry.NETWORKS` holds one under each name that `--network` accepts.

    `help` describes the network in one line. `files` describe published weights that fit it, with sizes and checksums where they
    are known. `content_layers`, `style_layers` and `pooling` are the defaults of the settings with these names. `download` is the
    URL of weights from torchvision, whose file name ends with the first digits of the file's SHA-256; `built_in` means that the
    weights are part of the package; without either the user must provide them with `--weights`. `magnitude` is the scale of the
    activations relative to torchvision's networks. `namesake` is another network that goes by the same name, for users without
    a file.
    """

    spec: NetworkSpec
    help: str
    files: tuple[str, ...]
    content_layers: tuple[str, ...] = ("relu3_1",)
    style_layers: tuple[str, ...] = VGG_STYLE_LAYERS
    pooling: str = "max"
    download: str | None = None
    built_in: bool = False
    magnitude: float = 1.0
    namesake: str = ""

    def register(self) -> None:
        """Register the network under its name."""
        NETWORKS.register(self.spec.name)(self)


def network_spec(settings: Resolved) -> NetworkSpec:
    """Return the specification of the network that `settings` request, of VGG-19 for `network="auto"`."""
    spec: NetworkSpec = network_entry(settings.network).spec
    return spec.configured(settings)
