"""What networks are made of, as data: no tensors, no files.

A network is a list of named steps, each fed by the step before it or by steps it names. Every layer's cells lie on the
picture in a regular grid: cell i of a layer with stride s sees the pixels from i s + first to i s + last. Strides, reaches,
sizes and least sizes all follow from the steps' kernels.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import ImageError, SettingsError, near_miss
from ..geometry.scales import Size, Stage
from ..geometry.tiles import Geometry
from ..settings.settings import Settings


class _Step:
    """What steps have in common. Unless they say otherwise they read the step before, cell by cell."""

    name: str
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    ceil: bool = False
    source: str | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its outputs."""
        return (self.name,)

    @property
    def sources(self) -> tuple[str | None, ...]:
        """The layers it reads; None is the step before."""
        return (self.source,)


@dataclass(frozen=True)
class Conv(_Step):
    """A convolution and its ReLU; `key` is the stem of its weights' names in a file of torchvision's.

    `source` is the layer it reads, the step before if left out; `relu` the name of its output after the ReLU.
    """

    name: str
    key: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    groups: int = 1
    source: str | None = None
    relu: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of its outputs, before and after the ReLU."""
        return self.name, self.relu or self.name.replace("conv", "relu")


@dataclass(frozen=True)
class Pool(_Step):
    """Pooling over kernel x kernel cells, in the manner that the network is run with.

    What does not fill a whole kernel at the right and lower edge is dropped, or, with `ceil`, pooled by itself.
    """

    name: str
    kernel: int = 2
    stride: int = 2
    padding: int = 0
    ceil: bool = False
    source: str | None = None


@dataclass(frozen=True)
class Norm(_Step):
    """Local response normalisation across channels: x / (1 + alpha / size * sum of squares of `size` channels)^beta."""

    name: str
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75


@dataclass(frozen=True)
class Concat(_Step):
    """The channels of several layers of one size, one after the other."""

    name: str
    parts: tuple[str, ...]

    @property
    def sources(self) -> tuple[str | None, ...]:
        """The layers it reads."""
        return self.parts


Step = Conv | Pool | Norm | Concat


def _cells(step: Step, length: int) -> int:
    """Return how many cells a step makes of `length` along an axis; an incomplete kernel must begin before the edge."""
    room = length + 2 * step.padding - step.kernel
    count = (room + (step.stride - 1 if step.ceil else 0)) // step.stride + 1
    if step.ceil and (count - 1) * step.stride >= length + step.padding:
        count -= 1
    return max(0, count)


@dataclass(frozen=True)
class Grid:
    """How a layer's cells lie on an input: cell i sees i stride + first to i stride + last of it, ends included."""

    stride: int = 1
    first: int = 0
    last: int = 0

    @property
    def reach(self) -> int:
        """What a cell sees beyond its own `stride` cells of the input, on the side where that is more."""
        return max(-self.first, self.last + 1 - self.stride)


def _follow(step: Step, grids: Sequence[Grid]) -> Grid:
    """Return the grid of a step's output from those of the layers it reads."""
    stride = grids[0].stride
    first = min(grid.first for grid in grids) - step.padding * stride
    last = max(grid.last for grid in grids) + (step.kernel - 1 - step.padding) * stride
    return Grid(stride * step.stride, first, last)


def _least(step: Step, cells: int) -> int:
    """Return the least length of a step's input that makes `cells` cells."""
    slack = step.stride - 1 if step.ceil else 0
    return max(1, (cells - 1) * step.stride + step.kernel - 2 * step.padding - slack)


