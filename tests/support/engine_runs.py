"""A short run of two scales, as the tests of the engine make it, and its states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from style_transfer.compute.distributed import LOCAL
from style_transfer.engine import loop as engine
from style_transfer.engine.iterate import Iterate
from style_transfer.engine.state import State
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings
from support.settings import resolved
from support.tiny import picture

CONTENT, STYLE = picture(1, 51, 60, torch.float32), picture(2, 70, 55, torch.float32)
SHORT: dict[str, Any] = {"min_scale": 32, "end_scale": "46", "initial_iterations": 5, "iterations": 13}

Step = tuple[float, Tensor]
"""The loss and the averaged picture of an iteration."""


def run(network: Network, settings: Settings, **about: Any) -> list[Step]:
    """Return the iterations of a run."""
    iterates = engine.stylize(CONTENT, [STYLE], settings, networks=[network], **about)
    return [(float(iterate.loss), iterate.image()) for iterate in iterates]


def iterates_of(network: Network, **about: Any) -> list[Iterate]:
    """Return the iterates of a run of two scales, 90 and 128 pixels, with three iterations each."""
    settings = resolved(min_scale=90, end_scale="128", initial_iterations=3, iterations=3, **about)
    content, style = picture(1, 96, 128, network.dtype), picture(2, 80, 100, network.dtype)
    return list(engine.stylize(content, [style], settings, networks=[network]))


def run_with_states(network: Network, settings: Settings, **about: Any) -> tuple[list[Step], list[State]]:
    """Return the iterations of a run and a copy of its state after each."""
    steps, states = [], []
    for iterate in engine.stylize(CONTENT, [STYLE], settings, networks=[network], **about):
        steps.append((float(iterate.loss), iterate.image()))
        states.append(iterate.state().whole(LOCAL))
    return steps, states


def same(a: list[Step], b: list[Step]) -> bool:
    """Return whether two runs are equal to the bit."""
    return len(a) == len(b) and all(x == y and torch.equal(p, q) for (x, p), (y, q) in zip(a, b, strict=True))
