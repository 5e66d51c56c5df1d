"""Shared pieces of the tests: tiny seeded networks and pictures; no weights, no network access, no GPU."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import reference

from style_transfer import cli, networks
from style_transfer.networks.graph import Network
from style_transfer.networks.spec import Conv, NetworkSpec, vgg

os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"  # --precision auto is the same on every machine, also in processes that tests start
torch.set_num_threads(1)  # tiny networks gain nothing by more

WIDTHS = (4, 6, 8, 10, 8)
COUNTS = (2, 2, 4, 4, 4)
TINY = vgg("tiny", [(width,) * count for width, count in zip(WIDTHS, COUNTS, strict=True)])
SHARED = Path(__file__).parents[2] / "shared"
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


PROGRAM = """
import sys, conftest
from style_transfer import cli, networks
networks.SPECS["vgg19"] = conftest.TINY
sys.exit(cli.main(sys.argv[1:]))
"""
"""The command line in a process of its own, where a tiny VGG stands for VGG-19."""


def fails(argv: Sequence[str], code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Check that a command ends with `code` and one line that holds `words`."""
    capsys.readouterr()
    assert cli.main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("style_transfer: "), err
    for word in words:
        assert word in err, err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with pictures c.png, s.png, tiny weights w.safetensors and prog.py, where a tiny VGG is VGG-19."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(networks.SPECS, "vgg19", TINY)
    rng = np.random.default_rng(0)
    for name in ("c.png", "s.png"):
        Image.fromarray(rng.integers(0, 255, (48, 60, 3), dtype=np.uint8)).save(name)
    save_file({k: v.float() for k, v in tiny_weights().items()}, "w.safetensors")
    (tmp_path / "prog.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture
def make_network() -> Callable[..., Network]:
    """Return a maker of tiny networks; keywords go to `Network`."""

    def make(**about: object) -> Network:
        return Network(TINY, tiny_weights(), **about)  # type: ignore[arg-type]

    return make


def picture(seed: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a smooth random picture (1, 3, height, width) in [0, 1] that looks different for every seed."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 7, 9, generator=random, dtype=torch.float64)
    fine = torch.rand(1, 3, height, width, generator=random, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (0.8 * smooth + 0.2 * fine).clamp(0, 1).to(dtype)
