"""Signals: the first one requests the run to stop, the second one ends the process."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator


class Interrupt:
    """Handles Ctrl-C, SIGTERM and SIGHUP: the first signal requests a stop after the iteration, a second one raises at once.

    Terminals, shells and launchers may send one signal several times: signals within `echo` seconds of the first count as the
    same one, and SIGHUP never counts as a second one. Signals that are ignored at the start, as under nohup, stay ignored.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
    PATIENCE = 1.5
    """Seconds that the main thread has to react to a second signal before the process ends."""

    def __init__(self, echo: float = 0.15) -> None:
        self.echo = echo
        self.first: int | None = None
        self.second = False
        self._when: float | None = None
        self._left = threading.Event()

    @property
    def asked(self) -> bool:
        """Whether a signal has requested a stop."""
        return self.first is not None

    @property
    def exit_code(self) -> int:
        """The exit code of a run that a signal ended: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.first or signal.SIGINT)

    def _is_second(self, number: int) -> bool:
        """Register a signal when it arrives, and return whether it is a second one. Called by the watching thread only."""
        now = time.monotonic()
        if self._when is None:
            self.first, self._when = self.first or number, now
            return False
        return now - self._when > self.echo and number != getattr(signal, "SIGHUP", None)

    def _handle(self, number: int, frame: object) -> None:
        """Handle a signal in the main thread, possibly long after it arrived; the watching thread does the counting."""
        if self.second:
            raise KeyboardInterrupt
        if self.first is None:
            self.first = number

    def _watch(self, signals: socket.socket) -> None:
        """Count signals when they arrive; end the process if the main thread does not react to a second one in time."""
        while data := signals.recv(16):
            for number in data:
                if self._is_second(number) and not self._left.is_set():
                    self.second = True
                    _thread.interrupt_main()
                    if not self._left.wait(self.PATIENCE):
                        with contextlib.suppress(OSError):
                            os.write(2, b"\nstyle_transfer: stopped immediately\n")
                        os._exit(self.exit_code)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Handle signals within the block, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._left.clear()
        watcher = threading.Thread(target=self._watch, args=(reader,), name="signals", daemon=True)
        watcher.start()
        for number in before:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            self._left.set()
            writer.close()
            watcher.join()
            reader.close()
