"""Names of result files: the files of one result, and file name patterns with fields such as {content}."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import SettingsError, near_miss
from .paths import shown

LONGEST: Final = 210
"""The most bytes that the names of content and styles take in a file name: 255 less room for `_` and the longest suffixes."""


@dataclass(frozen=True)
class Task:
    """One result to compute: the file of the content, the files of the styles, and the file of the result."""

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
    """Return the longest start of a name that has at most `most` bytes."""
    return text if len(os.fsencode(text)) <= most else os.fsencode(text)[:most].decode(errors="ignore")


def fill(flag: str, pattern: str, values: Mapping[str, Any]) -> Path:
    """Return a pattern with its fields, such as {content} or {number:05}, replaced by `values`. Raises `SettingsError`.

    Integers are padded to four digits unless the field has a format. Attributes and items of values are not accessible.
    """
    parts = []
    try:
        for text, name, spec, conversion in string.Formatter().parse(pattern):
            parts.append(text)
            if name is None:
                continue
            if name not in values or conversion:
                words = ", ".join(f"{{{known}}}" for known in values)
                raise SettingsError(f"{flag}: unknown field {{{name}}}{near_miss(name, values)}; the fields are {words}")
            parts.append(format(values[name], spec or ("04d" if isinstance(values[name], int) else "")))
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{flag} {shown(pattern)}: {error}; write fields as {{number}} or {{number:05}}") from None
    return Path("".join(parts))


def fields_in(flag: str, pattern: str) -> set[str]:
    """Return the names of the fields in a pattern. Raises `SettingsError` for unbalanced braces."""
    try:
        return {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise SettingsError(f"{flag} {shown(pattern)}: {error}") from None
