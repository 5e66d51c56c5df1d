"""Printing lines of text, apart from the console so that quick answers do not import a progress bar."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def print_out(text: object) -> None:
    """Print a text, such as the path of the result, on standard output. If the reader has closed the pipe, print nothing."""
    try:
        print_line(text, sys.stdout)
    except OSError:
        discard_stdout()


def print_line(text: object, stream: TextIO) -> None:
    """Print a line, in ASCII if the encoding of the stream lacks some of its characters."""
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        print(str(text).encode("ascii", "backslashreplace").decode(), file=stream, flush=True)


def discard_stdout() -> None:
    """Discard all further output to standard output. Without this, Python would report the closed pipe when it exits."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
