"""The command line parsed: a `Command` with the settings and options of flags, environment and file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from ..errors import SettingsError, near_miss
from ..registry import OBSERVERS
from ..settings import CommandOptions, Option, Settings, flag_name, option_words, options_of
from ..settings.sources import Reader, dump, from_environment, from_file, gather, known_options

T = TypeVar("T")

INFORMATION: Final = {
    "--help": ("TOPIC", "print a summary, or all options of a topic, or of all"),
    "--version": (None, "print the version"),
    "--doctor": (None, "check libraries, devices, weights, codecs and the options given, and print what is wrong"),
    "--print-completion": ("SHELL", "print a script that completes commands in bash, zsh or fish"),
}
"""Flags that print something and exit, each with the name of its value and its help."""
ALIASES: Final = {"-h": ("--help", ""), "--help-networks": ("--help", "networks"), "--help-presets": ("--help", "presets")}
"""Other names of such flags with their values."""


@dataclass(frozen=True)
class Command:
    """What a command asks for.

    `content` is the path of the content, with --each the first one, and empty if --dump-config needs none. `observer_options`
    are the observers' options by their class, `chosen` the values that flags, environment and file give, by name. `argv` are the
    words of the command, with flags for what the environment gives.
    """

    argv: tuple[str, ...]
    content: str
    styles: tuple[str, ...]
    settings: Settings
    options: CommandOptions
    observer_options: Mapping[type, Any]
    chosen: Mapping[str, Any]

    def options_of(self, kind: type[T]) -> T:
        """Return the options of an observer, an instance of its class of options."""
        options: T = self.observer_options[kind]
        return options

    def dump(self) -> str:
        """Return a file for --config: the chosen options, and the values of the others as comments."""
        values: dict[str, Any] = {}
        for options in (self.options, self.settings.resolve(), *self.observer_options.values()):
            values |= vars(options)
        return dump(known_options(option_classes()), self.chosen, values)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `SettingsError`."""

    def error(self, message: str) -> NoReturn:
        """Raise `SettingsError`."""
        raise SettingsError(f"{message}; see style_transfer --help")


def option_classes() -> list[type]:
    """Return the dataclasses whose fields are options: those of the command, of the picture, and of the observers."""
    kinds = {entry.Options for entry in OBSERVERS.values()} - {None}
    observers = sorted(kinds, key=lambda kind: kind.__module__)  # imports change the order of registration
    return [CommandOptions, Settings, *observers]


def metavar(about: Option) -> str:
    """Return what stands for the value of an option in the help."""
    return about.metavar or {int: "N", float: "X"}.get(about.kind, "NAME")


def make_parser(known: Mapping[str, Option]) -> Parser:
    """Return a parser of pictures and options, whose values are words that are not checked."""
    parser = Parser(prog="style_transfer", add_help=False)
    parser.add_argument("content", nargs="?")
    parser.add_argument("styles", nargs="*")
    for name, about in known.items():
        flags = (*([about.short] if about.short else []), flag_name(name))
        if about.flag:
            parser.add_argument(*flags, dest=name, default=argparse.SUPPRESS, action=argparse.BooleanOptionalAction)
            continue
        count: dict[str, Any] = {"nargs": "+"} if about.many else {"nargs": "?", "const": ""} if about.optional_word else {}
        parser.add_argument(*flags, dest=name, default=argparse.SUPPRESS, metavar=metavar(about), **count)
    return parser


def _flags(known: Mapping[str, Option], words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the words that a parser found."""
    values = {}
    for name, found in words.items():
        given = [found] if isinstance(found, str) else found
        values[name] = found if isinstance(found, bool) else known[name].parse(flag_name(name), given)
    return values


def _check_unknown(words: Sequence[str], flags: Iterable[str]) -> None:
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        hint = near_miss(unknown[0].partition("=")[0], flags)
        raise SettingsError(f"unrecognized arguments: {' '.join(words)}{hint}; see style_transfer --help")


def parse(argv: Sequence[str], *, without_pictures: bool = False, read: Reader = from_file) -> Command:
    """Return what a command asks for; `read` returns the options in the file that --config names.

    Raises `SettingsError`, also if pictures are missing, except with `without_pictures`.
    """
    classes = option_classes()
    known = known_options(classes)
    parser = make_parser(known)
    found, rest = parser.parse_known_args(argv)
    _check_unknown(rest, [*parser._option_string_actions, *INFORMATION, *ALIASES])
    words = vars(found)
    content, styles = words.pop("content"), [*words.pop("styles"), *rest]  # argparse leaves those after an option
    flags, environment = _flags(known, words), from_environment(known, os.environ)
    chosen = gather(known, flags, environment, read)
    if "each" in chosen:
        styles = [content, *styles] if content is not None else []
        content = chosen["each"][0]
    if (content is None or not styles) and not (without_pictures or chosen.get("dump_config")):
        missing = "content, style" if content is None else "style"
        raise SettingsError(f"the following arguments are required: {missing}; see style_transfer --help")
    options, settings, *others = (kind(**{k: v for k, v in chosen.items() if k in options_of(kind)}) for kind in classes)
    observer_options = {type(each): each for each in others}
    more = [word for name, value in environment.items() if name not in flags for word in option_words(name, value)]
    return Command((*argv, *more), content or "", tuple(styles), settings, options, observer_options, chosen)
