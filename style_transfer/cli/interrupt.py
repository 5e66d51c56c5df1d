"""Signals: the first is a wish to stop, the second stops at once."""

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
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a wish to stop after the iteration; a second one stops at once.

    Terminals, shells and launchers may send one signal several times: what follows within `echo` seconds is the same one, and
    SIGHUP never is a second. Signals that were ignored from the start, as by nohup, stay so.
    """

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
    PATIENCE = 1.5

    def __init__(self, echo: float = 0.15) -> None:
        self.echo = echo
        self.first: int | None = None
        self.second = False
        self._when: float | None = None
        self._left = threading.Event()

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self.first is not None

    @property
    def exit_code(self) -> int:
        """The exit code of a run that a signal ended: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.first or signal.SIGINT)

    def _again(self, number: int) -> bool:
        """Take note of a signal as it comes; say whether it is a second one. Only the other thread asks."""
        now = time.monotonic()
        if self._when is None:
            self.first, self._when = self.first or number, now
            return False
        return now - self._when > self.echo and number != getattr(signal, "SIGHUP", None)

    def _handle(self, number: int, frame: object) -> None:
        """Runs when the main thread comes to it, which may be long after the signal: it does not count, the other thread does."""
        if self.second:
            raise KeyboardInterrupt
        if self.first is None:
            self.first = number

    def _backstop(self, signals: socket.socket) -> None:
        """Count signals as they come; end the process if the main thread, deep in some computation, does not heed a second."""
        while data := signals.recv(16):
            for number in data:
                if self._again(number) and not self._left.is_set():
                    self.second = True
                    _thread.interrupt_main()
                    if not self._left.wait(self.PATIENCE):
                        with contextlib.suppress(OSError):
                            os.write(2, b"\nstyle_transfer: stopped at once\n")
                        os._exit(self.exit_code)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals within the block, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._left.clear()
        watcher = threading.Thread(target=self._backstop, args=(reader,), name="signals", daemon=True)
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
