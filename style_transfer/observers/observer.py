"""The protocol between a run and those who follow it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from ..errors import StyleTransferError
from ..files.naming import Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from ..compute.distributed import Group
    from ..engine.control import Control
    from ..engine.iterate import Iterate
    from ..geometry.scales import Stage
    from .history import History

    Pixels = npt.NDArray[np.float32]


class Command(Protocol):
    """What a command line asks for, as observers see it."""

    @property
    def quiet(self) -> bool:
        """Whether only errors and the path of the result are printed."""

    @property
    def json(self) -> bool:
        """Whether standard output gets one JSON line per iteration."""

    @property
    def rank(self) -> int:
        """The rank of this process; 0 alone writes and prints."""

    def options(self, kind: type) -> Any:
        """Return the options of an observer, an instance of its `Options` class."""


@dataclass(frozen=True)
class RunInfo:
    """What is known of the run of one picture before its first step.

    `content` is (1, 3, H, W), sRGB in [0, 1]; `start` is the same for the picture that the run starts from, None for noise.
    `finish` gives pixels (H, W, 3), float32 in [0, 1], their final colours. `recipe` is what OUTPUT.json holds before the first
    step, `identity` a text that is equal for runs that make the same picture. `inputs` are the files read, each with its role.
    `resumed` is the scale (from 0) and the step that a resumed run continues from, `seconds` the time it had taken. `report`
    prints a line on the console.
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

    `status` is "finished", "finished early" (a viewer asked for it) or "stopped" (by a signal). `progress` is the last step, None
    if a resumed run was complete already. `resumable` tells whether a checkpoint was kept.
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
    """Follows the runs of a command; the base class does nothing.

    A subclass registers itself with `registry.OBSERVERS` and overrides what it needs. `Options`, if any, is a frozen dataclass
    of `settings.option` fields, which become command-line options. In a group of processes every rank has the same observers and
    makes the same calls.
    """

    Options: ClassVar[type | None] = None

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return the observer that a command asks for, or None. Raises `SettingsError`."""
        return None

    def files(self, task: Task) -> Sequence[tuple[str, Path]]:
        """Return the files that will be written for a picture, each with the option that names it. Raises `SettingsError`."""
        return ()

    def begin(self, run: RunInfo) -> None:
        """Prepare for the run of one picture."""

    def step(self, progress: Progress) -> None:
        """Take note of a completed step."""

    def saved(self, progress: Progress, pixels: Pixels) -> None:
        """Take note of pixels, their colours finished, that were written to the output file. Called on rank 0."""

    def checkpointed(self) -> None:
        """Take note that a checkpoint was written: a resumed run will continue from here."""

    def message(self, text: str) -> None:
        """Show a line of text."""

    def end(self, result: Result) -> Mapping[str, Path]:
        """Complete the run of one picture; return the files written, by what they are. Raises `OutputError`."""
        return {}

    def fail(self, error: StyleTransferError) -> None:
        """Take note that the run ended with an error."""

    def stay(self, stopped: Callable[[], bool]) -> None:
        """After the last picture of a command, return when nobody needs this observer any more, or `stopped()`."""

    def close(self) -> None:
        """Release everything: the command ends."""
