"""Measures time per iteration and peak memory at each size, for both style losses.

    python benchmarks/run.py CONTENT STYLE --weights FILE [--scales 128 181 256 362] [--steps 10] [--repeats 3]

Each figure comes from a process of its own, which paints one scale; the runs of different losses and sizes take turns, and
medians are printed as a Markdown table. The first step is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

LOSSES = ("gram", "wasserstein")


def measure(content: str, style: str, weights: str, loss: str, scale: int, steps: int) -> dict[str, float]:
    """Return the median seconds per iteration, the peak bytes, and the size of one run."""
    command = [sys.executable, "-m", "style_transfer", content, style, "--weights", weights, "--style-loss", loss]
    command += ["-ms", str(scale), "-s", str(scale), "-ii", str(steps), "--json", "--save-every", "0", "-o", "/tmp/benchmark.tif"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    iterates = [event for event in events if event["event"] == "iterate"]
    times = [b["seconds"] - a["seconds"] for a, b in itertools.pairwise(iterates)]
    last = iterates[-1]
    return {"step": statistics.median(times), **{name: last[name] for name in ("memory", "width", "height")}}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--scales", nargs="+", type=int, default=[128, 181, 256, 362])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(args.repeats):
        for scale in args.scales:
            for loss in LOSSES:
                result = measure(args.content, args.style, args.weights, loss, scale, args.steps)
                found.setdefault((loss, scale), []).append(result)
    print(f"Python {platform.python_version()}, {platform.machine()}; medians of {args.repeats} runs of {args.steps} steps\n")
    print("| size | loss | seconds per iteration | lowest to highest | peak memory, MB |")
    print("|---|---|---|---|---|")
    for (loss, _), runs in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        times = sorted(run["step"] for run in runs)
        memory = statistics.median(run["memory"] for run in runs) / 1e6
        size = f"{runs[0]['width']}x{runs[0]['height']}"
        print(f"| {size} | {loss} | {statistics.median(times):.3f} | {times[0]:.3f} to {times[-1]:.3f} | {memory:.0f} |")
    Path("/tmp/benchmark.tif").unlink(missing_ok=True)
    Path("/tmp/benchmark.tif.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
