"""The help: a summary on one screen, a page for each topic, and the table of all options in Markdown.

The summary must print fast, so this module imports nothing heavy, and the summary loads no registry.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from ..errors import SettingsError, near_miss
from ..registry import NETWORKS
from ..settings import CommandOptions, Option, Settings, describe_presets, flag_name
from ..settings.sources import PREFIX, known_options
from .parser import INFORMATION, metavar, option_classes

WIDTH: Final = 100
INDENT: Final = 32

TOPICS: Final = {
    "files": "inputs, results, checkpoints, files of options",
    "look": "losses, their weights, the picture to start from",
    "colour": "the colours of the result, transparency, soft proof",
    "masks": "styles for parts of the content",
    "size": "scales, sizes of the styles, dry run",
    "print": "sizes on paper, bleed, sharpening, wide gamut, press, proof",
    "devices": "CPU and GPUs, memory, precision",
    "watching": "live page, previews, animation, report, messages",
    "networks": "networks, weights, layers",
    "presets": "the settings of other programs",
    "optimizer": "steps and optimizers",
}
"""The topics of the help, each with what its page is about."""

SUMMARY: Final = (
    "output", "end_scale", "iterations", "content_weight", "tv_weight", "style_weights", "color", "init", "preset", "network",
    "devices", "each", "resume",
)  # fmt: skip
"""The options that the summary lists."""

USAGE: Final = "usage: style_transfer CONTENT STYLE... [OPTION...]  or  STYLE... --each CONTENT... [OPTION...]"


def default_of(about: Option) -> str:
    """Return the default of an option as the help shows it, or an empty text where there is none."""
    default = about.default
    if about.default_help is not None:
        return about.default_help
    if default is None or about.flag:
        return "on" if default else ""
    if isinstance(default, tuple):
        return " ".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _flags(name: str, about: Option) -> str:
    flags = ", ".join(([about.short] if about.short else []) + [flag_name(name)])
    if about.flag:
        return flags
    value = metavar(about)
    return f"{flags} {value}..." if about.many else f"{flags} [{value}]" if about.optional_word else f"{flags} {value}"


def _text(about: Option, help: str) -> str:
    default = default_of(about)
    return f"{help} (default: {default})" if default else help


def summary() -> str:
    """Return the text of -h. It has the first clause of each option's help."""
    known = known_options([CommandOptions, Settings])
    rows = [(_flags(name, known[name]), _text(known[name], known[name].help.partition(";")[0])) for name in SUMMARY]
    lines = [USAGE, "", "Render the content picture in the style of one or more pictures, coarse to fine.", ""]
    lines += _columns(rows)
    lines += ["", "--help TOPIC lists more options; --help all lists all:", *_columns(list(TOPICS.items()), 14)]
    lines += ["", "--version, --doctor and --print-completion SHELL print information; --help all describes them."]
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, str]], indent: int = INDENT) -> Iterator[str]:
    """Yield lines of two columns, the second one `indent` characters from the left."""
    for left, right in rows:
        first, *more = _wrapped(right, 0, WIDTH - indent)
        if len(left) + 4 > indent:
            yield f"  {left}"
            left = ""
        yield f"  {left}".ljust(indent) + first
        yield from (" " * indent + line for line in more)


def _wrapped(text: str, indent: int, width: int = WIDTH, hanging: int = 0) -> list[str]:
    """Return the lines of a text, indented, and from the second line on by `hanging` more."""
    margin = " " * indent
    return textwrap.wrap(
        text, width, initial_indent=margin, subsequent_indent=margin + " " * hanging, break_on_hyphens=False
    )  # fmt: skip


def topic_page(topic: str, known: Mapping[str, Option]) -> str:
    """Return the options of a topic with their choices."""
    lines = [f"{topic}: {TOPICS[topic]}", ""]
    for name, about in known.items():
        if about.topic == topic:
            lines += [f"  {_flags(name, about)}", *_wrapped(_text(about, about.help), 6), *_choices(about)]
    return "\n".join(lines)


