"""Requests to a run in progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..compute.distributed import Request


class Control:
    """Requests to a run, made from any thread: pause, finish the scale, finish the run, stop.

    The engine and its caller look at them between two steps. In a group of processes only rank 0's pauses count, and the other
    requests reach all ranks with the statistics of the next step.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requested = Request(0)
        self._decided: Request | None = None
        self._running = threading.Event()
        self._running.set()

    @property
    def requested(self) -> Request:
        """What has been requested and not yet been cleared."""
        with self._lock:
            return self._requested

    def request(self, request: Request) -> None:
        """Ask for something; a paused run goes on to do it."""
        with self._lock:
            self._requested |= request
        if request & ~Request.SAVE:
            self.resume()

    def decide(self) -> Request:
        """Return what is requested; the engine acts on just that before its next step, and on later requests after it."""
        with self._lock:
            self._decided = self._requested
            return self._requested

    def take(self) -> Request:
        """Return what the engine is to act on: what was last decided and is still requested, or else all that is requested."""
        with self._lock:
            decided, self._decided = self._decided, None
            return self._requested if decided is None else self._requested & decided

    def clear(self, request: Request) -> None:
        """Withdraw a request, or note that it was met."""
        with self._lock:
            self._requested &= ~request

    def pause(self) -> None:
        """Ask the run to wait after its current step."""
        self._running.clear()

    def resume(self) -> None:
        """Let a paused run go on."""
        self._running.set()

    @property
    def paused(self) -> bool:
        """Whether the run is asked to wait."""
        return not self._running.is_set()

    def wait_while_paused(self, stopped: Callable[[], bool]) -> float:
        """Wait until the run is not paused any more, or `stopped()`; return for how long, in seconds."""
        began = time.monotonic()
        while not self._running.wait(0.05) and not stopped():  # in slices, so that signals are handled
            pass
        return time.monotonic() - began
