"""Fixtures of the engine's tests."""

from __future__ import annotations

import copy

import pytest
from support.engine_runs import SHORT, run_with_states
from support.tiny import TINY, tiny_weights

from style_transfer.engine.state import State
from style_transfer.networks.forward import Network
from style_transfer.settings import Settings


@pytest.fixture(scope="session")
def short_states() -> list[State]:
    """The states of a short run after each of its 18 iterations."""
    return run_with_states(Network(TINY, tiny_weights()), Settings(**SHORT))[1]


@pytest.fixture
def state(short_states: list[State]) -> State:
    """Return a copy of the state of a short run after its second iteration at the second scale, which may be changed."""
    return copy.deepcopy(short_states[6])
