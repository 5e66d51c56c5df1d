"""One scale of a run: its tensors, its objective and its steps."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..compute import memory
from ..compute.capture import Transfer
from ..compute.distributed import Group, Rows
from ..compute.resampling import resize_sharded
from ..errors import CheckpointError
from ..evaluation.objective import Objective
from ..evaluation.retry import OutOfMemoryRetrier
from ..evaluation.sweep import Limits
from ..geometry import Size
from ..losses.guidance import coverage
from ..networks.forward import Network
from ..registry import OPTIMIZERS
from .initial import first_picture, resized_for
from .iterate import BlendMask, Iterate
from .job import Job
from .optimizers import Average, Optimizer
from .schedule import StepSchedule
from .settling import Settling
from .state import State
from .step import Step

CHECK_STEPS = 8
"""The steps between two checks that the losses are finite, since each check waits for the device."""


class NotFiniteError(Exception):
    """The loss or the picture is not finite."""


@dataclass(frozen=True)
class Context:
    """What all scales of a run share. `identity` returns the cached identity of the run; `start` is the
    value of `time.perf_counter()` at the start of the run."""

    job: Job
    networks: Sequence[Network]
    group: Group
    identity: Callable[[], dict[str, Any]]
    start: float

    def bands(self, size: Size) -> tuple[Rows, ...]:
        """Return the rows of a picture that each process owns."""
        return self.group.bands(size[0], self.networks[0].spec.stride)


@dataclass
class Tensors:
    """What changes from step to step: the picture, the average of its iterates, and the optimizer."""

    image: Tensor
    average: Average
    optimizer: Optimizer


class FiniteCheck:
    """Whether all losses and pictures so far were finite, accumulated on the device. In a group all ranks must call alike."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.losses: Tensor | None = None
        self.pending: Transfer | None = None
        self.failed = False

    def add(self, loss: Tensor) -> None:
        """Add a loss, without waiting for the device."""
        finite = loss.detach().isfinite()
        self.losses = finite if self.losses is None else self.losses & finite

    def now(self, image: Tensor, average: Average) -> bool:
        """Return whether all losses, the picture and its average are finite; waits for the device."""
        if not self.failed:
            self._receive(self._request(image, average))
        return not self.failed

    def delayed(self, image: Tensor, average: Average) -> bool:
        """Start a check and return the result of the one that the last call started, so that the host does not wait."""
        if not self.failed:
            before, self.pending = self.pending, self._request(image, average)
            if before is not None:
                self._receive(before)
        return not self.failed

    def _request(self, image: Tensor, average: Average) -> Transfer:
        sums = image.detach().sum() + (image if average.sum is None else average.sum).detach().sum()
        finite = sums.isfinite()
        return Transfer(finite if self.losses is None else finite & self.losses)

    def _receive(self, answer: Transfer) -> None:
        self.failed = self.group.all_reduce_counts([int(not answer.get())]) != [0]


