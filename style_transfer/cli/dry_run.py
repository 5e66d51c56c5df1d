"""--dry-run: what each scale of a picture is expected to take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..compute import memory
from ..evaluation.planner import estimate, plan_for
from ..networks.forward import Network
from ..observers.console import clock
from ..observers.stdout import print_out
from .job import Job


def print_plan(job: Job, output: Path, networks: Sequence[Network], devices: Sequence[str], processes: int) -> None:
    """Print the size of a print, sizes, steps, tiles, memory and time of each scale, and the disk space of the result."""
    if job.plan is not None:
        print_out(f"print of {job.plan.describe()}")
    rows, total, run = [], 0.0, job.run
    regions = len(run.regions)
    for stage in run.stages:
        plan = plan_for(networks, stage.size, run.settings, processes, regions)
        expected = estimate(networks, stage.size, run.settings, plan.limits, host=plan.host, regions=regions)
        total += expected.seconds * stage.steps
        (height, width), tiles = stage.size, " + ".join(map(str, expected.tiles))
        time = f"{clock(expected.seconds * stage.steps)} ({expected.seconds:.3g} s each)"
        used = memory.show_bytes(expected.bytes) + (" and the picture on the host" if plan.host else "")
        rows.append((f"{width}x{height}", str(stage.steps), tiles, used, time))
    height, width = run.stages[-1].size
    disk = memory.show_bytes(width * height * 2 * (4 if run.settings.alpha == "keep" else 3))
    heads = ("size", "steps", "tiles", "memory", "time")
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        print_out("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    name = networks[0].spec.name
    print_out(f"{name} on {', '.join(devices)}; about {clock(total)} in all; {output} takes at most {disk} of disk")
