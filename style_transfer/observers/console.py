"""The console: messages, a progress bar or plain lines, JSON lines, and an estimate of the time left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TextIO

from tqdm import tqdm

from ..errors import OutputError
from ..files import reason
from ..geometry.scales import Stage
from ..registry import OBSERVERS
from ..settings import option, validate_fields
from .history import Late
from .observer import Observer
from .stdout import discard_stdout, print_line, print_out

if TYPE_CHECKING:
    from ..errors import StyleTransferError
    from .observer import Command, Progress, Result, RunInfo


def clock(seconds: float) -> str:
    """Return a time as 1:02:03, 2:03 or 0:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


FIXED = 6000
"""What a step takes whatever its size, in pixels that take as long: 6600 of the built-in network, 8500 of VGG-19 on two cores."""


class TimeLeft:
    """Estimates how long a run still takes.

    A step is assumed to take a + b x pixels seconds. For the rest of the current scale, that is its measured time per step. For
    later scales, a and b are fitted to the two latest scales, with b >= 0; with only one scale, a is `FIXED` x b. `began` is the
    time in seconds that a resumed run had taken before. A run may begin in the middle of a scale, and may return to an earlier
    step after numbers that were not finite.
    """

    def __init__(self, stages: Sequence[Stage], began: float = 0.0) -> None:
        self.stages = tuple(stages)
        self._index, self._step = -1, 0
        self._began = began
        self._first, self._first_step = 0.0, 0
        self._paces: dict[int, float] = {}
        self.pace = 0.0
        """Seconds per step at the current scale."""
        self.scale_left = 0.0
        """The estimated seconds until the end of the current scale."""

    def update(self, index: int, step: int, seconds: float) -> float:
        """Return the estimated seconds left after step `step` of stage `index`, `seconds` after the start of the run.

        Must be called after every step. The time of the first step of a scale, which includes the computation of the targets, is
        only used until there is a second step.
        """
        stage = self.stages[index]
        if index != self._index or step != self._step + 1:
            self._index, self._first, self._first_step = index, seconds, step
            self._paces[index] = seconds - self._began
        else:
            self._paces[index] = (seconds - self._first) / (step - self._first_step)
        self._began, self._step = seconds, step
        self.pace, self.scale_left = self._paces[index], (stage.steps - step) * self._paces[index]
        return self.scale_left + sum(later.steps * self._pace(later) for later in self.stages[index + 1 :])

    def _pace(self, later: Stage) -> float:
        """Return the estimated seconds per step of a later stage."""
        pixels = [s.size[0] * s.size[1] for s in self.stages]
        here, now = pixels[self._index], self._paces[self._index]
        target = later.size[0] * later.size[1]
        before = self._paces.get(self._index - 1)
        if before is None or pixels[self._index - 1] == here:
            return now * (target + FIXED) / (here + FIXED)
        per_pixel = (now - before) / (here - pixels[self._index - 1])
        per_pixel = min(max(per_pixel, 0.0), now / here)
        return now + per_pixel * (target - here)


class Console(Observer):
    """Prints messages on standard error and the path of the result on standard output.

    Rank 0 has exactly one console, an object of a subclass; the other ranks have none.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def message(self, text: str) -> None:
        """Print a line on standard error. If the stream is closed, print nothing."""
        with contextlib.suppress(OSError, ValueError):
            print_line(text, self.stream)

    def done(self, result: Result, files: Mapping[str, Path]) -> None:
        """Print the path of the result, after all observers have ended; `files` are those that they wrote."""
        print_out(result.path)


@OBSERVERS.register("quiet")
class Quiet(Console):
    """Prints nothing else than messages and results."""

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return the observer for `--quiet`."""
        return cls() if command.quiet and not command.json and not command.rank else None