class Graph:
    """Steps with what follows from them: what each reads, and how each lies on the input."""

    def __init__(self, steps: Sequence[Step], entry: str | None, channels: int) -> None:
        self.steps = tuple(steps)
        self.entry = entry
        self.grids: dict[str | None, Grid] = {entry: Grid(), None: Grid()}
        self.channels: dict[str | None, int] = {entry: channels}
        self.read: list[tuple[str | None, ...]] = []
        before = entry
        for step in self.steps:
            read = tuple(before if source is None else source for source in step.sources)
            self.read.append(read)
            grid = _follow(step, [self.grids[source] for source in read])
            channels = step.outputs if isinstance(step, Conv) else sum(self.channels[source] for source in read)
            for layer in step.layers:
                self.grids[layer], self.channels[layer] = grid, channels
            before = step.layers[-1]

    def needed(self, layers: Collection[str]) -> tuple[Step, ...]:
        """Return the steps that `layers` depend on."""
        wanted: set[str | None] = set(layers)
        found = []
        for step, read in zip(reversed(self.steps), reversed(self.read), strict=True):
            if wanted.intersection(step.layers):
                found.append(step)
                wanted.update(read)
        return tuple(reversed(found))

    def least(self, layer: str | None) -> int:
        """Return the least length of the input that gives a layer a cell."""
        lengths: dict[str | None, int] = {self.entry: 1, layer: 1}
        for step, read in zip(reversed(self.steps), reversed(self.read), strict=True):
            cells = max((lengths[name] for name in step.layers if name in lengths), default=0)
            if cells:
                for source in read:
                    lengths[source] = max(lengths.get(source, 1), _least(step, cells))
        return lengths[self.entry]

    def sizes(self, size: Size) -> dict[str | None, Size]:
        """Return the (height, width) of every layer for an input of `size`."""
        sizes = {self.entry: size}
        for step, read in zip(self.steps, self.read, strict=True):
            height, width = sizes[read[0]]
            cells = _cells(step, height), _cells(step, width)
            sizes |= dict.fromkeys(step.layers, cells)
        return sizes


@dataclass(frozen=True)
class Segment:
    """Steps of a network in their order, from the picture or from another segment's output.

    `strides` are of its wanted layers, `geometry` is of them all together, both in cells of its input. `channels` are the
    output's. `entry` is the layer that it begins with, None for the picture; `last` says that the output goes nowhere.
    """

    steps: tuple[Step, ...]
    strides: dict[str, int]
    geometry: Geometry
    inputs: int
    channels: int
    entry: str | None
    last: bool

    @property
    def first(self) -> bool:
        """Whether its input is the picture."""
        return self.entry is None

    @cached_property
    def graph(self) -> Graph:
        """What follows from its steps."""
        return Graph(self.steps, self.entry, self.inputs)

    @cached_property
    def convs(self) -> tuple[tuple[Conv, int], ...]:
        """Its convolutions, each with the stride of its output in cells of the segment's input."""
        return tuple((step, self.graph.grids[step.name].stride) for step in self.steps if isinstance(step, Conv))

    @cached_property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """Channels and strides of what a graph of it holds at full size: convolutions, and whatever else does not shrink."""
        found = []
        for step in self.steps:
            copies = {Conv: 1, Pool: step.stride == 1, Norm: 3, Concat: 1}[type(step)]
            found += [(self.graph.channels[step.layers[-1]], self.graph.grids[step.name].stride)] * copies
        return tuple(found)

    @cached_property
    def uses(self) -> dict[str | None, int]:
        """How often each layer is read by a step."""
        found: dict[str | None, int] = {}
        for source in itertools.chain.from_iterable(self.graph.read):
            found[source] = found.get(source, 0) + 1
        return found

    @cached_property
    def pooled(self) -> frozenset[str]:
        """The convolutions whose output, rectified, goes into pooling and nowhere else."""
        pools = {read[0] for step, read in zip(self.steps, self.graph.read, strict=True) if isinstance(step, Pool)}
        alone = {layer for layer in pools if self.uses[layer] == 1} - self.strides.keys()
        return frozenset(step.name for step, _ in self.convs if step.layers[-1] in alone and step.name not in self.strides)

    def sizes(self, size: Size) -> dict[str, Size]:
        """Return the (height, width) of its wanted layers for an input of `size`."""
        sizes = self.graph.sizes(size)
        return {layer: sizes[layer] for layer in self.strides}

    def output_size(self, size: Size) -> Size:
        """Return the (height, width) of its output for an input of `size`."""
        return self.graph.sizes(size)[self.steps[-1].layers[-1]] if self.steps else size

    @staticmethod
    def of(steps: Sequence[Step], layers: Collection[str], *, entry: str | None, inputs: int, last: bool) -> Segment:
        """Return the segment of those of `steps` that `layers` need and, unless it is the last, of the last step."""
        whole = Graph(steps, entry, inputs)
        wanted = [layer for step in steps for layer in step.layers if layer in layers]
        ends = wanted if last or not steps else [*wanted, steps[-1].layers[-1]]
        kept = whole.needed(ends)
        stride = max((whole.grids[layer].stride for layer in ends), default=1)
        reach = max((max(whole.grids[layer].reach, whole.least(layer) - 1) for layer in ends), default=1)
        strides = {layer: whole.grids[layer].stride for layer in wanted}
        channels = whole.channels[kept[-1].layers[-1]] if kept else 0
        return Segment(kept, strides, Geometry(stride, max(reach, 1)), inputs, channels, entry, last)


