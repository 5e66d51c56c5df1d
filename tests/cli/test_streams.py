"""The program in a process of its own: pipes, closed and full standard streams, odd terminals and variables."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import pixels, program, run_program
from support.tiny import ENVIRONMENT


def test_a_reader_that_closes_the_pipe_early_does_not_end_the_run(place: Path) -> None:
    line = f"(exec {shlex.join(program('--json'))}) | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["event"] == "iterate"
    assert Path("out.png").exists()


@pytest.mark.parametrize("flag", ["--help-presets", "--help-networks"])
def test_help_without_a_reader_is_no_error(flag: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([sys.executable, "-m", "style_transfer", flag], stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["2>&-", "1>&- 2>&-"])
def test_closed_standard_streams_are_no_error(place: Path, closed: str) -> None:
    argv = ["bash", "-c", f'"$0" "$@" {closed}', *program()]
    assert subprocess.run(argv, env=ENVIRONMENT).returncode == 0
    assert (place / "out.png").exists()


def test_standard_output_on_a_full_disk_is_no_error(place: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_program(capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert pixels().shape == (37, 46, 3)


def test_json_on_a_full_disk_is_an_error_at_the_end(place: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_program("--json", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 6 and "standard output cannot be written: No space left" in done.stderr
    assert pixels().shape == (37, 46, 3)


@pytest.mark.parametrize(
    "variables",
    [
        {"COLUMNS": "0", "PYTHONIOENCODING": "cp1252"},
        {"TERM": "dumb", "LC_ALL": "C", "HOME": "/none", "TMPDIR": "/nowhere"},
    ],
    ids=["encoding", "places"],
)
def test_odd_terminals_and_missing_folders_are_no_error(variables: dict[str, str], place: Path) -> None:
    Path("c.png").rename("漢.png")
    argv = [sys.executable, "prog.py", "漢.png", *program("-o", "漢o.png")[3:]]
    done = subprocess.run(argv, env=ENVIRONMENT | variables, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert pixels("漢o.png").shape == (37, 46, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux")
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "'10000'"), ({"OMP_WAIT_POLICY": "passive"}, "'0'")],
    ids=["program", "user"],
)
def test_idle_threads_soon_sleep_unless_the_user_chooses_otherwise(chosen: dict[str, str], expected: str) -> None:
    """OpenMP prints its variables as torch loads it."""
    plain = {key: value for key, value in ENVIRONMENT.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    argv = [sys.executable, "-m", "style_transfer", "none.png", "none.png"]
    done = subprocess.run(argv, capture_output=True, text=True, env=plain | chosen | {"OMP_DISPLAY_ENV": "verbose"}, check=False)
    assert done.returncode == 3
    assert f"GOMP_SPINCOUNT = {expected}" in done.stderr