def _columns(stream: TextIO) -> int:
    """Return the columns of a terminal, 0 where they are unknown, as on serial lines."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


@OBSERVERS.register("bar")
class Bar(Console):
    """Shows a progress bar of the whole run in a terminal; elsewhere, prints a line at the end of each scale.

    The bar counts pixels times steps, since later scales take longer. It is redrawn at most ten times a second, with the latest
    loss that has arrived from the device.
    """

    INTERVAL = 0.1

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._bar: tqdm[NoReturn] | None = None
        self._drawn = 0.0
        self._loss = ""
        self._late: Late[None] = Late()
        self._picture_rows = 0

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return the observer unless `--quiet` or `--json` is given."""
        return None if command.quiet or command.json or command.rank else cls()

    def begin(self, run: RunInfo) -> None:
        """Draw an empty bar."""
        self.close()
        self._drawn, self._loss, self._late, self._picture_rows = 0.0, "", Late(), 0
        if self.stream.isatty():
            width = {"dynamic_ncols": True} if _columns(self.stream) else {"ncols": 80}  # tqdm shows nothing in 0 columns
            self._bar = tqdm(total=sum(stage.work for stage in run.stages), unit="", file=self.stream, nrows=20, leave=True,
                             bar_format="{desc} {percentage:3.0f}%|{bar}| {unit}", **width)  # fmt: skip

    def step(self, progress: Progress) -> None:
        """Redraw the bar if it is due, or print a line at the end of a scale."""
        iterate = progress.iterate
        height, width = iterate.size
        if self._bar is None:
            if iterate.ends_scale:
                self.message(
                    f"scale {iterate.index + 1} of {len(iterate.stages)}: {width}x{height}, {iterate.steps} steps, "
                    f"loss {float(iterate.loss):.4g}, {clock(iterate.seconds - progress.paused)} so far, "
                    f"{clock(progress.seconds_left)} left"
                )
            return
        now = time.monotonic()
        if now - self._drawn < self.INTERVAL and not iterate.ends_scale:
            return
        self._drawn = now
        self._late.put(None, {"loss": iterate.loss})
        for _, numbers in self._late.arrived(wait=iterate.ends_scale):
            self._loss = f"loss {numbers['loss']:.4g}, "
        self._bar.set_description_str(f"{width}x{height} {iterate.step}/{iterate.steps}", refresh=False)
        self._bar.unit = f"{self._loss}{clock(progress.seconds_left)} left"
        self._bar.n = iterate.done
        self._bar.refresh()

    @property
    def picture_rows(self) -> int | None:
        """The height in rows of the picture above the bar that the next one can replace, or 0; None without a bar."""
        return None if self._bar is None else self._picture_rows

    def draw(self, sequence: str, rows: int) -> None:
        """Draw a picture, `rows` high, above the bar. `sequence` draws it with its top left corner at the cursor.

        It replaces the previous picture, unless that has another height or a message was printed since: then it gets new rows.
        """
        if (bar := self._bar) is None:
            return
        bar.clear()
        room = "" if self._picture_rows == rows else "\n" * rows
        self._picture_rows = rows
        try:  # the cursor is saved and restored: terminals differ in where a picture leaves it
            self.stream.write(f"{room}\r\x1b7\x1b[{rows}A{sequence}\x1b8")
            self.stream.flush()
        except (OSError, ValueError):
            return
        bar.refresh()

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._picture_rows = 0
        if (bar := self._bar) is not None:
            bar.clear()
        super().message(text)
        if bar is not None:
            bar.refresh()

    def end(self, result: Result) -> Mapping[str, Path]:
        """Let further output begin on the line below the bar."""
        self.close()
        return {}

    def fail(self, error: StyleTransferError, picture: Path | None) -> None:
        """Let further output begin on the line below the bar."""
        self.close()

    def close(self) -> None:
        """Let further output begin on the line below the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class JSONOptions:
    """The command-line option of JSON lines; `--json` itself is one of the command."""

    json_every: int = option(1, "with --json, print only every Nth step and the last one of each scale", kind=int, minimum=1)

    def __post_init__(self) -> None:
        validate_fields(self)


@OBSERVERS.register("json")
class JSONLines(Console):
    """Prints a JSON object per line on standard output: iterations with every loss term, and the result.

    Every `every`th iteration of a scale and its last one are printed, once their losses have arrived from the device, a few steps
    later.
    """

    Options = JSONOptions

    def __init__(self, out: TextIO | None = None, stream: TextIO | None = None, every: int = 1) -> None:
        super().__init__(stream)
        self.out = out or sys.stdout
        self.every = every
        self._failure: OSError | None = None
        self._late: Late[dict[str, Any]] = Late()

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return the observer for `--json`."""
        every = command.options(JSONOptions).json_every
        return cls(every=every) if command.json and not command.rank else None

    def _print(self, event: Mapping[str, Any]) -> None:
        """Print an event, unless an earlier one could not be printed, which does not end the run."""
        if self._failure is not None:
            return
        try:
            print(json.dumps(event, allow_nan=False), file=self.out, flush=True)
        except OSError as error:
            self._failure = error
            if self.out is sys.stdout:
                discard_stdout()

    def step(self, progress: Progress) -> None:
        """Print the iterations whose losses have arrived from the device."""
        iterate = progress.iterate
        if iterate.step % self.every and not iterate.ends_scale:
            return
        height, width = iterate.size
        event = {
            "event": "iterate",
            "scale": iterate.scale,
            "width": width,
            "height": height,
            "step": iterate.step,
            "steps": iterate.steps,
            "seconds": round(iterate.seconds - progress.paused, 3),
            "seconds_left": round(progress.seconds_left, 1),
            "memory": iterate.memory,
        }
        self._late.put(event, {"loss": iterate.loss, **iterate.parts})
        self._print_arrived(wait=iterate.ends_run)

    def _print_arrived(self, *, wait: bool) -> None:
        for event, numbers in self._late.arrived(wait=wait):
            parts = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            self._print(event | {"loss": parts.pop("loss"), "parts": parts})

    def end(self, result: Result) -> Mapping[str, Path]:
        """Print the last iterations, after waiting for their losses."""
        self._print_arrived(wait=True)
        return {}

    def fail(self, error: StyleTransferError, picture: Path | None) -> None:
        """Print the last iterations, after waiting for their losses."""
        self._print_arrived(wait=True)

    def done(self, result: Result, files: Mapping[str, Path]) -> None:
        """Print the result and the files that the observers wrote.

        Raises `OutputError` if this or an earlier line could not be printed and the reader has not closed the pipe.
        """
        height, width = result.size
        about = {"output": str(result.path), "width": width, "height": height, "interrupted": not result.complete}
        self._print({"event": "done"} | about | {name: str(path) for name, path in files.items()})
        if self._failure is not None and not isinstance(self._failure, BrokenPipeError):
            raise OutputError(f"--json: standard output cannot be written: {reason(self._failure)}") from self._failure

    def close(self) -> None:
        """Print the iterations that have not been printed yet."""
        self._print_arrived(wait=True)