@dataclass(frozen=True)
class Preprocessing:
    """What a network's input must look like: RGB in [0, 1], `mean` subtracted, divided by `std`, as BGR if `bgr`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


def caffe(mean: Sequence[float], white: float = 255.0) -> Preprocessing:
    """Return the preprocessing of Caffe's networks: BGR from 0 to `white`, less `mean`, which is in that order too."""
    blue, green, red = (value / white for value in mean)
    return Preprocessing((red, green, blue), (1 / white,) * 3, bgr=True)


PREPROCESSING = {
    "torchvision": Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": caffe((103.939, 116.779, 123.68)),
    "neural-style": caffe((103.939, 116.779, 123.68), 256.0),
    "neuralart": caffe((104.0, 117.0, 123.0)),
    "fzliu": caffe((104.007, 116.669, 122.679)),
}
"""By `Settings.preprocessing`. neural-style has white at 256; fzliu/style-transfer takes the mean of ilsvrc_2012_mean.npy."""


@dataclass(frozen=True)
class NetworkSpec:
    """The steps of a network, and what its input must look like.

    Pictures are RGB in [0, 1]; `mean` is subtracted and the rest divided by `std`, channel by channel; with `bgr` the channels
    are then turned around. `cuts` are the layers at which the network falls into segments when pictures are worked on in tiles.
    `replicate` has the first convolution see the picture's edge replicated, else zeros.
    """

    name: str
    steps: tuple[Step, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    cuts: tuple[str, ...] = ()
    bgr: bool = False
    replicate: bool = True

    @cached_property
    def graph(self) -> Graph:
        """What follows from its steps."""
        return Graph(self.steps, None, 3)

    @cached_property
    def strides(self) -> dict[str, int]:
        """Each layer's stride in pixels."""
        return {layer: self.graph.grids[layer].stride for step in self.steps for layer in step.layers}

    def least(self, layer: str) -> int:
        """Return the smallest side a picture must have to reach a layer."""
        return self.graph.least(layer)

    @property
    def stride(self) -> int:
        """The stride of the deepest layer, in pixels."""
        return max(self.strides.values())

    @cached_property
    def channels(self) -> dict[str, int]:
        """Each layer's channels."""
        return {layer: self.graph.channels[layer] for layer in self.strides}

    def sizes(self, size: Size) -> dict[str, Size]:
        """Return the (height, width) of every layer for a picture of `size`."""
        sizes = self.graph.sizes(size)
        return {layer: sizes[layer] for layer in self.strides}

    def geometry(self, layer: str) -> Geometry:
        """Return the stride and reach of a layer in pixels."""
        (segment,) = self.segments([layer], cut=False)
        return segment.geometry

    def segments(self, layers: Collection[str], *, cut: bool = True) -> tuple[Segment, ...]:
        """Return the steps that `layers` need, in one segment, or in several if `cut`."""
        found: list[Segment] = []
        missing = set(layers)
        steps: list[Step] = []
        entry, inputs = None, 3
        for step in self.steps:
            if not missing:
                break
            steps.append(step)
            missing.difference_update(step.layers)
            if cut and missing and step.name in self.cuts:
                found.append(Segment.of(steps, layers, entry=entry, inputs=inputs, last=False))
                steps, entry, inputs = [], step.name, found[-1].channels
        if steps or not found:
            found.append(Segment.of(steps, layers, entry=entry, inputs=inputs, last=True))
        return tuple(found)

    def prepared(self, how: Preprocessing) -> NetworkSpec:
        """Return the same network with another preprocessing."""
        return dataclasses.replace(self, mean=how.mean, std=how.std, bgr=how.bgr)

    def without_norms(self) -> NetworkSpec:
        """Return the network with its local response normalisations left out."""
        aliases = {step.name: read[0] for step, read in zip(self.steps, self.graph.read, strict=True) if isinstance(step, Norm)}
        steps: list[Step] = []
        for step in self.steps:
            if isinstance(step, Conv | Pool) and step.source in aliases:
                step = dataclasses.replace(step, source=aliases[step.source])
            if not isinstance(step, Norm):
                steps.append(step)
        cuts = tuple(cut for cut in self.cuts if cut not in aliases)
        return dataclasses.replace(self, steps=tuple(steps), cuts=cuts)

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
        deepest = max(settings.layers, key=self.least)
        style_deepest = max(settings.style_layers, key=self.least)
        for stage in stages:
            _check_side("the content picture", stage.size, stage, self.least(deepest), deepest, "raise --min-scale")
            for number, size in enumerate(stage.style_sizes, 1):
                way_out = "raise --min-scale, --style-size or --style-scale-fac"
                _check_side(f"style picture {number}", size, stage, self.least(style_deepest), style_deepest, way_out)


def _check_side(what: str, size: tuple[int, int], stage: Stage, least: int, layer: str, way_out: str) -> None:
    if min(size) < least:
        raise ImageError(
            f"{what} is {size[1]}x{size[0]} at scale {stage.scale}, but {layer} needs at least {least} pixels each way; "
            f"{way_out}, take a larger picture, or leave out deep layers"
        )


RGB = PREPROCESSING["torchvision"]
BGR = PREPROCESSING["caffe"]


def chain(
    name: str, steps: Iterable[Step], how: Preprocessing, *, cuts: Sequence[str] = (), replicate: bool = False
) -> NetworkSpec:
    """Return a network of `steps` with a preprocessing."""
    return NetworkSpec(name, tuple(steps), how.mean, how.std, tuple(cuts), how.bgr, replicate)


def vgg(name: str, blocks: Sequence[Sequence[int]], how: Preprocessing = RGB, *, replicate: bool = True) -> NetworkSpec:
    """Return a VGG network: `blocks` holds the channels of each block's convolutions. Key names are torchvision's."""
    steps: list[Step] = []
    index, inputs = 0, 3
    for block, widths in enumerate(blocks, 1):
        for number, outputs in enumerate(widths, 1):
            steps.append(Conv(f"conv{block}_{number}", f"features.{index}", inputs, outputs))
            index, inputs = index + 2, outputs
        steps.append(Pool(f"pool{block}"))
        index += 1
    return chain(name, steps, how, cuts=("pool3",), replicate=replicate)


VGG19_BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
VGG16_BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)

