"""One step of a scale: evaluation, optimizer, average. On a GPU it is recorded and played back.

With a small picture a GPU does its work faster than the host can ask for it, some hundred operations a step. Where a step is the
same operations on the same tensors every time, it is recorded once at each scale, as a CUDA graph, and one call has it done.
What differs from step to step, Adam's count and step size, lies in tensors that are set before.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from ..compute.devices import RECORDERS
from ..evaluation import memory
from ..evaluation.objective import Evaluation, Objective
from ..evaluation.planning import Workshop
from ..evaluation.sweep import Limits
from .iterate import Cover
from .optimizers import Adam, Average, Optimizer

LOG = logging.getLogger("style_transfer")
WARM = 3
"""Ordinary steps before one is recorded: libraries load and choose at the first."""
TOLERANCE = 1e-2
"""How far a played step may be from the ordinary one, relative to what that changes: sums in another order, no more."""

_refused: set[torch.device] = set()
"""Devices on which recording failed: torch may not be in order to try it again in this process."""


class Step:
    """What is done at every step of a scale to a picture (1, 3, H, W), its optimizer and its average, in place.

    A call returns the evaluation of the picture as it was before. `record` allows recording.
    """

    def __init__(
        self,
        objective: Objective,
        image: Tensor,
        optimizer: Optimizer,
        average: Average,
        cover: Cover | None,
        shop: Workshop,
        *,
        record: bool = True,
    ) -> None:
        self.objective = objective
        self.image = image
        self.optimizer = optimizer
        self.average = average
        self.cover = cover
        self.shop = shop
        self._warm = 0
        self._names: list[str] = []
        self._recorded: tuple[Callable[[], None], Tensor] | None = None
        self._limits = shop.limits
        self._adam = optimizer if record and isinstance(optimizer, Adam) else None

    def __call__(self, *, last: bool = False) -> Evaluation:
        """Take one step, the last one of the scale if `last`."""
        adam = self._adam
        if adam is not None and self.objective.settled:
            if self._recorded is None and self._warm == WARM and self._recordable():
                self._record(adam)
            self._warm += 1
            if self._recorded is not None:
                return self._play(adam, *self._recorded)
        evaluation = self.shop.attempt(self._evaluate)
        self.optimizer.step(self.image, evaluation.loss)
        if last:
            self.optimizer.settle(self.image)
        self.average.update(self.image)
        if self.shop.limits != self._limits:  # memory ran out
            self._adam = self._recorded = None
        return evaluation

    def _evaluate(self, limits: Limits | None = None) -> Evaluation:
        """Evaluate the picture; its gradient is that of what is painted."""
        evaluation = self.objective.evaluate(self.image, limits)
        if self.cover is not None and self.image.grad is not None:
            self.image.grad *= self.cover.share
        return evaluation

    def _recordable(self) -> bool:
        """Say whether all of a step is done by one GPU, whose memory has room for a second one."""
        networks, objective = self.objective.networks, self.objective
        device = self.image.device
        alone = objective.group.size == 1 and len(networks) == 1 and set(networks[0].devices) == {device}
        free = (
            device.type in RECORDERS
            and device not in _refused
            and set(objective.sweep.tiles) == {1}
            and objective.settings.memory is None
        )
        if not (alone and free):
            return False
        bytes_ = self.image[0, 0].numel() * memory.bound(networks[0], objective.settings.layers)
        return bytes_ < memory.SHARE * memory.free_bytes(device)

    def _changes(self, adam: Adam) -> Tensor:
        """Do what a step does on the device, with Adam's numbers as they are; return the loss and its parts, (n,)."""
        evaluation = self._evaluate()
        adam.take(self.image)
        self.average.take(self.image)
        self._names = list(evaluation.parts)
        return torch.stack([evaluation.loss, *evaluation.parts.values()])

    def _record(self, adam: Adam) -> None:
        """Record a step, and keep the recording if it comes to the same as an ordinary step from here. The state stays."""
        device, problem = self.image.device, ""
        try:
            play, found = RECORDERS[device.type](device, functools.partial(self._changes, adam))
            if self._same(adam, play, found):
                self._recorded = play, found
            else:
                problem = "it came to other numbers"
            del play, found
        except RuntimeError as error:
            problem = str(error).splitlines()[0][:200]
            _refused.add(device)
        self.image.grad = None
        if problem:
            self._adam = None
            memory.release()
            LOG.warning("steps are not recorded as CUDA graphs, small pictures take longer: %s", problem)

    def _same(self, adam: Adam, play: Callable[[], None], found: Tensor) -> bool:
        """Say whether a recording does what an ordinary step does. All tensors are put back."""
        assert self.average.sum is not None
        tensors = [x.detach() for x in (self.image, *adam.tensors, self.average.sum)]
        before = [x.clone() for x in tensors]
        results = []
        for work in (play, functools.partial(self._changes, adam)):
            try:
                changed = work()
                results.append([x.clone() for x in (*tensors, found if changed is None else changed)])
            finally:
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
        before.append(torch.zeros_like(found))
        near = [
            (played - done).norm() <= TOLERANCE * (done - start).norm()
            for played, done, start in zip(*results, before, strict=True)
        ]
        return bool(torch.stack(near).all())

    def _play(self, adam: Adam, play: Callable[[], None], found: Tensor) -> Evaluation:
        """Do a step by its recording."""
        self.objective.advance()
        adam.advance(self.image)
        self.average.advance(self.image)
        play()
        loss, *parts = found.clone().unbind()
        return Evaluation(loss, dict(zip(self._names, parts, strict=True)))
