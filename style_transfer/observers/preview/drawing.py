"""Small pictures of a run in a terminal: when they are drawn, and the control sequences that draw them."""

from __future__ import annotations

import base64
import io
import secrets
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO

import numpy as np
from PIL import Image

from ...pictures.tensors import to_pixels
from ..animation.frames import Snapshot, as_tensor, displayed, reduced

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from ...geometry.scales import Size
    from ...pictures import Pixels
    from ..animation.frames import Bytes
    from ..console import Bar
    from ..observer import Progress, RunInfo

INTERVAL: Final = 2.0
"""The least seconds between two pictures within a scale."""
TIME_SHARE: Final = 0.01
"""The share of the run's time that pictures within a scale may take."""
ROWS: Final = 14
"""The most rows that a picture takes, which are also at most a third of the rows of the terminal."""
CELL: Final = 16, 8
"""The height and width of a character in pixels that are assumed if the terminal reports none; small, so that pictures fit."""
MAX_SIDE: Final = 480
"""The longest side of a picture in pixels."""
CHUNK: Final = 4096
"""The most bytes of data in one control sequence of kitty's protocol."""


def kitty(pixels: Bytes, rows: int, number: int) -> str:
    """Return the control sequence of kitty's graphics protocol that draws a picture, `rows` high, in its proportions.

    The picture replaces one with the same `number`. q=2 asks the terminal not to answer, C=1 not to move the cursor.
    https://sw.kovidgoyal.net/kitty/graphics-protocol/
    """
    text = base64.b64encode(_png(pixels)).decode()
    parts = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
    head = f"a=T,f=100,q=2,i={number},p=1,C=1,r={rows},"
    sequences = []
    for index, part in enumerate(parts):
        sequences.append(f"\x1b_G{head if index == 0 else 'q=2,'}m={int(index < len(parts) - 1)};{part}\x1b\\")
    return "".join(sequences)


def iterm2(pixels: Bytes, cells: Size) -> str:
    """Return the control sequence of iTerm2 that draws a picture, within `cells`, (rows, columns).

    https://iterm2.com/documentation-images.html
    """
    data = _png(pixels)
    keys = f"inline=1;size={len(data)};width={cells[1]};height={cells[0]};preserveAspectRatio=1;doNotMoveCursor=1"
    return f"\x1b]1337;File={keys}:{base64.b64encode(data).decode()}\x07"


def _png(pixels: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def window(stream: TextIO) -> tuple[Size, Size]:
    """Return the terminal's (rows, columns), and the (height, width) of a character in pixels."""
    rows = columns = width = height = 0
    if fcntl is not None:
        try:
            answer = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, bytes(8))
            rows, columns, width, height = struct.unpack("4H", answer)
        except (OSError, ValueError):
            pass
    if not (rows and columns):
        rows, columns = 24, 80
    cell = height // rows, width // columns
    return (rows, columns), (cell if min(cell) >= 4 else CELL)


class Drawer:
    """Draws pictures of one run: after the first and last step of each scale, when one is saved, and sometimes in between.

    In a group of processes, each of which has a band of the picture, only saved pictures are drawn.
    """

    def __init__(self, run: RunInfo, console: Bar, protocol: str) -> None:
        self.run, self.console, self.protocol = run, console, protocol
        self._number = 1 + secrets.randbelow(1 << 24)
        self._due = 0.0
        self._shown: tuple[int, int] | None = None

    def step(self, progress: Progress) -> None:
        """Draw the picture if it is due."""
        iterate = progress.iterate
        due = iterate.step == 1 or iterate.ends_scale or time.monotonic() >= self._due
        if due and self.run.group.size == 1:
            self._show(progress, lambda size: displayed(np.nan_to_num(Snapshot(iterate, size).pixels()), self.run.finish))

    def saved(self, progress: Progress, pixels: Pixels) -> None:
        """Draw a saved picture, whose colours are finished, unless it is drawn already."""
        if self._shown != (progress.iterate.index, progress.iterate.step):
            self._show(progress, lambda size: displayed(to_pixels(reduced(as_tensor(pixels), size))))

    def _show(self, progress: Progress, picture: Callable[[Size], Bytes]) -> None:
        """Draw the picture that `picture` returns for a size, unless the terminal is too small."""
        began = time.monotonic()
        (rows, columns), cell = window(self.console.stream)
        room = min(ROWS, rows // 3)
        if room < 3 or columns < 16 or self.console.picture_rows is None:
            return
        box = min(room * cell[0], MAX_SIDE), min((columns - 1) * cell[1], MAX_SIDE)
        full = self.run.stages[-1].size  # so that pictures of all scales are drawn at the same size
        factor = min(box[0] / full[0], box[1] / full[1])
        size = max(1, int(full[0] * factor)), max(1, int(full[1] * factor))
        pixels = picture(size)
        cells = -(-size[0] // cell[0]), -(-size[1] // cell[1])
        if self.protocol == "kitty":
            if self.console.picture_rows != room:
                self._number = 1 + secrets.randbelow(1 << 24)  # the picture before stays where it has scrolled to
            self.console.draw(kitty(pixels, cells[0], self._number), room)
        else:
            self.console.draw(iterm2(pixels, cells), room)
        self._shown = progress.iterate.index, progress.iterate.step
        self._due = time.monotonic() + max(INTERVAL, (time.monotonic() - began) / TIME_SHARE)
