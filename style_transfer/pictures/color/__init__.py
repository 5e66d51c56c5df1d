"""Colour processing around the engine: colour spaces, the gamut of sRGB, colour matching, and the colour modes."""

from __future__ import annotations

from .coloring import Coloring, KeptColours

__all__ = ["Coloring", "KeptColours"]
