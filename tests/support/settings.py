"""Settings as a run uses them."""

from __future__ import annotations

from style_transfer.settings import Resolved, Settings


def resolved(**choices: object) -> Resolved:
    """Return the resolved settings of a user who chose these."""
    return Settings(**choices).resolve()  # type: ignore[arg-type]
