"""The coarse-to-fine loop: a generator of iterates. It prints nothing and writes no files.

After Gatys et al. (2016) and style-transfer-pytorch: each scale starts from the average of the iterates of the last one, with
the optimizer's moments resized.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..compute import memory
from ..compute.devices import lost, resolve
from ..compute.distributed import LOCAL, Group, Request
from ..compute.modes import deterministic, no_autocast
from ..errors import CheckpointError, NumericError
from ..geometry import Stage
from ..losses.guidance import Region
from ..networks.forward import Network
from ..networks.loading import load_networks
from ..settings import Settings
from .control import Control
from .iterate import Iterate
from .job import Job
from .scale import CHECK_STEPS, Context, NotFiniteError, Scale, Tensors
from .state import State, broadcast_state, differences

HALVINGS = 3
"""How often the step size is halved when numbers do not stay finite."""
COPY_INTERVAL = 50
"""The least time between two copies of the state in memory, as a multiple of what the last one took."""

Fallback = Callable[[], "State | None"]


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
    fallback: Fallback | None = None,
    control: Control | None = None,
) -> Iterator[Iterate]:
    """Paint `content` in the style of `styles`, coarse to fine, and yield an `Iterate` after each step.

    Pictures are (1, 3, H, W), float, sRGB in [0, 1], of any size; content is enlarged where a scale asks for it, styles never
    are. `init` is the picture to start from, of any size, in place of `settings.init`. `networks` are what `load_networks`
    returned; left out, they are loaded as the settings say. With `regions` each part of the picture has a style, or a part of
    one, of its own, and what no region covers stays as it is. In a `group` of processes all call this with the same pictures,
    and each has a band of the rows. `control` takes requests, such as to finish the scale.

    Everything is checked before the first step: raises `SettingsError`, `ImageError`, `WeightsError` or `DeviceError`. Later
    `MemoryLimitError` may be raised if not even small tiles fit, and `DeviceError` if a device fails.

    With `resume`, a whole state (given on rank 0), the run continues from there, on a CPU to the same bits. Raises
    `CheckpointError` if it belongs to another run, with a list of the differences.

    When the loss or the picture are not finite, the run returns to the last good state and continues with half the step size, at
    most three times; then `NumericError` is raised. `fallback()`, called on rank 0, returns the last good whole state, or None to
    start afresh; left out, a copy is kept in memory if there is plenty.
    """
    resolved = (settings or Settings()).resolve()
    job = Job.create(content, styles, resolved, init=init, regions=regions)
    if networks is None:
        with torch.inference_mode(False):  # weights of inference mode cannot be differentiated through
            networks = load_networks(resolved, resolve(resolved.devices)[0])
    return run(job, networks, group=group, resume=resume, fallback=fallback, control=control)


def run(
    job: Job, networks: Sequence[Network], *, group: Group = LOCAL, resume: State | None = None, fallback: Fallback | None = None,
    control: Control | None = None,
) -> Iterator[Iterate]:  # fmt: skip
    """Check the rest of a job and return its iterates; see `stylize`."""
    job.check_network(networks[0].spec)
    identity = functools.cache(functools.partial(job.identity, networks[0]))
    resume = broadcast_state(resume, group)
    if resume is not None:
        check_resume(resume, identity(), job.stages)
    start = time.perf_counter() - (resume.seconds if resume is not None else 0)
    return _iterates(Run(Context(job, networks, group, identity, start), resume, fallback, control or Control()))


def check_resume(state: State, identity: Mapping[str, Any], stages: Sequence[Stage]) -> None:
    """Raise `CheckpointError` unless a run can continue from a state."""
    found = differences(state.identity, identity)
    if found:
        raise CheckpointError(f"the checkpoint belongs to another run: {'; '.join(found)}")
    if not 0 <= state.index < len(stages) or state.size != stages[state.index].size:
        raise CheckpointError(
            f"the checkpoint is damaged: there is no scale {state.index + 1} of {state.size[1]}x{state.size[0]}"
        )
    if not 1 <= state.step <= stages[state.index].steps or not 0 <= state.halvings <= HALVINGS:
        raise CheckpointError(f"the checkpoint is damaged: there is no iteration {state.step} at its scale")


def _iterates(run: Run) -> Iterator[Iterate]:
    """Yield the iterates of a run. The modes of torch that it needs hold while it works, and the caller's in between."""
    settings, networks = run.context.job.settings, run.context.networks
    kinds = {"cpu", *(device.type for network in networks for device in network.devices)}
    with contextlib.ExitStack() as stack:
        stack.callback(memory.keep_freed, False)
        while True:
            with deterministic(settings.deterministic), torch.inference_mode(False), torch.enable_grad(), no_autocast(kinds):
                iterate = run.step()
            if iterate is None:
                return
            yield iterate


