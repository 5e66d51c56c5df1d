"""Whole small runs on the simulated accelerator and on the CPU, compared: one JSON line each.

Each line has the run's name, the largest relative difference of its losses and of its pictures, and the transfers between device
and host in steps ten to fifteen of the first scale, which need none. `replayed` counts the steps that a graph replayed, and
`warnings` are those of the program.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from support.accelerator import TRAFFIC, record
from support.settings import resolved
from support.tiny import TINY, tiny_weights
from torch import Tensor

from style_transfer.compute import capture, devices
from style_transfer.engine import step
from style_transfer.engine.loop import stylize
from style_transfer.evaluation import planner
from style_transfer.losses import matrix_sqrt
from style_transfer.losses.guidance import Region
from style_transfer.networks.forward import Network

BASE: dict[str, Any] = {"min_scale": 32, "end_scale": "46", "initial_iterations": 16, "iterations": 6, "tile": "off"}
RUNS: dict[str, dict[str, Any]] = {
    "gram": {},
    "wasserstein": {"style_loss": "wasserstein"},
    "covariance": {"style_loss": "covariance"},
    "shifted-gram": {"style_loss": "shifted-gram"},
    "mean-std": {"style_loss": "mean-std"},
    "histogram": {"extra_loss": "histogram", "extra_weight": 1.0},
    "sliced-wasserstein": {"style_loss": "sliced-wasserstein"},
    "nine-point": {"tv_loss": "nine-point"},
    "inner": {"tv_loss": "inner"},
    "l2": {"pooling": "l2"},
    "max": {"pooling": "max"},
    "sgd": {"optimizer": "sgd", "step_size": 100.0},
    "lbfgs": {"optimizer": "lbfgs"},
    "strong-wolfe": {"optimizer": "lbfgs", "line_search": "strong-wolfe"},
    "normalized": {"normalize_gradients": True},
    "schedule": {"iterations": "auto"},
    "two styles": {"style_weights": (2.0, 1.0)},
    "masks": {},
    "bfloat16": {},
    "in tiles": {"tile": "24"},
    "planned": {"tile": "auto"},
    "host": {},
    "with the cpu": {"tile": "24"},
    "layers": {"sharding": "layers"},
    "sampled": {"style_loss": "relaxed-emd", "content_loss": "self-similarity"},
    "neighbors": {"style_loss": "neighbors"},
    "bands": {"band_weight": 2.0},
    "off": {"cuda_graphs": "off"},
    "deterministic": {"deterministic": True},
    "decomposing": {"style_loss": "wasserstein"},
    "cannot record": {},
    "records wrongly": {},
}


def run(name: str, places: list[str]) -> tuple[list[Tensor], Tensor, dict[str, int]]:
    """Return a run's losses, its picture, and the traffic of its early steps."""
    settings = resolved(**(BASE | RUNS[name]))
    random = torch.Generator().manual_seed(1)
    content, *styles = (torch.rand(1, 3, *size, generator=random) for size in ((37, 50), (41, 33), (30, 45)))
    styles = styles if "style_weights" in RUNS[name] or name == "masks" else styles[:1]
    regions: tuple[Region, ...] = ()
    if name == "masks":
        left = (torch.arange(50) < 20).float().expand(1, 1, 37, 50).contiguous()
        regions = (Region(left, 0), Region(1 - left, 1, torch.rand(1, 1, 30, 45, generator=random)))
    features = torch.bfloat16 if name == "bfloat16" else None
    groups = [tuple(map(torch.device, places))] if name == "layers" else [(torch.device(place),) for place in places]
    dtype = torch.float32 if features else torch.float64
    networks = [
        Network(TINY, tiny_weights(), pooling=settings.pooling, devices=group, dtype=dtype, features=features) for group in groups
    ]
    losses, traffic = [], {}
    for iterate in stylize(content, styles, settings, networks=networks, regions=regions):
        losses.append(iterate.loss)
        if iterate.index == 0 and iterate.step == 9:
            TRAFFIC.clear()
        if iterate.index == 0 and iterate.step == 15:
            traffic = {key: count for key, count in TRAFFIC.items() if count}
        picture = iterate.image() if iterate.ends_run else None
    assert picture is not None
    return losses, picture, traffic


def no_record(device: torch.device, work: Callable[[], Any]) -> tuple[Any, Any]:
    """Fail in the middle of the capture."""

    def fail() -> None:
        work()
        raise RuntimeError("no graphs today")

    return record(device, fail)


def wrong_record(device: torch.device, work: Callable[[], Any]) -> tuple[Any, Any]:
    """Capture all but one operation, the last sum of the average."""
    replay, found = record(device, work)
    tape = replay.__self__
    last = max(place for place, entry in enumerate(tape.entries) if entry[0].overloadpacket.__name__ == "lerp_")
    del tape.entries[last]
    return replay, found


RECORD = {"cannot record": no_record, "records wrongly": wrong_record}
"""Recorders in place of `record`, by runs."""


class Warnings(logging.Handler):
    """Collects the warnings of the program."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def compared() -> Iterator[dict[str, Any]]:
    """Yield the line of each run."""
    planned = planner.plan_for
    for name in RUNS:
        here = ["sim:0", "cpu"] if name in ("with the cpu", "layers") else ["sim:0"]
        expected, reference, _ = run(name, ["cpu"])
        if name == "host":
            tiles = planner.tiles_of(24, Network(TINY, tiny_weights()), resolved().layers)
            planner.plan_for = lambda *_, limits=tiles: planner.Plan(limits, host=True)
        capture.RECORDERS["sim"] = RECORD.get(name, record)
        step._failed.clear()
        matrix_sqrt.RunningTraceSqrt.PERIOD = 12 if name == "decomposing" else 64
        logging.getLogger("style_transfer").addHandler(warnings := Warnings())
        losses, picture, traffic = run(name, here)
        logging.getLogger("style_transfer").removeHandler(warnings)
        planner.plan_for = planned
        off = max(abs(float(a) / float(b) - 1) for a, b in zip(losses, expected, strict=True))
        apart = float((picture - reference).abs().max())
        yield {"name": name, "losses": off, "picture": apart, "traffic": traffic, "warnings": warnings.texts}


if __name__ == "__main__":
    torch.set_num_threads(1)
    matrix_sqrt.FLOAT64_DEVICES = (*matrix_sqrt.FLOAT64_DEVICES, "sim")
    assert devices.available() == ("sim:0", "cpu") and devices.resolve(None) == ((torch.device("sim:0"),), ())
    for line in compared():
        print(json.dumps(line), flush=True)
