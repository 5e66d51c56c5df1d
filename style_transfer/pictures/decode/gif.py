"""GIF, decoded by Pillow."""

from __future__ import annotations

import functools
from typing import Final

from ...registry import INPUT_FORMATS
from .loading import InputFormat, Scope
from .pillow import decode_pillow

SCOPE: Final = Scope(
    samples="palette of 8 bits",
    alpha="a transparent colour",
    more=("Of an animation the first frame is read, with a note.",),
)

INPUT_FORMATS.register("GIF")(InputFormat(rb"GIF8[79]a", functools.partial(decode_pillow, "GIF"), scope=SCOPE))