VGG19 = vgg("vgg19", VGG19_BLOCKS)
"""VGG-19 of Simonyan and Zisserman (2014), https://arxiv.org/abs/1409.1556, with torchvision's preprocessing."""

COMPACT = vgg("compact", ((32, 24), (64, 64), (128, 128), (192, 192), (256,)))
"""The built-in network: VGG-19's layers with an eighth of the work, trained by this project (see training/)."""


def alexnet(name: str, widths: Sequence[int], how: Preprocessing = RGB) -> NetworkSpec:
    """Return torchvision's AlexNet (Krizhevsky 2014, https://arxiv.org/abs/1404.5997): `widths` of five convolutions."""
    one, two, three, four, five = widths
    steps = (
        Conv("conv1", "features.0", 3, one, 11, 4, 2), Pool("pool1", 3),
        Conv("conv2", "features.3", one, two, 5, 1, 2), Pool("pool2", 3),
        Conv("conv3", "features.6", two, three),
        Conv("conv4", "features.8", three, four),
        Conv("conv5", "features.10", four, five), Pool("pool5", 3),
    )  # fmt: skip
    return chain(name, steps, how, cuts=("pool2",))


def caffenet(name: str, widths: Sequence[int]) -> NetworkSpec:
    """Return Caffe's reference network: AlexNet in two groups, pooling before normalisation, the first convolution unpadded."""
    one, two, three, four, five = widths
    steps = (
        Conv("conv1", "conv1", 3, one, 11, 4, 0), Pool("pool1", 3, ceil=True), Norm("norm1"),
        Conv("conv2", "conv2", one, two, 5, 1, 2, 2), Pool("pool2", 3, ceil=True), Norm("norm2"),
        Conv("conv3", "conv3", two, three),
        Conv("conv4", "conv4", three, four, groups=2),
        Conv("conv5", "conv5", four, five, groups=2), Pool("pool5", 3, ceil=True),
    )  # fmt: skip
    return chain(name, steps, PREPROCESSING["fzliu"], cuts=("pool2",))


