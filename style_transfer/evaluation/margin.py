"""Pictures continued by their mirror image beyond their edges, so that a network sees no edge, and the gradient through that."""

from __future__ import annotations

import torch
from torch import Tensor

from ..compute.distributed import Group, Rows
from ..geometry.scales import Size
from ..geometry.tiles import Box, Window


class Margin:
    """Continues pictures of `size` by `width` pixels on each side: pixel -1 is pixel 0, -2 is 1, and so on.

    In a group of processes a picture is this process's rows of the whole, `bands[group.rank]`, and its continuation
    `extended_bands[group.rank]`. A picture with a side shorter than `width` is not continued.
    """

    def __init__(self, size: Size, width: int, group: Group, bands: tuple[Rows, ...]) -> None:
        self.size, self.group, self.bands = size, group, bands
        self.width = width if min(size) >= width else 0
        self.extended = size[0] + 2 * self.width, size[1] + 2 * self.width
        self.extended_bands = tuple(map(self._extended, bands))
        self._wanted = tuple(map(self._sources, bands))

    def _extended(self, band: Rows) -> Rows:
        """Return the rows of the continued picture that belong to a band of the picture."""
        first, last = band
        if first == last:
            return self.extended[0], self.extended[0]
        return first + self.width if first else 0, last + self.width + (self.width if last == self.size[0] else 0)

    def _sources(self, band: Rows) -> Rows:
        """Return the rows of the picture that a band and its mirror images are made of."""
        first, last = band
        if first == last:
            return band
        height = self.size[0]
        return min(first, height - self.width) if last == height else first, max(last, self.width) if not first else last

    def _rows(self) -> tuple[slice, bool, bool]:
        """Return this process's band in the rows that it wants, and whether the picture begins and ends in it."""
        (first, last), wanted = self.bands[self.group.rank], self._wanted[self.group.rank]
        inside = first < last and bool(self.width)
        return slice(first - wanted[0], last - wanted[0]), inside and not first, inside and last == self.size[0]

    def extend(self, picture: Tensor) -> Tensor:
        """Return this process's rows of the continued picture, from those of the picture (1, C, h, W)."""
        if not self.width:
            return picture
        x = self.group.exchange_rows(picture, self.bands, self._wanted)
        own, top, bottom = self._rows()
        rows = [x[:, :, : self.width].flip(2)] * top + [x[:, :, own]] + [x[:, :, -self.width :].flip(2)] * bottom
        x = torch.cat(rows, 2)
        return torch.cat([x[..., : self.width].flip(3), x, x[..., -self.width :].flip(3)], 3)

    def fold(self, gradient: Tensor) -> Tensor:
        """Return the gradient of this process's rows of the picture, from that of its rows of the continued picture.

        `gradient` is overwritten.
        """
        width = self.width
        if not width:
            return gradient
        x = gradient[..., width:-width]
        x[..., :width] += gradient[..., :width].flip(3)
        x[..., -width:] += gradient[..., -width:].flip(3)
        own, top, bottom = self._rows()
        first, last = self._wanted[self.group.rank]
        read = x.new_zeros(*x.shape[:2], last - first, x.shape[3])
        read[:, :, own] = x[:, :, width if top else 0 : x.shape[2] - (width if bottom else 0)]
        if top:
            read[:, :, :width] += x[:, :, :width].flip(2)
        if bottom:
            read[:, :, -width:] += x[:, :, -width:].flip(2)
        return self.group.reduce_rows(read, self.bands, self._wanted)

    def window(self, extended: Window, stride: int, cells: Size) -> Window:
        """Return the cells of a window of the continued picture that lie in the picture, placed in its layer of `cells`.

        `stride` is that of the layer, in pixels.
        """
        if not self.width:
            return extended
        offset, place = self.width // stride, extended.place
        top, bottom = max(place.top, offset), min(place.bottom, offset + cells[0])
        left, right = max(place.left, offset), min(place.right, offset + cells[1])
        if top >= bottom or left >= right:
            return Window(Box(0, 0, 0, 0), Box(0, 0, 0, 0), cells)
        kept = Box(top, left, bottom, right)
        corner = Box(place.top - extended.inside.top, place.left - extended.inside.left, 0, 0)
        return Window(kept.within(corner), Box(top - offset, left - offset, bottom - offset, right - offset), cells)
