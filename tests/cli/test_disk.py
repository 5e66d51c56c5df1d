"""Places of output: full disks, folders that do not exist, two runs on one file, what a crash left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import PROGRAM, command, fails, pixels, run_program, started_program
from support.disturbances import at_each_iteration

from style_transfer import cli, files
from style_transfer.cli import job
from style_transfer.cli.picture_run import PictureRun
from style_transfer.engine import Iterate
from style_transfer.registry import OUTPUT_FORMATS


def test_an_output_that_cannot_be_written_exits_with_6(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(command("-o", "no/such/folder.png"), 6, capsys, "no/such", "there is no folder")
    Path("folder.png").mkdir()
    fails(command("-o", "folder.png"), 6, capsys, "folder.png")
    Path("full.png").symlink_to("/dev/full")
    fails(command("-o", "full.png"), 6, capsys, "full.png: is not a regular file")
    Path("circle.png").symlink_to("circle.png")
    fails(command("-o", "circle.png"), 6, capsys, "circle.png: cannot be written")
    fails(command("-o", "/dev/full"), 2, capsys, "/dev/full", "no extension")
    if os.geteuid() != 0:
        locked = Path("locked")
        locked.mkdir()
        locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
        fails(command("-o", "locked/x.png"), 6, capsys, "locked")


def test_a_recipe_that_cannot_be_written_is_found_before_any_work(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "o.png").write_bytes(b"precious")
    (place / "o.png.json").mkdir()
    fails(command("-o", "o.png"), 6, capsys, "o.png.json", "is a folder")
    assert (place / "o.png").read_bytes() == b"precious"


def test_a_second_run_on_one_output_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with started_program(steps=1) as running:
        before = set(place.iterdir())
        fails(command(), 6, capsys, "out.png: another run is writing there")
        assert before <= set(place.iterdir())
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert cli.main(command("--dry-run")) == 0


def test_leftovers_of_a_crash_are_removed(place: Path) -> None:
    (place / ".style_transfer-00ff00ff00ff00ff.tmp").write_bytes(b"half a picture")
    (place / ".style_transfer-11ff00ff00ff00ff.tmp").touch()  # killed before the first byte
    with files.locked("out.png"):
        (lock,) = place.glob("*.lock")
    lock.touch()
    assert cli.main(command()) == 0
    assert not list(place.glob(".style_transfer*"))


def test_a_disk_that_is_full_at_the_end_leaves_a_checkpoint_to_resume(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A save that fails before the end is reported and the run continues, since hours of work are worth more; at the end: 6."""
    assert cli.main(command()) == 0
    expected = pixels()
    Path("out.png").write_bytes(b"old")
    png = OUTPUT_FORMATS[".png"]

    def full(stream: Any, *args: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setitem(OUTPUT_FORMATS._entries, ".png", dataclasses.replace(png, encode=full))
        capsys.readouterr()
        assert cli.main(command("--quiet")) == 6
        err = capsys.readouterr().err
        assert "the run continues without saving this iteration" in err
        assert "correct that and continue from out.png.checkpoint with --resume" in err
        Path("out.png.checkpoint").rename("kept")
        patch.setattr(PictureRun, "_checkpoint", lambda *_, **__: None)  # the disk is too full for that too
        assert cli.main(command("--quiet")) == 6
        err = capsys.readouterr().err
        assert "correct that and start again" in err and "continue from" not in err
        Path("kept").rename("out.png.checkpoint")
    assert Path("out.png").read_bytes() == b"old" and not list(place.glob(".style_transfer*"))
    assert cli.main(command("--resume")) == 0
    assert np.array_equal(pixels(), expected)


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))\n"


def test_a_limit_on_the_size_of_files_leaves_the_old_ones(place: Path) -> None:
    """The checkpoint, 41 kB, does not fit, and neither does the picture."""
    (place / "out.png").write_bytes(b"old")
    (place / "prog.py").write_text(LIMITED.format(4096) + PROGRAM)
    done = run_program()
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr and "continues without this checkpoint" in done.stderr
    assert (place / "out.png").read_bytes() == b"old" and not list(place.glob(".style_transfer*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 1.5 MB; skip the test where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(argv, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_small_disk_that_fills_up_during_the_run_leaves_a_checkpoint_to_resume(
    place: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = small_disk / "o.png"
    assert cli.main(command("-o", str(output))) == 0
    expected, old = pixels(output), output.read_bytes()
    fails(command("-o", str(output), "-s", "400"), 6, capsys, "the run needs up to", "MB are free")
    assert output.read_bytes() == old

    def fill(iterate: Iterate) -> None:
        if (iterate.index, iterate.step) == (0, 2):
            with contextlib.suppress(OSError), (small_disk / "other").open("wb") as stream:
                stream.write(bytes(2_000_000))

    with monkeypatch.context() as patch:
        at_each_iteration(patch, fill)
        assert cli.main(command("-o", str(output))) == 6
    assert "No space left on device" in capsys.readouterr().err
    assert output.read_bytes() == old and not list(small_disk.glob(".style_transfer*.tmp"))
    (small_disk / "other").unlink()
    assert cli.main(command("-o", str(output), "--resume")) == 0
    assert np.array_equal(pixels(output), expected)


def test_a_disk_that_will_be_too_small_is_refused_before_any_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**5, 10**5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(job, "load_weights", lambda *a, **k: pytest.fail("weights were loaded"))
    fails(command("-s", "400"), 6, capsys, "out.png: the run needs up to", "MB are free")
