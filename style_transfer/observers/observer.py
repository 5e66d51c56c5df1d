"""The base class of observers, and what they are given: a command, runs, steps and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import StyleTransferError
from ..files import Task

if TYPE_CHECKING:
    from torch import Tensor

    from ..compute.distributed import Group
    from ..engine.control import Control
    from ..engine.iterate import Iterate
    from ..geometry.scales import Stage
    from ..pictures import Pixels
    from .history import History


@dataclass(frozen=True)
class Command:
    """What observers need to know of a command line.

    `quiet` and `json` are the options of these names. `rank` is that of this process, of which 0 alone prints and writes.
    `options` returns the options of an observer, an instance of its `Options` class.
    """

    quiet: bool
    json: bool
    rank: int
    options: Callable[[type], Any]


@dataclass(frozen=True)
class RunInfo:
    """The run of one picture, as it is known before its first step.

    `content` is the content picture, (1, 3, H, W), sRGB in [0, 1], and `start` the picture that the run starts from in the same
    form, None for noise. `finish` gives pixels (H, W, 3), float32 in [0, 1], their final colours. `recipe` is the content of
    OUTPUT.json before the first step, and `identity` a text that is equal for runs that make the same picture. `inputs` are the
    files read, each with its role before its name. `resumed` is the scale (from 0) and the step from which a resumed run
    continues, and `seconds` the time that the run had taken before. `report` prints a line on the console. `console` is the
    observer that does so, None on ranks other than 0.
    """

    task: Task
    content: Tensor
    start: Tensor | None
    stages: Sequence[Stage]
    finish: Callable[[Pixels], Pixels]
    recipe: Mapping[str, Any]
    identity: str
    inputs: Sequence[tuple[str, str]]
    max_pixels: int
    checkpoint: Path | None
    resumed: tuple[int, int] | None
    seconds: float
    history: History
    control: Control
    group: Group
    report: Callable[[str], None]
    console: Observer | None = None


@dataclass(frozen=True)
class Progress:
    """One completed step. Times are in seconds; `paused` is the part of `iterate.seconds` in which the run was paused.

    `picture()` returns the averaged picture, float32 (H, W, 3) in [0, 1], before its colours are finished; it is valid until the
    next step. In a group of processes it is the picture that was saved last.
    """

    iterate: Iterate
    seconds_left: float
    scale_seconds_left: float
    seconds_per_step: float
    paused: float
    picture: Callable[[], Pixels]


@dataclass(frozen=True)
class Result:
    """How the run of one picture ended.

    `path` is the file of the picture. `status` is "finished", "finished early" (by a viewer of the live page) or "stopped" (by a
    signal). `progress` is the last step, None if the run was complete before it was resumed. `resumable` tells whether there is
    a checkpoint.
    """

    path: Path
    status: str
    size: tuple[int, int]
    progress: Progress | None
    resumable: bool
    exit_code: int = 0

    @property
    def complete(self) -> bool:
        """Whether the last step of the last scale was done."""
        return self.progress is None or self.progress.iterate.ends_run


class Observer:
    """Base class of objects that follow the runs of a command. Its methods do nothing.

    A subclass registers itself with `registry.OBSERVERS` and overrides the methods that it needs. `Options`, if any, is a frozen
    dataclass of `settings.option` fields, which become command-line options. In a group of processes, each rank creates its own
    observers, and all ranks make the same calls except `saved`.
    """

    Options: ClassVar[type | None] = None

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return the observer for a command, or None if its options do not ask for one. Raises `SettingsError`."""
        return None

    def files(self, task: Task) -> Sequence[tuple[str, Path]]:
        """Return the files that the observer writes for a picture, each with its option. Raises `SettingsError`."""
        return ()

    def begin(self, run: RunInfo) -> None:
        """Called before the run of one picture. Raises `SettingsError`."""

    def step(self, progress: Progress) -> None:
        """Called after each step."""

    def saved(self, progress: Progress, pixels: Pixels) -> None:
        """Called on rank 0 after the picture was written at the end of a scale or of the run; `pixels` have final colours."""

    def checkpointed(self) -> None:
        """Called after a checkpoint of the last step was written, from which a run can be resumed."""

    def end(self, result: Result) -> Mapping[str, Path]:
        """Called at the end of the run of one picture. Return the files written, by their kind. Raises `OutputError`."""
        return {}

    def fail(self, error: StyleTransferError, picture: Path | None) -> None:
        """Called after the run failed; `picture` is the file of the picture so far, None if the run has written none."""

    def stay(self, stopped: Callable[[], bool]) -> None:
        """Called after the last picture. Return when the observer can be closed, or as soon as `stopped()` is true."""

    def close(self) -> None:
        """Release all resources at the end of the command."""
