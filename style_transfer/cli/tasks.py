"""The pictures of one command: which content with which styles becomes which file."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from ..errors import ImageError, OutputError, SettingsError
from ..files import Task, exists, fields_in, fill, is_folder, shown
from ..pictures import format_of
from ..pictures.decode.loading import RAW_CAMERA
from ..registry import OUTPUT_FORMATS
from ..settings.command import CommandOptions

PICTURES: Final = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .jif .tif .tiff .webp .bmp .dib .gif .ppm .pgm .pbm .pnm .pfm .tga .jp2 .j2k .jpx "
    ".avif".split()
)
"""The suffixes of the files in a folder that are taken for pictures."""
NOT_READ: Final = frozenset(".heic .heif .psd .psb .jxl .exr .svg .pdf .eps .xcf .kra .ai".split()) | RAW_CAMERA
"""The suffixes of pictures that are not read, which are reported."""
SHOWN: Final = 5
"""The most names in a message."""
FILE, FOLDER = "out.png", "out"
"""The default output for one picture, and for several."""


def pictures(paths: Iterable[str], report: Callable[[str], object] = lambda text: None) -> list[str]:
    """Return the files among `paths`, those that patterns such as photos/*.jpg match, and the pictures in folders, by name.

    Results of this program in a folder are left out. `report` gets a line for each folder with pictures that cannot be read.
    Raises `ImageError` for a folder or a pattern without pictures.
    """
    found: list[str] = []
    for path in paths:
        if is_folder(path):
            found += map(str, _in_folder(Path(path), report))
        elif glob.has_magic(path) and not exists(path):
            matched = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute patterns)
            if not matched:
                raise ImageError(f"{shown(path)}: no file matches this pattern")
            found += matched
        else:
            found.append(path)
    return found


def _in_folder(folder: Path, report: Callable[[str], object]) -> list[Path]:
    """Return the pictures in a folder by name, except for results of this program. Raises `ImageError` if there are none."""
    try:
        names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ImageError(f"{shown(folder)}: cannot be read: {error.strerror}") from error
    inside = [path for path in names if path.suffix.lower() in PICTURES and path.is_file()]
    broken = [path for path in names if path.suffix.lower() in PICTURES and path.is_symlink() and not path.exists()]
    ignored = [path.name for path in names if path.suffix.lower() in NOT_READ or path in broken]
    if ignored:
        more = f" and {len(ignored) - SHOWN} more" if len(ignored) > SHOWN else ""
        report(shown(f"{folder}: left out {', '.join(ignored[:SHOWN])}{more}: not a picture that can be read"))
    photographs = [path for path in inside if not is_result(path)]
    if not photographs:
        raise ImageError(
            f"{shown(folder)}: is a folder without pictures"
            f"{' except for results of this program' if inside else ''}; give pictures or a folder of them"
        )
    return photographs


def is_result(path: Path) -> bool:
    """Return whether a picture has the recipe of this program beside it."""
    try:
        recipe = json.loads(path.with_name(path.name + ".json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(recipe, dict) and str(recipe.get("program")).startswith("style_transfer ") and "settings" in recipe


def plan_tasks(contents: Sequence[str], styles: Sequence[str], options: CommandOptions, *, several: bool) -> list[Task]:
    """Return the pictures to paint. Raises `SettingsError` for names that conflict."""
    if several:
        tasks = plan_several(contents, styles, options.output, grid=options.grid)
    else:
        output = options.output or FILE
        tasks = plan_several(contents, styles, output, grid=False) if names_folder(output) else [
            Task(contents[0], tuple(styles), Path(output))
        ]  # fmt: skip
    if options.save_iterates is not None:
        check_iterates(options.save_iterates, tasks)
    return tasks


def shard_of(tasks: Sequence[Task], shard: str | None) -> list[Task]:
    """Return the tasks of a shard such as 3/8: every eighth from the third on. Raises `SettingsError` if there is none."""
    if shard is None:
        return list(tasks)
    part, _, whole = shard.partition("/")
    chosen = list(tasks)[int(part) - 1 :: int(whole)]
    if not chosen:
        raise SettingsError(f"--shard {shard}: there are only {len(tasks)} pictures")
    return chosen


def names_folder(output: str) -> bool:
    """Return whether --output names a folder, or a pattern, for a single picture too."""
    return output.endswith(("/", os.sep)) or is_folder(output) or bool(fields_in("--output", output))


def plan_several(contents: Sequence[str], styles: Sequence[str], output: str | None, *, grid: bool) -> list[Task]:
    """Return a task for each content with all styles together or, in a `grid`, with each of them.

    `output` is a folder, or a pattern with the fields {content}, {style} and {number}. In a folder results of contents with the
    same name are numbered. Raises `SettingsError` where a pattern gives two results the same name, a result has that of an input,
    or a name is not that of a picture that can be written.
    """
    groups = [(style,) for style in styles] if grid else [tuple(styles)]
    pairs = [(content, group) for content in contents for group in groups]
    pattern = _pattern(output or FOLDER, len(pairs), grid=grid)
    tasks: list[Task] = []
    taken: dict[Path, Task] = {}
    for number, (content, group) in enumerate(pairs, 1):
        names = Task(content, group, Path()).names
        task = Task(content, group, fill("--output", pattern, names | {"number": number}))
        path, again = task.output, 1
        while pattern != output and task.output.absolute() in taken:
            again += 1
            task = Task(content, group, path.with_stem(f"{path.stem}-{again}"))
        other = taken.setdefault(task.output.absolute(), task)
        if other is not task:
            raise SettingsError(
                f"--output: {shown(task.output)} would be the result of {shown(other.content)} and of "
                f"{shown(content)}; put {{content}}, {{style}} or {{number}} into --output"
            )
        format_of(task.output)
        tasks.append(task)
    inputs = {Path(path).resolve(): path for path in (*contents, *styles)}
    for task in tasks:
        if task.output.resolve() in inputs:
            raise SettingsError(f"--output {shown(task.output)} is also an input; choose another folder")
    return tasks


def _pattern(output: str, count: int, *, grid: bool) -> str:
    """Return the pattern for the names of `count` results."""
    if fields_in("--output", output):
        return output
    suffix = Path(output).suffix
    if suffix.lower() in PICTURES or suffix.lower() in OUTPUT_FORMATS:
        format_of(output)
        if count == 1:
            return output
        raise SettingsError(
            f"--output {shown(output)} names one file for {count} pictures; give a folder, or a pattern such as "
            f"{{content}}_{{style}}{suffix}"
        )
    folder = output.replace("{", "{{").replace("}", "}}")
    return str(Path(folder) / ("{content}_{style}.png" if grid else "{content}.png"))


def iterate_pattern(pattern: str) -> str:
    """Return the pattern of --save-iterates, with {number} before its suffix if it has no number, as neural-style has it."""
    if fields_in("--save-iterates", pattern) & {"number", "iteration"}:
        return pattern
    path = Path(pattern)
    return str(path.with_name(f"{path.stem}-{{number}}{path.suffix}"))


def check_iterates(pattern: str, tasks: Sequence[Task]) -> None:
    """Raise `SettingsError` if the numbered pictures of two tasks have the same names, or a field is unknown."""
    pattern = iterate_pattern(pattern)
    names: dict[Path, Task] = {}
    for task in tasks:
        values = task.names | dict.fromkeys(("number", "iteration", "scale", "step"), 1)
        path = fill("--save-iterates", pattern, values)
        if names.setdefault(path, task) is not task:
            raise SettingsError(f"--save-iterates {shown(pattern)} is the same for several pictures; put {{content}} into it")


def make_folder(path: Path) -> None:
    """Make the folder of a file to be written. Raises `OutputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        name = shown(path.parent)
        raise OutputError(f"{name}: the folder cannot be made: {error.strerror}; choose another") from error
