"""Integers only: sizes and scales, boxes, tiles, windows and bands of rows."""

from __future__ import annotations

from .scales import Size, Stage, fit, resolve_end_scale, scales

__all__ = ["Size", "Stage", "fit", "resolve_end_scale", "scales"]
