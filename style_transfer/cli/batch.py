"""Several pictures in one command: which content with which styles goes to which file, and a labelled picture of them all."""

from __future__ import annotations

import itertools
import math
import os
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import ImageError, OutputError, SettingsError, near_miss
from ..files.atomic import is_folder, shown
from ..pictures import images

if TYPE_CHECKING:
    import numpy.typing as npt

PICTURES: Final = frozenset(
    ".png .jpg .jpeg .jpe .tif .tiff .webp .bmp .gif .ppm .pgm .pbm .pnm .tga .jp2 .j2k .jpx .avif".split()
)
"""What the names of pictures in a folder end in."""

CELL: Final = 320
MAX_SHEET: Final = 16000


LONGEST: Final = 210
"""Bytes of the names of content and styles in a file's name: of 255, with room for `_`, .png and .checkpoint.previous.old."""


@dataclass(frozen=True)
class Task:
    """One picture to paint: the content's file, the styles' files, the result's."""

    content: str
    styles: tuple[str, ...]
    output: Path

    @property
    def names(self) -> dict[str, Any]:
        """The values of the fields {content} and {style} in names of files."""
        content = _cut(Path(self.content).stem, LONGEST - 24)
        styles = "+".join(Path(style).stem for style in self.styles)
        return {"content": content, "style": _cut(styles, min(120, LONGEST - len(os.fsencode(content))))}


def _cut(text: str, most: int) -> str:
    """Return the beginning of a name, so many bytes at most."""
    return text if len(os.fsencode(text)) <= most else os.fsencode(text)[:most].decode(errors="ignore")


class _Fields(string.Formatter):
    """Fills in names of files: numbers get four digits unless asked otherwise; only plain names of fields are known."""

    def __init__(self, flag: str, known: Sequence[str]) -> None:
        self.flag, self.known = flag, known

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if field_name not in self.known:
            words = ", ".join(f"{{{name}}}" for name in self.known)
            raise SettingsError(
                f"{self.flag}: unknown field {{{field_name}}}{near_miss(field_name, self.known)}; there are {words}"
            )
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> Any:
        return format(value, format_spec or ("04d" if isinstance(value, int) else ""))


def fill(flag: str, pattern: str, values: Mapping[str, Any]) -> Path:
    """Return a file's name with its fields, such as {content} or {number:05}, filled in. Raises `SettingsError`."""
    try:
        return Path(_Fields(flag, tuple(values)).format(pattern, **values))
    except SettingsError:
        raise
    except (ValueError, KeyError, IndexError) as error:
        raise SettingsError(f"{flag} {shown(pattern)}: {error}; write fields as {{number}} or {{number:05}}") from None


