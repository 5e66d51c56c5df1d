"""ICC profiles: conversion to sRGB, soft proofs, and the sRGB profile of written files.

LittleCMS converts with floating-point input and output (its 16-bit path is wrong by up to 0.08 in the darks), relative
colorimetric with black point compensation. A picture without a usable profile counts as sRGB.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from typing import Final

import imagecodecs
import numpy as np
from PIL import ImageCms

from ..files import shown
from . import signals
from .picture import CHANNELS, Array, Pixels

MAX_ICC_BYTES: Final = 16 << 20
MIN_ICC_BYTES: Final = 132
"""The header and the number of tags."""
SPACES: Final = {b"GRAY": "gray", b"RGB ": "rgb", b"CMYK": "cmyk"}
WHITE_TOLERANCE: Final = 0.1
"""How far a profile may move white, in sRGB values."""
RELATIVE: Final = 1
"""The rendering intent: relative colorimetric."""
BLACK_POINT: Final = 0x2000
"""LittleCMS's flag for black point compensation."""


@functools.cache
def lab_profile() -> bytes:
    """Return LittleCMS's profile of CIE L*a*b* with white D50."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


@functools.cache
def srgb_profile() -> bytes:
    """Return LittleCMS's sRGB profile, of version 4, for conversions: its curve is a formula, not a table."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + profile[36:]  # LittleCMS writes the current time


def written_profile() -> bytes:
    """Return the sRGB profile of written files, of version 2, which old printing software reads as well."""
    return signals.profile(signals.Signal(signals.SRGB))


def transform(values: Array, source: bytes, target: bytes, spaces: tuple[str, str], flags: int, intent: int = RELATIVE) -> Array:
    """Convert float32 (rows, columns, channels) in [0, 1] between two ICC profiles, in floating point.

    `values` and the result are not clipped. CMYK is ink in [0, 1]. Raises imagecodecs.CmsError.
    """
    inside, outside = spaces
    # LittleCMS has floating-point ink in percent.
    values = values[..., 0] if inside == "gray" else values * np.float32(100) if inside == "cmyk" else values
    result = imagecodecs.cms_transform(
        np.ascontiguousarray(values, dtype=np.float32),
        source,
        target,
        colorspace=inside,
        outcolorspace=outside,
        outdtype=np.float32,
        intent=intent,
        flags=flags,
    )
    return result / np.float32(100) if outside == "cmyk" else result


def is_srgb(icc: bytes) -> bool:
    """Return whether a profile for RGB has the colours of sRGB, to half a level of 8 bits."""
    return is_same(icc, srgb_profile())


@functools.lru_cache(maxsize=8)
def is_same(icc: bytes, other: bytes) -> bool:
    """Return whether a profile for RGB has the colours of another one, to half a level of 8 bits."""
    if not _is_profile(icc) or icc[16:20] != b"RGB ":
        return False
    axis = np.linspace(0, 1, 18, dtype=np.float32)
    colours = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(18, -1, 3)
    grays = np.repeat(np.linspace(0, 1, 18 * 18, dtype=np.float32), 3).reshape(18, -1, 3)  # with most of the darks
    values = np.concatenate([colours, grays], axis=1)
    try:
        result = transform(values, icc, other, ("rgb", "rgb"), BLACK_POINT)
    except RuntimeError:  # as in `works`
        return False
    return bool(np.abs(np.clip(result, 0, 1) - values).max() <= 0.5 / 255)


def _is_profile(icc: bytes) -> bool:
    """Return whether data have the size and the signature of an ICC profile."""
    return MIN_ICC_BYTES <= len(icc) <= MAX_ICC_BYTES and icc[36:40] == b"acsp"


def profile_name(icc: bytes) -> str:
    """Return the description of an ICC profile, for messages; "without a name" if it has none."""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc)))
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
        name = ""
    return shown(" ".join(name.split()))[:80] or "without a name"


def usable_profile(icc: bytes | None, space: str, notes: list[str]) -> tuple[bytes, str] | None:
    """Return (profile, its colour space) to convert samples of `space` with, or None if samples are sRGB.

    A profile that is broken or for another space adds a note and is ignored.
    """
    if icc is None:
        return None
    owner, srgb = SPACES.get(bytes(icc[16:20])), srgb_profile()
    problem = "its embedded colour profile is broken"
    if _is_profile(icc):
        if owner is None or (owner != space and (owner, space) != ("rgb", "gray")):
            kind = shown(icc[16:20].decode("latin-1")).strip()
            problem = f"its embedded colour profile is for {kind}, not for {space.upper()}"
        elif is_srgb(icc):
            return None
        elif works(lambda gray: transform(gray, icc, srgb, (owner, "rgb"), BLACK_POINT), CHANNELS[owner]):
            if _keeps_white(icc, owner):
                return icc, owner
            problem = "its embedded colour profile turns white into another colour"
    notes.append(f"{problem}: ignored, {'plain CMYK' if space == 'cmyk' else 'sRGB'} assumed")
    return None


def works(convert: Callable[[Array], Array], channels: int) -> bool:
    """Return whether a conversion of colours with so many channels has a finite result."""
    try:
        return bool(np.isfinite(convert(np.full((1, 1, channels), 0.5, np.float32))).all())
    except (RuntimeError, ValueError):  # imagecodecs.CmsError is a RuntimeError
        return False


def _keeps_white(icc: bytes, owner: str) -> bool:
    """Return whether a profile converts white, or paper without ink, to near white."""
    white = np.full((1, 1, CHANNELS[owner]), 0 if owner == "cmyk" else 1, np.float32)
    return bool(np.abs(transform(white, icc, srgb_profile(), (owner, "rgb"), BLACK_POINT) - 1).max() < WHITE_TOLERANCE)


def to_srgb(block: Pixels, space: str, profile: tuple[bytes, str] | None) -> Array:
    """Convert float32 samples of `space` to sRGB, through a profile of `usable_profile` if there is one. Not clipped."""
    if profile is not None:
        icc, owner = profile
        if owner == "rgb" and space == "gray":
            block = np.repeat(block, 3, axis=2)
        return transform(block, icc, srgb_profile(), (owner, "rgb"), BLACK_POINT)
    if space == "cmyk":
        ink: Array = np.clip(block, 0, 1)
        light: Array = (1 - ink[..., :3]) * (1 - ink[..., 3:])
        return light
    return block


def soft_proof(block: Array, profile: bytes, space: bytes | None = None) -> Array:
    """Return pixels in the colours that the printing condition of a CMYK profile reproduces; black is as dark as its ink.

    `space` is the profile of the pixels and of the result, by default sRGB.
    """
    space = space or srgb_profile()
    ink = transform(block, space, profile, ("rgb", "cmyk"), BLACK_POINT)
    return transform(np.clip(ink, 0, 1), profile, space, ("cmyk", "rgb"), 0)
