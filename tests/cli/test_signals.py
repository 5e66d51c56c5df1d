"""Signals: the first ends a run after the iteration with picture and checkpoint, a second one ends it at once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.command_line import PROGRAM, command, pixels, program, started, started_program
from support.disturbances import at_each_iteration, stop_at
from support.ranks import TORCHRUN
from support.tiny import ENVIRONMENT

from style_transfer import cli, pictures
from style_transfer.cli import interrupt
from style_transfer.cli.interrupt import Interrupt
from style_transfer.engine import checkpoint_file, stylize
from style_transfer.engine.iterate import Iterate
from style_transfer.networks.loading import load_networks
from style_transfer.pictures.tensors import to_tensor
from style_transfer.settings import Settings

# in this process


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each signal seem to come a second after the one before, so that none is an echo."""
    monkeypatch.setattr(interrupt, "time", SimpleNamespace(monotonic=itertools.count().__next__))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_writes_the_picture_and_names_it(
    number: int, code: int, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 1, 2, number)
    ignored = signal.signal(number, signal.SIG_DFL)  # if the suite runs under nohup
    try:
        assert cli.main(command("-o", "o.tif")) == code
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, ignored)
    out, err = capsys.readouterr()
    assert out == "o.tif\n"
    assert "stopped at 46x37, iteration 2 of 3; the picture so far is in o.tif" in err
    assert pixels("o.tif").shape == (37, 46, 3)
    assert json.loads(Path("o.tif.json").read_text())["finished"] is False


def test_ctrl_c_in_the_last_iteration_leaves_a_finished_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 1, 3, signal.SIGINT)
    assert cli.main(command()) == 0
    assert json.loads(Path("out.png.json").read_text())["finished"] is True


@pytest.mark.parametrize(
    ("step", "message", "written"), [(3, "out.png has the picture at 33x26", True), (1, "nothing was written", False)]
)
def test_a_second_ctrl_c_names_the_picture_that_was_saved_last(
    step: int, message: str, written: bool, place: Path, seconds: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def twice(iterate: Iterate) -> None:
        if iterate.step == step:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(6000):
                time.sleep(0.01)  # the KeyboardInterrupt comes here

    at_each_iteration(monkeypatch, twice)
    assert cli.main(command("--save-every", "1")) == 130
    assert message in capsys.readouterr().err
    assert Path("out.png").exists() == written


def test_an_echo_of_a_signal_and_a_hangup_are_no_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(interrupt, "time", SimpleNamespace(monotonic=lambda: now[0]))
    interrupted = Interrupt(echo=0.1)
    assert not interrupted._is_second(signal.SIGTERM) and not interrupted._is_second(signal.SIGTERM)
    now[0] += 0.15
    assert not interrupted._is_second(signal.SIGHUP)
    assert interrupted._is_second(signal.SIGINT)
    assert interrupted.exit_code == 143


def test_a_signal_that_the_main_thread_sees_first_counts_once(seconds: None) -> None:
    interrupted = Interrupt(echo=0.5)
    interrupted._handle(signal.SIGINT, None)
    assert not interrupted._is_second(signal.SIGINT) and interrupted.asked
    assert interrupted._is_second(signal.SIGINT)


# in a process of its own


def test_a_signal_leaves_picture_and_checkpoint(place: Path) -> None:
    with started_program() as running:
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err and "stopped at 33x26" in err and err.rstrip().endswith("--resume continues")
    assert pixels().shape == (26, 33, 3)
    found = checkpoint_file.newest("out.png.checkpoint")
    recipe = json.loads(Path("out.png.json").read_text())
    assert found is not None and found.state.step == recipe["step"] and not recipe["finished"]
    assert not list(place.glob(".style_transfer*"))


SLOW = """
import threading
import torch
from style_transfer.evaluation.objective import Objective
evaluate, calls = Objective.evaluate, []
def slow(*args, **more):
    calls.append(1)
    if len(calls) == 7:
        x = torch.rand(3000, 3000)
        threading.Timer(0.5, print, ["slow"], {"flush": True}).start()  # when the main thread is in the library
        torch.linalg.matrix_power(x, 2**62)  # one call into the library that takes a minute or more
    return evaluate(*args, **more)
Objective.evaluate = slow
"""


def test_a_second_signal_ends_the_run_in_the_middle_of_a_long_computation(place: Path) -> None:
    (place / "prog.py").write_text(PROGRAM.replace("sys.exit", SLOW + "\nsys.exit"))
    with started_program() as running:
        assert running.stdout is not None
        assert "slow\n" in iter(running.stdout.readline, "")
        running.send_signal(signal.SIGINT)
        time.sleep(0.2)  # what follows sooner is an echo
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "stopped immediately" in err


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(place: Path) -> None:
    argv = ["nohup", *program("--json", "-ii", "60")]
    with started(argv) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGHUP)
        running.communicate(timeout=60)
    assert running.returncode == 0
    assert json.loads(Path("out.png.json").read_text())["finished"]


def test_a_signal_to_torchrun_leaves_a_checkpoint_that_one_process_resumes(place: Path) -> None:
    """That several processes resume it to the same bits is in test_distributed.py."""
    more = ["-ms", "64", "-s", "91", "-i", "100000", "--json"]
    argv = [*TORCHRUN, "2", *program(*more)[1:]]
    with started(argv) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("{") and json.loads(line)["step"] == 9:
                break
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=120)
    assert "stopped at 91x73" in err, err[-3000:]
    found = checkpoint_file.newest("out.png.checkpoint")
    assert found is not None and (found.state.index, found.state.made["processes"]) == (1, 2)
    assert all(tensor.shape == (1, 3, 73, 91) for tensor in found.state.tensors.values())
    settings = Settings.from_dict(found.state.identity["settings"])
    content, style = (to_tensor(pictures.load(name)) for name in ("c.png", "s.png"))
    loaded = load_networks(settings.resolve(), [torch.device("cpu")])
    iterate = next(stylize(content, [style], settings, networks=loaded, resume=found.state))
    assert (iterate.index, iterate.step) == (1, found.state.step + 1)
    assert (iterate.image() - found.state.picture()).abs().max() < 0.05


def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    assert killed(5, tmp_path).startswith("5 kills in ")


@pytest.mark.long
def test_a_hundred_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    assert killed(100, tmp_path).startswith("100 kills in ")


def killed(kills: int, folder: Path) -> str:
    """Return what tools/kills.py prints."""
    argv = [sys.executable, "-m", "tools.kills", str(folder), str(kills)]
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
