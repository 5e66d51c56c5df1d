"""What happens to a run on somebody's machine: signals, kills, full disks, two runs at once; each ends in one clear line.

`row` numbers are those of the project's table of faults.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import PROGRAM, fails
from torch import Tensor

from style_transfer import cli, networks
from style_transfer.api import to_tensor
from style_transfer.cli.interrupt import Interrupt
from style_transfer.cli.painting import Painting
from style_transfer.engine import checkpoint
from style_transfer.engine import loop as engine
from style_transfer.engine.iterate import Iterate
from style_transfer.evaluation.objective import Evaluation, Objective
from style_transfer.files import atomic as files
from style_transfer.pictures import images
from style_transfer.settings.settings import Settings

TESTS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
SMALL = ["-ms", "32", "-s", "46", "-ii", "4", "-i", "3"]


def command(*more: str) -> list[str]:
    return ["c.png", "s.png", "--weights", "w.safetensors", *SMALL, "-o", "o.png", *more]


def start(*more: str) -> subprocess.Popen[str]:
    """Start the program, on more iterations than anybody will wait for, and return when the fifth is done."""
    argv = [sys.executable, "prog.py", *command("--json", "-ii", "1000000", *more)]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert running.stdout is not None
    for _ in range(5):
        running.stdout.readline()
    return running


def during(monkeypatch: pytest.MonkeyPatch, do: Callable[[Iterate], object]) -> None:
    """Make the engine call `do` while it computes each iteration."""
    original = engine.stylize

    def watched(*args: object, **more: object) -> Iterator[Iterate]:
        iterates = original(*args, **more)  # type: ignore[arg-type]

        def each() -> Iterator[Iterate]:
            for iterate in iterates:
                do(iterate)
                yield iterate

        return each()

    monkeypatch.setattr(engine, "stylize", watched)


def stop_at(monkeypatch: pytest.MonkeyPatch, index: int, step: int, number: int = signal.SIGTERM) -> None:
    during(monkeypatch, lambda it: os.kill(os.getpid(), number) if (it.index, it.step) == (index, step) else None)


def pixels(path: str = "o.png") -> np.ndarray[Any, Any]:
    return images.load(path).pixels


# ------------------------------------------------------------------------------------------------- signals and resuming


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_rows_60_62_a_signal_leaves_picture_and_checkpoint(number: int, code: int, place: Path) -> None:
    running = start()
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code, err
    assert "Traceback" not in err and "stopped at 33x26" in err and err.rstrip().endswith("--resume goes on")
    assert pixels().shape == (26, 33, 3)
    found = checkpoint.newest("o.png.checkpoint")
    report = json.loads(Path("o.png.json").read_text())
    assert found is not None and found.state.step == report["step"] and not report["finished"]
    assert not list(place.glob(".style_transfer*"))


def test_row_61_a_second_signal_ends_the_run_at_once_even_in_the_middle_of_a_long_computation(place: Path) -> None:
    (place / "prog.py").write_text(PROGRAM.replace("sys.exit", SLOW + "\nsys.exit"))
    running = start()
    assert running.stdout is not None
    running.stdout.readline()  # the sixth is done, and the seventh is the long one
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)  # a second or two, but on a machine with much other work
    assert running.returncode == 130 and "stopped at once" in err


SLOW = """
import torch
from style_transfer.evaluation.objective import Objective
evaluate, calls = Objective.evaluate, []
def slow(*args, **more):
    calls.append(1)
    x = torch.rand(9, 9)
    if len(calls) == 7:
        torch.linalg.matrix_power(torch.rand(3000, 3000), 2**62)  # one call into the library that takes a minute or more
    return evaluate(*args, **more)
