"""Measures how long the program takes to print its help, beside an empty program of the same interpreter.

    python benchmarks/startup.py

Writes benchmarks/results/startup.json. The runs of both programs alternate, each in a process of its own; the first of each,
which may compile modules and read files that are not cached, is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from record import RESULTS, Record

PROGRAMS = {
    "empty program": ["-c", "pass"],
    "--help": ["-m", "style_transfer", "--help"],
    "--version": ["-m", "style_transfer", "--version"],
    "--help watching": ["-m", "style_transfer", "--help", "watching"],
}


def measure(argv: Sequence[str]) -> tuple[float, float]:
    """Return the wall-clock time and the processor time of a program that Python runs, in seconds."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *argv], stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return round(wall, 4), round(processor, 2)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    for argv in PROGRAMS.values():
        measure(argv)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(args.runs):
        for name, argv in PROGRAMS.items():
            samples[name].append(measure(argv))
    record = Record(
        "startup",
        f"a process for each run, files cached, load average {os.getloadavg()[0]:.1f}",
        "an empty program of the same interpreter",
    )
    for name, pairs in samples.items():
        wall, processor = ([pair[index] for pair in pairs] for index in range(2))
        record.add(
            "startup", {"seconds": wall, "processor_seconds": processor}, program=name,
            median_seconds=round(statistics.median(wall), 3), median_processor_seconds=round(statistics.median(processor), 3),
        )  # fmt: skip
    record.write(RESULTS / "startup.json")


if __name__ == "__main__":
    main()
