"""The observer behind `--animation`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ...errors import OutputError, StyleTransferError
from ...files import shown
from ...registry import OBSERVERS
from ..observer import Observer
from .options import AnimationOptions, check_format
from .recorder import Recorder

if TYPE_CHECKING:
    from ...files.naming import Task
    from ..observer import Command, Progress, Result, RunInfo


@OBSERVERS.register("animation")
class Animation(Observer):
    """Writes an animation of each run. In a group of processes every rank takes part, and rank 0 writes."""

    Options = AnimationOptions

    def __init__(self, options: AnimationOptions, *, quiet: bool = False) -> None:
        self.options, self.quiet = options, quiet
        self._recorder: Recorder | None = None

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return the observer if `--animation` is given."""
        options: AnimationOptions = command.options(AnimationOptions)
        return None if options.animation is None else cls(options, quiet=command.quiet)

    def files(self, task: Task) -> Sequence[tuple[str, Path]]:
        """Return the file of the animation. Raises `SettingsError` if the format, codec, field or frame rate is not supported."""
        pattern = self.options.animation or ""
        check_format("--animation", pattern, self.options.animation_rate)
        return [("--animation", task.beside("--animation", pattern))]

    def begin(self, run: RunInfo) -> None:
        """Begin to record a run. A resumed run continues with the frames that were stored beside its animation."""
        ((_, path),) = self.files(run.task)
        self._recorder = Recorder(run, path, self.options)

    def step(self, progress: Progress) -> None:
        """Capture a frame if one is due."""
        if self._recorder is not None:
            self._recorder.step(progress)

    def checkpointed(self) -> None:
        """Store the frames beside the checkpoint from time to time."""
        if self._recorder is not None:
            self._recorder.store()

    def end(self, result: Result) -> Mapping[str, Path]:
        """Write the animation. Store its frames for a resumed run, or remove them if the run is complete."""
        recorder = self._recorder
        if recorder is None:
            return {}
        try:
            if result.progress is None:
                recorder.add_result(result.path)
            elif not self.quiet and not recorder.run.group.rank:
                recorder.run.report(shown(f"writing {recorder.path}"))
            written = recorder.write(None if result.progress is None else result.progress.iterate)
        finally:
            if result.complete or recorder.run.checkpoint is None:
                recorder.remove_stored()
            else:
                recorder.store(now=True)
            self.close()
        return {"animation": recorder.path} if written else {}

    def fail(self, error: StyleTransferError, picture: Path | None) -> None:
        """Write the frames so far of a run that failed, on rank 0 alone: other ranks may wait in the middle of a step."""
        recorder = self._recorder
        try:
            if recorder is not None and not recorder.run.group.rank:
                with contextlib.suppress(OutputError, MemoryError):
                    recorder.write()
                recorder.store(now=True)
        finally:
            self.close()

    def close(self) -> None:
        """End the thread of the recorder."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
