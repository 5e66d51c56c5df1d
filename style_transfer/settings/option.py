"""The declaration of an option: one object holds the default, the help and the checks of a flag, a variable and a TOML key."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from ..errors import SettingsError, near_miss
from ..registry import Registry

ON: Final = ("1", "true", "yes", "on")
OFF: Final = ("0", "false", "no", "off")
UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of one option.

    `help` is a phrase in the imperative. `default` is the value without a choice of the user, and `default_help` describes it
    where it is not a constant. `topic` names the page of the help that lists the option; options of observers are on "watching"
    unless they name another. `short` is the one-letter form of the flag.

    `kind` is the type of a value; `flag` makes it a bool, `many` a tuple of such values. Numbers must be finite and lie in
    [`minimum`, `maximum`], above `above` and below `below`; `or_word` is a word allowed beside them. `words` are the values
    that a text may have, as a mapping each with a phrase, or with an object whose `help` is one; a registry is loaded at the
    first check only. With `open_words` other texts are allowed too. `optional_word` allows the flag without a value, which
    means an empty text. `metavar` stands for the value in the help; FILE and FOLDER are completed by shells. `check` raises
    `SettingsError` for anything else that is wrong.
    """

    help: str
    default: Any = None
    default_help: str | None = None
    topic: str = "watching"
    short: str | None = None
    kind: type[str] | type[int] | type[float] = str
    flag: bool = False
    many: bool = False
    optional_word: bool = False
    words: Collection[str] | None = None
    open_words: bool = False
    or_word: str | None = None
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    metavar: str | None = None
    check: Callable[[str, Any], None] | None = None

    @property
    def choices(self) -> dict[str, str]:
        """The words that a value may be, each with a phrase that explains it, or with an empty text."""
        if not isinstance(self.words, Mapping):
            return dict.fromkeys(self.words or (), "")
        # registration follows the order of imports, which may vary
        words = sorted(self.words) if isinstance(self.words, Registry) else self.words
        phrases = {word: self.words[word] for word in words}
        return {word: entry if isinstance(entry, str) else entry.help for word, entry in phrases.items()}

    def parse(self, name: str, words: Sequence[str]) -> Any:
        """Return the value that words of a command line or a variable stand for. Raises `SettingsError`."""
        if self.flag:
            if words[0].lower() not in ON + OFF:
                raise SettingsError(f"{name} must be one of {', '.join(ON + OFF)}, not {words[0]!r}")
            return words[0].lower() in ON
        values = tuple(self._converted(name, word) for word in words)
        return self.validate(name, values if self.many else values[0])

    def _converted(self, name: str, word: str) -> Any:
        if word == self.or_word:
            return word
        try:
            return self.kind(word)
        except ValueError:
            raise SettingsError(f"{name} must be {self._wanted}, not {word!r}") from None

    @property
    def _wanted(self) -> str:
        """The kind of number that is expected, for messages."""
        return ("a whole number" if self.kind is int else "a number") + (f" or {self.or_word}" if self.or_word else "")

    def validate(self, name: str, value: Any) -> Any:
        """Return `value` in its canonical type. Raises `SettingsError` with `name`, the value and what to do. None is valid."""
        if value is None:
            return None
        if self.flag:
            if not isinstance(value, bool):
                raise SettingsError(f"{name} is on or off: True or False, not {value!r}")
            return value
        if not self.many:
            if isinstance(value, list | tuple):
                raise SettingsError(f"{name} takes one value, not {value!r}")
            return self._validate_one(name, value)
        if isinstance(value, str | numbers.Number) or not isinstance(value, Iterable):
            value = (value,)
        values = tuple(self._validate_one(name, item) for item in value)
        if not values:
            raise SettingsError(f"{name} needs at least one value")
        return values

    def _validate_one(self, name: str, value: Any) -> Any:
        if self.or_word is not None and isinstance(value, str) and value == self.or_word:
            return value
        if self.kind is not str:
            value = self._number(name, value)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool) and value % 1 == 0:
            value = str(int(value))  # type: ignore[call-overload]  # end_scale=512 or 512.0
        elif not isinstance(value, str):
            raise SettingsError(f"{name} must be text, not {value!r}")
        if self.words is not None and not self.open_words and value not in self.words:
            words = [*([self.or_word] if self.or_word else []), *self.choices]
            raise SettingsError(f"{name} {value!r} is not one of {', '.join(words)}{near_miss(value, words)}")
        if self.check is not None:
            self.check(name, value)
        return value

    def _number(self, name: str, given: Any) -> float:
        whole = self.kind is int
        if isinstance(given, bool) or not isinstance(given, numbers.Real):  # NumPy's numbers are of that type
            raise SettingsError(f"{name} must be {self._wanted}, not {given!r}")
        value = int(given) if isinstance(given, numbers.Integral) else float(given)
        if isinstance(value, int) and abs(value) >= 2**63:
            raise SettingsError(f"{name} is a number of more than 18 digits")
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{name} must be finite, not {value}")
        if whole and value != int(value):
            raise SettingsError(f"{name} must be a whole number, not {value!r}")
        bounds = [
            (self.minimum is None or value >= self.minimum, f"at least {self.minimum}"),
            (self.above is None or value > self.above, f"above {self.above}"),
            (self.maximum is None or value <= self.maximum, f"at most {self.maximum}"),
            (self.below is None or value < self.below, f"below {self.below}"),
        ]
        for holds, words in bounds:
            if not holds:
                raise SettingsError(f"{name} must be {words}, not {value}")
        return int(value) if whole else float(value)


