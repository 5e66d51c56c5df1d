"""One step of a scale: evaluation, optimizer and average, on a GPU captured as a CUDA graph and replayed.

With small pictures a GPU works faster than the host can launch operations, of which a step has some hundred. Where a step
consists of the same operations on the same tensors every time, it is captured once at each scale, and one call replays it. What
differs from step to step, such as Adam's step count and step size, is written to tensors before.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from ..compute import memory
from ..compute.capture import RECORDERS
from ..evaluation import costs, planner
from ..evaluation.objective import Evaluation, Objective
from ..evaluation.retry import OutOfMemoryRetrier
from ..evaluation.sweep import Limits
from ..files import reason
from .iterate import BlendMask
from .optimizers import Average, CapturableOptimizer, Optimizer

LOG = logging.getLogger("style_transfer")
WARM_UP = 3
"""Ordinary steps before the capture: libraries initialise and choose algorithms at the first ones."""
TOLERANCE = 1e-2
"""The largest distance of a replayed step from the ordinary one, relative to the change: only the order of sums may differ."""

_failed: set[torch.device] = set()
"""Devices on which a capture failed: another attempt in this process may fail in torch."""


class Step:
    """Does the steps of a scale: changes a picture (1, 3, H, W), its optimizer and its average in place.

    A call returns the evaluation of the picture before the step. `capture` allows CUDA graphs.
    """

    def __init__(
        self,
        objective: Objective,
        image: Tensor,
        optimizer: Optimizer,
        average: Average,
        blend_mask: BlendMask | None,
        retrier: OutOfMemoryRetrier,
        *,
        capture: bool = True,
    ) -> None:
        self.objective = objective
        self.image = image
        self.optimizer = optimizer
        self.average = average
        self.blend_mask = blend_mask
        self.retrier = retrier
        self._warmed_up = 0
        self._names: list[str] = []
        self._captured: tuple[Callable[[], None], Tensor] | None = None
        self._limits = retrier.limits
        self._capturable = optimizer if capture and isinstance(optimizer, CapturableOptimizer) else None

    def __call__(self, *, last: bool = False) -> Evaluation:
        """Do one step, the last one of the scale if `last`."""
        optimizer = self._capturable
        if optimizer is not None and self.objective.capturable:
            if self._captured is None and self._warmed_up == WARM_UP and self._can_capture():
                self._capture(optimizer)
            self._warmed_up += 1
            if self._captured is not None:
                return self._replay(optimizer, *self._captured)
        evaluation = self.retrier.attempt(self._evaluate)
        self.optimizer.step(self.image, evaluation.loss)
        if last:
            self.optimizer.finish_scale(self.image)
        self.average.update(self.image)
        if self.retrier.limits != self._limits:  # memory ran out
            self._capturable = self._captured = None
        return evaluation

    def _evaluate(self, limits: Limits | None = None) -> Evaluation:
        """Evaluate the picture; its gradient is zero where nothing is painted."""
        evaluation = self.objective.evaluate(self.image, limits)
        if self.blend_mask is not None and self.image.grad is not None:
            self.image.grad *= self.blend_mask.share
        return evaluation

    def _can_capture(self) -> bool:
        """Return whether a single GPU does the whole step, and its memory has room for a second one."""
        networks, objective = self.objective.networks, self.objective
        device = self.image.device
        alone = objective.group.size == 1 and len(networks) == 1 and set(networks[0].devices) == {device}
        free = (
            device.type in RECORDERS
            and device not in _failed
            and set(objective.sweep.tiles) == {1}
            and objective.settings.memory is None
        )
        if not (alone and free):
            return False
        needed = self.image[0, 0].numel() * costs.bound(networks[0], objective.settings.layers)
        room = memory.free_bytes(device)
        return room is None or needed < planner.SHARE * room

    def _device_work(self, optimizer: CapturableOptimizer) -> Tensor:
        """Do the device's part of a step that was prepared; return the loss and its parts, (n,)."""
        evaluation = self._evaluate()
        optimizer.apply(self.image)
        self.average.apply(self.image)
        self._names = list(evaluation.parts)
        return torch.stack([evaluation.loss, *evaluation.parts.values()])

    def _capture(self, optimizer: CapturableOptimizer) -> None:
        """Capture a step, and keep the graph if a replay gives the same as an ordinary step. The state does not change."""
        device, problem = self.image.device, ""
        try:
            replay, losses = RECORDERS[device.type](device, functools.partial(self._device_work, optimizer))
            if self._equals_ordinary_step(optimizer, replay, losses):
                self._captured = replay, losses
            else:
                problem = "a replay gave different results"
            del replay, losses
        except RuntimeError as error:
            problem = reason(error)
            _failed.add(device)
        self.image.grad = None
        if problem:
            self._capturable = None
            memory.release()
            LOG.warning("steps are not captured as CUDA graphs, so small pictures take longer: %s", problem)

    def _equals_ordinary_step(self, optimizer: CapturableOptimizer, replay: Callable[[], None], losses: Tensor) -> bool:
        """Return whether a replay changes all tensors as an ordinary step does; restores them."""
        assert self.average.sum is not None
        tensors = [x.detach() for x in (self.image, *optimizer.tensors, self.average.sum)]
        before = [x.clone() for x in tensors]
        results = []
        for work in (replay, functools.partial(self._device_work, optimizer)):
            try:
                output = work()
                results.append([x.clone() for x in (*tensors, losses if output is None else output)])
            finally:
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
        before.append(torch.zeros_like(losses))
        near = [
            (replayed - ordinary).norm() <= TOLERANCE * (ordinary - start).norm()
            for replayed, ordinary, start in zip(*results, before, strict=True)
        ]
        return bool(torch.stack(near).all())

    def _replay(self, optimizer: CapturableOptimizer, replay: Callable[[], None], losses: Tensor) -> Evaluation:
        """Do a step by replaying the graph."""
        self.objective.increment()
        optimizer.prepare(self.image)
        self.average.prepare(self.image)
        replay()
        loss, *parts = losses.clone().unbind()
        return Evaluation(loss, dict(zip(self._names, parts, strict=True)))
