"""Runs on a simulated accelerator give the results of the CPU, and their steps transfer nothing to the host.

An operation on tensors of the device and of the host raises an error there, as on a GPU, and transfers are counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUNS = (
    "gram", "wasserstein", "covariance", "shifted-gram", "mean-std", "histogram", "sliced-wasserstein", "nine-point", "inner",
    "l2", "max", "sgd", "lbfgs", "strong-wolfe", "normalized", "schedule", "two styles", "masks", "bfloat16", "in tiles",
    "planned", "host", "with the cpu", "layers", "sampled", "neighbors", "bands", "off", "deterministic", "decomposing",
    "cannot record", "records wrongly",
)  # fmt: skip
CROSSING = ("host", "with the cpu", "layers", "sampled")
"""Runs of which a part is on the CPU, as the choice of random points is, so that tensors must be transferred."""
READING = ("lbfgs", "strong-wolfe", "decomposing")
"""Runs whose optimizer reads numbers, or whose matrices are decomposed again."""

PLAIN = (
    "sliced-wasserstein", "sgd", "lbfgs", "strong-wolfe", "in tiles", "off", "deterministic", "cannot record", "records wrongly",
    *CROSSING,
)  # fmt: skip
"""Runs whose steps are not recorded: by request, or since they are not the same operations on one device every time."""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """The lines of `rehearsal.py`, by the runs' names."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "tools" / "rehearsal.py")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_all_runs_are_compared(found: dict[str, Any]) -> None:
    assert tuple(found) == RUNS


@pytest.mark.parametrize("name", RUNS)
def test_a_run_on_an_accelerator_gives_the_results_of_the_cpu(found: dict[str, Any], name: str) -> None:
    near = 0.1 if name == "bfloat16" else 1e-5  # convolutions of two layouts round differently
    assert found[name]["losses"] < near and found[name]["picture"] < near


@pytest.mark.parametrize("name", [name for name in RUNS if name not in CROSSING])
def test_steps_wait_for_nothing(found: dict[str, Any], name: str) -> None:
    traffic = found[name]["traffic"]
    if name in READING:
        assert set(traffic) - {"replayed"} == {"read"}
    else:
        assert traffic == ({} if name in PLAIN else {"replayed": 6})


@pytest.mark.parametrize("name", PLAIN)
def test_other_steps_are_not_recorded(found: dict[str, Any], name: str) -> None:
    assert "replayed" not in found[name]["traffic"]


def test_steps_are_replayed_between_decompositions(found: dict[str, Any]) -> None:
    traffic = found["decomposing"]["traffic"]
    assert 0 < traffic["replayed"] < 6 and traffic["read"]


def test_problems_of_recording_are_reported(found: dict[str, Any]) -> None:
    """A recording that failed is not tried again; after a wrong one the next scale is recorded again."""
    problems = {"cannot record": ["no graphs today"], "records wrongly": ["a replay gave different results"] * 2}
    for name, line in found.items():
        assert [text.rpartition(": ")[2] for text in line["warnings"]] == problems.get(name, [])
