"""BMP, decoded by Pillow."""

from __future__ import annotations

import functools

from ...registry import INPUT_FORMATS
from .loading import InputFormat
from .pillow import decode_pillow

INPUT_FORMATS.register("BMP")(InputFormat(rb"BM", functools.partial(decode_pillow, "BMP")))
