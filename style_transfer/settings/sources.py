"""Options from a TOML file and from the environment. Flags win over both, the environment over the file, all over defaults."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import SettingsError, near_miss
from ..files.atomic import is_there
from .settings import Option, options_of

PREFIX: Final = "STYLE_TRANSFER_"
MAX_BYTES: Final = 1 << 20
ON: Final = ("1", "true", "yes", "on")
OFF: Final = ("0", "false", "no", "off")
OTHERS: Final = (PREFIX + "TOKEN",)
"""Variables of that prefix which are no options: the live page's token."""
FLAG_ONLY: Final = ("dump_config",)
NOT_IN_FILES: Final = ("config", *FLAG_ONLY)

Known = Mapping[str, tuple[Any, Option]]


def known_options(classes: Sequence[type]) -> Known:
    """Return default and `Option` of every field of some dataclasses of options."""
    return {name: about for cls in classes for name, about in options_of(cls).items()}


def from_environment(known: Known, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of variables such as STYLE_TRANSFER_END_SCALE, checked; an empty variable counts as not set.

    Several values stand in one variable as in a shell, with quotes where needed; what is on or off takes 1, true, yes, on
    and their opposites. Raises `SettingsError`, also for an unknown variable of that prefix.
    """
    names = {PREFIX + name.upper(): name for name in known if name not in FLAG_ONLY}
    found = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in OTHERS:
            continue
        if variable not in names:
            raise SettingsError(f"{variable}: there is no such option{near_miss(variable, names)}")
        if text:
            about = known[names[variable]][1]
            found[names[variable]] = about.validate(variable, _from_text(variable, text, about))
    return found


def _from_text(variable: str, text: str, about: Option) -> Any:
    if about.flag:
        word = text.lower()
        if word not in ON + OFF:
            raise SettingsError(f"{variable} must be one of {', '.join(ON + OFF)}, not {text!r}")
        return word in ON
    try:
        if about.many:
            return tuple(about.from_word(word) for word in shlex.split(text))
        return about.from_word(text)
    except ValueError as error:
        what = ("a whole number" if about.kind is int else "a number") + (f" or {about.or_word}" if about.or_word else "")
        reason = f"must be {what}, not {text!r}" if about.kind in (int, float) else f"{text!r}: {error}"
        raise SettingsError(f"{variable} {reason}") from None


def from_file(known: Known, path: str) -> dict[str, Any]:
    """Return the values in a TOML file, checked. Keys are the flags' names, with - or _, and stand in no section.

    Raises `SettingsError` for a file that cannot be read, an unknown key, or a value that cannot be used.
    """
    shown = f"--config {path}"
    try:
        if not Path(path).is_file():
            raise SettingsError(f"{shown}: is not a file" if is_there(path) else f"{shown}: no such file")
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SettingsError(f"{shown}: is larger than {MAX_BYTES} bytes, and no file of options")
        values = tomllib.loads(data.decode("utf-8-sig"))  # Windows writes a byte order mark
    except SettingsError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{shown}: cannot be read: {reason}") from None
    names = [name for name in known if name not in NOT_IN_FILES]
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in names:
            what = "there are no sections; write options at the top" if isinstance(value, dict) else "there is no such option"
            raise SettingsError(f"{shown}: {key}: {what}{near_miss(name, names)}")
        if name in found:
            raise SettingsError(f"{shown}: {name} is there twice, with - and with _")
        about = known[name][1]
        found[name] = about.validate(f"{shown}: {key}", _from_toml(f"{shown}: {key}", value, about))
    return found


def _from_toml(name: str, value: Any, about: Option) -> Any:
    """Return a value of TOML as the option takes it; a whole number may stand for a text, such as end_scale = 512."""
    if isinstance(value, list):
        if not about.many:
            raise SettingsError(f"{name} takes one value, not {value!r}")
        return tuple(_from_toml(name, item, about) for item in value)
    if about.flag or about.kind in (int, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise SettingsError(f"{name} must be text, not {value!r}")
    return value


def gather(classes: Sequence[type], flags: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what was said by flags, else in the environment, else in the file that --config or STYLE_TRANSFER_CONFIG names."""
    known = known_options(classes)
    said = from_environment(known, environment)
    path = known["config"][1].validate("--config", flags.get("config", said.get("config")))
    return (from_file(known, path) if path is not None else {}) | said | dict(flags)


def dump(objects: Sequence[Any]) -> str:
    """Return the options in dataclasses of options as TOML that `from_file` reads; what has no value is a comment."""
    blocks = []
    for thing in objects:
        for name, (_, about) in options_of(type(thing)).items():
            if name in NOT_IN_FILES:
                continue
            value = getattr(thing, name)
            line = f"# {name} =" if value is None else f"{name} = {_to_toml(value)}"
            blocks.append(f"# {about.help}\n{line}\n")
    return "\n".join(blocks)


def _to_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_to_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
