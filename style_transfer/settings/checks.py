"""Checks of values that have a form of their own: sizes, tiles, memory."""

from __future__ import annotations

import re
from typing import Final

from ..errors import SettingsError, near_miss
from .option import parse_bytes

MAX_SCALE: Final = 1_000_000
END_SCALE: Final = re.compile(r"([0-9]{1,7})(\+?)")


def check_end_scale(name: str, value: str) -> None:
    """Raise `SettingsError` unless a value is a long side in pixels, with or without a +, or 0 for that of the content."""
    match = END_SCALE.fullmatch(value)
    if match is None or int(match[1]) > MAX_SCALE or (match[2] and not int(match[1])):
        raise SettingsError(f"{name} must be a number of pixels from 1 to {MAX_SCALE}, with or without a +, or 0, not {value!r}")


def check_tile(name: str, value: str) -> None:
    """Raise `SettingsError` unless a value is a size of tiles."""
    if value not in ("auto", "off") and not (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_SCALE):
        raise SettingsError(f"{name} must be auto, off or a number of pixels, not {value!r}{near_miss(value, ('auto', 'off'))}")


def check_memory(name: str, value: str) -> None:
    """Raise `SettingsError` unless a value is an amount of memory."""
    parse_bytes(name, value)
