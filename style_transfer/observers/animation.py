"""How the painting grew, as moving pictures: every scale at one size, evenly paced by how much changes.

`Pace` says after which steps to look, `Spool` keeps what was seen in bounded memory, `timeline` chooses what is shown when, and
`Animation` does it beside a run. Change is the mean absolute difference of two shown pictures, white being 1. It is measured
before they are compressed: between neighbours it is less than what JPEG adds.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import io
import json
import os
import queue
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..compute.distributed import LOCAL, Group
from ..errors import OutputError
from ..evaluation import memory
from ..files.atomic import replacing
from ..observers import movie
from ..pictures import images
from .frames import Shot, fitted, reduced, shown

if TYPE_CHECKING:
    from torch import Tensor

    from ..engine.iterate import Iterate
    from ..geometry.scales import Size
    from .frames import Bytes, Pixels

At = tuple[int, int]
"""Where a picture was taken: the number of its scale, from 0, and the step."""

START: At = (-1, 0)
"""Where the picture stands that the run starts from."""
LIMIT = 256
"""How many pictures are kept."""
MOST_BYTES = 64 << 20
"""How many bytes they may have."""
QUALITY = 95
FINE = 0.5
"""Of two pictures kept, as much of the mean change between neighbours lies between them when there is room for more."""
LEAST = 0.0005
"""Changes below this are not seen; an eighth of an 8-bit step."""
SHARE = 0.02
"""How much of the run's time taking pictures may cost."""
CREDIT = 0.5
"""Seconds that it may cost at once."""
WAITING = 8
"""How many pictures may wait to be kept; when there are more, none is taken."""
MOST_HOLD = 2.0, 0.5
HOLD = 0.2, 0.05
"""How long the last and the first picture stay: these shares of the whole, but at most so many seconds."""
SIDES = {".gif": 480, ".webp": 480}
SIDE = 960
"""The long side in pixels, if nothing is said; of some kinds another."""
RATES = {".gif": 15.0, ".webp": 15.0}
RATE = 30.0
"""Frames per second, in the same way."""
SAMPLES = 24
SCHEMA = 1
INDEX = "index.json"
DAMAGE = OSError, EOFError, ValueError, LookupError, TypeError, SyntaxError, RuntimeError
"""What reading a damaged file may raise."""
BUSY = 50
"""What is kept is written, for a run that goes on later, so seldom that it takes 2 % of the time."""


