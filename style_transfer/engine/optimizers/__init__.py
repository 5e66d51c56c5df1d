"""Optimizers of the picture, and the average of its iterates."""

from __future__ import annotations

from .average import Average
from .optimizer import CapturableOptimizer, Optimizer, Resize, Saved

__all__ = ["Average", "CapturableOptimizer", "Optimizer", "Resize", "Saved"]
