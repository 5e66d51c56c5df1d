"""GIF, decoded by Pillow."""

from __future__ import annotations

import functools

from ...registry import INPUT_FORMATS
from .loading import InputFormat
from .pillow import decode_pillow

INPUT_FORMATS.register("GIF")(InputFormat(rb"GIF8[79]a", functools.partial(decode_pillow, "GIF")))
