"""Cropping of pictures, and their extension by reflection."""

from __future__ import annotations

import dataclasses

import numpy as np

from .picture import Array, Picture


def framed(values: Array, edges: tuple[int, int]) -> Array:
    """Return (height, width, ...) values with rows and columns added by reflection at each side, or cut off where negative.

    The edge itself is not repeated. Where more is added than there is, reflections are reflected.
    """
    rows, columns = edges
    height, width = values.shape[:2]
    values = values[max(0, -rows) : height + min(0, rows), max(0, -columns) : width + min(0, columns)]
    added = [(max(0, rows),) * 2, (max(0, columns),) * 2, *[(0, 0)] * (values.ndim - 2)]
    return np.pad(values, added, "reflect") if rows > 0 or columns > 0 else np.ascontiguousarray(values)


def framed_picture(picture: Picture, edges: tuple[int, int]) -> Picture:
    """Return a picture and its alpha as `framed` does."""
    alpha = None if picture.alpha is None else framed(picture.alpha, edges)
    return dataclasses.replace(picture, pixels=framed(picture.pixels, edges), alpha=alpha)
