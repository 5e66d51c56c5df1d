"""Measures how far the announced time left is from the real one, at each tenth of a run, and that of --dry-run.

    python benchmarks/time_left.py CONTENT STYLE [options of the program ...]

Adds its rows to benchmarks/results/time_left.json.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from record import RESULTS, Record

PROGRAM = [sys.executable, "-m", "style_transfer"]
ANNOUNCED = re.compile(r"about (?:(\d+):)?(\d+):(\d+) in all")


def announced(arguments: Sequence[str]) -> float:
    """Return the seconds that --dry-run expects a run to take."""
    done = subprocess.run([*PROGRAM, *arguments, "--dry-run"], capture_output=True, text=True, check=True)
    found = ANNOUNCED.search(done.stdout)
    assert found is not None, done.stdout
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60 * minutes + seconds


def errors(arguments: Sequence[str]) -> tuple[float, list[float]]:
    """Return the seconds of a run, and the relative errors of the time left after each tenth of them but the last."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*PROGRAM, *arguments, "--json", "-o", str(Path(folder, "a.png"))]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    steps = [event for event in map(json.loads, done.stdout.splitlines()) if event["event"] == "iterate"]
    total = steps[-1]["seconds"]
    found = []
    for tenth in range(1, 10):
        step = next(step for step in steps if step["seconds"] >= total * tenth / 10)
        found.append(step["seconds_left"] / max(1e-9, total - step["seconds"]) - 1)
    return total, found


def main() -> None:
    """Measure, print and write."""
    arguments = sys.argv[1:]
    record = Record("time_left", "errors of the time left, relative to the real one", None)
    expected = announced(arguments)
    total, found = errors(arguments)
    path = RESULTS / "time_left.json"
    if path.exists():
        record.rows = json.loads(path.read_text())["rows"]
    record.add(
        "runs", {"errors": [round(error, 3) for error in found]}, options=" ".join(arguments), seconds=round(total, 1),
        dry_run_error=round(expected / total - 1, 3), largest_error=round(max(map(abs, found)), 3),
    )  # fmt: skip
    record.write(path)


if __name__ == "__main__":
    main()
