"""The run of one picture: the engine's iterates, and what happens between two of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..compute import memory
from ..compute.distributed import Request
from ..engine import Iterate, State, picture_of
from ..engine.checkpointer import Checkpointer
from ..errors import NumericError, OutputError, StyleTransferError
from ..files import exists
from ..observers import Observer, Progress, Result, RunInfo
from ..observers.console import TimeLeft
from ..pictures import Pixels
from ..pictures.tensors import to_pixels
from .interrupt import Interrupt
from .job import Job
from .outputs import PictureWriter


def requests_end_run(iterate: Iterate, agreed: Request) -> bool:
    """Return whether requests end the run after a step."""
    last_scale = iterate.index == len(iterate.stages) - 1
    return bool(agreed & (Request.STOP | Request.FINISH)) or bool(agreed & Request.FINISH_SCALE and last_scale)


def tiles_note(iterate: Iterate) -> str:
    """Return a note on the tiles of a scale."""
    share = f" by each of {iterate.group.size} processes" if iterate.group.size > 1 else ""
    return f"{iterate.w}x{iterate.h} is processed in {' + '.join(map(str, iterate.tiles))} tiles{share}"


def halvings_note(iterate: Iterate) -> str:
    """Return a note on a run that continues with smaller steps."""
    return (
        "the loss or the picture was not finite; resuming from "
        f"{iterate.w}x{iterate.h}, iteration {iterate.step}, with 1/{2**iterate.halvings} of the step size"
    )


def copy_room(iterate: Iterate) -> int:
    """Return the bytes that a copy of the state may take: half of the free memory that the next step does not need."""
    average = iterate.average.sum
    on_host = average is None or average.device.type == "cpu"
    again = max(0, iterate.memory - memory.used_bytes(torch.device("cpu"))) if on_host else 0
    return int(0.5 * (memory.free_host_bytes() - again))


def sidecar(progress: Progress, checkpointer: Checkpointer | None, *, finished: bool) -> dict[str, Any]:
    """Return what OUTPUT.json holds of a step, besides the recipe."""
    iterate = progress.iterate
    return {
        "finished": finished,
        "loss": float(iterate.loss),
        "parts": {name: float(part) for name, part in iterate.parts.items()},
        "seconds": round(iterate.seconds - progress.paused, 2),
        "memory_bytes": iterate.memory,
        "checkpoint_seconds": round(checkpointer.cost, 3) if checkpointer is not None else 0,
    }


def report_problem(checkpointer: Checkpointer, note: Callable[[str], None]) -> None:
    """Report a checkpoint that could not be written."""
    problem = checkpointer.problem()
    if problem is not None:
        note(f"{problem}; the run continues without this checkpoint")


class PictureRun:
    """Runs the engine for one picture: informs observers, writes pictures and checkpoints, and handles requests.

    In a group of processes all ranks do the same; rank 0 alone writes. All ranks agree on
    requests, such as to stop, before they act on them.
    """

    def __init__(
        self, job: Job, info: RunInfo, writer: PictureWriter, checkpointer: Checkpointer | None,
        observers: Sequence[Observer], interrupt: Interrupt,
    ) -> None:  # fmt: skip
        self.job, self.info, self.writer, self.checkpointer = job, info, writer, checkpointer
        self.observers, self.interrupt = observers, interrupt
        self.group, self.control, self.report = info.group, info.control, info.report
        self.options, self.path = writer.files.options, writer.files.path
        self.paused = 0.0
        """Seconds that the run was paused so far."""
        self.gathered: Pixels | None = None
        """In a group of processes, the last picture that was gathered from all bands."""

    def __call__(self, iterates: Iterator[Iterate]) -> Result:
        """Paint the picture, write it, and return how the run ended. Raises `StyleTransferError`."""
        try:
            with self.interrupt.watching():
                return self._end(*self._loop(iterates))
        except StyleTransferError as error:
            self._fail(error)
            raise

    # between two steps

    def _loop(self, iterates: Iterator[Iterate]) -> tuple[Progress, Request]:
        """Go through the iterates until the run is complete or requests end it; return the last step and these requests."""
        clock = TimeLeft(self.info.stages, self.info.seconds)
        last: tuple[Progress, Request] | None = None
        halvings = 0
        for iterate in iterates:
            left = clock.update(iterate.index, iterate.step, iterate.seconds - self.paused)
            picture = functools.partial(self._pixels, iterate)
            progress = Progress(iterate, left, clock.scale_left, clock.pace, self.paused, picture)
            if iterate.step == 1 and sum(iterate.tiles) > 1 and not self.options.quiet:
                self.report(tiles_note(iterate))
            for observer in self.observers:
                observer.step(progress)
            if iterate.halvings > halvings:
                halvings = iterate.halvings
                self.writer.note(halvings_note(iterate))
            agreed = self._requests()
            last = progress, agreed
            ends_scale = iterate.ends_scale or bool(agreed & Request.FINISH_SCALE)
            if ends_scale and not iterate.ends_scale:
                self.writer.skip(iterate.index, iterate.step)
            if iterate.ends_run or requests_end_run(iterate, agreed):
                return last
            every = self.options.save_every
            if ends_scale or (every and iterate.step % every == 0):
                self._write_if_possible(progress, ends_scale=ends_scale)
            if ends_scale or agreed & Request.SAVE:
                self._checkpoint(iterate, skipped=ends_scale and not iterate.ends_scale)
        if last is None:
            raise KeyboardInterrupt
        return last

    def _requests(self) -> Request:
        """Wait while the run is paused, and return what was requested, the same on all ranks."""
        if self.control.paused and not self.interrupt.asked:
            self.paused += self.control.wait_while_paused(lambda: self.interrupt.asked)
        if self.interrupt.asked:
            self.control.request(Request.STOP)
        if self.checkpointer is not None and not self.group.rank and self.checkpointer.due():
            self.control.request(Request.SAVE)
        self.group.request(self.control.decide())
        agreed = self.group.agreed
        if agreed & Request.SAVE:
            self.control.clear(Request.SAVE)
            self.group.request(self.control.requested)
        return agreed

    def _pixels(self, iterate: Iterate) -> Pixels:
        """Return the picture so far; in a group of processes the one saved last."""
        if self.group.size == 1:
            return to_pixels(iterate.image())
        return np.zeros((*iterate.size, 3), np.float32) if self.gathered is None else self.gathered

    # the end

    def _end(self, progress: Progress, agreed: Request) -> Result:
        """Write the last picture and checkpoint, and return the result."""
        iterate = progress.iterate
        if not iterate.ends_run:
            self._checkpoint(iterate, skipped=False)
        self._write_last(progress)
        if self.checkpointer is not None:
            self.checkpointer.close()
            report_problem(self.checkpointer, self.writer.note)
        early = bool(agreed & (Request.FINISH | Request.FINISH_SCALE)) and not agreed & Request.STOP
        status = "finished" if iterate.ends_run else "finished early" if early else "stopped"
        return Result(
            path=self.path,
            status=status,
            size=iterate.size,
            progress=progress,
            resumable=self.checkpointer is not None and bool(self.checkpointer.number),
            exit_code=self.interrupt.exit_code if status == "stopped" else 0,
        )

    def save_complete(self, state: State) -> Result:
        """End a run that was complete before it was resumed: write its picture. Raises `OutputError`."""
        self._write_state(state, finished=True)
        if self.checkpointer is not None and not self.options.keep_checkpoint:
            self.checkpointer.remove()
        return Result(self.path, "finished", state.size, None, resumable=False)

    def _fail(self, error: StyleTransferError) -> None:
        """Write the picture of the last checkpoint of a run that failed, and notify the observers."""
        if self.checkpointer is not None:
            if isinstance(error, NumericError) and not self.group.rank and (state := self.checkpointer.last()) is not None:
                try:
                    self._write_state(state, finished=False)
                except OutputError as problem:
                    self.writer.note(str(problem))
            self.checkpointer.close()
        for observer in self.observers:
            observer.fail(error, None if self.writer.saved is None else self.path)

    def _write_last(self, progress: Progress) -> None:
        """Write the picture at the end, and remove the checkpoints of a complete run."""
        iterate = progress.iterate
        if not iterate.finite():
            return
        try:
            self._write(progress, finished=iterate.ends_run, ends_scale=True, last=True)
        except OutputError as error:
            if self.checkpointer is None:
                raise
            if iterate.ends_run and self.group.size == 1:  # in a group the other ranks have not failed and would not take part
                self._checkpoint(iterate, skipped=False)
            self.checkpointer.close()
            kept = self.checkpointer.path
            hint = f"continue from {kept} with --resume" if exists(kept) else "start again"
            raise OutputError(f"{error}; correct that and {hint}") from error
        if self.checkpointer is None or not iterate.ends_run:
            return
        if self.options.keep_checkpoint:
            self._checkpoint(iterate, skipped=False)
        elif not self.group.rank:
            self.checkpointer.remove()

    # checkpoints

    def _checkpoint(self, iterate: Iterate, *, skipped: bool) -> None:
        """Write a checkpoint if all values are finite; `skipped` marks the scale as finished early. A failure is reported."""
        if self.checkpointer is None:
            return
        if iterate.finite():
            state = iterate.state()
            state = dataclasses.replace(state, seconds=state.seconds - self.paused)
            if skipped:
                state = dataclasses.replace(state, ended=(*state.ended, (iterate.index, iterate.step)))
            room = 0 if self.job.run.settings.memory is not None else copy_room(iterate)
            self.checkpointer.write(state, self.group, room)
            for observer in self.observers:
                observer.checkpointed()
        report_problem(self.checkpointer, self.writer.note)

    # pictures

    def _write_if_possible(self, progress: Progress, *, ends_scale: bool) -> None:
        """Write the picture so far if all values are finite. A failure, such as a full disk, is only reported."""
        if not progress.iterate.finite():
            return
        try:
            self._write(progress, finished=False, ends_scale=ends_scale)
        except OutputError as error:
            self.writer.note(f"{error}; the run continues without saving this iteration")

    def _write(self, progress: Progress, *, finished: bool, ends_scale: bool, last: bool = False) -> None:
        """Write the picture and OUTPUT.json, the `last` with a soft proof. All ranks of a group call this, and rank 0 writes."""
        iterate = progress.iterate
        pixels = to_pixels(iterate.image())
        if self.group.rank:
            return
        self.gathered = pixels if self.group.size > 1 else None
        report = sidecar(progress, self.checkpointer, finished=finished)
        pixels = self.job.finish(pixels)
        metadata = self.writer.save(pixels, iterate.size, iterate.step, iterate.steps, report, last=last)
        self.writer.save_frame(iterate, pixels, metadata)
        if finished or ends_scale:
            pixels = self.job.display(pixels)
            for observer in self.observers:
                observer.saved(progress, pixels)

    def _write_state(self, state: State, *, finished: bool) -> None:
        """Write the picture of a state. Raises `OutputError`."""
        picture = picture_of(state, self.job.run.content.nearest(state.size), self.job.run.regions)
        steps = self.job.run.stages[state.index].steps
        self.writer.save(self.job.finish(to_pixels(picture)), state.size, state.step, steps, {"finished": finished}, last=True)
