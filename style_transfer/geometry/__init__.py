"""Integers only: sizes and scales, boxes, tiles, windows and bands of rows."""

from __future__ import annotations

from .scales import Size, Stage, at_scale, fit, resolve_end_scale, scales

__all__ = ["Size", "Stage", "at_scale", "fit", "resolve_end_scale", "scales"]
