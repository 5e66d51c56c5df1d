"""Atomic replacement of files, and the leftovers of crashed runs."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from style_transfer import files
from style_transfer.errors import OutputError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_write_text_is_atomic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(OutputError, match=r"a\.json"):
        files.write_text(path, "new")
    assert contents(tmp_path) == {"a.json": "é\n".encode()}


def test_a_file_that_fails_its_check_does_not_replace_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def check(written: BinaryIO) -> None:
        raise ValueError("the last strip differs")

    with (
        pytest.raises(OutputError, match="the last strip differs"),
        files.replacing(tmp_path / "x", check, keep_old=tmp_path / "x.old") as stream,
    ):
        stream.write(b"new")
    assert contents(tmp_path) == {"x": b"old"}


def test_the_old_file_is_kept_under_another_name(tmp_path: Path) -> None:
    for text in (b"1", b"2", b"3"):
        with files.replacing(tmp_path / "x", keep_old=tmp_path / "x.old") as stream:
            stream.write(text)
    assert contents(tmp_path) == {"x": b"3", "x.old": b"2"}
    with files.replacing(tmp_path / "x") as stream:
        stream.write(b"4")
    assert contents(tmp_path) == {"x": b"4", "x.old": b"2"}


def test_the_old_file_behind_a_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "x").symlink_to("real")
    with files.replacing(tmp_path / "x", keep_old=tmp_path / "x.old") as stream:
        stream.write(b"new")
    assert contents(tmp_path) == {"x": b"new", "x.old": b"old", "real": b"old"}
    assert (tmp_path / "x.old").is_symlink()


def test_leftovers_are_removed_but_no_open_temporary_file(tmp_path: Path) -> None:
    (tmp_path / ".style_transfer-0123456789abcdef.tmp").write_bytes(b"truncated")
    with files.replacing(tmp_path / "x") as stream:
        stream.write(b"new")
        stream.flush()
        assert files.remove_leftovers(tmp_path) == 1
    assert contents(tmp_path) == {"x": b"new"}
