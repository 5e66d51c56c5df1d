"""Output profiles: conversion of finished pictures to the colours of a press or a printer.

LittleCMS converts in floating point, and values are rounded to the bits of the file afterwards: its conversion from 16 bits to
16 bits is optimised by default and then wrong by up to 5 % of ink, while float32 agrees with float64 to 1e-7 of ink.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from ..errors import SettingsError
from ..files import reason, shown, similar_name
from .icc import BLACK_POINT, MAX_ICC_BYTES, MIN_ICC_BYTES, RELATIVE, SPACES, profile_name, srgb_profile, transform, works
from .picture import CHANNELS, Array

INTENTS: Final = {"perceptual": 0, "relative": RELATIVE, "saturation": 2, "absolute": 3}
"""ICC's rendering intents by the words of --intent."""
CLASSES: Final = {
    b"scnr": "an input device", b"link": "a device link", b"abst": "an abstract profile", b"nmcl": "named colours",
}  # fmt: skip
"""The classes of profiles that no picture can be converted to."""


class Conversion(Protocol):
    """What a picture is converted to when it is written: an ICC profile for colours of `space`, "cmyk" or "rgb"."""

    @property
    def icc(self) -> bytes:
        """The profile to embed."""

    @property
    def space(self) -> str:
        """The colour space of the profile."""

    def convert(self, block: Array, source: bytes | None = None) -> Array:
        """Return pixels (rows, width, 3) of a profile, by default sRGB, as float32 (rows, width, 3 or 4) in [0, 1]."""


@dataclass(frozen=True)
class Press:
    """A printing condition, or another device, that pictures are converted to.

    `icc` is its profile, for colours of `space`, "cmyk" or "rgb", and `name` its description. `intent` is an ICC rendering intent
    and `black_point` whether black point compensation applies. `ink_limit` is the largest sum of inks, 4 for four full ones:
    where it is exceeded, cyan, magenta and yellow are reduced by the same factor and black stays, as in LittleCMS's ink limiting.
    """

    icc: bytes
    space: str
    name: str
    intent: int = RELATIVE
    black_point: bool = True
    ink_limit: float | None = None

    def convert(self, block: Array, source: bytes | None = None) -> Array:
        """Return pixels (rows, width, 3) in [0, 1] as values of the press in [0, 1], float32 (rows, width, 3 or 4).

        `source` is the profile of the pixels, by default sRGB. CMYK is ink, so that paper is 0.
        """
        flags = BLACK_POINT if self.black_point else 0
        values = transform(np.clip(block, 0, 1), source or srgb_profile(), self.icc, ("rgb", self.space), flags, self.intent)
        values = np.clip(values, 0, 1)
        return values if self.ink_limit is None or self.space != "cmyk" else limited(values, self.ink_limit)


def limited(ink: Array, limit: float) -> Array:
    """Return CMYK (..., 4) whose inks sum to at most `limit` where black alone does not exceed it."""
    black = ink[..., 3:]
    colours = ink[..., :3].sum(axis=-1, keepdims=True)
    room = np.maximum(limit - black, 0)
    factor = np.where(colours > room, room / np.maximum(colours, 1e-9), 1).astype(ink.dtype)
    return np.concatenate([ink[..., :3] * factor, black], axis=-1)


def read_profile(flag: str, path: str | Path, spaces: tuple[str, ...] = ("cmyk",)) -> tuple[bytes, str]:
    """Return an ICC profile that pictures can be converted to and from, and its colour space, one of `spaces`.

    Raises `SettingsError`, which names `flag`, for a file that is none, or is of another kind, truncated or broken.
    """
    name, wanted = f"{flag} {shown(path)}", " or ".join(space.upper() for space in spaces)
    try:
        info = Path(path).stat()
        icc = Path(path).read_bytes() if stat.S_ISREG(info.st_mode) and info.st_size <= 8 * MAX_ICC_BYTES else b""
    except FileNotFoundError:
        raise SettingsError(f"{name}: no such file{similar_name(path)}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{name}: cannot be read: {reason(error)}") from error
    if len(icc) < MIN_ICC_BYTES or icc[36:40] != b"acsp":
        raise SettingsError(f"{name}: is not an ICC profile; give a {wanted} .icc or .icm file")
    if icc[12:16] in CLASSES:
        raise SettingsError(f"{name}: is a profile of {CLASSES[icc[12:16]]}; give one of a press, printer or colour space")
    space = SPACES.get(icc[16:20], "")
    if space not in spaces:
        kind = shown(icc[16:20].decode("latin-1")).strip()
        raise SettingsError(f"{name}: is a profile for {kind}; give one for {wanted}")
    declared = int.from_bytes(icc[:4], "big")
    if len(icc) < declared:
        raise SettingsError(f"{name}: is truncated: {len(icc)} of {declared} bytes; get it again")

    def there_and_back(gray: Array) -> Array:
        values = transform(gray, srgb_profile(), icc, ("rgb", space), BLACK_POINT)
        return transform(values, icc, srgb_profile(), (space, "rgb"), 0)

    if not works(there_and_back, CHANNELS["rgb"]):
        raise SettingsError(f"{name}: the profile is broken or cannot convert to {wanted}; give another")
    return icc, space


def read_press(flag: str, path: str | Path, intent: str, *, black_point: bool = True, ink_limit: float | None = None) -> Press:
    """Return the press of an option; `ink_limit` is in percent. Raises `SettingsError`."""
    icc, space = read_profile(flag, path, ("cmyk", "rgb"))
    if ink_limit is not None and space != "cmyk":
        raise SettingsError(f"--ink-limit goes with a CMYK {flag}, and {shown(path)} is for {space.upper()}")
    return Press(icc, space, profile_name(icc), INTENTS[intent], black_point, None if ink_limit is None else ink_limit / 100)
