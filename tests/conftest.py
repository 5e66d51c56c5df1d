"""Fixtures and settings of the whole suite."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.command_line import PROGRAM
from support.tiny import ENVIRONMENT, TINY, tiny_weights, use_tiny_vgg19

from style_transfer.networks.forward import Network

os.environ["ONEDNN_MAX_CPU_ISA"] = ENVIRONMENT["ONEDNN_MAX_CPU_ISA"]
torch.set_num_threads(1)  # tiny networks gain nothing by more
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if a shell started the suite in the background


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with pictures c.png, s.png, t.jpg, tiny weights w.safetensors and prog.py, where a tiny VGG is VGG-19."""
    monkeypatch.chdir(tmp_path)
    use_tiny_vgg19(monkeypatch)
    rng = np.random.default_rng(0)
    for name in ("c.png", "s.png", "t.jpg"):
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
