"""The observer behind `--preview`, and the detection of the terminal's graphics protocol.

Kitty's graphics protocol and iTerm2's inline images are supported. The protocol follows from environment variables alone: the
answer to a query would be mixed with what the user types, and could come too late over a slow connection. In terminals that are
not recognised, and within tmux, screen and other multiplexers, pictures are drawn only if `--preview-protocol` names a protocol.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from ...registry import OBSERVERS
from ...settings import option, validate_fields
from ..console import Bar
from ..observer import Observer
from .drawing import Drawer

if TYPE_CHECKING:
    from ...pictures import Pixels
    from ..observer import Command, Progress, RunInfo

PROTOCOLS: Final = ("kitty", "iterm2")
MULTIPLEXERS: Final = ("TMUX", "STY", "ZELLIJ", "INSIDE_EMACS")
"""Environment variables that programs between this one and the terminal set."""
PROGRAMS: Final = {
    "kitty": "kitty",
    "ghostty": "kitty",
    "iTerm.app": "iterm2",
    "iTerm2": "iterm2",
    "WezTerm": "iterm2",
    "mintty": "iterm2",
}
"""Protocols by TERM_PROGRAM, or by LC_TERMINAL, which ssh passes on."""
TERMS: Final = {"xterm-kitty": "kitty", "xterm-ghostty": "kitty", "wezterm": "iterm2"}
"""Protocols by TERM."""
KONSOLE_VERSION: Final = 220400
"""The first version of Konsole with kitty's protocol."""


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """The command-line options of the preview."""

    preview: bool = option(False, "show a small picture above the progress bar, in terminals that can",
        flag=True)  # fmt: skip
    preview_protocol: str = option("auto", "send that picture by this protocol of terminals; auto is the one that the "
        "environment names, or none", words=("auto", *PROTOCOLS))  # fmt: skip

    def __post_init__(self) -> None:
        validate_fields(self)


def detect_protocol(environment: Mapping[str, str]) -> str | None:
    """Return the graphics protocol of the terminal that an environment describes, or None."""
    term = environment.get("TERM", "")
    if any(environment.get(name) for name in MULTIPLEXERS) or term.startswith(("screen", "tmux", "dumb", "linux")):
        return None
    if environment.get("KITTY_WINDOW_ID"):
        return "kitty"
    for name in ("TERM_PROGRAM", "LC_TERMINAL"):
        program = environment.get(name, "")
        if program in PROGRAMS:
            return PROGRAMS[program]
    version = environment.get("KONSOLE_VERSION", "")
    if version.isascii() and version.isdigit() and int(version) >= KONSOLE_VERSION:
        return "kitty"
    return TERMS.get(term)


@OBSERVERS.register("preview")
class Preview(Observer):
    """Draws small pictures of the run above the progress bar."""

    Options = PreviewOptions

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self._drawer: Drawer | None = None

    @classmethod
    def create(cls, command: Command) -> Self | None:
        """Return the observer for `--preview` if there is a progress bar and the terminal has a graphics protocol."""
        options: PreviewOptions = command.options(PreviewOptions)
        if not options.preview or command.json or command.quiet or command.rank:
            return None
        chosen = options.preview_protocol
        protocol = detect_protocol(os.environ) if chosen == "auto" else chosen
        return None if protocol is None else cls(protocol)

    def begin(self, run: RunInfo) -> None:
        """Draw the pictures of this run from now on."""
        self._drawer = Drawer(run, run.console, self.protocol) if isinstance(run.console, Bar) else None

    def step(self, progress: Progress) -> None:
        """Draw the picture if it is due."""
        if self._drawer is not None:
            self._drawer.step(progress)

    def saved(self, progress: Progress, pixels: Pixels) -> None:
        """Draw a picture that was saved, which may be the last one."""
        if self._drawer is not None:
            self._drawer.saved(progress, pixels)
