"""The flags that print information and exit. They are found before anything else is parsed or imported, to be fast."""

from __future__ import annotations

from collections.abc import Sequence

from .. import __version__
from ..errors import SettingsError
from ..observers.stdout import print_out
from .help import help_text
from .parser import ALIASES, INFORMATION


def answer(argv: Sequence[str]) -> int | None:
    """Print what the first flag of `INFORMATION` in a command asks for and return the exit code; None if there is no such flag.

    Raises `SettingsError` for a value that the flag does not have.
    """
    words = list(argv)[: list(argv).index("--")] if "--" in argv else list(argv)
    for number, word in enumerate(words):
        flag, equals, value = word.partition("=")
        flag, implied = ALIASES.get(flag, (flag, ""))
        if flag in INFORMATION:
            if not equals and number + 1 < len(words) and not words[number + 1].startswith("-"):
                value = words[number + 1]
            return _print(flag, implied or value, [*words[:number], *words[number + 1 :]])
    return None


def _print(flag: str, value: str, rest: Sequence[str]) -> int:
    """Print what a flag with its value asks for; `rest` are the other words of the command."""
    if flag == "--doctor":
        from .doctor import print_findings  # loads torch, which the other flags must not wait for

        return print_findings(rest)
    if flag == "--version":
        print_out(f"style_transfer {__version__}")
    elif flag == "--print-completion":
        if not value:
            raise SettingsError("--print-completion needs a shell: bash, zsh or fish")
        from .completion import completion_script  # loads shtab, which the other flags must not wait for

        print_out(completion_script(value))
    else:
        print_out(help_text(value or None))
    return 0
