"""The pace of an animation: the steps after which frames are captured, and the frames that are shown from them."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from .movie import dither_thresholds

if TYPE_CHECKING:
    from .frames import Bytes
    from .spool import Frame

TIME_SHARE: Final = 0.02
"""The share of the run's time that capturing frames may take."""
TIME_ALLOWANCE: Final = 0.5
"""The seconds that capturing frames may take in addition to that share."""
HOLD_SHARES: Final = 0.2, 0.05
"""The shares of the animation's length for which the last and the first frame are shown."""
MAX_HOLDS: Final = 2.0, 0.5
"""The most seconds for which they are shown."""


class Pacer:
    """Selects the steps after which a frame is captured, so that equally much changes from one frame to the next.

    At the beginning of a scale, where a picture changes most, that is every step. Later, the number of steps between two frames
    follows from the measured change, but at most doubles from frame to frame, and is so large that captures take at most
    `TIME_SHARE` of the time. A frame is always captured after the last step of a scale.
    """

    def __init__(self) -> None:
        self._index, self._step, self._next, self._gap = -1, 0, 0, 1
        self._rate: float | None = None
        self._spent = self._seconds = self._seconds_per_step = 0.0

    def due(self, index: int, step: int, *, last: bool) -> bool:
        """Return whether to capture a frame after a step of a scale, of which it may be the `last` one."""
        if index != self._index or step < self._step:
            self._index, self._gap, self._next, self._rate = index, 1, step, None
        self._step = step
        return last or step >= self._next

    def measured(self, index: int, steps: int, changed: float) -> None:
        """Record how much the picture changed within some number of steps of a scale."""
        if index == self._index and steps > 0:
            self._rate = changed / steps

    def captured(self, steps: int, seconds: float, spent: float, threshold: float) -> int:
        """Record that a frame was captured, and return the step of the next one.

        `steps` is the number of steps of the scale, `seconds` the time of the run so far, `spent` the part of it that the
        capture took, and `threshold` the wanted change between frames.
        """
        self._spent += spent
        doubled = 2 * self._gap + 1
        wanted = self._gap + 1 if self._rate is None else threshold / self._rate if self._rate > 0 else doubled
        gap = max(1, min(int(min(wanted, doubled)), steps // 8))
        if seconds > self._seconds:
            self._seconds_per_step = (seconds - self._seconds) / self._gap
        self._seconds = seconds
        over = self._spent - TIME_ALLOWANCE - TIME_SHARE * seconds
        if over > 0 and self._seconds_per_step > 0:
            gap = max(gap, min(steps, int(over / TIME_SHARE / self._seconds_per_step) + 1))
        return self.schedule(self._step + gap)

    def schedule(self, step: int) -> int:
        """Set the step of the next frame and return it."""
        self._gap, self._next = max(1, step - self._step), step
        return step


class Shot(NamedTuple):
    """A frame of an animation: kept frame number `kept`, with a `share` of the next one, shown for `times` frame periods."""

    kept: int
    share: float
    times: int


def evenly(positions: Sequence[float], count: int) -> list[tuple[int, float]]:
    """Return `count` frames between which equally much changes, each as the index of a kept frame and the share of the next one.

    `positions` are the sums of the changes up to each kept frame, from 0.
    """
    total = positions[-1]
    last = len(positions) - 1
    frames = []
    for number in range(count):
        position = total * number / (count - 1) if count > 1 else total
        index = min(max(bisect.bisect_right(positions, position) - 1, 0), last)
        if index == last or number == count - 1:
            frames.append((last, 0.0))
        else:
            frames.append((index, (position - positions[index]) / (positions[index + 1] - positions[index])))
    return frames


def split_counts(seconds: float, rate: float) -> tuple[int, int, int]:
    """Return the numbers of frame periods of the first frame, of the frames in between, and of the last frame."""
    total = max(1, round(seconds * rate))
    last, first = (min(round(share * total), round(most * rate)) for share, most in zip(HOLD_SHARES, MAX_HOLDS, strict=True))
    return first, total - first - last, last


def timeline(positions: Sequence[float], seconds: float, rate: float) -> list[Shot]:
    """Return the frames of an animation of some length and frame rate."""
    first, moving, last = split_counts(seconds, rate)
    frames = evenly(positions, moving)
    frames = [*[frames[0]] * first, *frames, *[frames[-1]] * last]
    return [Shot(*frame, len(list(equal))) for frame, equal in itertools.groupby(frames)]


def blended(kept: Sequence[Frame], shots: Sequence[Shot]) -> Iterator[Bytes]:
    """Yield the pictures of a timeline, with at most two decoded frames in memory.

    Blended values are rounded at thresholds that differ from pixel to pixel. Otherwise, all pixels of a region that changes
    slowly would change in the same frame.
    """
    decoded: dict[int, Bytes] = {}
    for index, share, _ in shots:
        wanted = (index,) if share == 0 else (index, index + 1)
        decoded = {each: decoded[each] if each in decoded else kept[each].pixels() for each in wanted}
        before = decoded[index]
        if share == 0:
            yield before
            continue
        mixed = before + (decoded[index + 1] - before.astype(np.float32)) * np.float32(share)
        yield np.floor(mixed + dither_thresholds((before.shape[0], before.shape[1])) + np.float32(0.5)).astype(np.uint8)
