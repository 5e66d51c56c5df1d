"""The coarse-to-fine loop, as a generator: no prints, no files.

After Gatys et al. (2016) and style-transfer-pytorch: each scale starts from the average of the last one's iterates, with
Adam's moments resized.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compute import allocator
from ..compute.devices import Transfer, deterministic, no_autocast, resolve
from ..compute.distributed import LOCAL, Group, Rows
from ..compute.resampling import regrid
from ..errors import CheckpointError, DeviceError, ImageError, NumericError, SettingsError
from ..evaluation import memory
from ..evaluation.objective import BETAS, Objective, size_of
from ..evaluation.planning import Workshop
from ..evaluation.sweep import Limits
from ..geometry.scales import Course, Stage, plan
from ..losses.guidance import Region, coverage
from ..networks import load
from ..networks.graph import Network
from ..settings.settings import INITS, Settings
from .checkpoint import BUSY, State, differences, digest, joint
from .initial import first_picture, ready
from .iterate import Cover, Iterate
from .optimizers import LBFGS, SGD, Adam, Average, LineSearch, Optimizer
from .step import Step

HALVINGS = 3
"""How often the step size is halved when numbers do not stay finite."""
CHECK_STEPS = 8
"""Losses are looked at together, after so many steps and at the end of a scale, since looking waits for the device."""


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
    with torch.inference_mode(False):  # tensors of that mode cannot be differentiated
        content, styles = _plain(content), [_plain(style) for style in styles]
        init = None if init is None else _plain(init)
        if networks is None:
            networks = load(settings, resolve(settings.devices)[0])
    spec = networks[0].spec
    spec.check_layers(settings)
    spec.check_split(settings)
    stages = plan(size_of(content), [size_of(style) for style in styles], settings)
    spec.check_stages(stages, settings)
    identity = functools.cache(functools.partial(identify, content, tuple(styles), settings, networks[0], init, tuple(regions)))
    resume = joint(resume, group)
    if resume is not None:
        check_resume(resume, identity(), stages)
    origins = [index for index, _ in expanded]
    measured = [styles[index] for index in origins]
    work = _Work(content, measured, origins, regions, init, settings, networks, stages, group, identity)
    return _run(work, resume, fallback)


def _plain(x: Tensor) -> Tensor:
    return x.clone() if x.is_inference() else x


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


class _NotFiniteError(Exception):
    """Loss or picture are not finite."""


class _Guard:
    """Whether all losses and pictures so far were finite, kept on the device until somebody looks."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.losses: Tensor | None = None
        self.asked: Transfer | None = None
        self.failed = False

    def note(self, loss: Tensor) -> None:
        """Take note of a loss, without waiting for the device."""
        finite = loss.detach().isfinite()
        self.losses = finite if self.losses is None else self.losses & finite

    def finite(self, image: Tensor, average: Average) -> bool:
        """Return whether all losses, and the picture and its average as they are, are finite. In a group all must ask."""
        if not self.failed:
            self._take(self._ask(image, average))
        return not self.failed

    def finite_before(self, image: Tensor, average: Average) -> bool:
        """Return what `finite` would have returned at the last call of this, which a device has the answer to by now."""
        if not self.failed:
            before, self.asked = self.asked, self._ask(image, average)
            if before is not None:
                self._take(before)
        return not self.failed

    def _ask(self, image: Tensor, average: Average) -> Transfer:
        sums = image.detach().sum() + (image if average.sum is None else average.sum).detach().sum()
        finite = sums.isfinite()
        return Transfer(finite if self.losses is None else finite & self.losses)

    def _take(self, answer: Transfer) -> None:
        self.failed = self.group.counts([int(not answer.get())]) != [0]


