"""Saving: output formats, refused outputs, and atomic replacement of the old file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.picture_files import leftovers, noise, put
from support.toy_format import toy_format

from style_transfer import pictures
from style_transfer.errors import OutputError, SettingsError
from style_transfer.registry import OUTPUT_FORMATS


@pytest.mark.parametrize(
    ("name", "size", "match"),
    [
        ("a.xyz", None, r"\.tif.*\.webp"),
        ("a.jpge", None, "did you mean '.jp"),
        ("a.pgn", None, r"did you mean '\.png'"),
        ("a.TIF8", None, r"unknown extension '\.TIF8' \(did you mean '\.tiff?'"),
        ("a", None, "no extension"),
        ("a.bmp", None, "unknown"),
        ("a.jpg", (10, 65536), r"65535.*\.tif"),
        ("a.webp", (16384, 10), r"16383.*\.tif"),
    ],
)
def test_outputs_that_settings_forbid(name: str, size: tuple[int, int] | None, match: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=match):
        pictures.check_output(tmp_path / name, size)


def test_outputs_that_the_disk_forbids(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    put(tmp_path / "file", b"x")
    (tmp_path / "device.png").symlink_to("/dev/full")
    for name, match in (
        ("none/a.png", "no folder"),
        ("file/a.png", "no folder|cannot"),
        ("folder.png", "is a folder"),
        ("device.png", "not a regular file"),
    ):
        with pytest.raises(OutputError, match=match):
            pictures.check_output(tmp_path / name)
    assert pictures.check_output(tmp_path / "A.TIF", (70000, 70000)) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["device.png", "file", "folder.png"]


def test_folder_that_is_not_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(OutputError, match="not writable"):
        pictures.check_output(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", list(OUTPUT_FORMATS))
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_failed_save_leaves_the_old_file(
    suffix: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = put(tmp_path / f"a{suffix}", b"old")

    def fail(_: int) -> None:
        assert leftovers(tmp_path)  # the new file is there, under another name
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        pictures.save(path, noise(9, 9) / 65535)
    if isinstance(error, OSError):
        assert path.name in str(caught.value) and "No space" in str(caught.value)
    assert path.read_bytes() == b"old" and not leftovers(tmp_path)
    monkeypatch.undo()
    pictures.save(path, noise(9, 9) / 65535)
    assert path.stat().st_size > 100 and not leftovers(tmp_path)
    if OUTPUT_FORMATS[suffix].readable:
        assert pictures.load(path).pixels.shape == (9, 9, 3)


@pytest.mark.parametrize("suffix", list(OUTPUT_FORMATS))
def test_disk_quota_hit_while_writing(suffix: str, tmp_path: Path) -> None:
    """A real short write: the child may write 4 kB to a file and no more."""
    path = put(tmp_path / f"a{suffix}", b"old")
    code = (
        "import resource, sys, numpy as np\n"
        "from style_transfer import errors, pictures\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    pictures.save(sys.argv[1], np.random.default_rng(0).random((90, 90, 3)))\n"
        "except errors.OutputError as error:\n"
        "    assert 'too large' in str(error), error\n"
        "    sys.exit(42)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 42, result.stderr
    assert path.read_bytes() == b"old" and not leftovers(tmp_path)


def test_invalid_pixels_are_not_written(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tif", b"old")
    pixels = np.zeros((4, 4, 3), np.float32)
    pixels[3, 3, 2] = np.nan
    for bad in (pixels, np.zeros((4, 4)), np.zeros((4, 4, 5)), np.zeros((0, 4, 3)), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(OutputError):
            pictures.save(path, bad)
    for dpi in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(SettingsError, match="dpi"):
            pictures.save(path, np.zeros((4, 4, 3)), dpi=dpi)
    with pytest.raises(OutputError, match="metadata"):
        pictures.save(path, np.zeros((4, 4, 3)), metadata={"bad\nname": "x"})
    assert path.read_bytes() == b"old" and not leftovers(tmp_path)


def test_saving_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    real = put(tmp_path / "real.png", b"old")
    (tmp_path / "link.png").symlink_to(real)
    pictures.save(tmp_path / "link.png", noise(3, 3) / 65535)
    assert (tmp_path / "link.png").is_symlink() and pictures.load(real).pixels.shape == (3, 3, 3)


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.png", noise(3, 3) / 65535)
    (tmp_path / "b").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_format_can_be_registered_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "a.TOY"
    with toy_format():
        pictures.save(path, np.full((2, 3, 3), 0.4, np.float32))
        assert path.read_bytes() == b"TOY\2\3" + bytes([102] * 6)
        with pytest.raises(SettingsError, match=r"Toy has at most 99 pixels a side, the result is 100 x 5; use \.jpg"):
            pictures.check_output(path, (5, 100))
        with pytest.raises(SettingsError, match=r"Toy does not store alpha; use \.png, \.tif, \.tiff, \.webp"):
            pictures.check_output(path, alpha=True)
    with pytest.raises(SettingsError, match=r"unknown extension '\.TOY'"):
        pictures.check_output(path)