def _choices(about: Option) -> Iterator[str]:
    """Yield the choices of an option, each with its phrase, and those without one together."""
    choices = about.choices
    plain = [word for word, phrase in choices.items() if not phrase]
    width = max((len(word) for word, phrase in choices.items() if phrase), default=0)
    for word, phrase in choices.items():
        if phrase:
            yield from _wrapped(f"{word:{width}}  {phrase}", 8, hanging=width + 2)
    if plain:
        yield from _wrapped(", ".join(plain), 8)


def describe_networks() -> str:
    """Return the weights, layers and pooling of each network."""
    blocks = []
    for name, entry in sorted(NETWORKS.items()):
        lines = [
            *(f"weights: {file}" for file in entry.files),
            f"content layers: {' '.join(entry.content_layers)}",
            f"style layers: {' '.join(entry.style_layers)}",
            f"pooling: {entry.pooling}",
        ]
        blocks.append("\n".join([name, *(wrapped for line in lines for wrapped in _wrapped(line, 4, hanging=2))]))
    return "\n".join(blocks)


DETAILS: Final[dict[str, Callable[[], str]]] = {"networks": describe_networks, "presets": describe_presets}
"""What stands below the options on the page of a topic."""


def help_text(topic: str | None) -> str:
    """Return the text of --help, of a topic, or of "all". Raises `SettingsError` for an unknown topic."""
    if topic is None:
        return summary()
    if topic not in (*TOPICS, "all"):
        names = [*TOPICS, "all"]
        raise SettingsError(f"--help {topic}: there is no such topic{near_miss(topic, names)}; there are {', '.join(names)}")
    known = known_options(option_classes())
    if topic != "all":
        return "\n\n".join([topic_page(topic, known), *([DETAILS[topic]()] if topic in DETAILS else [])])
    flags = [(f"{flag} {value}" if value else flag, text) for flag, (value, text) in INFORMATION.items()]
    return "\n\n".join([USAGE, *(topic_page(each, known) for each in TOPICS), "information:", "\n".join(_columns(flags))])


def options_page() -> str:
    """Return docs/options.md: all options by topic, in Markdown."""
    known = known_options(option_classes())
    blocks = [
        "# Options",
        "Generated by `python scripts/options_page.py`; edit the declarations in the program instead.",
        f"Each option is a flag of the command line, a variable such as `{PREFIX}END_SCALE`, and a key of the TOML file that "
        "`--config` names, such as `end_scale`. A flag overrides a variable, which overrides the file. Each flag without a "
        "value, such as `--grid`, has an opposite, such as `--no-grid`.",
    ]
    for topic, about_topic in TOPICS.items():
        rows = ["| option | default | what it does |", "|---|---|---|"]
        for name, about in known.items():
            if about.topic == topic:
                rows.append(_row(name, about))
        details = [f"```text\n{DETAILS[topic]()}\n```"] if topic in DETAILS else []
        blocks += [f"## {topic.capitalize()}", f"{about_topic[0].upper()}{about_topic[1:]}.", "\n".join(rows), *details]
    rows = ["| flag | what it does |", "|---|---|"]
    rows += [f"| `{flag}{f' {value}' if value else ''}` | {text} |" for flag, (value, text) in INFORMATION.items()]
    completion = (
        "Tab completion needs `pip install 'style_transfer[completion]'`. Write the script once to "
        "`~/.local/share/bash-completion/completions/style_transfer` for bash, to a file `_style_transfer` in a folder of "
        "`$fpath` for zsh, or to `~/.config/fish/completions/style_transfer.fish` for fish."
    )
    return "\n\n".join([*blocks, "## Information", "\n".join(rows), completion]) + "\n"


def _row(name: str, about: Option) -> str:
    """Return an option's row of the table."""
    choices = (f"`{word}`" + (f": {phrase}" if phrase else "") for word, phrase in about.choices.items())
    cells = f"`{_flags(name, about)}`", default_of(about), "<br>".join([about.help, *choices])
    return "| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |"