def _agreed(stored: Limits, planned: Limits) -> Limits:
    """Return the limits a state was made in, so that sums are added in the same order, unless memory is shorter now."""
    if planned.whole or stored == planned:
        return stored
    if stored.whole or stored.side or len(stored.areas) != len(planned.areas):
        return planned
    pairs = zip((*stored.areas, *stored.keep), (*planned.areas, *planned.keep), strict=True)
    return stored if all(a <= 1.1 * b for a, b in pairs) else planned


@dataclass(frozen=True)
class _Work:
    """What a run works on: what `stylize` got, checked; `styles` and `origins` have an entry for each style and scale of it."""

    content: Tensor
    styles: Sequence[Tensor]
    origins: Sequence[int]
    regions: Sequence[Region]
    init: Tensor | None
    settings: Settings
    networks: Sequence[Network]
    stages: tuple[Stage, ...]
    group: Group
    identity: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class _Place:
    """A scale of the ladder while it is worked on: its tensors change from step to step."""

    work: _Work
    index: int
    bands: tuple[Rows, ...]
    image: Tensor
    average: Average
    optimizer: Optimizer
    shop: Workshop
    halvings: int
    ended: tuple[tuple[int, int], ...]
    start: float

    def state(self, step: int) -> State:
        """Return the state after a step; its tensors are those of the run."""
        averaged, lacks = self.average.state()
        tensors, numbers = self.optimizer.state(self.image)
        network, group = self.work.networks[0], self.work.group
        return State(
            index=self.index,
            step=step,
            size=self.work.stages[self.index].size,
            tensors={"image": self.image} | averaged | tensors,
            numbers=lacks | numbers,
            halvings=self.halvings,
            seconds=time.perf_counter() - self.start,
            limits=self.shop.limits,
            identity=self.work.identity(),
            made={
                "torch": torch.__version__,
                "device": str(network.devices[0]),
                "precision": network.precision,
                "processes": group.size,
            },
            ended=self.ended,
            bands=self.bands,
        )


def _run(work: _Work, state: State | None, fallback: Callable[[], State | None] | None) -> Generator[Iterate, bool | None, None]:
    """Yield what `_recovered` does. The modes of torch that it needs hold while it works, and the caller's in between."""
    ends: bool | None = None
    kinds = {"cpu", *(device.type for network in work.networks for device in network.devices)}
    with contextlib.ExitStack() as stack:
        stack.callback(allocator.keep_freed, False)
        painting = stack.enter_context(contextlib.closing(_recovered(work, state, fallback)))
        while True:
            with deterministic(work.settings.deterministic), torch.inference_mode(False), torch.enable_grad(), no_autocast(kinds):
                try:
                    iterate = painting.send(ends)
                except StopIteration:
                    return
            ends = yield iterate


def _recovered(
    work: _Work, state: State | None, fallback: Callable[[], State | None] | None
) -> Generator[Iterate, bool | None, None]:
    """Yield what `_paint` does; go back to the last good state, and on with smaller steps, when numbers are not finite."""
    start = time.perf_counter() - (state.seconds if state is not None else 0)
    halvings = state.halvings if state is not None else 0
    good, due = state if fallback is None else None, 0.0
    begin, state = [state], None
    while True:
        try:
            painting = _paint(work, begin, halvings, start)
            ends: bool | None = None
            while True:
                try:
                    iterate = painting.send(ends)
                except StopIteration:
                    return
                ends = yield iterate
                if fallback is None and (iterate.step % CHECK_STEPS == 0 or iterate.ends_scale):
                    now, latest = time.perf_counter(), iterate.state()
                    plenty = work.settings.memory is None and memory.free_bytes(torch.device("cpu")) > 8 * latest.bytes
                    if work.group.broadcast(plenty and now >= due) and iterate.finite():
                        good = latest.whole(work.group)
                        due = now + BUSY * (time.perf_counter() - now)
        except _NotFiniteError as error:
            where = str(error)
        except torch.AcceleratorError as error:
            raise DeviceError(
                f"{work.networks[0].devices[0]} failed ({str(error).splitlines()[0][:200]}), and what was on it is lost; go on "
                "from a checkpoint, and see style_transfer --doctor"
            ) from error
        halvings += 1
        if halvings > HALVINGS:
            raise NumericError(
                f"loss or picture were not finite at {where}, though the step size was halved {HALVINGS} times; "
                "take a smaller --step-size, smaller weights, or --precision fp32"
            )
        begin = [good if fallback is None else joint(fallback() if not work.group.rank else None, work.group)]


