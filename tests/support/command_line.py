"""The command line under test, on the pictures of the fixture `place`: in this process, and in one of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
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


def start_program(*more: str, steps: int = 5, wrapper: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a run that does not end by itself and return when it has printed so many steps."""
    argv = [*wrapper, *program("--json", "-ii", "1000000", *more)]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert running.stdout is not None
    for _ in range(steps):
        running.stdout.readline()
    return running


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
