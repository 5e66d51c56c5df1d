"""Paths: existence, checks before a file is written, free space, and paths and errors as text for messages."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..errors import OutputError, near_miss

MAX_NAMES: Final = 10_000
"""The most names in a folder that are compared with a mistyped one."""


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path or a text for a one-line message, with unprintable characters escaped so that none reaches a terminal."""
    text = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def reason(error: BaseException) -> str:
    """Return the cause of an error as one printable line of at most about 200 characters."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = text.strip().splitlines()
    return shown(lines[0][:200]) if lines else type(error).__name__


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def exists(path: str | Path) -> bool:
    """Return whether a path leads to something; False if it cannot be accessed or is no valid name."""
    return os.path.exists(path)  # noqa: PTH110  (Path.exists raises for a folder without permission)


def is_folder(path: str | Path) -> bool:
    """Return whether a path leads to a folder; False if it cannot be accessed or is no valid name."""
    return os.path.isdir(path)  # noqa: PTH112


def same_file(a: Path, b: Path) -> bool:
    """Return whether two paths lead to the same file, by name or through links."""
    try:
        return a.resolve() == b.resolve() or a.samefile(b)
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a loop of links
        return False


def similar_name(path: str | Path) -> str:
    """Return `" (did you mean 'x'?)"` for the name in the path's folder that is closest to its name, or an empty string."""
    path = Path(path)
    try:
        names = [entry.name for entry in itertools.islice(path.parent.iterdir(), MAX_NAMES)]
    except (OSError, ValueError):
        return ""
    return near_miss(path.name, names)


def check_target(path: str | Path) -> Path:
    """Return a path with symbolic links resolved; raise `OutputError` if no regular file can be written there."""
    path, name = Path(path), shown(path)
    try:
        target = path.resolve()
        folder = target.parent
        if target.exists() and not target.is_file():
            kind = "a folder" if target.is_dir() else "not a regular file"
            raise OutputError(f"{name}: is {kind}; give the name of a file")
        if not folder.is_dir():
            raise OutputError(f"{name}: there is no folder {shown(folder)}; make it first")
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: a NUL
        raise OutputError(f"{name}: cannot be written: {reason(error)}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{name}: the folder {shown(folder)} is not writable; choose another")
    return target


def check_space(needs: Mapping[Path, int]) -> None:
    """Raise `OutputError` unless each disk has room for all that will be written to it; `needs` are bytes by path."""
    disks: dict[int, tuple[Path, int]] = {}
    for path, need in needs.items():
        disk = path.resolve().parent.stat().st_dev
        first, before = disks.get(disk, (path, 0))
        disks[disk] = first, before + need
    for path, need in disks.values():
        free = shutil.disk_usage(path.resolve().parent).free
        if free < need:
            raise OutputError(
                f"{shown(path)}: the run needs up to {need / 1e6:,.0f} MB of disk there and {free / 1e6:,.0f} MB are free; "
                "free some space or choose another disk"
            )
