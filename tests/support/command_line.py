"""The command line under test, on the pictures of the fixture `place`: in this process, and in one of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from style_transfer import cli, pictures
from support.tiny import ENVIRONMENT

SMALL = ["-ms", "32", "-s", "46", "-ii", "4", "-i", "3"]
"""The options of a run of 4 steps at 33x26 and 3 at 46x37."""

PROGRAM = """
import sys
from support import tiny
from style_transfer import cli, pictures
tiny.use_tiny_vgg19()
sys.exit(cli.main(sys.argv[1:]))
"""
"""The command line as a program, on a tiny VGG in place of VGG-19; in the fixture `place` it is prog.py."""


def command(*more: str, content: str = "c.png") -> list[str]:
    """Return the arguments of a small run; `more` may contradict them."""
    return [content, "s.png", "--weights", "w.safetensors", *SMALL, *more]


def program(*more: str) -> list[str]:
    """Return the command that makes a small run in a process of its own."""
    return [sys.executable, "prog.py", *command(*more)]


def run_program(*more: str, **about: Any) -> subprocess.CompletedProcess[str]:
    """Make a small run in a process of its own; keywords go to `subprocess.run`."""
    return subprocess.run(program(*more), **{"env": ENVIRONMENT, "capture_output": True, "text": True} | about)


def act_on_signals() -> None:
    """Give signals their default actions; a suite under nohup or in the background of a shell was started with some ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def started(argv: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program that signals end, and kill it at the end of the block if it still runs."""
    about: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    with subprocess.Popen(argv, preexec_fn=act_on_signals, **about) as running:
        try:
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def started_program(*more: str, steps: int = 5) -> Iterator[subprocess.Popen[str]]:
    """Start a run that does not end by itself; the block begins when it has printed so many steps."""
    with started(program("--json", "-ii", "1000000", *more)) as running:
        assert running.stdout is not None
        for _ in range(steps):
            running.stdout.readline()
        yield running


def fails(argv: Sequence[str], code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Check that a command ends with `code` and one line that holds `words`."""
    capsys.readouterr()
    assert cli.main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("style_transfer: "), err
    for word in words:
        assert word in err, err


def pixels(path: str | Path = "out.png") -> np.ndarray[Any, Any]:
    """Return the pixels of a result."""
    return pictures.load(path).pixels
