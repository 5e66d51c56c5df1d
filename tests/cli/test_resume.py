"""--resume and --checkpoint: a run that was stopped ends in the same bits, and checkpoints of other runs are refused."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.command_line import command, fails, pixels
from support.disturbances import stop_at

from style_transfer import cli


def stopped(monkeypatch: pytest.MonkeyPatch, index: int, step: int, *more: str) -> None:
    """Make a run that a signal ends at a step of the scale `index`."""
    with monkeypatch.context() as patch:
        stop_at(patch, index, step)
        assert cli.main(command(*more)) == 143


@pytest.mark.parametrize("more", [(), ("--optimizer", "lbfgs"), ("--memory", "8GB")], ids=["adam", "lbfgs", "not copied"])
def test_a_resumed_command_ends_in_the_same_bits(
    more: Sequence[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in place.iterdir()}
    assert cli.main(command(*more)) == 0
    expected, first = pixels(), json.loads(Path("out.png.json").read_text())
    for index, step in ((0, 2), (0, 4), (1, 1)):
        stopped(monkeypatch, index, step, *more)
        assert not np.array_equal(pixels(), expected)
        capsys.readouterr()
        assert cli.main(command(*more, "--resume")) == 0
        size = ("33x26", "46x37")[index]
        assert f"resuming from out.png.checkpoint: {size}, iteration {step}" in capsys.readouterr().err
        assert np.array_equal(pixels(), expected)
        recipe = json.loads(Path("out.png.json").read_text())
        assert (recipe["loss"], recipe["finished"]) == (first["loss"], True)
        assert {path.name for path in place.iterdir()} == before | {"out.png", "out.png.json"}


def test_a_checkpoint_of_another_command_is_refused_and_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(monkeypatch, 0, 2)
    kept = Path("out.png.checkpoint").read_bytes()
    words = ("out.png.checkpoint", "--content-weight was 0.04 and is 1.0", "--tv-weight")
    fails(command("--resume", "-cw", "1", "-tw", "3"), 2, capsys, *words)
    Image.new("RGB", (60, 48), "red").save("s.png")
    fails(command("--resume"), 2, capsys, "style picture 1 differs")
    assert Path("out.png.checkpoint").read_bytes() == kept


def test_resuming_needs_a_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(command("--resume"), 2, capsys, "there is no checkpoint out.png.checkpoint")
    fails(command("--resume", "--checkpoint", "off"), 2, capsys, "--checkpoint is off")
    fails(command("--checkpoint", "c.png"), 2, capsys, "--checkpoint c.png is also an input")
    fails(command("--checkpoint", "no/where"), 6, capsys, "no/where")


def test_a_new_run_sets_the_checkpoint_of_an_unfinished_one_aside(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(monkeypatch, 0, 2)
    assert cli.main(command("-r", "1")) == 0
    assert "was renamed to out.png.checkpoint.previous" in capsys.readouterr().err
    assert cli.main(command("--checkpoint", "out.png.checkpoint.previous", "--resume")) == 0
    assert not list(place.glob("*.checkpoint*"))


def test_the_checkpoint_of_a_complete_run_can_be_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--keep-checkpoint", "--checkpoint", "kept")) == 0
    expected = pixels()
    Path("out.png").unlink()
    assert cli.main(command("--keep-checkpoint", "--checkpoint", "kept", "--resume")) == 0
    assert np.array_equal(pixels(), expected) and Path("kept").exists()
    capsys.readouterr()
    assert cli.main(command("--keep-checkpoint", "--checkpoint", "kept", "--resume", "--json")) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"event": "done", "output": "out.png", "width": 46, "height": 37, "interrupted": False}
    assert cli.main(command("--checkpoint", "off")) == 0
    assert not Path("out.png.checkpoint").exists()


@pytest.mark.parametrize(("damage", "message"), [("cut", "truncated"), ("flipped", "hash is wrong")])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command()) == 0
    expected = pixels()
    stopped(monkeypatch, 1, 2)
    data = bytearray(Path("out.png.checkpoint").read_bytes())
    data[-9] ^= 1
    Path("out.png.checkpoint").write_bytes(data[:-100] if damage == "cut" else data)
    capsys.readouterr()
    assert cli.main(command("--resume")) == 0
    err = capsys.readouterr().err
    assert message in err and err.count("resuming from out.png.checkpoint.old") == 2
    assert np.array_equal(pixels(), expected)


def test_a_checkpoint_of_a_later_version_and_a_pickle_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(monkeypatch, 0, 2)
    data = Path("out.png.checkpoint").read_bytes()
    Path("out.png.checkpoint").write_bytes(data.replace(b'"schema": "2"', b'"schema": "3"'))
    fails(command("--resume"), 2, capsys, "schema 3", "use the version that wrote it")
    torch.save({"image": torch.rand(9)}, "p")
    fails(command("--resume", "--checkpoint", "p"), 2, capsys, "p cannot be used")


def test_a_clock_that_is_set_back_does_not_matter(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(command()) == 0
    expected = pixels()
    now = [2e9]

    def backwards() -> float:
        now[0] -= 3600
        return now[0]

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", backwards)
        stopped(monkeypatch, 1, 2)
    os.utime("out.png.checkpoint", (1, 1))
    assert cli.main(command("--resume")) == 0
    assert np.array_equal(pixels(), expected)