def fields_in(flag: str, pattern: str) -> set[str]:
    """Return the names of the fields in a pattern. Raises `SettingsError` where braces do not match."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise SettingsError(f"{flag} {shown(pattern)}: {error}") from None


def pictures(paths: Iterable[str]) -> list[str]:
    """Return files as they are and, for a folder, the pictures in it by name. Raises `ImageError` for a folder without any."""
    found = []
    for path in paths:
        if not is_folder(path):
            found.append(path)
            continue
        try:
            inside = sorted(p for p in Path(path).iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith("."))
        except OSError as error:
            raise ImageError(f"{shown(path)}: cannot be read: {error.strerror}") from error
        inside = [p for p in inside if p.is_file()]
        if not inside:
            raise ImageError(f"{shown(path)}: is a folder without pictures; give pictures or a folder of them")
        found += map(str, inside)
    return found


def plan(contents: Sequence[str], styles: Sequence[str], output: str, *, default: str, grid: bool) -> list[Task]:
    """Return what is to be painted, each content with all styles together or, in a `grid`, with each of them.

    `output` is a folder or a pattern with the fields {content}, {style} and {number}; `default`, its value when nothing was
    said, stands for the folder out. Raises `SettingsError` where two results would have one name or a result that of an input.
    """
    groups = [(style,) for style in styles] if grid else [tuple(styles)]
    pairs = [(content, group) for content in contents for group in groups]
    if not fields_in("--output", output):
        if output == default:
            output = "out"
        elif Path(output).suffix.lower() in images.WRITERS and len(pairs) > 1:
            raise SettingsError(
                f"--output {shown(output)} names one file for {len(pairs)} pictures; give a folder, or a pattern such as "
                f"{{content}}_{{style}}{Path(output).suffix}"
            )
        if Path(output).suffix.lower() not in images.WRITERS:
            folder = output.replace("{", "{{").replace("}", "}}")
            output = str(Path(folder) / ("{content}_{style}.png" if grid else "{content}.png"))
    tasks: list[Task] = []
    taken: dict[Path, Task] = {}
    for number, (content, group) in enumerate(pairs, 1):
        task = Task(content, group, Path())
        path = fill("--output", output, task.names | {"number": number})
        task = Task(content, group, path)
        other = taken.setdefault(path.absolute(), task)
        if other is not task:
            raise SettingsError(
                f"--output: {shown(path)} would be the result of {shown(other.content)} and of "
                f"{shown(content)}; put {{content}}, {{style}} or {{number}} into --output"
            )
        tasks.append(task)
    inputs = {Path(path).resolve(): path for path in (*contents, *styles)}
    for task in tasks:
        if task.output.resolve() in inputs:
            raise SettingsError(f"--output {shown(task.output)} is also an input; choose another folder")
    return tasks


def iterate_pattern(pattern: str) -> str:
    """Return the pattern of --save-iterates, with a number before its ending if it has none, as neural-style numbers."""
    if fields_in("--save-iterates", pattern) & {"number", "iteration"}:
        return pattern
    path = Path(pattern)
    return str(path.with_name(f"{path.stem}-{{number}}{path.suffix}"))


def check_iterates(pattern: str, tasks: Sequence[Task]) -> None:
    """Raise `SettingsError` where the numbered pictures of two tasks would have the same names, or a field is unknown."""
    pattern = iterate_pattern(pattern)
    names: dict[Path, Task] = {}
    for task in tasks:
        values = task.names | dict.fromkeys(("number", "iteration", "scale", "step"), 1)
        path = fill("--save-iterates", pattern, values)
        if names.setdefault(path, task) is not task:
            raise SettingsError(f"--save-iterates {shown(pattern)} is the same for several pictures; put {{content}} into it")


def beside(flag: str, pattern: str, task: Task) -> Path:
    """Return the name of a file that each picture has one of, from a pattern with {content}, {style} and {output}.

    Raises `SettingsError`.
    """
    return fill(flag, pattern, task.names | {"output": task.output.stem})


def check_beside(flag: str, pattern: str, tasks: Sequence[Task]) -> None:
    """Raise `SettingsError` where two tasks would have the same such file, or a field is unknown."""
    names: dict[Path, Task] = {}
    for task in tasks:
        if names.setdefault(beside(flag, pattern, task), task) is not task:
            raise SettingsError(
                f"{flag} {shown(pattern)} is the same for several pictures; put {{content}} or {{output}} into it"
            )


def make_folder(path: Path) -> None:
    """Make the folder of a file that is going to be written. Raises `OutputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        name = shown(path.parent)
        raise OutputError(f"{name}: the folder cannot be made: {error.strerror}; choose another") from error


# the contact sheet


def contact_sheet(tasks: Sequence[Task], made: Mapping[Task, Path | None], *, grid: bool) -> npt.NDArray[np.float32]:
    """Return a labelled picture of the results, float32 (H, W, 3): a table of contents by styles, or one result after another.

    `made` has each task's file, or None for one that failed.
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
    """A white sheet of cells, each with a picture and a line under it; a row is as high as its highest picture.

    Cells are `cell` pixels wide, and shrink where there are very many.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.cell = min(CELL, max(48, MAX_SHEET // max(columns, rows) - 40))
        self.gap = max(4, self.cell // 24)
        self.font = ImageFont.load_default(max(9, self.cell // 18))
        self.line = math.ceil(1.6 * max(9, self.cell // 18))
        self.cells: dict[tuple[int, int], tuple[Image.Image | str, str]] = {}
        """By column and row: a picture, or a word that stands for one, and the label."""

    def put(self, column: int, row: int, path: Path | None, label: str) -> None:
        """Put a picture and its label into a cell; a word stands for a picture that is not there."""
        shows: Image.Image | str = "failed"
        if path is not None:
            try:
                shows = self._reduced(path)
            except ImageError:
                shows = "not readable"
        self.cells[column, row] = shows, label

    def pixels(self) -> npt.NDArray[np.float32]:
        """Return the sheet's pixels."""
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
        """Return a picture file in 8 bits, fitted into a cell; what is transparent is white."""
        picture = images.load(path, alpha=True)
        pixels = picture.pixels
        if picture.alpha is not None:
            pixels = pixels * picture.alpha[..., None] + (1 - picture.alpha[..., None])
        image = images.to_pil(pixels)
        scale = self.cell / max(image.size)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return image.resize(size, Image.Resampling.LANCZOS)

    def _fitted(self, label: str) -> str:
        """Return a label as far as it fits into its cell."""
        text = shown(label)
        if self.font.getlength(text) <= self.cell:
            return text
        while text and self.font.getlength(text + "...") > self.cell:
            text = text[:-1]
        return text + "..."
