"""The pictures of one command: which content with which styles becomes which file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from ..errors import ImageError, OutputError, SettingsError
from ..files import Task, fields_in, fill, is_folder, shown
from ..pictures import format_of
from ..registry import OUTPUT_FORMATS
from ..settings.command import CommandOptions

PICTURES: Final = frozenset(
    ".png .jpg .jpeg .jpe .tif .tiff .webp .bmp .gif .ppm .pgm .pbm .pnm .tga .jp2 .j2k .jpx .avif".split()
)
"""The suffixes of the files in a folder that are taken for pictures."""
FILE, FOLDER = "out.png", "out"
"""The default output for one picture, and for several."""


def pictures(paths: Iterable[str]) -> list[str]:
    """Return the files among `paths`, and the pictures in the folders among them by name.

    Raises `ImageError` for a folder without pictures.
    """
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


def plan_tasks(contents: Sequence[str], styles: Sequence[str], options: CommandOptions, *, several: bool) -> list[Task]:
    """Return the pictures to paint. Raises `SettingsError` for names that conflict."""
    if several:
        tasks = plan_several(contents, styles, options.output, grid=options.grid)
    else:
        tasks = [Task(contents[0], tuple(styles), Path(options.output or FILE))]
    if options.save_iterates is not None:
        check_iterates(options.save_iterates, tasks)
    return tasks


def plan_several(contents: Sequence[str], styles: Sequence[str], output: str | None, *, grid: bool) -> list[Task]:
    """Return a task for each content with all styles together or, in a `grid`, with each of them.

    `output` is a folder, or a pattern with the fields {content}, {style} and {number}. Raises `SettingsError` where two results
    have the same name, a result has that of an input, or a name is not that of a picture that can be written.
    """
    groups = [(style,) for style in styles] if grid else [tuple(styles)]
    pairs = [(content, group) for content in contents for group in groups]
    pattern = _pattern(output or FOLDER, len(pairs), grid=grid)
    tasks: list[Task] = []
    taken: dict[Path, Task] = {}
    for number, (content, group) in enumerate(pairs, 1):
        names = Task(content, group, Path()).names
        task = Task(content, group, fill("--output", pattern, names | {"number": number}))
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
