"""Atomic replacement of files, and locks between processes.

A file is either complete or not changed, whatever interrupts the program: the new file is written under a temporary name in the
same folder, synced, read back and renamed, and then the folder is synced. The temporary file is locked while it is written, so
that a temporary file without a lock is a leftover of a run that crashed.

Locks are those of flock(2), which the system releases when a process ends for whatever reason. Files on file systems without
locks count as unlocked. Windows has no flock, but refuses to remove an open file, so there an open file is a locked one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from ..errors import OutputError, StyleTransferError
from .paths import check_target, reason, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY: Final = ".style_transfer-*.tmp"
OPEN_FILES_STAY: Final = fcntl is None
"""Whether the system refuses to remove or rename files that are open, as Windows does."""


@contextlib.contextmanager
def replacing(
    path: str | Path, check: Callable[[BinaryIO], None] | None = None, *, keep_old: Path | None = None
) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces the file at `path` when the block ends, or is removed if the block raises.

    Before the replacement, `check` gets the new file, open for reading, and raises any exception if its content is wrong.
    `keep_old` is a new name for the old file; a symbolic link at `path` is then itself renamed, and otherwise followed.
    Raises `OutputError` for any exception but `StyleTransferError`, MemoryError and interrupts.
    """
    target = check_target(path)
    if keep_old is not None:
        target = Path(path)
    temporary: Path | None = None
    stream: BinaryIO | None = None
    try:
        temporary, stream = _open_temporary(target.parent)
        if target.exists():
            with contextlib.suppress(OSError):  # some file systems have no modes
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        if check is not None:
            with temporary.open("rb") as written:
                check(written)
        if OPEN_FILES_STAY:
            stream.close()
        if keep_old is not None and os.path.lexists(target):
            target.replace(keep_old)
        temporary.replace(target)
        stream.close()
    except BaseException as error:
        with contextlib.suppress(OSError):  # closing flushes, and a full disk fails again
            if stream is not None:
                stream.close()
        with contextlib.suppress(OSError):
            if temporary is not None:
                temporary.unlink()
        if isinstance(error, Exception) and not isinstance(error, StyleTransferError | MemoryError):
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            advice = "free some space or choose another disk" if full else "choose another place or name"
            raise OutputError(f"{shown(path)}: cannot be written: {reason(error)}; {advice}") from error
        raise
    with contextlib.suppress(OSError):  # not every system can sync a folder
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Replace a file by `text` in UTF-8, atomically. Raises `OutputError`."""
    data = text.encode("utf-8", "backslashreplace")

    def check(written: BinaryIO) -> None:
        if written.read() != data:
            raise OSError("the text read back differs from the text written")

    with replacing(path, check) as stream:
        stream.write(data)


def remove_leftovers(folder: Path) -> int:
    """Remove the temporary files that crashed runs left in a folder; return their number."""
    removed = 0
    for path in folder.glob(TEMPORARY):
        with contextlib.suppress(OSError), path.open("r+b") as stream:
            if _try_lock(stream):
                if OPEN_FILES_STAY:
                    stream.close()
                path.unlink()
                removed += 1
    return removed


class LockedError(OutputError):
    """Another run writes the same file."""


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Lock `path`, which need not exist, during the block; raise `LockedError` if another process has locked it.

    The lock is on a hidden file in the same folder, which is removed afterwards, or by the next run if the process was killed.
    """
    target = check_target(path)
    place = target.parent / f".style_transfer-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.lock"
    try:
        stream = _open_locked(place)
    except OSError as error:
        raise OutputError(f"{shown(path)}: its folder cannot be written: {reason(error)}; choose another") from error
    if stream is None:
        raise LockedError(f"{shown(path)}: another run is writing there; wait for it, or choose another name")
    try:
        yield
    finally:
        if OPEN_FILES_STAY:
            stream.close()
        with contextlib.suppress(OSError):
            place.unlink()  # before the lock is released, since the file could afterwards be another run's
        stream.close()


def _open_temporary(folder: Path) -> tuple[Path, BinaryIO]:
    """Create a temporary file in a folder and lock it; return its path and the open file."""
    while True:
        path = folder / TEMPORARY.replace("*", secrets.token_hex(8))
        stream = path.open("xb")
        if _try_lock(stream) and _is_open_at(path, stream):
            return path, stream
        stream.close()  # another run removed it as a leftover before it was locked


def _open_locked(place: Path) -> BinaryIO | None:
    """Return the lock file, open and locked, or None if another process has locked it."""
    while True:
        if OPEN_FILES_STAY:
            with contextlib.suppress(OSError):
                place.unlink()
            try:
                return place.open("xb")
            except FileExistsError:
                return None
        stream = place.open("ab")
        if not _try_lock(stream):
            stream.close()
            return None
        if _is_open_at(place, stream):
            return stream
        stream.close()  # the run that had locked it removed it after it was opened here


def _try_lock(stream: BinaryIO) -> bool:
    """Lock an open file until it is closed; return False if another process has locked it."""
    if fcntl is not None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # ENOLCK, EOPNOTSUPP and the like: a file system without locks
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _is_open_at(path: Path, stream: BinaryIO) -> bool:
    """Return whether an open file is still the one at `path`."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False
