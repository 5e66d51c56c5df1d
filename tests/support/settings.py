"""Settings as a run uses them."""

from __future__ import annotations

from style_transfer.settings import Resolved, Settings

CLASSIC = {"content_weight": 0.015, "tv_weight": 2.0, "band_weight": 0.0, "content_layers": ("relu4_2",)}
"""The losses of style-transfer-pytorch, which the oracle has."""


def resolved(**choices: object) -> Resolved:
    """Return the resolved settings of a user who chose these, and the content loss of the oracle unless they say otherwise."""
    usual = {} if {"network", "preset", "strength"} & choices.keys() else CLASSIC
    return Settings(**usual | choices).resolve()  # type: ignore[arg-type]
