"""TGA, decoded by Pillow."""

from __future__ import annotations

import functools
from typing import Final

from ...registry import INPUT_FORMATS
from .loading import InputFormat, Scope
from .pillow import decode_pillow

SCOPE: Final = Scope(
    samples="gray, RGB or palette of 8 bits; recognized by its suffix, since it has no signature",
    alpha="straight",
)

INPUT_FORMATS.register("TGA")(InputFormat(None, functools.partial(decode_pillow, "TGA"), suffix=".tga", scope=SCOPE))
