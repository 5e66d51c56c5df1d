"""The options of the command line: a parser made from the settings, what else a command decides, the README's table."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .. import __version__
from ..errors import EXIT_CODES, SettingsError, near_miss
from ..files.atomic import is_folder, shown
from ..observers.console import print_out
from ..settings import sources
from ..settings.catalog import describe_networks
from ..settings.presets import describe_presets
from ..settings.settings import Option, Settings, check_not_empty, flag_name, option, options_of, validate_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line decides beside `Settings`: files, the terminal, the live page."""

    output: str = option("out.png", "the result; .tif .tiff .png have 16 bits per channel, .jpg .jpeg .webp 8; for several "
        "pictures a folder (out if left out) or a pattern such as {content}_{style}.tif", short="-o", metavar="FILE")  # fmt: skip
    each: tuple[str, ...] | None = option(None, "content pictures or folders, each painted by itself; all others named are "
        "styles then", many=True, metavar="CONTENT")  # fmt: skip
    grid: bool = option(False, "paint every content with every style alone, not with all of them together", flag=True)
    overwrite: bool = option(False, "of several pictures paint those again that are there already", flag=True)
    contact_sheet: str | None = option(None, "put all results on one labelled picture, a table if it is a grid", metavar="FILE",
        check=check_not_empty)  # fmt: skip
    dpi: float = option(72.0, "resolution written into the result, in dots per inch", kind=float, minimum=0.1, maximum=65535.0)
    save_every: int = option(50, "write the picture every so many iterations (0: only at the end of each scale)", kind=int,
        minimum=0)  # fmt: skip
    checkpoint: str | None = option(None, "file that a run which was cut short can go on from, or off; removed when the run is "
        "complete (OUTPUT.checkpoint if left out)", metavar="FILE", check=check_not_empty)  # fmt: skip
    checkpoint_every: float = option(60.0, "seconds between checkpoints, more where that would cost over 2 % of the time (0: "
        "only at the end of each scale)", kind=float, minimum=0.0, maximum=1e9, metavar="SECONDS")  # fmt: skip
    resume: bool = option(False, "go on from the checkpoint; pictures and options must be those it was made with", flag=True)
    keep_checkpoint: bool = option(False, "keep the checkpoint when the run is complete", flag=True)
    save_iterates: str | None = option(None, "keep each picture that is written on the way, numbered, such as "
        "frames/{number}.png; also {iteration} {scale} {step} {content} {style}", metavar="PATTERN",
        check=check_not_empty)  # fmt: skip
    proof: str | None = option(None, "CMYK ICC profile to soft-proof the input pictures with", metavar="PROFILE")
    content_mask: tuple[str, ...] | None = option(None, "masks of the content: where each style goes, or each part of it, "
        "white for all and gray for some; or a single one in flat colours", many=True, metavar="FILE",
        check=check_not_empty)  # fmt: skip
    style_mask: tuple[str, ...] | None = option(None, "masks of the styles, one for each content mask, or in the same colours: "
        "which part of a style goes there (all of it if left out)", many=True, metavar="FILE", check=check_not_empty)  # fmt: skip
    max_pixels: int = option(500_000_000, "largest input picture that is read, in pixels", kind=int, minimum=1)
    dry_run: bool = option(False, "print scales, sizes, tiles, memory, disk and estimated time, and do nothing", flag=True)
    config: str | None = option(None, "TOML file with options, named as their flags without the first --; flags win over "
        "variables STYLE_TRANSFER_..., and these over the file", metavar="FILE", check=check_not_empty)  # fmt: skip
    dump_config: bool = option(False, "print all options as such a file and do nothing", flag=True)
    web: bool = option(False, "show the picture on a live page while it is painted", flag=True)
    host: str = option("127.0.0.1", "address of the live page; only this machine can see it unless this is changed",
        metavar="ADDRESS", check=check_not_empty)  # fmt: skip
    port: int = option(8080, "port of the live page", kind=int, minimum=0, maximum=65535)
    browser: str | None = option(None, "open the live page in a browser, the usual one or the one named", optional_word=True,
        metavar="NAME")  # fmt: skip
    preview: bool = option(False, "show a small picture above the bar now and then, in terminals that can", flag=True)
    preview_protocol: str = option("auto", "how the terminal gets that picture; or auto, as it says it can, else not at all",
        words=("auto", "kitty", "iterm2", "sixel"))  # fmt: skip
    animation: str | None = option(None, "show how the painting grew, evenly paced by how much changes, in a .mp4, .webm, .gif "
        "or .webp; for several pictures a pattern such as {content}.mp4, also {style} {output}", metavar="FILE",
        check=check_not_empty)  # fmt: skip
    animation_seconds: float = option(10.0, "length of the animation in seconds, in which the last picture stays for a while",
        kind=float, minimum=0.1, maximum=600.0, metavar="SECONDS")  # fmt: skip
    animation_rate: float | None = option(None, "frames per second (30, or 15 for .gif and .webp, if left out)", kind=float,
        minimum=1.0, maximum=60.0)  # fmt: skip
    animation_size: int | None = option(None, "long side of the animation in pixels, at most the result's (960, or 480 for .gif "
        "and .webp, if left out)", kind=int, minimum=16, maximum=4096, metavar="PIXELS")  # fmt: skip
    report: str | None = option(None, "a page about the run in one .html file: pictures, curves, times, settings, hashes; for "
        "several pictures a pattern such as {output}.html", metavar="FILE", check=check_not_empty)  # fmt: skip
    quiet: bool = option(False, "print nothing but errors and the result's path", flag=True)
    json: bool = option(False, "print one JSON line per iteration with each loss term", flag=True)

    def __post_init__(self) -> None:
        validate_fields(self)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise `SettingsError` with the parser's message and, for an unknown flag, the nearest known one."""
        if message.startswith("unrecognized arguments: "):
            message += near_miss(message.split()[2], self._option_string_actions)
        raise SettingsError(f"{message}; see style_transfer --help")


