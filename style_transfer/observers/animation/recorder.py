"""The recorder of a run: captures frames during the run, compresses them in a thread, and writes the animation."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from ...compute import memory
from ...errors import OutputError
from ...files import shown
from ...pictures.tensors import to_pixels
from . import movie
from .frames import Snapshot, as_tensor, displayed, fitted, load_pixels, reduced
from .options import CODECS, AnimationOptions, check_format
from .pacing import Pacer, blended, timeline
from .spool import START, Spool

if TYPE_CHECKING:
    from ...engine.iterate import Iterate
    from ...pictures import Pixels
    from ..observer import Progress, RunInfo
    from .spool import Place

MAX_QUEUED: Final = 8
"""The most frames that may wait for the thread. While there are so many, no frame is captured."""
VIDEO_DEFAULTS: Final = 960, 30.0
IMAGE_DEFAULTS: Final = 480, 15.0
"""The long side in pixels, and frames per second, of videos and of GIF and WebP files."""
STORE_INTERVAL: Final = 50
"""The least time between storing the frames for a resumed run, in multiples of the time that storing took: 2 % of the run."""


class Recorder:
    """Records a run for an animation in the file `path`.

    In a group of processes all ranks must make the same calls, and rank 0 writes. A resumed run continues with the frames that
    were stored beside the animation. Raises `SettingsError` if the format is not supported.
    """

    def __init__(self, run: RunInfo, path: Path, options: AnimationOptions) -> None:
        self.run, self.path = run, path
        side, rate = VIDEO_DEFAULTS if check_format("--animation", path) in CODECS else IMAGE_DEFAULTS
        self.size = fitted(run.stages[-1].size, options.animation_size or side, multiple=2)
        self.seconds = options.animation_seconds
        self.rate = options.animation_rate or rate
        self.spool = Spool()
        self._store = None if run.checkpoint is None else path.with_name(path.name + ".frames")
        self._pacer = Pacer()
        self._last: Place | None = None
        self._change: tuple[int, int, float] | None = None
        self._worked = self._store_after = 0.0
        self._threshold = self.spool.threshold
        self._stored: Place | None = None
        self._failure: Exception | None = None
        self._problem: OutputError | None = None
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_QUEUED)
        self._thread = threading.Thread(target=self._work, name="animation", daemon=True)
        if run.group.rank == 0:
            resumed = run.resumed is not None and self._resume(run.resumed)
            self._thread.start()
            if run.start is not None and not resumed:
                pixels = to_pixels(reduced(run.start, self.size))
                self._queue.put(functools.partial(self._keep, START, lambda: pixels))

    def _resume(self, place: Place) -> bool:
        if self._store is not None and self.spool.load(self._store, self.run.identity, self.size, place):
            return True
        about = f"no earlier frames of {self.path} are stored; it shows the start and the rest of the run"
        self.run.report(shown(f"style_transfer: note: {about}"))
        return False

    def step(self, progress: Progress) -> None:
        """Capture a frame if one is due."""
        iterate = progress.iterate
        if not self._pacer.due(iterate.index, iterate.step, last=iterate.ends_scale):
            return
        began = time.perf_counter()
        if self.run.group.size > 1 or not self._queue.full():
            self._capture(iterate)
        if self._change is not None:
            self._pacer.measured(*self._change)
            self._change = None
        spent = time.perf_counter() - began + self._worked / (os.cpu_count() or 1)
        self._worked = 0.0
        following = self._pacer.captured(iterate.steps, iterate.seconds - progress.paused, spent, self._threshold)
        if self.run.group.size > 1:  # all ranks capture the same steps
            following, self._last = self.run.group.broadcast((following, self._last))
            self._pacer.schedule(following)

    def _capture(self, iterate: Iterate) -> None:
        try:
            snapshot = Snapshot(iterate, self.size)
        except (MemoryError, RuntimeError) as error:  # without memory for a frame, the run continues without it
            if self.run.group.size > 1 or not (isinstance(error, MemoryError) or memory.ran_out(error)):
                raise
            return
        if self.run.group.rank == 0:
            place, always = (iterate.index, iterate.step), iterate.ends_scale
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(functools.partial(self._keep, place, snapshot.pixels, always=always))
                self._last = place if always else None

    def _work(self) -> None:
        """Call the functions from the queue until None comes."""
        while (work := self._queue.get()) is not None:
            try:
                if self._failure is None:
                    work()
            except MemoryError:
                pass  # the frame is left out
            except Exception as error:  # raised when the animation is written
                self._failure = error
            self._queue.task_done()
        self._queue.task_done()

    def _keep(
        self, place: Place, picture: Callable[[], Pixels], *, always: bool = True, finished: bool = False
    ) -> None:  # fmt: skip
        """Keep the picture that `picture` returns, unless it is not finite. With `finished`, it has its final colours."""
        pixels = picture()
        began = time.perf_counter()
        if np.isfinite(pixels).all():
            self.spool.truncate(place)
            before = self.spool.frames[-1].place if self.spool.frames else START
            changed = self.spool.add(place, displayed(pixels, None if finished else self.run.finish), always=always)
            self._threshold = self.spool.threshold
            if before[0] == place[0]:
                self._change = place[0], place[1] - before[1], changed
        self._worked += time.perf_counter() - began

    def store(self, *, now: bool = False) -> None:
        """Store the frames for a resumed run, unless that took too long a short time ago. With `now`, always store and wait."""
        if self._store is None or self.run.group.rank:
            return
        if now:
            self._queue.put(self._save)
            self._queue.join()
        elif time.monotonic() >= self._store_after and not self._queue.full():
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(self._save)
        problem, self._problem = self._problem, None
        if problem is not None:
            self.run.report(
                shown(f"style_transfer: note: {problem}; the run continues without storing the frames of its animation")
            )

    def _save(self) -> None:
        if self._store is None or not self.spool.frames or self.spool.frames[-1].place == self._stored:
            return
        began = time.monotonic()
        try:
            self.spool.save(self._store, self.run.identity)
        except OutputError as error:
            self._problem = error
        self._stored = self.spool.frames[-1].place
        self._store_after = time.monotonic() + STORE_INTERVAL * (time.monotonic() - began)

    def remove_stored(self) -> None:
        """Remove the stored frames of a run that is complete."""
        if self._store is not None and self.run.group.rank == 0:
            with contextlib.suppress(OSError):
                self._store.unlink()

    def add_result(self, path: Path) -> None:
        """Add the result of a run that was complete before it was resumed, read from its file. Raises `ImageError`."""
        if self.run.group.rank:
            return
        small = to_pixels(reduced(as_tensor(load_pixels(path)), self.size))
        place = len(self.run.stages) - 1, self.run.stages[-1].steps
        self._queue.put(functools.partial(self._keep, place, lambda: small, finished=True))

    def write(self, iterate: Iterate | None = None) -> bool:
        """Write the animation, with an iterate as its last frame; return whether there is any frame.

        In a group of processes all ranks must call it, unless there is no iterate. Raises `OutputError`.
        """
        if iterate is not None and self._last != (iterate.index, iterate.step):
            snapshot = Snapshot(iterate, self.size)
            if self.run.group.rank == 0:
                self._queue.put(functools.partial(self._keep, (iterate.index, iterate.step), snapshot.pixels))
        if self.run.group.rank:
            return False
        self._queue.join()
        if self._failure is not None:
            raise self._failure
        kept = self.spool.frames
        if not kept:
            return False
        shots = timeline([frame.position for frame in kept], self.seconds, self.rate)
        sample = (frame.pixels() for frame in kept[:: -max(1, len(kept) // movie.PALETTE_FRAMES)])
        movie.write(
            self.path, blended(kept, shots), [shot.times for shot in shots], size=self.size, rate=self.rate, sample=sample,
            comment=self.run.recipe["program"],
        )  # fmt: skip
        return True

    def close(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
