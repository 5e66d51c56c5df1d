"""Locks between processes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from style_transfer import files
from style_transfer.errors import OutputError
from style_transfer.files import atomic


def test_a_place_is_locked_by_one_run(tmp_path: Path) -> None:
    with files.locked(tmp_path / "o.png"):
        with pytest.raises(OutputError, match="another run is writing there"), files.locked(tmp_path / "o.png"):
            pass
        with files.locked(tmp_path / "p.png"):
            pass
    with files.locked(tmp_path / "o.png"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_file_of_a_dead_process_does_not_lock(tmp_path: Path) -> None:
    with files.locked(tmp_path / "o.png"):
        (name,) = tmp_path.iterdir()
    name.write_text("left by a crash")
    with files.locked(tmp_path / "o.png"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_obstacle(error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network file system whose lock service does not run."""

    def flock(*_: object) -> None:
        raise OSError(error, "no locks")

    monkeypatch.setattr(atomic.fcntl, "flock", flock)
    with files.locked(tmp_path / "o.png"):
        files.write_text(tmp_path / "o.png", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["o.png"]