class Tell(argparse.Action):
    """Prints something and exits, as `--help` does; no other argument is needed. `tell` prints, and may return the exit code."""

    def __init__(self, option_strings: Sequence[str], dest: str, tell: Callable[[], int | None], help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.tell = tell

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> NoReturn:
        """Print and exit."""
        parser.exit(self.tell() or 0)


def examine_machine() -> int:
    """Print what `doctor.examine` finds, and return the exit code of the first thing that is wrong."""
    from ..cli import doctor

    code = 0
    for found in doctor.examine():
        mark = "wrong" if found.error else "note " if found.advice else "ok   "
        print_out(shown(f"{mark}  {found.topic}: {found.text}" + (f"; {found.advice}" if found.advice else "")))
        code = code or (0 if found.error is None else EXIT_CODES.get(found.error, 1))
    return code


def describe_default(default: Any) -> str:
    """Return a default value as it stands in the help."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def make_parser() -> Parser:
    """Return the parser, made from `Settings` and `Options`."""
    parser = Parser(
        prog="style_transfer",
        description="Paint a photograph in the manner of one or more pictures, coarse to fine.",
    )
    parser.add_argument("content", nargs="?", help="the content picture, or a folder of them")
    parser.add_argument("styles", nargs="*", metavar="style", help="the style pictures, or folders of them")
    parser.add_argument("--version", action="version", version=f"style_transfer {__version__}")
    for flag, tell, text in (
        ("--doctor", examine_machine, "look at libraries, devices, weights and codecs, say what is wrong, and exit"),
        ("--help-networks", lambda: print_out(describe_networks()), "tell of the networks and their weights"),
        ("--help-presets", lambda: print_out(describe_presets()), "tell of the presets and their settings"),
    ):
        parser.add_argument(flag, action=Tell, tell=tell, help=text)
    for title, cls in (("files, terminal, live page", Options), ("the picture", Settings)):
        group = parser.add_argument_group(title)
        for name, (default, about) in options_of(cls).items():
            _add(group, name, default, about)
    return parser


def _add(group: argparse._ArgumentGroup, name: str, default: Any, about: Option) -> None:
    flags = [about.short] if about.short else []
    text = about.help if about.flag else f"{about.help} (default: {describe_default(default)})"
    extra: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if about.flag:
        group.add_argument(*flags, flag_name(name), action=argparse.BooleanOptionalAction, **extra)
        return
    if about.many:
        extra["nargs"] = "+"
    elif about.optional_word:
        extra |= {"nargs": "?", "const": ""}
    if about.words:
        extra["choices"] = about.words
    else:
        extra["metavar"] = about.metavar or {int: "N", float: "X"}.get(about.kind, name.upper())  # type: ignore[call-overload]

    def kind(word: str) -> Any:
        return about.from_word(word)

    kind.__name__ = about.kind.__name__  # argparse names it in its message
    group.add_argument(*flags, flag_name(name), type=kind, **extra)


def options_table() -> str:
    """Return all options as a Markdown table; the README holds it."""
    rows = ["| option | default | what it does |", "|---|---|---|"]
    for cls in (Options, Settings):
        for name, (default, about) in options_of(cls).items():
            flags = " ".join(f"`{f}`" for f in (about.short, flag_name(name)) if f)
            words = f": {', '.join(about.words)}" if about.words and not all(w in about.help for w in about.words) else ""
            rows.append(f"| {flags} | {describe_default(default)} | {about.help.replace('|', '&#124;')}{words} |")
    return "\n".join(rows)


def parse(argv: Sequence[str]) -> tuple[str, list[str], Settings, Options]:
    """Return the content's path, the styles' paths, the settings and the options. Raises `SettingsError`.

    With --each the content is the first of its values.
    """
    parser = make_parser()
    known, rest = parser.parse_known_args(argv)
    if any(word.startswith("-") for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    flags = vars(known)
    content, styles = flags.pop("content"), [*flags.pop("styles"), *rest]  # argparse leaves those after an option
    given = sources.gather((Options, Settings), flags, os.environ)
    if "each" in given:
        styles = [content, *styles] if content is not None else []
        content = given["each"][0]
    if (content is None or not styles) and not given.get("dump_config"):
        missing = "content, style" if content is None else "style"
        raise SettingsError(f"the following arguments are required: {missing}; see style_transfer --help")
    own = {name: given.pop(name) for name in options_of(Options) if name in given}
    settings = Settings.from_dict({k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
    options = Options(**own)
    if styles and not options.grid and not any(map(is_folder, styles)):
        settings.blend(len(settings.expanded(len(styles))))
    return content or "", styles, settings, options
