"""The report of a run: one HTML file with pictures, loss curves, times, settings and hashes."""

from __future__ import annotations

from .observer import Report, ReportOptions

__all__ = ["Report", "ReportOptions"]