class Run:
    """A run in progress: its scales, one after the other, and its recovery when numbers are not finite."""

    def __init__(self, context: Context, resume: State | None, fallback: Fallback | None, control: Control) -> None:
        self.context, self.fallback, self.control = context, fallback, control
        self.halvings = resume.halvings if resume is not None else 0
        self._start: State | None = resume
        """The state to start or restart from, until its tensors are those of the scale."""
        self._good = resume if fallback is None else None
        self._copy_due = 0.0
        self._scale: Scale | None = None
        self._iterate: Iterate | None = None

    def step(self) -> Iterate | None:
        """Do the next step and return its iterate, or None at the end of the run."""
        while True:
            try:
                return self._try_step()
            except NotFiniteError as error:
                where = str(error)
            except torch.AcceleratorError as error:
                raise lost(error, self.context.networks[0].devices[0]) from error
            self._restart(where)  # outside of the except block, since the exception holds tensors

    def _try_step(self) -> Iterate | None:
        iterate, self._iterate = self._iterate, None
        self.context.group.request(self.control.take())
        if iterate is not None and self._scale is not None:
            self._keep_copy(iterate)
            if self._scale.finite.failed:
                self._scale.check_finite()
            if self.context.group.agreed & (Request.STOP | Request.FINISH):
                return None
            self._finish_early(self._scale)
        scale = self._next_scale()
        if scale is None:
            return None
        self._iterate = scale.step()
        if scale.settled and not self.context.group.rank:
            self.control.request(Request.FINISH_SCALE)
        return self._iterate

    def _next_scale(self) -> Scale | None:
        """Return the scale of the next step, or None at the end of the run."""
        context, scale = self.context, self._scale
        if scale is None:
            state, self._start = self._start, None
            index, ended = (0, ()) if state is None else (state.index, state.ended)
            scale = Scale(context, index, state=state, halvings=self.halvings, ended=ended)
            del state
        while scale.complete:
            index, ended, before = scale.index + 1, scale.ended, scale.tensors
            self._scale = scale = None  # a captured graph holds as much memory as a step
            if index == len(context.job.stages):
                return None
            before = Tensors(before.image.new_empty(0), before.average, before.optimizer)
            scale = Scale(context, index, before=before, halvings=self.halvings, ended=ended)
        self._scale = scale
        return scale

    def _finish_early(self, scale: Scale) -> None:
        """End the scale if that was requested; the request is met, too, if the scale has just ended by itself."""
        group = self.context.group
        if Request.FINISH_SCALE not in group.agreed:
            return
        self.control.clear(Request.FINISH_SCALE)
        group.agreed &= ~Request.FINISH_SCALE
        group.request(self.control.requested)
        if scale.done < scale.stage.steps:
            scale.check_finite()
            scale.ended = *scale.ended, (scale.index, scale.done)

    def _keep_copy(self, iterate: Iterate) -> None:
        """Keep a copy of a good state in memory at times, if there is plenty and nobody else keeps states."""
        if self.fallback is not None or not (iterate.step % CHECK_STEPS == 0 or iterate.ends_scale):
            return
        now, state = time.perf_counter(), iterate.state()
        plenty = self.context.job.settings.memory is None and memory.free_host_bytes() > 8 * state.bytes
        if self.context.group.broadcast(plenty and now >= self._copy_due) and iterate.finite():
            self._good = state.whole(self.context.group)
            self._copy_due = now + COPY_INTERVAL * (time.perf_counter() - now)

    def _restart(self, where: str) -> None:
        """Return to the last good state with half the step size. Raises `NumericError` after a few times."""
        self._scale = self._iterate = None
        self.halvings += 1
        if self.halvings > HALVINGS:
            raise NumericError(
                f"the loss or the picture was not finite at {where}, although the step size was halved {HALVINGS} times; "
                "use a smaller --step-size, smaller weights, or --precision fp32"
            )
        if self.fallback is None:
            self._start = self._good
        else:
            group = self.context.group
            self._start = broadcast_state(self.fallback() if not group.rank else None, group)
