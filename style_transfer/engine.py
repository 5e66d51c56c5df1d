"""The coarse-to-fine loop, as a generator: no prints, no files.

After Gatys et al. (2016) and style-transfer-pytorch: each scale starts from the average of the last one's iterates, with
Adam's moments resized.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import allocator, memory
from .checkpoint import State, differences, digest, joint
from .config import INITS, Settings, parse_bytes
from .devices import resolve
from .distributed import LOCAL, Group, Rows
from .errors import CheckpointError, DeviceError, ImageError, MemoryLimitError, NumericError, SettingsError
from .masks import Region, check_settings, coverage
from .networks import layout, load
from .networks.graph import Network
from .objective import BETAS, Objective, size_of
from .optimizers import LBFGS, SGD, Adam, Average, LineSearch, Optimizer
from .resampling import regrid, resize, resize_band
from .schedule import Course, Size, Stage, plan
from .sweep import UNLIMITED, Limits

T = TypeVar("T")
RETRIES = 8
HALVINGS = 3
"""How often the step size is halved when numbers do not stay finite."""
CHECK_STEPS = 8
"""Losses are looked at together, after so many steps and at the end of a scale: looking waits for the device."""


@dataclass(frozen=True)
class Cover:
    """How much of each pixel of a band is painted, (1, 1, H, W) in [0, 1], and the content that shows elsewhere, (1, 3, H, W)."""

    share: Tensor
    content: Tensor

    def laid_on(self, image: Tensor) -> Tensor:
        """Return a picture with the content where nothing is painted."""
        return torch.lerp(self.content, image, self.share)


def picture_of(state: State, content: Tensor, regions: Sequence[Region] = ()) -> Tensor:
    """Return the averaged picture of a whole state, (1, 3, H, W) in [0, 1], as `Iterate.image` has it.

    `content` and `regions` are what `stylize` got.
    """
    picture = state.picture()
    if not regions:
        return picture
    share = coverage([region.at(state.size, (), ()) for region in regions])
    shown = resize(content.to(picture), state.size, antialias=True).clamp(0, 1)
    return Cover(share.to(picture), shown).laid_on(picture)


@dataclass(frozen=True)
class Iterate:
    """One iteration that is done.

    `loss` and its weighted `parts` are scalar tensors of the picture before the step; reading one waits for the
    device. `seconds` count from the start of the run; `memory` is the peak so far in bytes, the device's if it is
    an accelerator, else the process's. `tiles` says in how many tiles
    each segment of the network works. `image()` is the averaged picture, valid until the generator goes on; so are `state()`,
    with which `stylize` can go on from here later, and `finite()`, which says whether all numbers are finite and waits for
    the device. In a group of processes all must call these. `halvings` is how often the step size was halved.
    """

    stage: Stage
    index: int
    stages: tuple[Stage, ...]
    step: int
    tiles: tuple[int, ...]
    loss: Tensor
    parts: dict[str, Tensor]
    seconds: float
    memory: int
    average: Average
    group: Group
    bands: tuple[Rows, ...]
    cover: Cover | None
    halvings: int
    state: Callable[[], State]
    finite: Callable[[], bool]

    @property
    def scale(self) -> int:
        """The long side of the picture, in pixels."""
        return self.stage.scale

    @property
    def size(self) -> Size:
        """(height, width) of the picture, in pixels."""
        return self.stage.size

    @property
    def steps(self) -> int:
        """How many steps this scale has."""
        return self.stage.steps

    @property
    def ends_scale(self) -> bool:
        """Whether this is the last step of its scale."""
        return self.step == self.stage.steps

    @property
    def ends_run(self) -> bool:
        """Whether this is the last step of all."""
        return self.ends_scale and self.index == len(self.stages) - 1

    @property
    def done(self) -> int:
        """Work done so far, in pixels times steps; `sum(stage.work for stage in stages)` is all of it."""
        before = sum(stage.work for stage in self.stages[: self.index])
        return before + self.stage.work // self.stage.steps * self.step

    @property
    def w(self) -> int:
        """The picture's width; this and the next five are the names style-transfer-pytorch's callbacks know."""
        return self.stage.size[1]

    @property
    def h(self) -> int:
        """The picture's height."""
        return self.stage.size[0]

    @property
    def i(self) -> int:
        """The step."""
        return self.step

    @property
    def i_max(self) -> int:
        """How many steps this scale has."""
        return self.stage.steps

    @property
    def time(self) -> float:
        """Seconds since the start of the run."""
        return self.seconds

    @property
    def gpu_ram(self) -> int:
        """The peak memory in bytes."""
        return self.memory

    def image(self) -> Tensor:
        """Return the average of this scale's iterates: (1, 3, H, W), [0, 1], on the CPU.

        In a group of processes all must call it, and only rank 0 gets the picture, the others one without rows.
        """
        wanted = [(0, self.size[0]), *[(0, 0)] * (self.group.size - 1)]
        value = self.average.value().clamp_(0, 1)
        if self.cover is not None:
            value = self.cover.laid_on(value)
        return self.group.exchange(value, self.bands, wanted).cpu()


