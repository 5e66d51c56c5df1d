"""The algebra of layers: steps of a network, and the strides, receptive fields and sizes that follow from their kernels.

There are no tensors here, only integers. A network is a sequence of named steps; a step reads the output of the step before it
or of the layers that it names. The elements of a layer along its height and width are called cells. They form a regular grid over
the input: cell i of a layer with stride s depends on the pixels from i s + first to i s + last.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..geometry.scales import Size
from ..geometry.tiles import Geometry


class _Step:
    """Attributes that all steps have, with the defaults of a step that maps each cell of the step before to one cell."""

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
        """The layers it reads; None is the output of the step before."""
        return (self.source,)


@dataclass(frozen=True)
class Conv(_Step):
    """A convolution followed by a ReLU.

    `key` is the prefix of the weight's and the bias's names in files from torchvision. `source` is the layer that it reads (the
    output of the step before if None). `relu` is the name of its output after the ReLU (derived from `name` if empty).
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
        """The names of its outputs before and after the ReLU."""
        return self.name, self.relu or self.name.replace("conv", "relu")


@dataclass(frozen=True)
class Pool(_Step):
    """Pooling over kernel x kernel cells; the network's `pooling` chooses the kind.

    An incomplete window at the lower or right edge is dropped, or, with `ceil`, pooled over the cells that it has.
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
    """The concatenation of several layers of equal height and width along their channels."""

    name: str
    parts: tuple[str, ...]

    @property
    def sources(self) -> tuple[str | None, ...]:
        """The layers it reads."""
        return self.parts


Step = Conv | Pool | Norm | Concat


def _output_length(step: Step, length: int) -> int:
    """Return a step's output length along one axis for an input of `length`; an incomplete window must begin inside it."""
    room = length + 2 * step.padding - step.kernel
    count = (room + (step.stride - 1 if step.ceil else 0)) // step.stride + 1
    if step.ceil and (count - 1) * step.stride >= length + step.padding:
        count -= 1
    return max(0, count)


def _min_input_length(step: Step, cells: int) -> int:
    """Return the smallest input length along one axis for which a step's output has `cells` cells."""
    slack = step.stride - 1 if step.ceil else 0
    return max(1, (cells - 1) * step.stride + step.kernel - 2 * step.padding - slack)


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of a layer's cells: cell i sees the input from i stride + first to i stride + last, inclusive."""

    stride: int = 1
    first: int = 0
    last: int = 0

    @property
    def reach(self) -> int:
        """How far a cell sees beyond its own `stride` cells of the input, on the side where that is more."""
        return max(-self.first, self.last + 1 - self.stride)


class Graph:
    """Steps with the layers that each reads, and the receptive field and the number of channels of each layer.

    `entry` is the layer that the graph starts from, None for the picture; `channels` is the number of its channels.
    """

    def __init__(self, steps: Sequence[Step], entry: str | None, channels: int) -> None:
        self.steps = tuple(steps)
        self.entry = entry
        self.receptive_fields: dict[str | None, ReceptiveField] = {entry: ReceptiveField(), None: ReceptiveField()}
        self.channels: dict[str | None, int] = {entry: channels}
        self.sources: list[tuple[str | None, ...]] = []
        before = entry
        for step in self.steps:
            sources = tuple(before if source is None else source for source in step.sources)
            self.sources.append(sources)
            inputs = [self.receptive_fields[source] for source in sources]
            stride = inputs[0].stride
            first = min(field.first for field in inputs) - step.padding * stride
            last = max(field.last for field in inputs) + (step.kernel - 1 - step.padding) * stride
            channels = step.outputs if isinstance(step, Conv) else sum(self.channels[source] for source in sources)
            for layer in step.layers:
                self.receptive_fields[layer] = ReceptiveField(stride * step.stride, first, last)
                self.channels[layer] = channels
            before = step.layers[-1]

    def steps_for(self, layers: Collection[str]) -> tuple[Step, ...]:
        """Return the steps that `layers` depend on."""
        required: set[str | None] = set(layers)
        steps = []
        for step, sources in zip(reversed(self.steps), reversed(self.sources), strict=True):
            if required.intersection(step.layers):
                steps.append(step)
                required.update(sources)
        return tuple(reversed(steps))

    def min_length(self, layer: str | None) -> int:
        """Return the smallest input length along one axis for which a layer has a cell."""
        lengths: dict[str | None, int] = {self.entry: 1, layer: 1}
        for step, sources in zip(reversed(self.steps), reversed(self.sources), strict=True):
            cells = max((lengths[name] for name in step.layers if name in lengths), default=0)
            if cells:
                for source in sources:
                    lengths[source] = max(lengths.get(source, 1), _min_input_length(step, cells))
        return lengths[self.entry]

    def sizes(self, size: Size) -> dict[str | None, Size]:
        """Return the (height, width) of every layer for an input of `size`."""
        sizes = {self.entry: size}
        for step, sources in zip(self.steps, self.sources, strict=True):
            height, width = sizes[sources[0]]
            output = _output_length(step, height), _output_length(step, width)
            sizes |= dict.fromkeys(step.layers, output)
        return sizes


