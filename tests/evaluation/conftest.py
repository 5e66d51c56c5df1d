"""Fixtures of the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from style_transfer.networks.forward import Network


@pytest.fixture
def tiny(make_network: Callable[..., Network]) -> Network:
    """Return a tiny network."""
    return make_network()