def _paint(work: _Work, begin: list[State | None], halvings: int, start: float) -> Generator[Iterate, bool | None, None]:
    """Yield the iterates from a state on; `begin` has one, or None, and is emptied, so that nobody keeps its tensors."""
    settings, networks, group, stages = work.settings, work.networks, work.group, work.stages
    network, state = networks[0], begin.pop()
    course, optimizer = Course.of(settings), make_optimizer(settings, group, 0.5**halvings)
    average: Average | None = None
    ended = () if state is None else state.ended
    size, bands = stages[0].size, group.bands(stages[0].size[0], network.spec.stride)
    for index, stage in enumerate(stages):
        if state is not None and index < state.index:
            continue
        done = 0
        before, old = size, bands
        size, bands = stage.size, group.bands(stage.size[0], network.spec.stride)
        rows = bands[group.rank]
        shop = Workshop(networks, stage, settings, group, len(work.regions))
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
            if done == stage.steps or (index, done) in ended:
                continue
        elif average is not None:
            resized = functools.partial(regrid, size=before, bands=old, target=size, new=bands, home=home, group=group)
            image = resized(average.value(), "bicubic").clamp(0, 1)
            average = None
            optimizer = optimizer.moved(resized)
        elif work.init is not None:
            image = ready(work.init, size, network, rows, home)
        else:
            image = first_picture(work.content, work.styles, size, settings)[:, :, rows[0] : rows[1]].to(home, network.dtype)
        image = image.detach().clone(memory_format=torch.contiguous_format)
        target = ready(work.content, size, network, rows, home)
        reduced = [ready(style, each, network, home=home) for style, each in zip(work.styles, stage.style_sizes, strict=True)]
        staged = [region.at(size, stage.style_sizes, work.origins) for region in work.regions]
        cover = Cover(coverage(staged)[:, :, rows[0] : rows[1]].to(image, copy=True), target) if staged else None
        if cover is not None and not done:
            image = cover.laid_on(image)
        make = functools.partial(Objective, networks, target, reduced, settings, group=group, size=size, regions=staged)
        objective = shop.attempt(make)
        del target, reduced, make, staged
        objective.go_on(done)
        average = average or Average(course.avg_decay)
        guard = _Guard(group)
        place = _Place(work, index, bands, image, average, optimizer, shop, halvings, ended, start)
        record = settings.cuda_graphs == "auto" and not settings.deterministic  # which waits for numbers in older torch
        take = Step(objective, image, optimizer, average, cover, shop, record=record)
        for step in range(done + 1, stage.steps + 1):
            if isinstance(optimizer, Adam):
                optimizer.step_size = course.step_size(step, stage.steps) * 0.5**halvings
            evaluation = take(last=step == stage.steps)
            guard.note(evaluation.loss)
            look = guard.finite if step == stage.steps else guard.finite_before if step % CHECK_STEPS == 0 else None
            if look is not None and not look(image, average):
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
                memory=memory.peak_bytes([d for n in networks for d in n.devices]),
                average=average,
                group=group,
                bands=bands,
                cover=cover,
                halvings=halvings,
                state=functools.partial(place.state, step),
                finite=functools.partial(guard.finite, image, average),
            )
            if guard.failed or (ends and not guard.finite(image, average)):
                raise _NotFiniteError(f"{size[1]}x{size[0]}, iteration {step} or before")
            if ends:
                ended = *ended, (index, step)
                break
        del take, objective  # a recording holds as much memory as a step
