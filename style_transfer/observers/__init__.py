"""Observers of runs: console, live page, animation, report and terminal preview."""

from __future__ import annotations

from .observer import Command, Observer, Progress, Result, RunInfo

__all__ = ["Command", "Observer", "Progress", "Result", "RunInfo"]
