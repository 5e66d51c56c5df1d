"""Fixtures of the tests of observers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.live_page import Page


@pytest.fixture
def page() -> Iterator[Page]:
    """Return an open live page, whose server has ended after the test."""
    observer = Page().open()
    yield observer
    observer.close()
    assert not observer.server._thread.is_alive()