Objective.evaluate = slow
"""


def test_signals_that_were_ignored_from_the_start_stay_so(place: Path) -> None:
    """nohup."""
    running = subprocess.Popen(
        ["nohup", sys.executable, "prog.py", *command("--json", "-ii", "200")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert running.stdout is not None
    running.stdout.readline()
    running.send_signal(signal.SIGHUP)
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert json.loads(Path("o.png.json").read_text())["finished"]


def test_an_echo_of_a_signal_is_not_a_second_one_and_a_hangup_never_is() -> None:
    interrupt = Interrupt(echo=0.1)
    assert not interrupt._again(signal.SIGTERM) and not interrupt._again(signal.SIGTERM)
    time.sleep(0.15)
    assert not interrupt._again(signal.SIGHUP)
    assert interrupt._again(signal.SIGINT)
    assert interrupt.exit_code == 143


@pytest.mark.parametrize(("index", "step"), [(0, 2), (0, 4), (1, 1)])
@pytest.mark.parametrize("more", [(), ("--optimizer", "lbfgs"), ("--memory", "8GB")], ids=["adam", "lbfgs", "not copied"])
def test_row_81_a_resumed_command_ends_in_the_same_bits(
    more: Sequence[str], index: int, step: int, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(*more)) == 0
    expected, first = pixels(), json.loads(Path("o.png.json").read_text())
    with monkeypatch.context() as patch:
        stop_at(patch, index, step)
        assert cli.main(command(*more)) == 143
    assert not np.array_equal(pixels(), expected)
    assert cli.main(command(*more, "--resume")) == 0
    assert f"going on from o.png.checkpoint: {'33x26' if index == 0 else '46x37'}, iteration {step}" in capsys.readouterr().err
    assert np.array_equal(pixels(), expected)
    report = json.loads(Path("o.png.json").read_text())
    assert (report["loss"], report["finished"]) == (first["loss"], True)
    assert sorted(p.name for p in place.iterdir()) == [
        "c.png",
        "o.png",
        "o.png.json",
        "prog.py",
        "s.png",
        "t.jpg",
        "w.safetensors",
    ]


def test_row_79_another_command_is_refused_and_the_checkpoint_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 0, 2)
        assert cli.main(command()) == 143
    kept = Path("o.png.checkpoint").read_bytes()
    fails(
        command("--resume", "-cw", "1", "-tw", "0"),
        2,
        capsys,
        "o.png.checkpoint",
        "--content-weight was 0.015 and is 1.0",
        "--tv-weight",
    )
    Image.new("RGB", (60, 48), "red").save("s.png")
    fails(command("--resume"), 2, capsys, "style picture 1 is another")
    assert Path("o.png.checkpoint").read_bytes() == kept


def test_resuming_needs_a_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(command("--resume"), 2, capsys, "there is no checkpoint o.png.checkpoint")
    fails(command("--resume", "--checkpoint", "off"), 2, capsys, "--checkpoint is off")
    fails(command("--checkpoint", "c.png"), 2, capsys, "--checkpoint c.png is also an input")
    fails(command("--checkpoint", "no/where"), 6, capsys, "no/where")


def test_a_run_that_begins_anew_sets_the_unfinished_one_aside(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 0, 2)
        assert cli.main(command()) == 143
    assert cli.main(command("-r", "1")) == 0
    assert "its checkpoint is now o.png.checkpoint.previous" in capsys.readouterr().err
    assert cli.main(command("--checkpoint", "o.png.checkpoint.previous", "--resume")) == 0
    assert not list(place.glob("*.checkpoint*"))


def test_keeping_the_checkpoint_of_a_complete_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--keep-checkpoint", "--checkpoint", "kept")) == 0
    expected = pixels()
    Path("o.png").unlink()
    assert cli.main(command("--keep-checkpoint", "--checkpoint", "kept", "--resume")) == 0
    assert np.array_equal(pixels(), expected) and Path("kept").exists()
    capsys.readouterr()
    assert cli.main(command("--keep-checkpoint", "--checkpoint", "kept", "--resume", "--json")) == 0
    (line,) = capsys.readouterr().out.splitlines()
    about = {"output": "o.png", "width": 46, "height": 37, "interrupted": False}
    assert json.loads(line) == {"event": "done"} | about
    assert cli.main(command("--checkpoint", "off")) == 0
    assert not Path("o.png.checkpoint").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_rows_76_77_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command()) == 0
    expected = pixels()
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2)
        assert cli.main(command()) == 143
    data = bytearray(Path("o.png.checkpoint").read_bytes())
    data[-9] ^= 1
    Path("o.png.checkpoint").write_bytes(data[:-100] if damage == "cut" else data)
    capsys.readouterr()
    assert cli.main(command("--resume")) == 0
    err = capsys.readouterr().err
    assert ("truncated" if damage == "cut" else "hash is wrong") in err and "going on with o.png.checkpoint.old" in err
    assert np.array_equal(pixels(), expected)


def test_rows_78_80_checkpoints_of_the_future_and_pickles_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 0, 2)
        assert cli.main(command()) == 143
    data = Path("o.png.checkpoint").read_bytes()
    Path("o.png.checkpoint").write_bytes(data.replace(b'"schema": "1"', b'"schema": "2"'))
    fails(command("--resume"), 2, capsys, "schema 2", "take the version that wrote it")
    torch.save({"image": torch.rand(9)}, "p")
    fails(command("--resume", "--checkpoint", "p"), 2, capsys, "p cannot be used")


# ------------------------------------------------------------------------------------------------------------- killing


def killed(kills: int, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(TESTS / "tools" / "kills.py"), str(folder), str(kills)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_row_55_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    assert killed(5, tmp_path).startswith("5 kills in ")


@pytest.mark.long
def test_row_55_a_hundred_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    assert killed(100, tmp_path).startswith("100 kills in ")


# --------------------------------------------------------------------------------------------------- disks, two runs


def test_row_57_two_runs_on_one_output_the_second_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = start()
    before = set(place.iterdir())
    fails(command(), 6, capsys, "o.png: another run is writing there")
    assert before <= set(place.iterdir())
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert cli.main(command("--dry-run")) == 0


def test_row_59_leftovers_of_a_crash_are_cleaned(place: Path) -> None:
    (place / ".style_transfer-00ff00ff00ff00ff.tmp").write_bytes(b"half a picture")
    (place / ".style_transfer-11ff00ff00ff00ff.tmp").touch()  # killed before the first byte
    with files.locked("o.png"):
        (lock,) = place.glob("*.lock")
    lock.touch()
    assert cli.main(command()) == 0
    assert not list(place.glob(".style_transfer*"))


def test_a_new_file_that_another_run_takes_for_a_leftover_is_made_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, calls = files._lock, []

    def late(stream: BinaryIO) -> bool:
        calls.append(stream)
        if len(calls) == 1:
            assert files.clean(place) == 1  # calls it too
        return lock(stream)

    monkeypatch.setattr(files, "_lock", late)
    files.write_text(place / "x", "whole")
    assert (place / "x").read_text() == "whole" and len(calls) == 3
    assert not list(place.glob(".style_transfer*"))


def test_row_53_a_disk_that_is_full_at_the_end_leaves_everything_to_go_on_from(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed save in the middle is told and the run goes on, since hours of work are worth more; at the end it is exit 6."""
    assert cli.main(command()) == 0
    expected = pixels()
    Path("o.png").write_bytes(b"old")
    write = images.WRITERS[".png"].write

    def full(stream: Any, *args: Any) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setitem(images.WRITERS, ".png", images.Writer("PNG", 16, 0, True, full, images._check_png))
        capsys.readouterr()
        assert cli.main(command("--quiet")) == 6
        err = capsys.readouterr().err
        assert "the run goes on without saving" in err and "go on from o.png.checkpoint with --resume" in err
        Path("o.png.checkpoint").rename("kept")
        patch.setattr(Painting, "_keep", lambda *_: None)  # the disk is too full for that too
        assert cli.main(command("--quiet")) == 6
        err = capsys.readouterr().err
        assert "mend that and begin again" in err and "go on from" not in err
        Path("kept").rename("o.png.checkpoint")
    assert images.WRITERS[".png"].write is write
    assert Path("o.png").read_bytes() == b"old" and not list(place.glob(".style_transfer*"))
    assert cli.main(command("--resume")) == 0
    assert np.array_equal(pixels(), expected)


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))\n"