def check_picture(what: str, picture: Tensor) -> Tensor:
    """Return `picture`; raise `ImageError` unless it is (1, 3, H, W), not empty, float32 or float64, finite and in [0, 1]."""
    shape = tuple(picture.shape)
    if len(shape) != 4 or shape[:2] != (1, 3) or 0 in shape:
        raise ImageError(f"{what} must be a tensor (1, 3, height, width), not {shape}")
    if picture.dtype not in (torch.float32, torch.float64):
        raise ImageError(f"{what} must hold float32 or float64 numbers in [0, 1], not {picture.dtype}")
    low, high = picture.aminmax()
    if not (low >= 0 and high <= 1):
        raise ImageError(f"{what} must lie in [0, 1], not {float(low):g} to {float(high):g}")
    return picture


def first_picture(content: Tensor, styles: Sequence[Tensor], size: Size, settings: Settings) -> Tensor:
    """Return the picture to start from, (1, 3, *size) in [0, 1], by `settings.init`.

    content: the content picture. gray: 0.5 with noise of one 8-bit step, since a perfectly flat picture stays flat. uniform:
    uniform noise. normal: truncated normal noise, mean 0.5, deviation 0.25. style_mean: the styles' mean colour, with the
    noise of gray. style_stats: truncated normal noise with the mean and deviation of each channel of the styles. noise: white or
    pink noise about mid-gray, mixed with the content. network_mean: the colour that the network sees as zero, with noise of a
    thousandth of its unit, as in neural-style.
    Numbers come from `settings.random_seed`, on the CPU, so they are the same for every device.
    """
    random = torch.Generator().manual_seed(settings.random_seed)
    shape = (1, 3, *size)
    if settings.init == "content":
        return resize(content, size, antialias=True).clamp(0, 1)
    if settings.init == "uniform":
        return torch.rand(shape, generator=random, dtype=content.dtype)
    dither = (torch.rand(shape, generator=random, dtype=content.dtype) - 0.5) / 255
    if settings.init == "gray":
        return 0.5 + dither
    if settings.init == "normal":
        mean, std = (torch.full((1, 3, 1, 1), x, dtype=content.dtype) for x in (0.5, 0.25))
        return _truncated_normal(mean, std, size, random)
    if settings.init == "network_mean":
        spec = layout(settings)
        mean, std = (torch.tensor(x, dtype=content.dtype).view(1, 3, 1, 1) for x in (spec.mean, spec.std))
        return mean + 0.001 * std * torch.randn(shape, generator=random, dtype=content.dtype)
    if settings.init == "noise":
        share = settings.init_blend
        noise = 0.5 + settings.noise_deviation * _noise(settings.noise, size, random).to(content.dtype)
        return ((1 - share) * noise + share * resize(content, size, antialias=True)).clamp(0, 1)
    mix = settings.blend(len(styles))
    mean = sum((w * s.mean((2, 3), keepdim=True) for w, s in zip(mix, styles, strict=True)), torch.zeros(()))
    if settings.init == "style_mean":
        return (mean + dither).clamp(0, 1)
    squares = sum((w * s.square().mean((2, 3), keepdim=True) for w, s in zip(mix, styles, strict=True)), torch.zeros(()))
    return _truncated_normal(mean, (squares - mean.square()).clamp_min(0).sqrt(), size, random)


