"""A small picture above the bar, in terminals that can show one.

Three protocols are spoken: kitty's graphics protocol, iTerm2's inline images, and sixel (DEC VT340). Which one a terminal knows
is told by its environment alone. Asking it would mean to read its answer from among what is being typed, and over a slow line
the answer comes when nobody waits for it any more; so terminals that do not say who they are get pictures when they are asked
for by the protocol's name. Within tmux, screen and other multiplexers there is none unless that is done.
"""

from __future__ import annotations

import base64
import io
import secrets
import struct
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TextIO

import numpy as np
import torch
from PIL import Image

from .frames import Shot, reduced, shown

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..engine.iterate import Iterate
    from ..geometry.scales import Size
    from .console import Bar
    from .frames import Bytes, Pixels

PROTOCOLS: Final = ("kitty", "iterm2", "sixel")
MULTIPLEXERS: Final = ("TMUX", "STY", "ZELLIJ", "INSIDE_EMACS")
"""Variables that say that something lies between this program and the terminal."""
PROGRAMS: Final = {
    "kitty": "kitty",
    "ghostty": "kitty",
    "iTerm.app": "iterm2",
    "WezTerm": "iterm2",
    "mintty": "iterm2",
}
"""Terminals by TERM_PROGRAM, and LC_TERMINAL, which ssh passes on."""
TERMS: Final = {
    "xterm-kitty": "kitty",
    "xterm-ghostty": "kitty",
    "wezterm": "iterm2",
    "foot": "sixel",
    "foot-extra": "sixel",
    "foot-direct": "sixel",
    "mlterm": "sixel",
    "mlterm-256color": "sixel",
    "contour": "sixel",
    "contour-latest": "sixel",
    "yaft-256color": "sixel",
    "vt340": "sixel",
}
"""Terminals by TERM."""
KONSOLE = 220400
"""The version of Konsole that came to know kitty's protocol."""

INTERVAL = 2.0
"""Seconds between two pictures, at the least."""
SHARE = 0.01
"""How much of the run's time they may cost."""
ROWS = 14
"""How many rows of the terminal a picture has, at most a third of them."""
CELL: Final = 16, 8
"""Height and width of a character in pixels where the terminal does not tell; rather too small, so that pictures fit."""
MOST_PIXELS = 480
CHUNK = 4096
COLOURS = 96


def protocol(environment: Mapping[str, str]) -> str | None:
    """Return the protocol of the terminal that an environment describes, or None."""
    term = environment.get("TERM", "")
    if any(environment.get(name) for name in MULTIPLEXERS) or term.startswith(("screen", "tmux", "dumb", "linux")):
        return None
    if environment.get("KITTY_WINDOW_ID"):
        return "kitty"
    for name in ("TERM_PROGRAM", "LC_TERMINAL"):
        program = environment.get(name, "")
        if program == "iTerm2":
            return "iterm2"
        if program in PROGRAMS:
            return PROGRAMS[program]
    version = environment.get("KONSOLE_VERSION", "")
    if version.isascii() and version.isdigit() and int(version) >= KONSOLE:
        return "kitty"
    return TERMS.get(term)


def kitty(pixels: Bytes, rows: int, number: int) -> str:
    """Return the sequence that shows a picture with kitty's graphics protocol, `rows` high and as wide as its shape asks for.

    A picture of the same `number` goes. The terminal is asked not to answer (q=2) and to leave the cursor where it is (C=1).
    https://sw.kovidgoyal.net/kitty/graphics-protocol/
    """
    text = base64.b64encode(_png(pixels)).decode()
    parts = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
    head = f"a=T,f=100,q=2,i={number},p=1,C=1,r={rows},"
    found = []
    for place, part in enumerate(parts):
        found.append(f"\x1b_G{head if place == 0 else 'q=2,'}m={int(place < len(parts) - 1)};{part}\x1b\\")
    return "".join(found)


def iterm2(pixels: Bytes, cells: Size) -> str:
    """Return the sequence that shows a picture over `cells`, (rows, columns), as iTerm2 has it.

    https://iterm2.com/documentation-images.html
    """
    data = _png(pixels)
    about = f"inline=1;size={len(data)};width={cells[1]};height={cells[0]};preserveAspectRatio=1;doNotMoveCursor=1"
    return f"\x1b]1337;File={about}:{base64.b64encode(data).decode()}\x07"


