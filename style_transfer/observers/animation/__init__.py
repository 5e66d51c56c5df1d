"""The animation of a run: a video, GIF or WebP file that shows how the picture changed, at an even pace of visible change."""

from __future__ import annotations

from .observer import Animation
from .options import AnimationOptions

__all__ = ["Animation", "AnimationOptions"]