def test_row_53_a_limit_on_files_in_earnest(place: Path) -> None:
    """The checkpoint, 41 kB, does not fit, and neither does the picture: exit 6, and the old files are there."""
    (place / "o.png").write_bytes(b"old")
    (place / "prog.py").write_text(LIMITED.format(4096) + PROGRAM)
    done = subprocess.run([sys.executable, "prog.py", *command()], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr and "goes on without this checkpoint" in done.stderr
    assert (place / "o.png").read_bytes() == b"old" and not list(place.glob(".style_transfer*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 1.5 MB; skips where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_row_53_a_small_disk_that_fills_up_while_the_run_goes_on(
    place: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = small_disk / "o.png"
    assert cli.main(command("-o", str(output))) == 0
    expected, old = images.load(output).pixels, output.read_bytes()
    fails(command("-o", str(output), "-s", "400"), 6, capsys, "the run needs up to", "MB are free")
    assert output.read_bytes() == old
    original = engine.stylize

    def filling(*args: Any, **more: Any) -> Iterator[Any]:
        for iterate in original(*args, **more):
            if (iterate.index, iterate.step) == (0, 2):
                with contextlib.suppress(OSError), (small_disk / "other").open("wb") as stream:
                    stream.write(bytes(2_000_000))
            yield iterate

    with monkeypatch.context() as patch:
        patch.setattr(engine, "stylize", filling)
        assert cli.main(command("-o", str(output))) == 6
    assert "No space left on device" in capsys.readouterr().err
    assert output.read_bytes() == old and not list(small_disk.glob(".style_transfer*.tmp"))
    (small_disk / "other").unlink()
    assert cli.main(command("-o", str(output), "--resume")) == 0
    assert np.array_equal(images.load(output).pixels, expected)


def test_a_disk_that_will_be_too_small_is_refused_before_any_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = files.shutil._ntuple_diskusage(10**9, 10**9 - 10**5, 10**5)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(networks, "fetch", lambda *a, **k: pytest.fail("weights were fetched"))
    fails(command("-s", "400"), 6, capsys, "o.png: the run needs up to", "MB are free")


def test_rows_54_52_devices_and_folders_are_no_output(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full.png").symlink_to("/dev/full")
    fails(command("-o", "full.png"), 6, capsys, "full.png: is not a regular file")
    fails(command("-o", "/dev/full"), 2, capsys, "/dev/full", "no extension")
    fails(command("-o", "none/o.png"), 6, capsys, "there is no folder")


def test_standard_output_on_a_full_disk_is_no_error(place: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "prog.py", *command()], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert pixels().shape == (37, 46, 3)


def test_row_58_the_temporary_folder_is_not_used_for_the_output(place: Path) -> None:
    argv = [sys.executable, "prog.py", *command()]
    done = subprocess.run(argv, env=ENVIRONMENT | {"TMPDIR": "/nowhere"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_clock_that_is_set_back_does_not_matter(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(command()) == 0
    expected = pixels()
    now = [2e9]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", backwards)
        stop_at(patch, 1, 2)
        assert cli.main(command()) == 143
    os.utime("o.png.checkpoint", (1, 1))
    assert cli.main(command("--resume")) == 0
    assert np.array_equal(pixels(), expected)


# ------------------------------------------------------------------------------------------------------------ numbers


def poisoned(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> None:
    """Make the losses and gradients of the evaluations that `when` names, counted from 1, NaN."""
    evaluate, calls = Objective.evaluate, [0]

    def bad(self: Objective, image: Tensor, *more: Any) -> Evaluation:
        found = evaluate(self, image, *more)
        calls[0] += 1
        if when(calls[0]):
            assert image.grad is not None
            image.grad *= torch.nan
            return Evaluation(found.loss * torch.nan, found.parts)
        return found

    monkeypatch.setattr(Objective, "evaluate", bad)


def test_row_67_numbers_that_are_not_finite_once_make_the_run_go_back(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned(monkeypatch, lambda call: call == 7)
    assert cli.main(command("--save-every", "1")) == 0
    err = capsys.readouterr().err
    assert "going on from 46x37, iteration 1, with 1/2 of the step size" in err and "NaN" not in err
    assert pixels().shape == (37, 46, 3)


def test_row_67_numbers_that_are_never_finite_end_with_exit_7_and_the_last_good_picture(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned(monkeypatch, lambda call: call >= 7)
    assert cli.main(command()) == 7
    err = capsys.readouterr().err.splitlines()[-1]
    assert "not finite at 46x37" in err and "halved 3 times" in err and err.endswith("o.png has the picture at 33x26")
    assert pixels().shape == (26, 33, 3)
    report = json.loads(Path("o.png.json").read_text())
    assert (report["step"], report["steps"], report["finished"]) == (4, 4, False)


@pytest.mark.parametrize("level", [0, 255, 128])
@pytest.mark.parametrize("style_loss", ["gram", "wasserstein"])
def test_row_68_flat_pictures_stay_finite(level: int, style_loss: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (60, 48), (level,) * 3).save("c.png")
    Image.new("L", (40, 40), 255 - level).save("s.png")
    assert cli.main(command("--style-loss", style_loss)) == 0
    assert "not finite" not in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ several processes


def torchrun(count: int, *more: str) -> subprocess.Popen[str]:
    argv = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(count),
        "prog.py",
        *command(*more),
    ]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def test_a_signal_to_torchrun_leaves_a_checkpoint_that_one_process_goes_on_from(place: Path) -> None:
    """That processes go on from it to the same bits is in test_distributed.py."""
    more = ["-ms", "64", "-s", "91", "-ii", "4", "-i", "100000"]
    running = torchrun(2, *more, "--json")
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith("{") and json.loads(line)["step"] == 9:
            break
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=120)
    assert "stopped at 91x73" in err, err[-3000:]
    found = checkpoint.newest("o.png.checkpoint")
    assert found is not None and (found.state.index, found.state.made["processes"]) == (1, 2)
    assert all(tensor.shape == (1, 3, 73, 91) for tensor in found.state.tensors.values())
    settings = Settings.from_dict(found.state.identity["settings"])
    content, style = (to_tensor(images.load(name)) for name in ("c.png", "s.png"))
    loaded = networks.load(settings, [torch.device("cpu")])
    iterate = next(engine.stylize(content, [style], settings, networks=loaded, resume=found.state))
    assert (iterate.index, iterate.step) == (1, found.state.step + 1)
    assert (iterate.image() - found.state.picture()).abs().max() < 0.05


def test_a_signal_that_the_main_thread_sees_first_counts_once() -> None:
    interrupt = Interrupt(echo=0.0)
    interrupt._handle(signal.SIGINT, None)
    time.sleep(0.01)
    assert not interrupt._again(signal.SIGINT) and interrupt.asked
    time.sleep(0.01)
    assert interrupt._again(signal.SIGINT)
