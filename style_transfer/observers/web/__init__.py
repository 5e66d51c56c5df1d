"""The live page: the picture and the state of a run in a browser, with buttons that control the run."""

from __future__ import annotations

from .observer import WebObserver, WebOptions

__all__ = ["WebObserver", "WebOptions"]
