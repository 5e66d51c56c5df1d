"""Sizes and scales, prints, boxes, tiles, windows and bands of rows: numbers without pictures."""

from __future__ import annotations

from .scales import Size, Stage, at_scale, fit, resolve_end_scale, scales
from .sheet import Framing, Sheet, frame

__all__ = ["Framing", "Sheet", "Size", "Stage", "at_scale", "fit", "frame", "resolve_end_scale", "scales"]