def change(a: Bytes, b: Bytes) -> float:
    """Return the mean absolute difference of two pictures of uint8, from 0 to 1."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    return float((high - low).mean(dtype=np.float64)) / 255


@dataclass(frozen=True)
class Kept:
    """A picture that is kept, as JPEG, and how much had changed from the first one to it, all changes added up."""

    at: At
    data: bytes
    position: float

    def pixels(self) -> Bytes:
        """Return the picture, uint8 (H, W, 3)."""
        return np.asarray(self.opened())

    def opened(self) -> Image.Image:
        """Return the picture, not yet decoded."""
        return Image.open(io.BytesIO(self.data), formats=["JPEG"])


class Spool:
    """Pictures of a run in order, in bounded memory.

    When there are too many, the one goes whose neighbours are closest to each other: that which adds least.
    """

    def __init__(self, limit: int = LIMIT, most_bytes: int = MOST_BYTES) -> None:
        self.limit, self.most_bytes = limit, most_bytes
        self.kept: list[Kept] = []
        self.bytes = 0
        self._last: Bytes | None = None

    @property
    def fineness(self) -> float:
        """The change between neighbours that is worth a new picture now."""
        return max(LEAST, FINE * self.kept[-1].position / self.limit) if self.kept else LEAST

    def add(self, at: At, pixels: Bytes, *, always: bool = False) -> float:
        """Keep a picture if enough has changed, or `always`; return the change since the last one that is kept.

        What was kept of the same place or later ones, from which the run has gone back, goes.
        """
        self.cut(at)
        moved = 0.0
        if self.kept:
            if self._last is None:
                self._last = self.kept[-1].pixels()
            moved = change(self._last, pixels)
            if moved == 0 or (moved < self.fineness and not always):
                return moved
        position = self.kept[-1].position + moved if self.kept else 0.0
        data = images.encode_jpeg(pixels, QUALITY)
        self.kept.append(Kept(at, data, position))
        self.bytes += len(data)
        self._last = pixels
        while len(self.kept) > max(2, self.limit) or (self.bytes > self.most_bytes and len(self.kept) > 2):
            self._thin()
        return moved

    def cut(self, at: At) -> None:
        """Forget the pictures of a place and after it."""
        while self.kept and self.kept[-1].at >= at:
            self.bytes -= len(self.kept.pop().data)
            self._last = None

    def save(self, path: Path, run: str) -> None:
        """Write what is kept to a file that is whole or not there, with words that say of which run. Raises `OutputError`."""
        about = {"schema": SCHEMA, "run": run, "kept": [(*kept.at, kept.position) for kept in self.kept]}
        with replacing(path) as stream, zipfile.ZipFile(stream, "w") as file:
            file.writestr(INDEX, json.dumps(about))
            for number, kept in enumerate(self.kept):
                file.writestr(f"{number:04}.jpg", kept.data)

    def load(self, path: Path, run: str, size: Size, at: At) -> bool:
        """Take the pictures of `size` that `save` wrote of the same run, as far as they are not after `at`.

        Returns whether there were any. What cannot be used is left alone.
        """
        found = []
        try:
            with zipfile.ZipFile(path) as file:
                about = json.loads(file.read(INDEX))
                if (about["schema"], about["run"]) != (SCHEMA, run):
                    return False
                for number, (index, step, position) in enumerate(about["kept"]):
                    name = f"{number:04}.jpg"
                    if file.getinfo(name).compress_type != zipfile.ZIP_STORED:  # so that nothing is larger than the file
                        return False
                    kept = Kept((int(index), int(step)), file.read(name), float(position))
                    if kept.at > at:
                        break
                    image = kept.opened()
                    if (image.height, image.width, image.mode) != (*size, "RGB"):
                        return False
                    image.load()
                    found.append(kept)
        except (*DAMAGE, zipfile.BadZipFile, Image.DecompressionBombError):
            return False
        self.kept, self.bytes, self._last = found, sum(len(kept.data) for kept in found), None
        return bool(found)

    def _thin(self) -> None:
        gaps = [after.position - before.position for before, after in zip(self.kept, self.kept[2:], strict=False)]
        self.bytes -= len(self.kept.pop(1 + gaps.index(min(gaps))).data)


class Pace:
    """After which steps to look at the picture, so that about as much has changed from one look to the next.

    A scale changes most at its beginning. Looks begin with its first step and grow apart as the change that is `seen` allows, but
    never to more than twice the gap before, and so seldom that they cost at most `SHARE` of the time. The last step is
    always looked at.
    """

    def __init__(self) -> None:
        self._index, self._step, self._next, self._gap = -1, 0, 0, 1
        self._rate: float | None = None
        self._spent = self._seconds = self._per_step = 0.0

    def due(self, index: int, step: int, *, last: bool) -> bool:
        """Say whether to look after a step."""
        if index != self._index or step < self._step:
            self._index, self._gap, self._next, self._rate = index, 1, step, None
        self._step = step
        return last or step >= self._next

    def seen(self, index: int, steps: int, moved: float) -> None:
        """Take note of how much changed in some steps of a scale."""
        if index == self._index and steps > 0:
            self._rate = moved / steps

    def looked(self, steps: int, seconds: float, spent: float, fineness: float) -> int:
        """Return, and take, the step for the next look.

        The scale has so many `steps`, the run has taken `seconds`; this look cost `spent` of them.
        """
        self._spent += spent
        grown = 2 * self._gap + 1
        wanted = self._gap + 1 if self._rate is None else fineness / self._rate if self._rate > 0 else grown
        gap = max(1, min(int(min(wanted, grown)), steps // 8))
        if seconds > self._seconds:
            self._per_step = (seconds - self._seconds) / self._gap
        self._seconds = seconds
        over = self._spent - CREDIT - SHARE * seconds
        if over > 0 and self._per_step > 0:
            gap = max(gap, min(steps, int(over / SHARE / self._per_step) + 1))
        return self.follow(self._step + gap)

    def follow(self, step: int) -> int:
        """Take a step for the next look, such as rank 0 has chosen, and return it."""
        self._gap, self._next = max(1, step - self._step), step
        return step


def timeline(positions: Sequence[float], count: int) -> list[tuple[int, float]]:
    """Return what `count` evenly paced frames show: the picture before, and how far it has changed into the next, from 0 to 1.

    `positions` ascend from 0: how much had changed up to each picture. Between two pictures frames are blended.
    """
    total = positions[-1]
    found = []
    for number in range(count):
        at = total * number / (count - 1) if count > 1 else total
        index = min(max(bisect.bisect_right(positions, at) - 1, 0), len(positions) - 1)
        if index == len(positions) - 1 or number == count - 1:
            found.append((len(positions) - 1, 0.0))
        else:
            found.append((index, (at - positions[index]) / (positions[index + 1] - positions[index])))
    return found


def counts(seconds: float, rate: float) -> tuple[int, int, int]:
    """Return how many frames the first picture stays, the painting grows, and the last picture stays."""
    total = max(1, round(seconds * rate))
    last, first = (min(round(share * total), round(most * rate)) for share, most in zip(HOLD, MOST_HOLD, strict=True))
    return first, total - first - last, last


def between(kept: Sequence[Kept], seconds: float, rate: float) -> Iterator[tuple[Bytes, int]]:
    """Yield the frames of an animation, each with the number of frames that it stays for."""
    first, moving, last = counts(seconds, rate)
    decoded: dict[int, Bytes] = {}

    def pixels(index: int) -> Bytes:
        if index not in decoded:
            for old in [other for other in decoded if other < index - 1]:
                del decoded[old]
            decoded[index] = kept[index].pixels()
        return decoded[index]

    waiting: tuple[tuple[int, float], int] | None = None
    shots = timeline([each.position for each in kept], moving)
    for shot in [*[shots[0]] * first, *shots, *[shots[-1]] * last]:
        if waiting is not None and waiting[0] == shot:
            waiting = shot, waiting[1] + 1
            continue
        if waiting is not None:
            yield _blended(pixels, *waiting[0]), waiting[1]
        waiting = shot, 1
    if waiting is not None:
        yield _blended(pixels, *waiting[0]), waiting[1]


def _blended(pixels: Callable[[int], Bytes], index: int, share: float) -> Bytes:
    """Return what lies between two pictures. Rounding differs from place to place, else all of a small change came at once."""
    before = pixels(index)
    if share == 0:
        return before
    height, width = before.shape[:2]
    rounding = np.tile(movie.bayer(3) + np.float32(0.5), (height // 8 + 1, width // 8 + 1))[:height, :width, None]
    found = before + (pixels(index + 1) - before.astype(np.float32)) * np.float32(share)
    blended: Bytes = np.floor(found + rounding).astype(np.uint8)
    return blended


class Animation:
    """Watches a run and writes its animation.

    `size` is the result's, `start` the picture that the run begins with, (1, 3, H, W), or None for its first iteration, `finish`
    what is done to colours before they are shown. In a group of processes all must watch, and rank 0 writes. Pictures are
    kept in a thread of its own. `store`, with words that say of what `run` it is, is where pictures go that a later run goes on
    with. Raises `SettingsError` for a path that cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        size: Size,
        *,
        seconds: float = 10.0,
        rate: float | None = None,
        side: int | None = None,
        start: Tensor | None = None,
        finish: Callable[[Pixels], Pixels] = lambda pixels: pixels,
        about: str = "",
        group: Group = LOCAL,
        store: Path | None = None,
        run: str = "",
    ) -> None:
        self.path = Path(path)
        suffix = movie.check("--animation", path)
        self.size = fitted(size, side or SIDES.get(suffix, SIDE), multiple=2)
        self.seconds, self.rate = seconds, rate or RATES.get(suffix, RATE)
        self._finish, self._about, self._group = finish, about, group
        self._store, self._run = store, run
        self._spool, self._pace = Spool(), Pace()
        self._last: At | None = None
        self._seen: tuple[int, int, float] | None = None
        self._worked = self._save_at = 0.0
        self._fineness = LEAST
        self._saved: At | None = None
        self._failure: Exception | None = None
        self._problem: OutputError | None = None
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="animation", daemon=True)
        if group.rank == 0:
            self._thread.start()
            if start is not None:
                self.take(START, start)

    def resume(self, at: At) -> bool:
        """Go on with what was stored of a run up to a place; return whether there was anything. Call it before `update`."""
        self._queue.join()
        return self._store is not None and self._spool.load(self._store, self._run, self.size, at)

    def take(self, at: At, picture: Tensor) -> None:
        """Take a whole picture, (1, 3, H, W), of a place in the run."""
        pixels = reduced(picture, self.size)[0].permute(1, 2, 0).contiguous().numpy()
        self._queue.put(functools.partial(self._keep, at, pixels, True))

    def update(self, iterate: Iterate) -> None:
        """Look at the picture if it is time to."""
        if self._pace.due(iterate.index, iterate.step, last=iterate.ends_scale):
            self._look(iterate)

    def _look(self, iterate: Iterate) -> None:
        began = time.perf_counter()
        if self._group.size > 1 or not self._queue.full():
            shot: Shot | None = None
            try:
                shot = Shot(iterate, self.size)
            except (MemoryError, RuntimeError) as error:  # the run is worth more than a frame of its animation
                if self._group.size > 1 or not (isinstance(error, MemoryError) or memory.ran_out(error)):
                    raise
            if shot is not None and self._group.rank == 0:
                at, always = (iterate.index, iterate.step), iterate.ends_scale
                with contextlib.suppress(queue.Full):
                    self._queue.put_nowait(functools.partial(self._keep, at, shot, always))
                    self._last = at if always else None
        if self._seen is not None:
            self._pace.seen(*self._seen)
            self._seen = None
        spent = time.perf_counter() - began + self._worked / (os.cpu_count() or 1)
        self._worked = 0.0
        following = self._pace.looked(iterate.steps, iterate.seconds, spent, self._fineness)
        if self._group.size > 1:  # all look at the same iterations
            following, self._last = self._group.broadcast((following, self._last))
            self._pace.follow(following)

    def _work(self) -> None:
        """Do what is asked for, until None comes."""
        while (work := self._queue.get()) is not None:
            try:
                if self._failure is None:
                    work()
            except MemoryError:
                pass  # one picture less
            except Exception as error:  # told when the animation is written
                self._failure = error
            self._queue.task_done()
        self._queue.task_done()

    def _keep(self, at: At, shot: Shot | Pixels, always: bool) -> None:
        pixels = shot.pixels() if isinstance(shot, Shot) else shot
        began = time.perf_counter()
        if np.isfinite(pixels).all():
            self._spool.cut(at)
            before = self._spool.kept[-1].at if self._spool.kept else START
            moved = self._spool.add(at, shown(pixels, self._finish), always=always)
            self._fineness = self._spool.fineness
            if before[0] == at[0]:
                self._seen = at[0], at[1] - before[1], moved
        self._worked += time.perf_counter() - began

    def store(self, *, now: bool = False) -> None:
        """Have what is kept stored, unless that is there already or would cost too much; with `now` at any cost, and at once."""
        if self._store is None or self._group.rank:
            return
        if now:
            self._queue.put(self._save)
            self._queue.join()
        elif time.monotonic() >= self._save_at and not self._queue.full():
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(self._save)

    def _save(self) -> None:
        if self._store is None or not self._spool.kept or self._spool.kept[-1].at == self._saved:
            return
        began = time.monotonic()
        try:
            self._spool.save(self._store, self._run)
        except OutputError as error:
            self._problem = error
        self._saved = self._spool.kept[-1].at
        self._save_at = time.monotonic() + BUSY * (time.monotonic() - began)

    def told(self) -> OutputError | None:
        """Return, once, why storing failed."""
        problem, self._problem = self._problem, None
        return problem

    def write(self, iterate: Iterate | None = None) -> bool:
        """Write the animation, up to an iterate, which is the last picture. Returns whether there was anything to show.

        In a group all must call it, unless there is no iterate. Raises `OutputError`.
        """
        if iterate is not None and self._last != (iterate.index, iterate.step):
            shot = Shot(iterate, self.size)
            if self._group.rank == 0:
                self._queue.put(functools.partial(self._keep, (iterate.index, iterate.step), shot, True))
        if self._group.rank:
            return False
        self._queue.join()
        if self._failure is not None:
            raise self._failure
        kept = self._spool.kept
        if not kept:
            return False
        sample = (one.pixels() for one in kept[:: -max(1, len(kept) // SAMPLES)])
        frames = between(kept, self.seconds, self.rate)
        movie.write(self.path, frames, size=self.size, rate=self.rate, sample=sample, about=self._about)
        return True

    def forget(self) -> None:
        """Remove what was stored: the run is complete."""
        if self._store is not None and self._group.rank == 0:
            with contextlib.suppress(OSError):
                self._store.unlink()

    def close(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