def _noise(kind: str, size: Size, random: torch.Generator) -> Tensor:
    """Return noise of mean 0 and deviation 1, (1, 3, *size): white, or pink, with amplitudes that fall with the frequency."""
    noise = torch.randn((1, 3, *size), generator=random, dtype=torch.float64)
    if kind == "white":
        return noise
    rows, columns = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None]
    frequency = (rows.square() + columns.square()).sqrt().to(torch.float64)
    frequency[0, 0] = torch.inf
    pink: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=size)
    return pink / pink.std((2, 3), keepdim=True).clamp_min(1e-12)


def _truncated_normal(mean: Tensor, std: Tensor, size: Size, random: torch.Generator) -> Tensor:
    """Return normal noise cut to [0, 1] by the inverse of its distribution, (1, 3, *size)."""
    std = std.to(torch.float64).clamp_min(1e-6)
    mean = mean.to(torch.float64)
    low, high = (torch.special.ndtr((edge - mean) / std) for edge in (0.0, 1.0))
    u = torch.rand((1, 3, *size), generator=random, dtype=torch.float64)
    noise: Tensor = mean + std * torch.special.ndtri(low + (high - low) * u)
    return noise.clamp(0, 1).to(torch.float32)


def ready(picture: Tensor, size: Size, network: Network, rows: Rows | None = None, home: torch.device | None = None) -> Tensor:
    """Return a picture, or some rows of it, resized (bicubic, antialiased, on the CPU) for `network`, at `home`.

    Home is the network's first device if left out.
    """
    picture = picture.to(device="cpu", dtype=network.dtype)
    if rows is None or rows == (0, size[0]):
        resized = resize(picture, size, antialias=True)
    else:
        resized = resize_band(picture, 0, picture.shape[2], size, rows, "bicubic", antialias=True)
    return resized.clamp(0, 1).to(home or network.devices[0])


def make_optimizer(settings: Settings, group: Group = LOCAL, factor: float = 1.0) -> Optimizer:
    """Return the optimizer that `settings` ask for, before its first step, with `factor` times their step size."""
    white, bounded = settings.optimizer_range, settings.bounded
    if settings.optimizer == "lbfgs":
        search = LineSearch if settings.line_search == "strong-wolfe" else None
        return LBFGS(history=settings.lbfgs_history, group=group, search=search, bounded=bounded, white=white, length=factor)
    if settings.optimizer == "sgd":
        step = settings.step_size * factor / white**2
        return SGD(step_size=step, momentum=settings.momentum, decay=settings.step_decay, bounded=bounded)
    course = Course.of(settings)
    betas = course.betas or BETAS.get(settings.style_loss, (0.9, 0.999))
    return Adam(step_size=course.first_size * factor, betas=betas, bounded=bounded)


