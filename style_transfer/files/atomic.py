"""Files that are whole or not there: writing in place of the old one at once, locks, leftovers of crashes, free space.

A file is written under another name in its own folder, synced, read back, moved into place, and the folder synced. The
temporary file is locked while it is written, so one that can be locked belongs to nobody and is removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import OutputError, StyleTransferError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".style_transfer-*.tmp"
TRIES = 8


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path or a text for one line of a message: what cannot be printed is escaped, and cannot write to the terminal."""
    text = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def is_there(path: str | Path) -> bool:
    """Say whether there is something under a path that can be looked at; a name that cannot be is none."""
    return os.path.exists(path)  # noqa: PTH110  (Path.exists raises where one may not look)


def is_folder(path: str | Path) -> bool:
    """Say whether a path leads to a folder that can be looked at."""
    return os.path.isdir(path)  # noqa: PTH112


def same_file(a: Path, b: Path) -> bool:
    """Say whether two paths lead to one file, by name or by a link."""
    try:
        return a.resolve() == b.resolve() or a.samefile(b)
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a loop of links
        return False


def reason(error: BaseException) -> str:
    """Return one printable line that says what went wrong."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    lines = text.strip().splitlines()
    return shown(lines[0][:200]) if lines else type(error).__name__


def check_target(path: str | Path) -> Path:
    """Return the path with symbolic links resolved; raise `OutputError` if it cannot become a regular file."""
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


@contextlib.contextmanager
def replacing(path: str | Path, check: Callable[[BinaryIO], None] | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success it is synced and takes its place, else it is removed.

    `check` gets the file, open for reading, before it takes the place of the old one, and raises what it likes if it is not as
    it should be. What goes wrong is raised as `OutputError`, but for our own errors, MemoryError and interrupts.
    """
    name = shown(path)
    target = check_target(path)
    temporary = target.parent / TEMPORARY.replace("*", secrets.token_hex(8))
    stream: BinaryIO | None = None
    try:
        stream = temporary.open("xb")
        for _ in range(TRIES):
            if _lock(stream) and _there(temporary, stream):
                break
            stream.close()  # another run took it for a leftover before it was locked
            temporary = target.parent / TEMPORARY.replace("*", secrets.token_hex(8))
            stream = temporary.open("xb")
        if target.exists():
            with contextlib.suppress(OSError):  # some file systems have no modes
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        if check is not None:
            with temporary.open("rb") as written:
                check(written)
        if fcntl is None:
            stream.close()
        temporary.replace(target)
        stream.close()
    except BaseException as error:
        if stream is not None:
            with contextlib.suppress(OSError):  # closing flushes, and a full disk fails again
                stream.close()
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, Exception) and not isinstance(error, StyleTransferError | MemoryError):
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            way_out = "free some space or choose another disk" if full else "choose another place or name"
            raise OutputError(f"{name}: cannot be written: {reason(error)}; {way_out}") from error
        raise
    sync_folder(target.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 so that `path` holds all of it or what it held before. Raises `OutputError`."""
    data = text.encode("utf-8", "backslashreplace")

    def check(written: BinaryIO) -> None:
        if written.read() != data:
            raise OSError("what was read back is not what was written")

    with replacing(path, check) as stream:
        stream.write(data)


def sync_folder(folder: Path) -> None:
    """Make a new name durable. Some systems cannot sync a folder; the file itself is safe there too."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(stream: BinaryIO) -> bool:
    """Lock an open file until it is closed; say whether it could be had. File systems without locks count as had."""
    if fcntl is not None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _there(path: Path, stream: BinaryIO) -> bool:
    """Say whether an open file is still the one at `path`."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold the place `path` for this process within the block. Raises `OutputError` if another process does.

    The lock is on a file beside it that is removed afterwards. The system gives up the lock of a process that dies, whatever
    kills it, and the next run removes its file. On Windows the open file itself is the lock.
    """
    target = check_target(path)
    place = target.parent / f".style_transfer-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.lock"
    try:
        stream = _own(place)
    except OSError as error:
        raise OutputError(f"{shown(path)}: its folder cannot be written: {reason(error)}; choose another") from error
    if stream is None:
        raise OutputError(f"{shown(path)}: another run is writing there; wait for it, or choose another name")
    try:
        yield
    finally:
        if fcntl is None:
            stream.close()
        with contextlib.suppress(OSError):
            place.unlink()
        stream.close()


def _own(place: Path) -> BinaryIO | None:
    """Return the lock's file, open and locked, or None if another process has it."""
    while True:
        if fcntl is None:
            with contextlib.suppress(OSError):
                place.unlink()
            try:
                return place.open("xb")
            except FileExistsError:
                return None
        stream = place.open("ab")
        if not _lock(stream):
            stream.close()
            return None
        if _there(place, stream):
            return stream
        stream.close()  # the one who had it has removed it just now


def clean(folder: Path) -> int:
    """Remove the temporary files that runs which died left in a folder; return how many."""
    removed = 0
    for path in folder.glob(TEMPORARY):
        with contextlib.suppress(OSError):
            if fcntl is None:  # what somebody has open cannot be removed, not even by who opens it here
                path.unlink()
            else:
                with path.open("r+b") as stream:
                    if not _lock(stream):
                        continue
                    path.unlink()
            removed += 1
    return removed


def check_space(needs: dict[Path, int]) -> None:
    """Raise `OutputError` unless the disks have room for what will be written to each path, in bytes."""
    disks: dict[int, tuple[Path, int]] = {}
    for path, need in needs.items():
        folder = path.resolve().parent
        first, sum_ = disks.get(folder.stat().st_dev, (path, 0))
        disks[folder.stat().st_dev] = first, sum_ + need
    for path, need in disks.values():
        free = shutil.disk_usage(path.resolve().parent).free
        if free < need:
            raise OutputError(
                f"{shown(path)}: the run needs up to {need / 1e6:,.0f} MB of disk there and {free / 1e6:,.0f} MB are free; "
                "free some space or choose another disk"
            )
