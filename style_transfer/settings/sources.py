"""Options from a TOML file and from the environment. Flags override the environment, which overrides the file."""

from __future__ import annotations

import codecs
import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import SettingsError, near_miss
from .option import Option, options_of

PREFIX: Final = "STYLE_TRANSFER_"
MAX_BYTES: Final = 1 << 20
OTHERS: Final = (PREFIX + "TOKEN",)
"""Variables with the prefix that are no options: the token of the live page."""
SERVICE: Final = re.compile(PREFIX + r"(SERVICE_(HOST|PORT(_.*)?)|PORT_[0-9]+_(TCP|UDP)(_.*)?)")
"""Variables that Kubernetes and Docker set in every container beside a service that is named style-transfer."""
FLAG_ONLY: Final = ("dump_config",)
NOT_IN_FILES: Final = ("config", *FLAG_ONLY)


def known_options(classes: Iterable[type]) -> dict[str, Option]:
    """Return the options of several dataclasses by name."""
    return {name: about for cls in classes for name, about in options_of(cls).items()}


def from_environment(known: Mapping[str, Option], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of variables such as STYLE_TRANSFER_END_SCALE, checked; an empty variable counts as not set.

    Several values are separated and quoted as in a shell; flags are 1, true, yes, on or their opposites. Raises
    `SettingsError`, also for an unknown variable with the prefix.
    """
    names = {PREFIX + name.upper(): name for name in known if name not in FLAG_ONLY}
    values = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in OTHERS:
            continue
        if SERVICE.fullmatch(variable) or (variable == PREFIX + "PORT" and "://" in text):
            continue
        if variable not in names:
            raise SettingsError(f"{variable}: there is no such option{near_miss(variable, names)}")
        if text:
            about = known[names[variable]]
            try:
                words = shlex.split(text) if about.many else [text]
            except ValueError as error:
                raise SettingsError(f"{variable}: {text!r}: {error}") from None
            values[names[variable]] = with_home(about, about.parse(variable, words))
    return values


def with_home(about: Option, value: Any) -> Any:
    """Return the value of an option; where it names files, ~ is replaced by the home folder, as a shell does for flags."""
    if about.metavar not in ("FILE", "FOLDER", "PATTERN", "CONTENT"):
        return value
    if isinstance(value, tuple):
        return tuple(os.path.expanduser(item) for item in value)  # noqa: PTH111  (Path raises without a home folder)
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111


Reader = Callable[[Mapping[str, Option], str], dict[str, Any]]
"""Returns the options in a file, checked."""


def from_file(known: Mapping[str, Option], path: str) -> dict[str, Any]:
    """Return the values in a TOML file, checked. Keys are the names of flags, with - or _, outside of sections.

    Raises `SettingsError` for a file that cannot be read, an unknown key, or a value that cannot be used.
    """
    shown = f"--config {path}"
    names = [name for name in known if name not in NOT_IN_FILES]
    values: dict[str, Any] = {}
    for key, value in _read_toml(path, shown).items():
        name = key.replace("-", "_")
        if name not in names:
            what = "there are no sections; write options at the top" if isinstance(value, dict) else "there is no such option"
            raise SettingsError(f"{shown}: {key}: {what}{near_miss(name, names)}")
        if name in values:
            raise SettingsError(f"{shown}: {name} appears twice, with - and with _; remove one")
        values[name] = with_home(known[name], known[name].validate(f"{shown}: {key}", value))
    return values


def _read_toml(path: str, shown: str) -> dict[str, Any]:
    try:
        if not Path(path).is_file():
            names = (other.name for other in Path(path).parent.glob("*.toml"))
            raise SettingsError(f"{shown}: does not exist or is not a file{near_miss(Path(path).name, names)}")
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SettingsError(f"{shown}: is larger than {MAX_BYTES} bytes; a file of options is not")
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes
        return tomllib.loads(data.decode("utf-16" if marked else "utf-8-sig"))
    except SettingsError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{shown}: cannot be read: {reason}") from None


def gather(
    known: Mapping[str, Option], flags: Mapping[str, Any], environment: Mapping[str, Any], read: Reader = from_file
) -> dict[str, Any]:
    """Return the chosen options: flags, then the values of `from_environment`, then those that `read` finds in their --config."""
    values = {**environment, **flags}
    path = values.get("config")
    return (read(known, path) if path is not None else {}) | values


def dump(known: Mapping[str, Option], chosen: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Return the chosen options as TOML that `from_file` reads, and the others, with their `values`, as comments."""
    blocks = []
    for name, about in known.items():
        if name in NOT_IN_FILES:
            continue
        value = chosen.get(name, values[name])
        line = f"{name} =" if value is None else f"{name} = {_to_toml(value)}"
        blocks.append(f"# {about.help}\n{'' if name in chosen else '# '}{line}\n")
    return "\n".join(blocks)


def _to_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_to_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