def option(default: Any, help: str, **about: Any) -> Any:
    """Return a dataclass field with a default, and the `Option` that these arguments make."""
    return dataclasses.field(default=default, metadata={"option": Option(help, default, **about)})


def open_option(default: Any, help: str, **about: Any) -> Any:
    """Return a dataclass field that is None until the user chooses, and the `Option` that these arguments make."""
    return dataclasses.field(default=None, metadata={"option": Option(help, default, **about)})


def options_of(cls: type) -> dict[str, Option]:
    """Return the `Option` of each field of a dataclass by the field's name, in the order of declaration."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(cls)}


def flag_name(name: str) -> str:
    """Return the command-line flag of an option, such as `--end-scale` for `end_scale`."""
    return "--" + name.replace("_", "-")


def option_words(name: str, value: Any) -> list[str]:
    """Return the words of a command line that give an option a value."""
    if isinstance(value, bool):
        return [flag_name(name) if value else flag_name(name).replace("--", "--no-", 1)]
    values = value if isinstance(value, list | tuple) else [value]
    return [flag_name(name), *(repr(each) if isinstance(each, float) else str(each) for each in values)]


def validate_fields(obj: Any, options: Mapping[str, Option] | None = None) -> None:
    """Check the fields of a frozen dataclass of options and replace them by their canonical values. Raises `SettingsError`.

    `options` are the declarations; by default those of the fields.
    """
    for name, about in (options_of(type(obj)) if options is None else options).items():
        object.__setattr__(obj, name, about.validate(flag_name(name), getattr(obj, name)))


def check_not_empty(name: str, value: str) -> None:
    """Raise `SettingsError` for an empty text, such as an unset variable of a shell."""
    if not value:
        raise SettingsError(f"{name} must not be empty")


def parse_bytes(name: str, text: str) -> int:
    """Return the number of bytes that a text such as 6GB, 512M or 1.5GiB stands for. Raises `SettingsError`."""
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([KMGT]?I?)B?\s*", text.upper())
    if match is None or match[2] not in UNITS or not (count := round(float(match[1]) * UNITS[match[2]])):
        raise SettingsError(f"{name} must be an amount of memory such as 6GB or 800MB, not {text!r}")
    return count
