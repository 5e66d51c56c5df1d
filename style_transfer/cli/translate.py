"""Commands of neural-style, neuralart and fzliu/style-transfer, recognised and written as commands of this program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from ..errors import SettingsError, near_miss
from .programs import TABLES, Row

GUIDE: Final = "docs/coming-from.md"


@dataclass(frozen=True)
class Program:
    """A program whose commands are recognised.

    `scripts` are the names of its scripts. `content` and `styles` are its flags for pictures. `signs` are flags that no command
    of this program has, one of which shows whose command it is. `preset` and `weights` are what its command implies, unless a row
    names another preset or other weights.
    """

    name: str
    scripts: tuple[str, ...]
    content: str
    styles: str
    signs: frozenset[str]
    preset: str
    weights: Mapping[str, str]

    @property
    def rows(self) -> tuple[Row, ...]:
        """Its rows of the guide."""
        return TABLES[self.name]

    @property
    def switches(self) -> set[str]:
        """Its flags that have no value."""
        return {row.flag for row in self.rows if row.switch}


def _flags_in(name: str) -> frozenset[str]:
    """Return all flags in the first column of a program's table."""
    return frozenset(flag for row in TABLES[name] for flag in re.findall(r"(?<![\w-])--?[a-z_]+", row.theirs))


PROGRAMS: Final = (
    Program(
        "neural-style",
        ("neural_style.lua", "neural_style.py"),
        "-content_image",
        "-style_image",
        _flags_in("neural-style"),
        "neural-style",
        {"neural-style": "models/VGG_ILSVRC_19_layers.caffemodel"},
    ),
    Program(
        "neuralart",
        ("main.lua",),
        "--content",
        "--style",
        frozenset(
            {"--content", "--style_factor", "--num_iters", "--display_interval", "--smoothness", "--output_dir", "--model"}
        ),
        "neuralart",
        {"neuralart": "vgg_normalised.caffemodel", "neuralart-inception": "bvlc_googlenet.caffemodel"},
    ),
    Program(
        "fzliu/style-transfer",
        ("style.py",),
        "-c",
        "-s",
        frozenset({"-c", "-m"}),
        "fzliu",
        {"fzliu": "VGG_ILSVRC_16_layers.caffemodel"},
    ),
)


def recognized(words: Sequence[str]) -> Program | None:
    """Return the program whose command these words are, None for one of this program."""
    for program in PROGRAMS:
        if any(PurePath(word).name in program.scripts for word in words[:3]):
            return program
    flags = {word.partition("=")[0] for word in words if word.startswith("-")}
    return next((program for program in PROGRAMS if flags & program.signs), None)


def translated(words: Sequence[str], program: Program) -> list[str]:
    """Return the words of the command of this program that does what a command of another one does.

    Raises `SettingsError` for a flag that the other program does not have, or for a value that cannot be one of its flag's.
    """
    flags = _values(words, program)
    content, styles = flags.pop(program.content, "content.jpg"), flags.pop(program.styles, "style.jpg")
    options: dict[str, list[str]] = {}
    for row in program.rows:
        if row.flag in flags and (row.value is None or row.value == flags[row.flag]):
            _add(options, row, flags)
    preset = options.pop("--preset", [program.preset])
    weights = options.pop("--weights", [program.weights[preset[0]]] if preset[0] in program.weights else None)
    result = [content, *styles.split(","), "--preset", *preset]
    for flag, values in options.items():
        result += [flag, *values]
    return [*result, *(["--weights", *weights] if weights else [])]


def _values(words: Sequence[str], program: Program) -> dict[str, str]:
    """Return the values of a command's flags; what stands before the first flag is the start of the program."""
    known, switches = _flags_in(program.name), program.switches
    flags, rest = dict[str, str](), [word.strip("<>") for word in words]
    while rest and not rest[0].startswith("-"):
        del rest[0]
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag not in known:
            raise SettingsError(f"{program.name} has no flag {flag}{near_miss(flag, known)}; see {GUIDE}")
        if flag in switches:
            value = ""
        elif not equals:
            if not rest:
                raise SettingsError(f"{flag} of {program.name} needs a value; see {GUIDE}")
            value = rest.pop(0)
        flags[flag] = value
    return flags


def _add(options: dict[str, list[str]], row: Row, flags: Mapping[str, str]) -> None:
    """Add the options that a row stands for; they replace earlier ones of the same name."""
    value = flags[row.flag]
    try:
        words = row.to.format(value.replace(",", " ")) if isinstance(row.to, str) else row.to(value, flags)
    except ValueError:
        raise SettingsError(f"{row.flag} {value}: is not a value of this flag; see {GUIDE}") from None
    flag = ""
    for word in shlex.split(words):
        if re.match(r"--?[a-z]", word):
            flag = word
            options[flag] = []
        else:
            options[flag].append(word)


def line(words: Sequence[str]) -> str:
    """Return the line for a shell that runs a command of this program."""
    return shlex.join(["style_transfer", *words])


def check_own(argv: Sequence[str]) -> None:
    """Raise `SettingsError`, which gives the command to run instead, for the command of another program."""
    program = recognized(argv)
    if program is not None:
        words = translated(argv, program)
        raise SettingsError(f"this is a command of {program.name}; here it is: {line(words)} (see {GUIDE})")


def requested(argv: Sequence[str]) -> list[str] | str:
    """Return what `style_transfer translate [--run] -- COMMAND` asks for: the words to run, or with --run left out their line.

    Raises `SettingsError` for a command that is not recognised.
    """
    words, run = list(argv), False
    if words[:1] == ["--run"]:
        words, run = words[1:], True
    if words[:1] == ["--"]:
        del words[0]
    program = recognized(words)
    if program is None:
        names = ", ".join(each.name for each in PROGRAMS)
        raise SettingsError(f"style_transfer translate: give a command of {names} after --; see {GUIDE}")
    found = translated(words, program)
    return found if run else line(found)