def stylize(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: Settings | None = None,
    *,
    networks: Sequence[Network] | None = None,
    init: Tensor | None = None,
    group: Group = LOCAL,
    regions: Sequence[Region] = (),
    resume: State | None = None,
    fallback: Callable[[], State | None] | None = None,
) -> Generator[Iterate, bool | None, None]:
    """Paint `content` in the manner of `styles`, coarse to fine, and yield an `Iterate` after each step.

    `send(True)` in place of `next` ends the scale there and returns the first iterate of the next.

    Pictures are (1, 3, H, W), float, sRGB in [0, 1], of any size; content is enlarged where a scale asks for it, styles
    never are. `init` is the picture to start from, of any size, in place of `settings.init`. `networks` are what
    `networks.load` returned; left out, they are loaded as `settings` say. With `regions` each part of the picture has a style,
    or a part of one, for itself, and what no region covers stays as it is. In a `group` of processes all call it with the same
    pictures, and each holds a band of the rows. Everything is checked before the first step: raises `SettingsError`,
    `ImageError`, `WeightsError` or `DeviceError`. Later, `MemoryLimitError` may come when even small tiles do not fit.

    With `resume`, a whole state (given on rank 0), the run goes on from there, on a CPU to the same bits. Raises
    `CheckpointError` if it is of another run, with a list of what differs. `DeviceError` may come when a device fails.

    When loss or picture are not finite, the run goes back to the last good state and goes on with half the step size, three
    times at most; then `NumericError` is raised. `fallback()`, called on rank 0, returns the last good state, whole, or None for
    the start; left out, a copy is kept in memory where there is plenty.
    """
    settings = settings or Settings()
    check_picture("the content picture", content)
    for number, style in enumerate(styles, 1):
        check_picture(f"style picture {number}", style)
    expanded = settings.expanded(len(styles))
    settings.blend(len(expanded))
    if init is not None:
        check_picture("the initial picture", init)
    elif settings.init not in INITS:
        raise SettingsError(f"init {settings.init!r} is not one of {', '.join(INITS)}; give a picture as the argument init")
    if networks is None:
        networks = load(settings, resolve(settings.devices)[0])
    spec = networks[0].spec
    spec.check_layers(settings)
    spec.check_split(settings)
    stages = plan(size_of(content), [size_of(style) for style in styles], settings)
    spec.check_stages(stages, settings)
    if regions:
        check_settings(settings)
    identity = functools.cache(functools.partial(identify, content, tuple(styles), settings, networks[0], init, tuple(regions)))
    resume = joint(resume, group)
    if resume is not None:
        check_resume(resume, identity(), stages)
    origins = [index for index, _ in expanded]
    measured = [styles[index] for index in origins]
    return _run(content, measured, settings, networks, init, stages, group, regions, origins, resume, fallback, identity)


def identify(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: Settings,
    network: Network,
    init: Tensor | None,
    regions: Sequence[Region] = (),
) -> dict[str, Any]:
    """Return what a run's result depends on: settings, and hashes of pictures, masks and weights. JSON can hold it."""
    return {
        "settings": settings.as_dict(),
        "content": digest(content),
        "styles": [digest(style) for style in styles],
        "init": None if init is None else digest(init),
        "regions": [[digest(x.content), x.style, None if x.mask is None else digest(x.mask)] for x in regions],
        "network": network.spec.name,
        "weights": network.digest,
    }