@dataclass(frozen=True)
class Segment:
    """Consecutive steps of a network, from the picture or from the output of the segment before.

    `strides` are those of the requested layers in cells of the segment's input, `geometry` holds the largest stride and reach
    among them. `channels` is the number of the output's channels. `entry` is the layer that the segment starts from, None for the
    picture; `last` says that no segment follows, so that the output is not needed.
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
        """The graph of its steps."""
        return Graph(self.steps, self.entry, self.inputs)

    @cached_property
    def convs(self) -> tuple[tuple[Conv, int], ...]:
        """Its convolutions, each with the stride of its output in cells of the segment's input."""
        return tuple((step, self.graph.receptive_fields[step.name].stride) for step in self.steps if isinstance(step, Conv))

    @cached_property
    def maps(self) -> tuple[tuple[int, int], ...]:
        """Channels and stride of each feature map that autograd keeps: of convolutions, and of other steps that do not shrink."""
        maps = []
        for step in self.steps:
            copies = {Conv: 1, Pool: step.stride == 1, Norm: 3, Concat: 1}[type(step)]
            maps += [(self.graph.channels[step.layers[-1]], self.graph.receptive_fields[step.name].stride)] * copies
        return tuple(maps)

    @cached_property
    def uses(self) -> dict[str | None, int]:
        """How many steps read each layer."""
        counts: dict[str | None, int] = {}
        for source in itertools.chain.from_iterable(self.graph.sources):
            counts[source] = counts.get(source, 0) + 1
        return counts

    @cached_property
    def pooled(self) -> frozenset[str]:
        """The convolutions whose output after the ReLU is read by one pooling step and is not requested."""
        pools = {sources[0] for step, sources in zip(self.steps, self.graph.sources, strict=True) if isinstance(step, Pool)}
        alone = {layer for layer in pools if self.uses[layer] == 1} - self.strides.keys()
        return frozenset(step.name for step, _ in self.convs if step.layers[-1] in alone and step.name not in self.strides)

    def sizes(self, size: Size) -> dict[str, Size]:
        """Return the (height, width) of its requested layers for an input of `size`."""
        sizes = self.graph.sizes(size)
        return {layer: sizes[layer] for layer in self.strides}

    def output_size(self, size: Size) -> Size:
        """Return the (height, width) of its output for an input of `size`."""
        return self.graph.sizes(size)[self.steps[-1].layers[-1]] if self.steps else size

    @staticmethod
    def of(steps: Sequence[Step], layers: Collection[str], *, entry: str | None, inputs: int, last: bool) -> Segment:
        """Return the segment of those of `steps` that `layers` and, unless it is the last segment, the last step depend on."""
        whole = Graph(steps, entry, inputs)
        requested = [layer for step in steps for layer in step.layers if layer in layers]
        ends = requested if last or not steps else [*requested, steps[-1].layers[-1]]
        kept = whole.steps_for(ends)
        fields = whole.receptive_fields
        stride = max((fields[layer].stride for layer in ends), default=1)
        reach = max((max(fields[layer].reach, whole.min_length(layer) - 1) for layer in ends), default=1)
        strides = {layer: fields[layer].stride for layer in requested}
        channels = whole.channels[kept[-1].layers[-1]] if kept else 0
        return Segment(kept, strides, Geometry(stride, max(reach, 1)), inputs, channels, entry, last)
