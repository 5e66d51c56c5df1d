"""The terminal: plain lines, a progress bar with an honest time left, and JSON lines."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from tqdm import tqdm

from ..geometry.scales import Stage
from .late import Late

if TYPE_CHECKING:
    from ..engine.iterate import Iterate


def print_out(text: object) -> None:
    """Print a text, such as the output's path, on standard output; a reader that has gone is no error."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(str(text).encode("ascii", "backslashreplace").decode(), flush=True)
    except OSError:
        _let_go()


def _let_go() -> None:
    """Write what else goes to standard output nowhere, or Python complains at its exit."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def clock(seconds: float) -> str:
    """Return a time as 1:02:03, 2:03 or 0:03."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def finite(value: float) -> float | None:
    """Return a number, or None, JSON's null, if it is not finite."""
    return value if math.isfinite(value) else None


class TimeLeft:
    """Predicts the time a run still takes.

    A step costs a + b x pixels seconds. The current scale goes on at its own pace; for later scales, a and b are fitted to
    the two latest scales (never below the same cost for more pixels), or all is put down to pixels while there is only one.
    A run that goes on from a checkpoint, or back to one, begins in the middle of a scale. `began` are the seconds before it.
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
        """Seconds that the current scale still takes."""

    def update(self, index: int, step: int, seconds: float) -> float:
        """Return the seconds left after step `step` of stage `index`, `seconds` after the start. Call it at every step.

        The first step of a scale, which prepares its targets, does not count for the pace once there is another.
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
        """Return the predicted seconds per step of a later stage."""
        pixels = [s.size[0] * s.size[1] for s in self.stages]
        here, now = pixels[self._index], self._paces[self._index]
        target = later.size[0] * later.size[1]
        before = self._paces.get(self._index - 1)
        if before is None or pixels[self._index - 1] == here:
            return now * target / here
        slope = (now - before) / (here - pixels[self._index - 1])
        slope = min(max(slope, 0.0), now / here)
        return now + slope * (target - here)


class Observer(Protocol):
    """Somebody who watches a run."""

    def update(self, iterate: Iterate, left: float) -> None:
        """Take note of an iteration; `left` is the time the run still takes, in seconds."""

    def say(self, text: str) -> None:
        """Show a line of text."""

    def close(self) -> None:
        """Clean up: the run is over."""


class Quiet:
    """Shows nothing but what is said."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr

    def update(self, iterate: Iterate, left: float) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Print a line; a closed stream is no error."""
        try:
            print(text, file=self.stream, flush=True)
        except UnicodeEncodeError:
            print(text.encode("ascii", "backslashreplace").decode(), file=self.stream, flush=True)
        except (OSError, ValueError):
            return

    def close(self) -> None:
        """Do nothing."""


class Bar(Quiet):
    """One bar for the whole run in a terminal; elsewhere a line at the end of each scale.

    The bar counts pixels times steps, since later scales cost more. It is redrawn at most ten times a second, with the latest
    loss that has arrived from the device.
    """

    INTERVAL = 0.1

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.shown = 0.0
        self.loss = ""
        self.late: Late[None] = Late()
        self.bar = None
        self.rows = 0
        """How many rows above the bar have a picture."""
        if self.stream.isatty():
            bar_format = "{desc} {percentage:3.0f}%|{bar}| {unit}"
            self.bar = tqdm(total=total, unit="", file=self.stream, bar_format=bar_format, dynamic_ncols=True,
                            nrows=20, leave=True)  # fmt: skip

    def update(self, iterate: Iterate, left: float) -> None:
        """Redraw the bar if it is time, or print the line of a scale that ended."""
        stages = iterate.stages
        height, width = iterate.size
        if self.bar is None:
            if iterate.ends_scale:
                self.say(
                    f"scale {iterate.index + 1} of {len(stages)}: {width}x{height}, {iterate.steps} steps, "
                    f"loss {float(iterate.loss):.4g}, {clock(iterate.seconds)} so far, {clock(left)} left"
                )
            return
        now = time.monotonic()
        if now - self.shown < self.INTERVAL and not iterate.ends_scale:
            return
        self.shown = now
        self.late.put(None, {"loss": iterate.loss})
        for _, numbers in self.late.arrived(wait=iterate.ends_scale):
            self.loss = f"loss {numbers['loss']:.4g}, "
        self.bar.set_description_str(f"{width}x{height} {iterate.step}/{iterate.steps}", refresh=False)
        self.bar.unit = f"{self.loss}{clock(left)} left"
        self.bar.n = iterate.done
        self.bar.refresh()

    def draw(self, sequence: str, rows: int) -> None:
        """Write what draws a picture with its corner at the cursor, into so many rows above the bar.

        The rows are made the first time, and again when a line was printed since or another number is wanted; else the picture
        takes the place of the one before.
        """
        if self.bar is None or self.bar.disable:
            return
        self.bar.clear()
        room = "" if self.rows == rows else "\n" * rows
        self.rows = rows
        try:  # the cursor's place is kept and taken again, since terminals differ in where a picture leaves it
            self.stream.write(f"{room}\r\x1b7\x1b[{rows}A{sequence}\x1b8")
            self.stream.flush()
        except (OSError, ValueError):
            return
        self.bar.refresh()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.rows = 0
        if self.bar is not None and not self.bar.disable:
            self.bar.clear()
        super().say(text)
        if self.bar is not None and not self.bar.disable:
            self.bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self.bar is not None:
            self.bar.close()


class JSONLines(Quiet):
    """One JSON object a line on standard output: each iteration with every loss term."""

    def __init__(self, out: TextIO | None = None, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.out = out or sys.stdout
        self.open = True
        self.late: Late[dict[str, Any]] = Late()

    def emit(self, event: dict[str, Any]) -> None:
        """Print one event; when the reader has gone, nothing more is printed and the run goes on."""
        if not self.open:
            return
        try:
            print(json.dumps(event, allow_nan=False), file=self.out, flush=True)
        except OSError:
            self.open = False
            if self.out is sys.stdout:
                _let_go()

    def update(self, iterate: Iterate, left: float) -> None:
        """Print the iteration, or the ones before whose numbers have arrived from the device."""
        height, width = iterate.size
        event = {
            "event": "iterate",
            "scale": iterate.scale,
            "width": width,
            "height": height,
            "step": iterate.step,
            "steps": iterate.steps,
            "seconds": round(iterate.seconds, 3),
            "seconds_left": round(left, 1),
            "memory": iterate.memory,
        }
        self.late.put(event, {"loss": iterate.loss, **iterate.parts})
        self._emit_late(wait=iterate.ends_run)

    def _emit_late(self, *, wait: bool) -> None:
        for event, numbers in self.late.arrived(wait=wait):
            loss, *parts = ((name, finite(value)) for name, value in numbers.items())
            self.emit(event | {"loss": loss[1], "parts": dict(parts)})

    def close(self) -> None:
        """Print what is still on its way."""
        self._emit_late(wait=True)