class Scale:
    """One scale of a run. Each call of `step` updates its tensors.

    It starts from the `state` of an interrupted run at this scale, else from the tensors of the scale `before`, else from the
    initial picture. `settled` tells whether its loss has stopped falling. `ended` are the scales that were finished early, each
    with its last step.
    """

    def __init__(
        self, context: Context, index: int, *, state: State | None = None, before: Tensors | None = None, halvings: int = 0,
        ended: tuple[tuple[int, int], ...] = (),
    ) -> None:  # fmt: skip
        job, group = context.job, context.group
        self.context, self.index, self.halvings, self.ended = context, index, halvings, ended
        self.stage = job.stages[index]
        self.schedule = StepSchedule.of(job.settings)
        self.bands = context.bands(self.stage.size)
        self.retrier = OutOfMemoryRetrier(context.networks, self.stage, job.settings, group, len(job.regions))
        self.done = 0
        self.settling, self.settled = Settling(job.settings.tolerance), False
        if state is not None:
            self.tensors = self._restored(state)
            self.done = state.step
            self.settling.restore(state.numbers)
        elif before is not None:
            self.tensors = self._continued(before)
        else:
            self.tensors = self._first()
        self.finite = FiniteCheck(group)
        self._step: Step | None = None
        self._blend_mask: BlendMask | None = None

    @property
    def complete(self) -> bool:
        """Whether all steps of this scale are done, or it was finished early."""
        return self.done == self.stage.steps or (self.index, self.done) in self.ended

    def check_finite(self) -> None:
        """Raise `NotFiniteError` unless losses and pictures are finite so far; waits for the device."""
        if not self.finite.now(self.tensors.image, self.tensors.average):
            raise NotFiniteError(self._where("or before"))

    def _where(self, more: str) -> str:
        return f"{self.stage.size[1]}x{self.stage.size[0]}, iteration {self.done} {more}"

    # the tensors at its start

    def _first(self) -> Tensors:
        job, context = self.context.job, self.context
        network, device, rows = context.networks[0], self.retrier.state_device, self.bands[context.group.rank]
        if job.init is not None:
            image = resized_for(network, job.init.nearest(self.stage.size), self.stage.size, rows, device)
        else:
            content, styles = job.content.nearest(self.stage.size), [job.styles[origin].largest for origin in job.origins]
            image = first_picture(content, styles, self.stage.size, job.settings)[:, :, rows[0] : rows[1]]
        return Tensors(image.to(device, network.dtype), Average(self.schedule.avg_decay), self._optimizer())

    def _optimizer(self) -> Optimizer:
        """Return the optimizer before its first step."""
        settings = self.context.job.settings
        optimizer: Optimizer = OPTIMIZERS[settings.optimizer].from_settings(settings, self.context.group, 0.5**self.halvings)
        optimizer.begin_scale(self.index)
        return optimizer

    def _continued(self, before: Tensors) -> Tensors:
        """Return the tensors of the scale before, resized; the old tensors are freed one by one to limit the peak of memory."""
        size = self.context.job.stages[self.index - 1].size
        resize = functools.partial(
            resize_sharded, size=size, bands=self.context.bands(size), target=self.stage.size, new=self.bands,
            device=self.retrier.state_device, group=self.context.group,
        )  # fmt: skip
        image = resize(before.average.value(), "bicubic").clamp(0, 1)
        before.average = Average(self.schedule.avg_decay)
        optimizer = before.optimizer.resized(resize)
        optimizer.begin_scale(self.index)
        return Tensors(image, before.average, optimizer)

    def _restored(self, state: State) -> Tensors:
        """Return the tensors of a whole state. Raises `CheckpointError`."""
        job, group = self.context.job, self.context.group
        if job.settings.tile == "auto":
            self.retrier.limits = stored_limits(state.limits, self.retrier.limits)
        own = state.distributed(group, self.bands, self.retrier.state_device)
        average, optimizer = Average(self.schedule.avg_decay), self._optimizer()
        try:
            optimizer.restore(own.tensors, own.numbers)
            average.restore(own.tensors, own.numbers)
        except KeyError as error:
            raise CheckpointError(f"the checkpoint is damaged: it has no {error}") from error
        return Tensors(own.tensors["image"], average, optimizer)

    # its steps

    def _begin(self) -> Step:
        """Measure the targets and return the `Step`."""
        context, job, size = self.context, self.context.job, self.stage.size
        network, device, rows = context.networks[0], self.retrier.state_device, self.bands[context.group.rank]
        image = self.tensors.image.detach().clone(memory_format=torch.contiguous_format)
        target = resized_for(network, job.content.nearest(size), size, rows, device)
        styles = [
            resized_for(network, job.styles[origin].nearest(each), each, device=device)
            for origin, each in zip(job.origins, self.stage.style_sizes, strict=True)
        ]
        regions = [region.at(size, self.stage.style_sizes, job.origins) for region in job.regions]
        if regions:
            share = coverage(regions)[:, :, rows[0] : rows[1]].to(image, copy=True)
            self._blend_mask = BlendMask(share, target)
            if not self.done:
                image = self._blend_mask.composite(image)
        self.tensors.image = image
        objective = self.retrier.attempt(
            functools.partial(
                Objective, context.networks, target, styles, job.settings, group=context.group, size=size, regions=regions
            )
        )
        objective.restore_step(self.done)
        # deterministic algorithms wait for the host in older torch
        capture = job.settings.cuda_graphs == "auto" and not job.settings.deterministic
        return Step(
            objective, image, self.tensors.optimizer, self.tensors.average, self._blend_mask, self.retrier, capture=capture
        )

    def step(self) -> Iterate:
        """Do the next step. Raises `NotFiniteError`, up to 2 x `CHECK_STEPS` steps after the first value that is not finite."""
        self._step = self._step or self._begin()
        tensors, stage, context = self.tensors, self.stage, self.context
        self.done += 1
        last = self.done == stage.steps
        tensors.optimizer.set_step_size(self.schedule.step_size(self.done, stage.steps) * 0.5**self.halvings)
        evaluation = self._step(last=last)
        self.finite.add(evaluation.loss)
        self.settled = self.settling.add(evaluation.loss, self.done)
        if last:
            self.finite.now(tensors.image, tensors.average)
        elif self.done % CHECK_STEPS == 0:
            self.finite.delayed(tensors.image, tensors.average)
        if self.finite.failed:
            raise NotFiniteError(self._where("or a few before"))
        return Iterate(
            stage=stage,
            index=self.index,
            stages=context.job.stages,
            step=self.done,
            tiles=self._step.objective.sweep.tiles,
            loss=evaluation.loss,
            parts=evaluation.parts,
            seconds=time.perf_counter() - context.start,
            memory=memory.peak_bytes([device for network in context.networks for device in network.devices]),
            average=tensors.average,
            group=context.group,
            bands=self.bands,
            blend_mask=self._blend_mask,
            halvings=self.halvings,
            state=functools.partial(self.state, self.done),
            finite=functools.partial(self.finite.now, tensors.image, tensors.average),
        )

    def state(self, step: int) -> State:
        """Return the state after a step; its tensors are those of the run."""
        average, lacks = self.tensors.average.state()
        tensors, numbers = self.tensors.optimizer.state(self.tensors.image)
        network, group = self.context.networks[0], self.context.group
        return State(
            index=self.index,
            step=step,
            size=self.stage.size,
            tensors={"image": self.tensors.image} | average | tensors,
            numbers=lacks | numbers | self.settling.numbers(),
            halvings=self.halvings,
            seconds=time.perf_counter() - self.context.start,
            limits=self.retrier.limits,
            identity=self.context.identity(),
            made={
                "torch": torch.__version__,
                "device": str(network.devices[0]),
                "precision": network.precision,
                "processes": group.size,
            },
            ended=self.ended,
            bands=self.bands,
        )


def stored_limits(stored: Limits, planned: Limits) -> Limits:
    """Return the limits of a state, so that sums are added in the same order, unless there is less memory now."""
    if planned.whole or stored == planned:
        return stored
    if stored.whole or stored.side or len(stored.areas) != len(planned.areas):
        return planned
    pairs = zip((*stored.areas, *stored.keep), (*planned.areas, *planned.keep), strict=True)
    return stored if all(a <= 1.1 * b for a, b in pairs) else planned
