"""The contact sheet: all results of a command on one labelled picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ..errors import ImageError
from ..files import Task, shown
from ..pictures import load, to_pil

CELL: Final = 320
"""The width of a cell in pixels, unless there are very many."""
MAX_SHEET: Final = 16000
"""The largest side of a sheet in pixels."""


def contact_sheet(tasks: Sequence[Task], made: Mapping[Task, Path | None], *, grid: bool) -> npt.NDArray[np.float32]:
    """Return a labelled picture of the results, float32 (H, W, 3) in [0, 1].

    With `grid` it is a table of contents by styles, else the results in order. `made` has the file of each task, or None for a
    task that failed.
    """
    if grid:
        return _table(tasks, made)
    columns = math.ceil(len(tasks) ** 0.5)
    rows = math.ceil(len(tasks) / columns)
    sheet = _Sheet(columns, rows)
    for index, task in enumerate(tasks):
        sheet.put(index % columns, index // columns, made.get(task), Path(task.content).stem)
    return sheet.pixels()


def _table(tasks: Sequence[Task], made: Mapping[Task, Path | None]) -> npt.NDArray[np.float32]:
    contents = list(dict.fromkeys(task.content for task in tasks))
    styles = list(dict.fromkeys(task.styles for task in tasks))
    sheet = _Sheet(len(styles) + 1, len(contents) + 1)
    for column, group in enumerate(styles, 1):
        sheet.put(column, 0, Path(group[0]), "+".join(Path(style).stem for style in group))
    for row, content in enumerate(contents, 1):
        sheet.put(0, row, Path(content), Path(content).stem)
    for task in tasks:
        sheet.put(styles.index(task.styles) + 1, contents.index(task.content) + 1, made.get(task), "")
    return sheet.pixels()


class _Sheet:
    """A white sheet of cells, each with a picture and a label below it; a row is as high as its highest picture."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.cell = min(CELL, max(48, MAX_SHEET // max(columns, rows) - 40))
        self.gap = max(4, self.cell // 24)
        self.font = ImageFont.load_default(max(9, self.cell // 18))
        self.line = math.ceil(1.6 * max(9, self.cell // 18))
        self.cells: dict[tuple[int, int], tuple[Image.Image | str, str]] = {}
        """By column and row: a picture, or a word in its place, and the label."""

    def put(self, column: int, row: int, path: Path | None, label: str) -> None:
        """Put a picture file and its label into a cell; None stands for a picture that failed."""
        shows: Image.Image | str = "failed"
        if path is not None:
            try:
                shows = self._reduced(path)
            except ImageError:
                shows = "not readable"
        self.cells[column, row] = shows, label

    def pixels(self) -> npt.NDArray[np.float32]:
        """Return the pixels of the sheet."""
        heights = [self.line] * self.rows
        for (_, row), (shows, _) in self.cells.items():
            heights[row] = max(heights[row], self.cell // 2 if isinstance(shows, str) else shows.height)
        bottoms = list(itertools.accumulate(height + self.line + self.gap for height in heights))
        image = Image.new("RGB", (self.columns * (self.cell + self.gap) + self.gap, bottoms[-1] + self.gap), "white")
        draw = ImageDraw.Draw(image)
        for (column, row), (shows, label) in self.cells.items():
            left, bottom = self.gap + column * (self.cell + self.gap), bottoms[row] - self.line
            middle = left + self.cell / 2
            if isinstance(shows, str):
                top = bottom - heights[row]
                draw.rectangle((left, top, left + self.cell - 1, bottom - 1), outline="gray")
                place = middle - self.font.getlength(shows) / 2, (top + bottom) / 2
                draw.text(place, shows, fill="black", font=self.font)
            else:
                image.paste(shows, (left + (self.cell - shows.width) // 2, bottom - shows.height))
            text = self._fitted(label)
            draw.text((middle - self.font.getlength(text) / 2, bottom + self.line * 0.1), text, fill="black", font=self.font)
        return np.asarray(image).astype(np.float32) / np.float32(255)

    def _reduced(self, path: Path) -> Image.Image:
        """Return a picture file in 8 bits, fitted into a cell; transparent parts become white."""
        picture = load(path, alpha=True)
        pixels = picture.pixels
        if picture.alpha is not None:
            pixels = pixels * picture.alpha[..., None] + (1 - picture.alpha[..., None])
        image = to_pil(pixels)
        scale = self.cell / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return image.resize(size, Image.Resampling.LANCZOS)

    def _fitted(self, label: str) -> str:
        """Return a label, cut to the width of a cell."""
        text = shown(label)
        if self.font.getlength(text) <= self.cell:
            return text
        while text and self.font.getlength(text + "...") > self.cell:
            text = text[:-1]
        return text + "..."
