"""Painting one picture of a command: the network, the checkpoint to resume from, the run, and its result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch

from .. import engine
from ..compute import devices
from ..compute.distributed import Group
from ..engine import Control, State
from ..engine.checkpoint_file import Checkpoint, make_current, set_aside
from ..engine.checkpointer import Checkpointer
from ..errors import CheckpointError, OutputError, StyleTransferError
from ..files import Task, shown
from ..geometry import Size
from ..networks.forward import Network
from ..networks.loading import Weights, build_networks
from ..observers import Observer, Result, RunInfo
from ..observers.console import Console
from ..observers.history import History
from ..settings import Resolved
from .dry_run import print_plan
from .interrupt import Interrupt
from .job import Job, JobReader
from .outputs import OutputFiles, PictureWriter
from .parser import Command
from .picture_run import PictureRun
from .recipe import identity_of, make_recipe

T = TypeVar("T")


class Painter:
    """Reads, paints and writes the pictures of a command, one at a time; all of them use the network of the first.

    In a group of processes rank 0 reads and writes, and all ranks paint.
    """

    def __init__(
        self, command: Command, settings: Resolved, group: Group, observers: Sequence[Observer], console: Console | None,
        interrupt: Interrupt,
    ) -> None:  # fmt: skip
        self.command, self.options, self.settings, self.group = command, command.options, settings, group
        self.observers, self.console, self.interrupt = observers, console, interrupt
        self.saved: tuple[Path, Size] | None = None
        """The path and the size of the picture of the current task that was written last."""
        self.reader = JobReader(settings, command.options, self.note)
        self.networks: Sequence[Network] = ()
        """The network on each device, once the first picture needs it."""

    def shared(self, make: Callable[[], T], send: Callable[[T], T] = lambda value: value) -> T:
        """Return what `make` returns on rank 0, and `send` of it on the other ranks; raise its error on all ranks."""
        if self.group.rank:
            received: T | StyleTransferError = self.group.broadcast(None)
            if isinstance(received, StyleTransferError):
                raise received
            return received
        try:
            made = make()
        except StyleTransferError as error:
            self.group.broadcast(error)
            raise
        self.group.broadcast(send(made) if self.group.size > 1 else None)
        return made

    def message(self, text: str) -> None:
        """Print a line on the console, if this process has one."""
        if self.console is not None:
            self.console.message(text)

    def warn(self, text: str) -> None:
        """Print what went wrong without ending the run."""
        self.message(shown(f"style_transfer: note: {text}"))

    def note(self, text: str) -> None:
        """Print what is worth knowing, unless --quiet."""
        if not self.options.quiet:
            self.warn(text)

    def files_beside(self, task: Task) -> list[tuple[str, Path]]:
        """Return the files that observers write for a picture, each with its option. Raises `SettingsError`."""
        return [named for observer in self.observers for named in observer.files(task)]

    def read(self, files: OutputFiles, held: contextlib.ExitStack) -> Job:
        """Check and read everything that a picture needs; its outputs are locked while `held` lasts."""
        files.check()
        if not self.options.dry_run:
            files.lock(held)
            files.check_resume()
        return self.reader.read(files, weights=not self.networks)

    def paint(self, files: OutputFiles, job: Job, *, last: bool) -> int:
        """Paint one picture, or print what that would take, and return the exit code."""
        loaded = self.networks = self.networks or self._place(job.weights)
        names = [str(device) for network in loaded for device in network.devices] * self.group.size
        if self.options.dry_run:
            if not self.group.rank:
                print_plan(job, files.path, loaded, names, self.group.size)
            return 0
        checkpoint = self.shared(files.load_checkpoint, lambda found: None)
        state = None if checkpoint is None else checkpoint.state
        about = (files.task, self.settings, self.options, loaded[0], names, job.run.stages, job.readings, job.plan)
        recipe = self.shared(lambda: make_recipe(self.command.argv, *about))
        checkpointer = None
        if files.checkpoint is not None:
            number = 0 if checkpoint is None else checkpoint.number
            checkpointer = Checkpointer(files.checkpoint, self.options.checkpoint_every, number=number)
        control = Control()
        try:
            iterates = engine.run(
                job.run, loaded, group=self.group, resume=state, control=control,
                fallback=None if checkpointer is None else checkpointer.last,
            )  # fmt: skip
        except CheckpointError as error:
            hint = "use the pictures and options it was made with, or leave out --resume"
            raise CheckpointError(f"--resume {files.checkpoint}: {error}; {hint}") from error
        if files.checkpoint is not None and not self.group.rank:
            if checkpoint is None:
                self._set_aside(files.checkpoint)
            else:
                self._note_resumed(checkpoint, loaded[0])
                make_current(checkpoint, files.checkpoint)
        del checkpoint
        info = self._info(files, job, recipe, state, control)
        writer = PictureWriter(files, recipe, self.warn, state, job.run.stages, None if job.plan is None else job.plan.sheet)
        for observer in self.observers:
            observer.begin(info)
        picture_run = PictureRun(job, info, writer, checkpointer, self.observers, self.interrupt)
        complete = info.resumed == (len(job.run.stages) - 1, job.run.stages[-1].steps)
        try:
            if self.shared(lambda: complete):
                result = picture_run.save_complete(state) if state is not None else None
            else:
                del state  # its tensors would stay in memory
                result = picture_run(iterates)
        finally:
            self.saved = None if writer.saved is None else (files.path, writer.saved)
        return 0 if result is None else self._finish(result, last=last)

    def _place(self, weights: Weights | None) -> Sequence[Network]:
        """Return the network on the devices of this process."""
        assert weights is not None
        if self.group.size > 1:
            chosen: Sequence[torch.device] = [self.group.device]
        else:
            chosen, notes = devices.resolve(self.settings.devices)
            for note in notes:
                self.note(note)
        loaded = build_networks(weights, self.settings, chosen)
        if self.settings.precision == "auto" and loaded[0].precision != "fp32":
            self.note(f"the network computes in {loaded[0].precision} on {chosen[0]}; --precision sets another type")
        return loaded

    def _note_resumed(self, checkpoint: Checkpoint, network: Network) -> None:
        """Report where the run continues, and what may make its result differ."""
        state = checkpoint.state
        for remark in checkpoint.remarks:
            self.warn(remark)
        self.note(f"resuming from {checkpoint.path}: {state.size[1]}x{state.size[0]}, iteration {state.step}")
        here = {"device": network.devices[0].type, "torch": metadata.version("torch"), "processes": self.group.size}
        changed = [f"{name} {state.made[name]}" for name in here if str(here[name]) not in str(state.made[name])]
        if changed:
            self.note(f"the checkpoint was made with {', '.join(changed)}; the result can differ in the last digits")

    def _set_aside(self, path: Path) -> None:
        """Rename the checkpoint of another, unfinished run."""
        kept = set_aside(path)
        if kept is not None:
            self.note(f"the checkpoint of an unfinished run was renamed to {kept}; --checkpoint {kept} --resume continues it")

    def _info(self, files: OutputFiles, job: Job, recipe: Mapping[str, Any], state: State | None, control: Control) -> RunInfo:
        stages, run = job.run.stages, job.run
        done = 0 if state is None else sum(stage.steps for stage in stages[: state.index]) + state.step
        content = job.shown(run.content.largest)
        start = job.shown(run.init.largest) if run.init is not None else content if self.settings.init == "content" else None
        return RunInfo(
            task=files.task,
            content=content,
            start=start,
            stages=stages,
            finish=lambda pixels: job.display(job.finish(pixels)),
            recipe=recipe,
            identity=identity_of(recipe),
            inputs=files.roles,
            max_pixels=self.options.max_pixels,
            checkpoint=files.checkpoint,
            resumed=None if state is None else (state.index, state.step),
            seconds=0.0 if state is None else state.seconds,
            history=History(steps=done),
            control=control,
            group=self.group,
            report=self.message,
            console=self.console,
        )

    def _finish(self, result: Result, *, last: bool) -> int:
        """Let the observers end, print where the result is, and return the exit code. Raises `OutputError`."""
        written: dict[str, Path] = {}
        failures = []
        for observer in self.observers:
            try:
                written |= observer.end(result)
            except OutputError as error:
                failures.append(error)
        if not self.group.rank:
            if self.console is not None:
                self.console.done(result, written)
            if result.progress is not None and not result.complete:
                iterate = result.progress.iterate
                self.message(
                    f"style_transfer: {'stopped' if result.exit_code else 'finished'} at {iterate.w}x{iterate.h}, iteration "
                    f"{iterate.step} of {iterate.steps}; the picture so far is in {shown(result.path)}"
                    + ("; --resume continues" if result.resumable else "")
                )
        if failures:
            raise failures[0]
        if last and not self.interrupt.asked:
            with self.interrupt.watching():
                for observer in self.observers:
                    observer.stay(lambda: self.interrupt.asked)
        return result.exit_code
