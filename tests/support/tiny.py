"""Tiny seeded networks and pictures; no weights, no network access, no GPU."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from style_transfer.networks import Conv, NetworkSpec
from style_transfer.networks.families.vgg import vgg
from style_transfer.registry import NETWORKS

from . import reference

TESTS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    "OMP_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
"""Variables of programs that tests start: they find `support` and this checkout, and `--precision auto` is fp32 everywhere."""

WIDTHS = (4, 6, 8, 10, 8)
COUNTS = (2, 2, 4, 4, 4)
TINY = vgg("tiny", [(width,) * count for width, count in zip(WIDTHS, COUNTS, strict=True)])
SHARED = Path(__file__).parents[3] / "shared"
REAL_WEIGHTS = SHARED / "weights" / "vgg19_features_fp16.safetensors"

TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-3}
"""Relative tolerances of losses against the float64 oracle, by dtype of the program's own computation."""


def tiny_weights(seed: int = 0) -> dict[str, Tensor]:
    """Return float64 weights for all sixteen convolutions of `TINY`."""
    state = dict(reference.random_weights(seed, WIDTHS))
    random = torch.Generator().manual_seed(seed)
    for step in TINY.steps:
        key = getattr(step, "key", None)
        if key is not None and f"{key}.weight" not in state:
            state[f"{key}.weight"] = torch.randn(step.outputs, step.inputs, 3, 3, generator=random, dtype=torch.float64)
            state[f"{key}.bias"] = torch.zeros(step.outputs, dtype=torch.float64)
    return state


def random_state(spec: NetworkSpec, seed: int) -> dict[str, Tensor]:
    """Return random float32 weights for a network, scaled so that activations keep their magnitude."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for step in spec.steps:
        if isinstance(step, Conv):
            shape = (step.outputs, step.inputs // step.groups, step.kernel, step.kernel)
            spread = (2 / math.prod(shape[1:])) ** 0.5
            state[f"{step.key}.weight"] = spread * torch.randn(shape, generator=random)
            state[f"{step.key}.bias"] = 0.1 * torch.randn(step.outputs, generator=random)
    return state


def replace_network(name: str, spec: NetworkSpec, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """Give a registered network another specification for a test, or, without `monkeypatch`, for the rest of the process."""
    entry = dataclasses.replace(NETWORKS[name], spec=spec)
    (monkeypatch or pytest.MonkeyPatch()).setitem(NETWORKS._entries, name, entry)


def use_tiny_vgg19(monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """Replace VGG-19 by `TINY` for a test, or, without `monkeypatch`, for the rest of the process."""
    replace_network("vgg19", TINY, monkeypatch)


def picture(seed: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a smooth random picture (1, 3, height, width) in [0, 1], another one for each seed."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 7, 9, generator=random, dtype=torch.float64)
    fine = torch.rand(1, 3, height, width, generator=random, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (0.8 * smooth + 0.2 * fine).clamp(0, 1).to(dtype)