def check_resume(state: State, identity: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Raise `CheckpointError` unless a run can go on from a state."""
    found = differences(state.identity, identity)
    if found:
        raise CheckpointError(f"the checkpoint is of another run: {'; '.join(found)}")
    if not 0 <= state.index < len(stages) or state.size != stages[state.index].size:
        raise CheckpointError(
            f"the checkpoint is damaged: there is no scale {state.index + 1} of {state.size[1]}x{state.size[0]}"
        )
    if not 1 <= state.step <= stages[state.index].steps or not 0 <= state.halvings <= HALVINGS:
        raise CheckpointError(f"the checkpoint is damaged: there is no iteration {state.step} at its scale")


@dataclass(frozen=True)
class Plan:
    """How a size is worked on: what a device takes on at a time, and whether what grows with the picture is on the host.

    `roomy` says that there is memory to waste.
    """

    limits: Limits
    host: bool = False
    roomy: bool = False

    def home(self, network: Network) -> torch.device:
        """Return where the picture, its gradient, the optimizer's state, the average and the targets are."""
        return torch.device("cpu") if self.host else network.devices[0]


def choose_plan(networks: Sequence[Network], size: Size, settings: Settings, group: Group = LOCAL) -> Plan:
    """Return `plan_for` a size; in a group rank 0 decides for all, since all must cut the network alike."""
    if group.rank:
        found: Plan | MemoryLimitError = group.broadcast(None)
    else:
        try:
            found = plan_for(networks, size, settings, group.size)
        except MemoryLimitError as error:
            found = error
        found = group.broadcast(found)
    if isinstance(found, MemoryLimitError):
        raise found
    return found


def plan_for(networks: Sequence[Network], size: Size, settings: Settings, processes: int = 1) -> Plan:
    """Return the plan that `settings` ask for at a size, or, with `tile="auto"`, the one that fits into the memory.

    On the CPU the process as a whole stays within `memory`. What grows with the picture moves to the host where a device would
    have too little left for its tiles. Raises `MemoryLimitError` if it does not fit there either.
    """
    layers = settings.layers
    network, hands = networks[0], len(networks) * processes
    if settings.tile == "off":
        if not memory.indexable(network, layers, size):
            raise SettingsError(
                f"--tile off cannot work on {size[1]}x{size[0]}: its feature maps have more than 2^31 elements; take --tile auto"
            )
        return Plan(UNLIMITED, roomy=settings.memory is None)
    if settings.tile != "auto":
        return Plan(memory.tiles_of(int(settings.tile), network, layers))
    device = network.devices[0]
    state = memory.state_bytes(network, size, settings.content_layers, settings.optimizer, settings.lbfgs_history) // processes
    if settings.memory is None:
        room = memory.SHARE * memory.free_bytes(device)
    else:
        memory.costs(network, layers)  # what libraries set up for themselves at the first use counts as used
        spoken_for = memory.used_bytes(device) + (memory.LIBRARIES if device.type == "cpu" else 0)
        room = parse_bytes("--memory", settings.memory) - spoken_for
    sharing = sum(other.devices[0] == device for other in networks)

    def limits(left: float, *, host: bool) -> Limits:
        return memory.plan(network, size, layers, budget=int(memory.RESERVE * left / sharing), hands=hands, host=host)

    if room >= state * 1.02:
        found = limits(room - state, host=False)
        if device.type == "cpu" or not memory.cramped(found, network, layers):
            most = size[0] * size[1] * memory.bound(network, layers) * sharing / hands
            return Plan(found, roomy=most <= room - state)
    left = room
    if device.type != "cpu":
        left = memory.SHARE * memory.free_bytes(torch.device("cpu"))
        if left >= state * 1.5:  # beside the state: the outputs of segments and their gradients, 32 bytes a pixel
            return Plan(limits(room, host=True), host=True)
    raise MemoryLimitError(
        f"{size[1]}x{size[0]} needs {memory.show_bytes(state)} beside the tiles, but only "
        f"{memory.show_bytes(max(0, left))} of memory are left on cpu; take a smaller --end-scale, or raise --memory"
    )


class _Workshop:
    """Does the memory-hungry work of one stage, again with smaller tiles when memory runs out."""

    def __init__(self, networks: Sequence[Network], stage: Stage, settings: Settings, group: Group) -> None:
        self.networks, self.stage, self.group = networks, stage, group
        plan = choose_plan(networks, stage.size, settings, group)
        self.limits, self.home = plan.limits, plan.home(networks[0])
        allocator.keep_freed(plan.roomy and self.home.type == "cpu")

    def attempt(self, work: Callable[[Limits], T]) -> T:
        """Return `work(limits)`; when memory runs out, the same again within smaller limits, a few times."""
        for _ in range(RETRIES):
            try:
                return work(self.limits)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                reason = str(error).splitlines()[0][:200]
            if self.group.size > 1:  # the others wait in the middle of the step
                break
            # only here, outside of the except block, have the tensors that the exception held gone
            memory.release()
            self.limits = memory.smaller(self.limits, self.stage.size, self.networks[0])
        height, width = self.stage.size
        raise MemoryLimitError(
            f"{width}x{height} does not fit into memory even in small tiles ({reason}); take a smaller --end-scale"
        )


class _NotFiniteError(Exception):
    """Loss or picture are not finite."""


class _Guard:
    """Whether all losses and pictures so far were finite, kept on the device until somebody looks."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.losses: Tensor | None = None
        self.failed = False

    def note(self, loss: Tensor) -> None:
        """Take note of a loss, without waiting for the device."""
        finite = loss.detach().isfinite()
        self.losses = finite if self.losses is None else self.losses & finite

    def finite(self, image: Tensor, average: Average) -> bool:
        """Return whether all losses, and the picture and its average as they are, are finite. In a group all must ask."""
        if not self.failed:
            sums = image.detach().sum() + (image if average.sum is None else average.sum).detach().sum()
            bad = not bool(sums.isfinite()) or (self.losses is not None and not bool(self.losses))
            self.failed = self.group.counts([int(bad)]) != [0]
        return not self.failed


def _agreed(stored: Limits, planned: Limits) -> Limits:
    """Return the limits a state was made in, so that sums are added in the same order, unless memory is shorter now."""
    if planned.whole or stored == planned:
        return stored
    if stored.whole or stored.side or len(stored.areas) != len(planned.areas):
        return planned
    pairs = zip((*stored.areas, *stored.keep), (*planned.areas, *planned.keep), strict=True)
    return stored if all(a <= 1.1 * b for a, b in pairs) else planned


def _run(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: Settings,
    networks: Sequence[Network],
    init: Tensor | None,
    stages: tuple[Stage, ...],
    group: Group,
    regions: Sequence[Region],
    origins: Sequence[int],
    state: State | None,
    fallback: Callable[[], State | None] | None,
    identity: Callable[[], dict[str, Any]],
) -> Generator[Iterate, bool | None, None]:
    """Yield what `_paint` does; go back to the last good state, and on with smaller steps, when numbers are not finite."""
    start = time.perf_counter() - (state.seconds if state is not None else 0)
    halvings = state.halvings if state is not None else 0
    good = state if fallback is None else None
    begin, state = [state], None
    while True:
        try:
            painting = _paint(
                content, styles, settings, networks, init, stages, group, regions, origins, begin, halvings, start, identity
            )
            ends: bool | None = None
            while True:
                try:
                    iterate = painting.send(ends)
                except StopIteration:
                    return
                ends = yield iterate
                if fallback is None and (iterate.step % CHECK_STEPS == 0 or iterate.ends_scale):
                    latest = iterate.state()
                    plenty = settings.memory is None and memory.free_bytes(torch.device("cpu")) > 8 * latest.bytes
                    if group.broadcast(plenty) and iterate.finite():
                        good = latest.whole(group)
        except _NotFiniteError as error:
            where = str(error)
        except torch.AcceleratorError as error:
            raise DeviceError(
                f"{networks[0].devices[0]} failed ({str(error).splitlines()[0][:200]}), and what was on it is lost; go on from a "
                "checkpoint, and see style_transfer --doctor"
            ) from error
        halvings += 1
        if halvings > HALVINGS:
            raise NumericError(
                f"loss or picture were not finite at {where}, though the step size was halved {HALVINGS} times; "
                "take a smaller --step-size, smaller weights, or --precision fp32"
            )
        begin = [good if fallback is None else joint(fallback() if not group.rank else None, group)]


def _paint(
    content: Tensor,
    styles: Sequence[Tensor],
    settings: Settings,
    networks: Sequence[Network],
    init: Tensor | None,
    stages: tuple[Stage, ...],
    group: Group,
    regions: Sequence[Region],
    origins: Sequence[int],
    begin: list[State | None],
    halvings: int,
    start: float,
    identity: Callable[[], dict[str, Any]],
) -> Generator[Iterate, bool | None, None]:
    """Yield the iterates from a state on; `begin` has one, or None, and is emptied, so that nobody keeps its tensors."""
    network, state = networks[0], begin.pop()
    course, optimizer = Course.of(settings), make_optimizer(settings, group, 0.5**halvings)
    made = {
        "torch": torch.__version__,
        "device": str(network.devices[0]),
        "precision": network.precision,
        "processes": group.size,
    }
    average: Average | None = None
    size, bands = stages[0].size, group.bands(stages[0].size[0], network.spec.stride)
    for index, stage in enumerate(stages):
        if state is not None and index < state.index:
            continue
        done = 0
        before, old = size, bands
        size, bands = stage.size, group.bands(stage.size[0], network.spec.stride)
        rows = bands[group.rank]
        shop = _Workshop(networks, stage, settings, group)
        home = shop.home
        if state is not None and index == state.index:
            if settings.tile == "auto":
                shop.limits = _agreed(state.limits, shop.limits)
            here, done = state.shared(group, bands, home), state.step
            image, average = here.tensors["image"], Average(course.avg_decay)
            try:
                optimizer.restore(here.tensors, here.numbers)
                average.restore(here.tensors, here.numbers)
            except KeyError as error:
                raise CheckpointError(f"the checkpoint is damaged: it has no {error}") from error
            del here
            state = None
            if done == stage.steps:
                continue
        elif average is not None:
            resized = functools.partial(regrid, size=before, bands=old, target=size, new=bands, home=home, group=group)
            image = resized(average.value(), "bicubic").clamp(0, 1)
            average = None
            optimizer = optimizer.moved(resized)
        elif init is not None:
            image = ready(init, size, network, rows, home)
        else:
            image = first_picture(content, styles, size, settings)[:, :, rows[0] : rows[1]].to(home, network.dtype)
        image = image.detach().clone()
        target = ready(content, size, network, rows, home)
        reduced = [
            ready(style, style_size, network, home=home) for style, style_size in zip(styles, stage.style_sizes, strict=True)
        ]
        staged = [region.at(size, stage.style_sizes, origins) for region in regions]
        cover = Cover(coverage(staged)[:, :, rows[0] : rows[1]].to(image), target) if staged else None
        if cover is not None and not done:
            image = cover.laid_on(image)
        make = functools.partial(Objective, networks, target, reduced, settings, group=group, size=size, regions=staged)
        objective = shop.attempt(make)
        del target, reduced, make
        average = average or Average(course.avg_decay)
        guard = _Guard(group)
        keep = functools.partial(_state, stage, index, image, average, optimizer, shop, start, identity, made, bands, halvings)
        for step in range(done + 1, stage.steps + 1):
            evaluation = shop.attempt(functools.partial(objective.evaluate, image))
            if cover is not None and image.grad is not None:
                image.grad *= cover.share
            if isinstance(optimizer, Adam):
                optimizer.step_size = course.step_size(step, stage.steps) * 0.5**halvings
            optimizer.step(image, evaluation.loss)
            average.update(image)
            guard.note(evaluation.loss)
            if (step % CHECK_STEPS == 0 or step == stage.steps) and not guard.finite(image, average):
                raise _NotFiniteError(f"{size[1]}x{size[0]}, iteration {step} or a few before")
            ends = yield Iterate(
                stage=stage,
                index=index,
                stages=stages,
                step=step,
                tiles=objective.sweep.tiles,
                loss=evaluation.loss,
                parts=evaluation.parts,
                seconds=time.perf_counter() - start,
                memory=peak_memory([d for n in networks for d in n.devices]),
                average=average,
                group=group,
                bands=bands,
                cover=cover,
                halvings=halvings,
                state=functools.partial(keep, step),
                finite=functools.partial(guard.finite, image, average),
            )
            if guard.failed or (ends and not guard.finite(image, average)):
                raise _NotFiniteError(f"{size[1]}x{size[0]}, iteration {step} or before")
            if ends:
                break


def _state(
    stage: Stage,
    index: int,
    image: Tensor,
    average: Average,
    optimizer: Optimizer,
    shop: _Workshop,
    start: float,
    identity: Callable[[], dict[str, Any]],
    made: dict[str, Any],
    bands: tuple[Rows, ...],
    halvings: int,
    step: int,
) -> State:
    """Return the state after a step; its tensors are those of the run."""
    averaged, lacks = average.state()
    tensors, numbers = optimizer.state(image)
    return State(
        index=index,
        step=step,
        size=stage.size,
        tensors={"image": image} | averaged | tensors,
        numbers=lacks | numbers,
        halvings=halvings,
        seconds=time.perf_counter() - start,
        limits=shop.limits,
        identity=identity(),
        made=made,
        bands=bands,
    )


def peak_memory(devices: Sequence[torch.device]) -> int:
    """Return the peak memory so far in bytes: the accelerators' largest, or the process's if all work is on the CPU."""
    used = [torch.accelerator.max_memory_allocated(d) for d in devices if d.type in ("cuda", "xpu")]
    if used:
        return max(used)
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
