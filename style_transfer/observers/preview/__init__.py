"""Small pictures of a run above the progress bar, in terminals with a graphics protocol."""

from __future__ import annotations

from .observer import Preview, PreviewOptions

__all__ = ["Preview", "PreviewOptions"]
