"""Names of result files: one picture's inputs and output, and file name patterns with fields."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import SettingsError, near_miss
from .atomic import shown

LONGEST: Final = 210
"""The most bytes that the names of content and styles take in a file name: 255 less room for `_` and the longest suffixes."""


@dataclass(frozen=True)
class Task:
    """One picture to paint: the file of the content, the files of the styles, and the file of the result."""

    content: str
    styles: tuple[str, ...]
    output: Path

    @property
    def names(self) -> dict[str, Any]:
        """The values of the fields {content} and {style} in file name patterns."""
        content = _cut(Path(self.content).stem, LONGEST - 24)
        styles = "+".join(Path(style).stem for style in self.styles)
        return {"content": content, "style": _cut(styles, min(120, LONGEST - len(os.fsencode(content))))}

    def beside(self, flag: str, pattern: str) -> Path:
        """Return the name of a file written beside the result, from a pattern with {content}, {style} and {output}.

        Raises `SettingsError`, which names `flag`.
        """
        return fill(flag, pattern, self.names | {"output": self.output.stem})


def _cut(text: str, most: int) -> str:
    """Return the start of a name, at most `most` bytes of it."""
    return text if len(os.fsencode(text)) <= most else os.fsencode(text)[:most].decode(errors="ignore")


class _Fields(string.Formatter):
    """Fills in patterns. Integers are padded to four digits unless the field has a format; attributes and indices are refused."""

    def __init__(self, flag: str, known: Sequence[str]) -> None:
        self.flag, self.known = flag, known

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if field_name not in self.known:
            words = ", ".join(f"{{{name}}}" for name in self.known)
            raise SettingsError(
                f"{self.flag}: unknown field {{{field_name}}}{near_miss(field_name, self.known)}; the fields are {words}"
            )
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> Any:
        return format(value, format_spec or ("04d" if isinstance(value, int) else ""))


def fill(flag: str, pattern: str, values: Mapping[str, Any]) -> Path:
    """Return a pattern with its fields, such as {content} or {number:05}, filled in. Raises `SettingsError`."""
    try:
        return Path(_Fields(flag, tuple(values)).format(pattern, **values))
    except SettingsError:
        raise
    except (ValueError, KeyError, IndexError) as error:
        raise SettingsError(f"{flag} {shown(pattern)}: {error}; write fields as {{number}} or {{number:05}}") from None


def fields_in(flag: str, pattern: str) -> set[str]:
    """Return the names of the fields in a pattern. Raises `SettingsError` for unbalanced braces."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise SettingsError(f"{flag} {shown(pattern)}: {error}") from None