def sixel(pixels: Bytes, colours: int = COLOURS) -> str:
    """Return a picture as sixels (DEC STD 070): bands of six rows, in each of them one line for each of its colours."""
    image = Image.fromarray(pixels).quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    index = np.asarray(image)
    height, width = index.shape
    palette = np.asarray(image.getpalette("RGB"), np.int64).reshape(-1, 3)
    found = [f'\x1bP0;1;0q"1;1;{width};{height}']
    for colour in np.unique(index):
        red, green, blue = (round(100 * int(value) / 255) for value in palette[colour])
        found.append(f"#{colour};2;{red};{green};{blue}")
    weights = 1 << np.arange(6)
    for top in range(0, height, 6):
        band = index[top : top + 6]
        lines = []
        for colour in np.unique(band):
            bits = weights[: len(band)] @ (band == colour)
            lines.append(f"#{colour}{_runs(bits)}")
        found.append("$".join(lines) + "-")
    return "".join(found) + "\x1b\\"


def _runs(bits: npt.NDArray[np.int64]) -> str:
    """Return columns of six bits as sixel characters, repeated ones as !count; what is empty at the end is left out."""
    ends = np.flatnonzero(np.diff(bits, append=-1))
    lengths = np.diff(ends, prepend=-1)
    found = []
    for value, length in zip(bits[ends].tolist(), lengths.tolist(), strict=True):
        character = chr(63 + value)
        found.append(f"!{length}{character}" if length > 3 else character * length)
    if bits[-1] == 0:
        found.pop()
    return "".join(found)


def _png(pixels: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def window(stream: TextIO) -> tuple[Size, Size]:
    """Return the terminal's (rows, columns), and the (height, width) of a character in pixels, `CELL` where it does not tell."""
    try:
        import fcntl
        import termios

        answer = fcntl.ioctl(stream.fileno(), termios.TIOCGWINSZ, bytes(8))
        rows, columns, width, height = struct.unpack("4H", answer)
    except (ImportError, OSError, ValueError):
        rows = columns = width = height = 0
    if not (rows and columns):
        rows, columns = 24, 80
    cell = height // rows, width // columns
    return (rows, columns), (cell if min(cell) >= 4 else CELL)


class Preview:
    """Shows the picture now and then above a bar: at the first step and the last of each scale, and in between by time.

    `finish` is what is done to colours before they are shown. `latest`, in a group of processes, returns the picture that was
    saved last, its colours not finished, or None: the parts of a newer one lie apart.
    """

    def __init__(
        self,
        bar: Bar,
        protocol: str,
        finish: Callable[[Pixels], Pixels] = lambda pixels: pixels,
        latest: Callable[[], Pixels | None] | None = None,
    ) -> None:
        self.bar = bar
        self.protocol = protocol
        self._finish = finish
        self._latest = latest
        self._number = 1 + secrets.randbelow(1 << 24)
        self._due = 0.0

    def update(self, iterate: Iterate) -> None:
        """Show an iteration if it is time."""
        now = time.monotonic()
        if not (iterate.step == 1 or iterate.ends_scale or now >= self._due):
            return
        self.show(iterate)
        self._due = time.monotonic() + max(INTERVAL, (time.monotonic() - now) / SHARE)

    def show(self, iterate: Iterate) -> None:
        """Show an iteration, unless the terminal is too small."""
        (rows, columns), cell = window(self.bar.stream)
        room = min(ROWS, rows // 3)
        if room < 3 or columns < 16:
            return
        height = room * cell[0] // 6 * 6  # whole sixels
        box = min(height, MOST_PIXELS), min((columns - 1) * cell[1], MOST_PIXELS)
        size = _inside(iterate.stages[-1].size, box)  # the same at every scale
        if self._latest is None:
            pixels = Shot(iterate, size).pixels()
        else:
            last = self._latest()
            if last is None:
                return
            picture = torch.from_numpy(last.transpose(2, 0, 1).copy())[None]
            pixels = reduced(picture, size)[0].permute(1, 2, 0).numpy()
        image = shown(np.nan_to_num(pixels), self._finish)
        cells = -(-size[0] // cell[0]), -(-size[1] // cell[1])
        if self.protocol == "kitty":
            if self.bar.rows != room:
                self._number = 1 + secrets.randbelow(1 << 24)  # the one before stays where it has scrolled to
            sequence = kitty(image, cells[0], self._number)
        elif self.protocol == "iterm2":
            sequence = iterm2(image, cells)
        else:
            sequence = sixel(image)
        self.bar.draw(sequence, room)


def _inside(size: Size, box: Size) -> Size:
    """Return (height, width) with `size`'s shape that fits into a box."""
    factor = min(box[0] / size[0], box[1] / size[1])
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
