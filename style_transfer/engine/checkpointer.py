"""Writing checkpoints while a run continues."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from ..compute.distributed import Group
from ..errors import CheckpointError, OutputError
from .checkpoint_file import newest, older, save
from .state import State

LEAST_INTERVAL = 50
"""The least time between two checkpoints, as a multiple of what the last one took from the run: 2 % of the time."""


class Checkpointer:
    """Writes the checkpoints of a run to `path` in the background, and removes them at the end.

    A checkpoint is due at the first step, `seconds` after the last one (0: never by time), and at the end of each scale. If
    memory has room for a copy of the state, a thread writes it while the run continues; otherwise it is written at once, tensor
    by tensor. In a group of processes all ranks call `write` alike, and rank 0 writes. `number` is that of the last checkpoint.
    """

    def __init__(self, path: Path, seconds: float, *, number: int = 0) -> None:
        self.path = path
        self.seconds = seconds
        self.number = number
        self.cost = 0.0
        """Seconds that all checkpoints took from the run: those it waited, and the processor time of the thread."""
        self._lock = threading.Lock()
        self._problem: OutputError | None = None
        self._last = time.monotonic()
        self._latest_cost = 0.0
        self._thread: threading.Thread | None = None

    def due(self) -> bool:
        """Return whether the next checkpoint is due by time."""
        if self._thread is not None and self._thread.is_alive():
            return False
        if self.number == 0:
            return True
        return bool(self.seconds) and time.monotonic() - self._last >= max(self.seconds, LEAST_INTERVAL * self._latest_cost)

    def write(self, state: State, group: Group, room: int) -> None:
        """Write a state. A copy of it may take `room` bytes of memory. `problem` returns what went wrong."""
        began = time.monotonic()
        self._join()
        self._latest_cost = 0.0
        self.number += 1
        number = self.number
        in_background = group.broadcast(state.bytes <= room if not group.rank else None)
        if in_background:
            whole = state.whole(group)
            if not group.rank:
                self._thread = threading.Thread(target=self._write, args=(whole, number), name="checkpoint", daemon=True)
                self._thread.start()
        else:
            rows = state.rows(group)
            if not group.rank:
                self._attempt(dataclasses.replace(state, bands=((0, state.size[0]),)), number, rows)
            for _ in rows:  # the other ranks send theirs, and must not wait after a write that failed
                pass
        self._last = time.monotonic()
        self._add_cost(self._last - began)

    def _write(self, state: State, number: int) -> None:
        self._attempt(state, number, None)
        self._add_cost(time.thread_time())

    def _attempt(self, state: State, number: int, tensors: Iterable[tuple[str, Tensor]] | None) -> None:
        try:
            save(self.path, state, number=number, tensors=tensors)
        except OutputError as error:
            with self._lock:
                self._problem = error

    def _add_cost(self, seconds: float) -> None:
        with self._lock:  # the run and the thread both add
            self.cost += seconds
            self._latest_cost += seconds

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def problem(self) -> OutputError | None:
        """Return the error of a checkpoint that could not be written since the last call, or None."""
        with self._lock:
            problem, self._problem = self._problem, None
        return problem

    def last(self) -> State | None:
        """Return the newest state that was written, or None."""
        self._join()
        try:
            checkpoint = newest(self.path)
        except CheckpointError:
            return None
        return None if checkpoint is None else checkpoint.state

    def close(self) -> None:
        """Wait until the checkpoint in progress is written."""
        self._join()

    def remove(self) -> None:
        """Remove the checkpoints of a complete run."""
        self._join()
        for place in (older(self.path), self.path):
            with contextlib.suppress(OSError):
                place.unlink()