def nin(name: str, widths: Sequence[int]) -> NetworkSpec:
    """Return Network in Network (Lin et al. 2013, https://arxiv.org/abs/1312.4400): `widths` of its four blocks and its end.

    Layers have the names of nin_imagenet's definition, in which there is no relu4; keys are those of its conversion to torch.
    """
    one, two, three, four, five = widths
    steps: list[Step] = []
    index, inputs, relu = 0, 3, 0

    def block(convs: Sequence[tuple[str, int, int, int, int]]) -> None:
        nonlocal index, inputs, relu
        for layer, outputs, kernel, stride, padding in convs:
            steps.append(Conv(layer, f"features.{index}", inputs, outputs, kernel, stride, padding, relu=f"relu{relu}"))
            index, inputs, relu = index + 2, outputs, relu + (2 if relu == 3 else 1)

    def pool(layer: str) -> None:
        nonlocal index
        steps.append(Pool(layer, 3, ceil=True))
        index += 1

    block([("conv1", one, 11, 4, 0), ("cccp1", one, 1, 1, 0), ("cccp2", one, 1, 1, 0)])
    pool("pool0")
    block([("conv2", two, 5, 1, 2), ("cccp3", two, 1, 1, 0), ("cccp4", two, 1, 1, 0)])
    pool("pool2")
    block([("conv3", three, 3, 1, 1), ("cccp5", three, 1, 1, 0), ("cccp6", three, 1, 1, 0)])
    pool("pool3")
    index += 1  # dropout has a number too
    block([("conv4-1024", four, 3, 1, 1), ("cccp7-1024", four, 1, 1, 0), ("cccp8-1024", five, 1, 1, 0)])
    return chain(name, steps, BGR, cuts=("pool2",))


INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
"""Channels of GoogLeNet's modules: 1x1, 3x3 reduced and full, 5x5 reduced and full, projection after the pool."""


def googlenet(name: str, stem: tuple[int, int, int], modules: Mapping[str, Sequence[int]]) -> NetworkSpec:
    """Return GoogLeNet (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842) up to inception_5b; layer names are Caffe's."""

    def conv(at: str, kind: str, inputs: int, outputs: int, source: str | None = None) -> Conv:
        size = {"3": 3, "5": 5, "7": 7}.get(kind[0], 1) if "reduce" not in kind else 1
        full = f"{at}/{kind}"
        relu = f"{at}/relu_{kind.removesuffix('_s2')}"
        return Conv(full, full, inputs, outputs, size, 2 if size == 7 else 1, size // 2, source=source, relu=relu)

    one, two, three = stem
    steps: list[Step] = [
        conv("conv1", "7x7_s2", 3, one), Pool("pool1/3x3_s2", 3, ceil=True), Norm("pool1/norm1"),
        conv("conv2", "3x3_reduce", one, two), conv("conv2", "3x3", two, three), Norm("conv2/norm2"),
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
            conv(at, "1x1", inputs, a, before),
            conv(at, "3x3_reduce", inputs, b3, before), conv(at, "3x3", b3, b),
            conv(at, "5x5_reduce", inputs, c5, before), conv(at, "5x5", c5, c),
            Pool(f"{at}/pool", 3, 1, 1, source=before), conv(at, "pool_proj", inputs, d),
            Concat(f"{at}/output", tuple(f"{at}/relu_{kind}" for kind in ("1x1", "3x3", "5x5", "pool_proj"))),
        ]  # fmt: skip
        before, inputs = f"{at}/output", a + b + c + d
    return chain(name, steps, PREPROCESSING["fzliu"], cuts=("pool2/3x3_s2", "pool3/3x3_s2"))


def squeezenet(name: str, stem: int, fires: Mapping[int, tuple[int, int]]) -> NetworkSpec:
    """Return SqueezeNet 1.1 (Iandola et al. 2016, https://arxiv.org/abs/1602.07360); `fires`: squeezed and expanded channels.

    Layer names are those of its Caffe definition, keys torchvision's.
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
    return chain(name, steps, RGB, cuts=("pool3",))


FIRES = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128), 6: (48, 192), 7: (48, 192), 8: (64, 256), 9: (64, 256)}

SPECS = {
    spec.name: spec
    for spec in (
        VGG19,
        vgg("vgg16", VGG16_BLOCKS),
        vgg("vgg19-caffe", VGG19_BLOCKS, BGR, replicate=False),
        vgg("vgg19-normalized", VGG19_BLOCKS, BGR, replicate=False),
        vgg("vgg16-caffe", VGG16_BLOCKS, BGR, replicate=False),
        nin("nin", (96, 256, 384, 1024, 1000)),
        googlenet("googlenet", (64, 64, 192), INCEPTIONS),
        caffenet("caffenet", (96, 256, 384, 384, 256)),
        alexnet("alexnet", (64, 192, 384, 256, 256)),
        squeezenet("squeezenet", 64, FIRES),
        COMPACT,
    )
}
"""Networks by the name `Settings.network` has for them."""
