"""Several pictures in one command: skipped and failed pictures, interrupts, numbered pictures, the contact sheet."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from style_transfer import cli
from style_transfer.cli import job
from style_transfer.cli.picture_run import PictureRun
from style_transfer.files import locked
from style_transfer.observers.console import Bar
from style_transfer.observers.observer import Progress
from style_transfer.pictures import DecodedPicture, load, open_picture

SMALL = "--weights w.safetensors -ms 32 -s 46 -ii 2 -i 2".split()


@pytest.fixture
def photos(place: Path) -> Path:
    """Return the folder `place` with photos/a.png, photos/b.jpg and a second style t.png."""
    (place / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.jpg", "t.png"):
        Image.fromarray(rng.integers(0, 255, (48, 60, 3), dtype=np.uint8)).save(name)
    return place


def made(folder: str = "out") -> list[str]:
    return sorted(p.name for p in Path(folder).iterdir() if p.suffix not in (".json", ".checkpoint"))


def test_the_pictures_of_a_folder_are_painted_and_the_network_loads_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loads = []
    load_weights = job.load_weights
    monkeypatch.setattr(job, "load_weights", lambda *a, **k: loads.append(1) or load_weights(*a, **k))
    assert cli.main(["photos", "s.png", "t.png", "-sw", "2", "1", *SMALL, "-o", "new/folder"]) == 0
    out, err = capsys.readouterr()
    assert out == "new/folder/a.png\nnew/folder/b.png\n" and len(loads) == 1
    assert "1 of 2: new/folder/a.png" in err and "2 pictures: 2 painted" in err
    recipe = json.loads(Path("new/folder/b.png.json").read_text())
    assert recipe["finished"] and recipe["content"]["name"] == "b.jpg" and len(recipe["styles"]) == 2
    alone = ["photos/b.jpg", "s.png", "t.png", "-sw", "2", "1", *SMALL, "--quiet"]
    assert cli.main(alone) == 0
    assert np.array_equal(load("new/folder/b.png").pixels, load("out.png").pixels)


def test_how_pictures_were_read_is_printed_once_with_verbose_and_in_the_recipe(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["photos", "s.png", *SMALL, "--verbose"]) == 0
    err = capsys.readouterr().err
    assert err.count("photos/a.png: read as PNG, 8 bits, no profile, sRGB assumed, upright, no transparency") == 1
    assert err.count("photos/b.jpg: read as JPEG") == err.count("s.png: read as PNG") == 1
    recipe = json.loads(Path("out/b.png.json").read_text())
    assert [(entry["name"], entry["format"]) for entry in recipe["read_as"]] == [("b.jpg", "JPEG"), ("s.png", "PNG")]
    assert cli.main(["photos", "s.png", *SMALL, "--overwrite"]) == 0
    assert "read as" not in capsys.readouterr().err


def test_each_and_grid_combine_contents_and_styles(photos: Path) -> None:
    assert cli.main(["s.png", "t.png", "--each", "photos/a.png", "photos", *SMALL, "-o", "{number}.png", "--quiet"]) == 0
    assert [p for p in made(".") if p.startswith("000")] == ["0001.png", "0002.png", "0003.png"]
    assert cli.main(["s.png", "t.png", "--each", "photos", "--grid", *SMALL, "--quiet"]) == 0
    assert made() == ["a_s.png", "a_t.png", "b_s.png", "b_t.png"]
    assert json.loads(Path("out/a_t.png.json").read_text())["styles"][0]["name"] == "t.png"


def test_existing_results_stay_unless_overwritten_or_unfinished(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["photos", "s.png", *SMALL]
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"somebody's")
    assert cli.main(argv) == 0
    err = capsys.readouterr().err
    assert "out/a.png exists already; --overwrite" in err and "1 painted, 1 existed already" in err
    assert Path("out/a.png").read_bytes() == b"somebody's"
    assert cli.main([*argv, "-cw", "1"]) == 0
    assert "out/b.png exists already, painted with other settings" in capsys.readouterr().err
    report = Path("out/b.png.json")
    report.write_text(report.read_text().replace('"finished": true', '"finished": false'))
    assert cli.main(argv) == 0
    assert "1 painted, 1 existed already" in capsys.readouterr().err
    assert cli.main([*argv, "--overwrite"]) == 0
    assert "2 painted" in capsys.readouterr().err
    assert load("out/a.png").pixels.shape == (37, 46, 3)


def test_a_picture_that_another_run_paints_is_no_failure(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    with locked("out/a.png"):
        assert cli.main(["photos", "s.png", *SMALL]) == 0
    err = capsys.readouterr().err
    assert "out/a.png is being painted by another run" in err and "1 painted, 1 left to another run" in err
    assert made() == ["b.png"]


def test_a_failure_does_not_stop_the_other_pictures_and_is_reported_at_the_end(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos/0.png").write_bytes(b"no picture")
    Path("photos/c.png").write_bytes(b"")
    assert cli.main(["photos", "s.png", *SMALL, "--quiet"]) == 3
    out, err = capsys.readouterr()
    assert out == "out/a.png\nout/b.png\n"
    *_, summary, first, second = err.splitlines()
    assert summary == "style_transfer: 4 pictures: 2 painted, 2 failed"
    assert "out/0.png: photos/0.png: is not a picture" in first and "photos/c.png: is empty" in second


def test_an_output_that_cannot_be_written_is_a_failure_of_its_own(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out/a.png").mkdir(parents=True)
    assert cli.main(["photos", "s.png", *SMALL, "--overwrite"]) == 6
    assert "1 painted, 1 failed" in capsys.readouterr().err and "b.png" in made()


def test_ctrl_c_ends_the_command_after_writing_the_picture(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Bar, "step", lambda self, progress: os.kill(os.getpid(), signal.SIGINT))
    assert cli.main(["photos", "s.png", *SMALL]) == 130
    assert "1 painted, 1 not started" in capsys.readouterr().err
    assert made() == ["a.png"] and not json.loads(Path("out/a.png.json").read_text())["finished"]


def test_ctrl_c_between_two_pictures_ends_the_command(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["photos", "s.png", *SMALL, "--quiet"]) == 0
    there = Path("out/b.png").read_bytes()
    capsys.readouterr()
    with monkeypatch.context() as patch:
        write = PictureRun._write_last

        def interrupted(run: PictureRun, progress: Progress) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            write(run, progress)

        patch.setattr(PictureRun, "_write_last", interrupted)
        assert cli.main(["photos", "s.png", *SMALL, "--overwrite", "-r", "1"]) == 130
    assert "1 painted, 1 not started" in capsys.readouterr().err
    assert Path("out/b.png").read_bytes() == there and json.loads(Path("out/a.png.json").read_text())["finished"]

    def interrupted_open(path: str, **about: Any) -> DecodedPicture:
        if path.endswith("b.jpg"):
            raise KeyboardInterrupt
        return open_picture(path, **about)

    monkeypatch.setattr(job, "open_picture", interrupted_open)
    assert cli.main(["photos", "s.png", *SMALL, "--overwrite", "-r", "2"]) == 130
    assert "1 painted, 1 not started" in capsys.readouterr().err
    assert Path("out/b.png").read_bytes() == there


def test_a_command_that_was_stopped_is_resumed(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finished pictures stay, the unfinished one is resumed from its checkpoint, the others start; numbers continue."""
    argv = ["photos", "s.png", *SMALL, "--save-every", "1", "--save-iterates", "f/{content}{number}.png"]
    assert cli.main([*argv, "-o", "straight", "--save-iterates", "g/{content}{number}.png", "--quiet"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Bar, "step", lambda self, progress: os.kill(os.getpid(), signal.SIGINT))
        assert cli.main(argv) == 130
    assert made() == ["a.png"] and Path("out/a.png.checkpoint").exists()
    assert "--resume continues" in capsys.readouterr().err
    assert cli.main([*argv, "--resume"]) == 0
    assert "resuming from out/a.png.checkpoint: 33x26, iteration 1" in capsys.readouterr().err
    assert not list(Path("out").glob("*checkpoint*"))
    for name in ("a.png", "b.png"):
        assert np.array_equal(load(f"out/{name}").pixels, load(f"straight/{name}").pixels)
    assert made("f") == made("g")


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["photos"], "required: style"),
        (["photos", "s.png", "--checkpoint", "c"], "--checkpoint c is one file for several pictures"),
        (["--each", "photos"], "required: style"),
        (["photos", "s.png", "--grid", "-sw", "1"], "leave out --style-weights"),
        (["photos", "s.png", "--style-layers", "relu9_1"], "relu9_1"),
        (["photos", "s.png", "-o", "x.png"], "names one file"),
        (["photos", "s.png", "-o", "out.png"], "--output out.png names one file for 2 pictures; give a folder, or a pattern"),
        (["photos", "s.png", "--contact-sheet", "s.png"], "also an input"),
        (["photos", "s.png", "--contact-sheet", "x.gif"], "unknown extension '.gif'"),
        (["photos", "s.png", "--save-iterates", "{n}.png"], "unknown field {n}"),
        (["photos", "s.png", "-sw", "1", "2"], "--style-weights has 2 values"),
    ],
)
def test_an_error_that_concerns_all_pictures_ends_the_run_at_once(
    argv: list[str], word: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*argv, "--weights", "w.safetensors"]) == 2
    err = capsys.readouterr().err
    assert word in err and err.count("\n") == 1
    assert not Path("out").exists()


def test_a_dry_run_of_several_pictures_writes_nothing(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["photos", "s.png", *SMALL, "--dry-run", "--save-iterates", "f/{content}-{number}.png"]) == 0
    out, err = capsys.readouterr()
    assert out.count("46x37") == 2 and err.endswith("style_transfer: 2 pictures: 2 planned\n")
    assert not Path("out").exists() and not Path("f").exists()


def test_numbered_pictures_of_the_iterations_are_saved(photos: Path) -> None:
    argv = ["photos/a.png", "s.png", *SMALL, "--quiet", "--save-every", "1"]
    assert cli.main([*argv, "--save-iterates", "f/{scale}_{step:02}_{number}.png"]) == 0
    assert made("f") == ["0032_01_0001.png", "0032_02_0002.png", "0046_01_0003.png", "0046_02_0004.png"] or made("f") == [
        "0033_01_0001.png", "0033_02_0002.png", "0046_01_0003.png", "0046_02_0004.png"]  # fmt: skip
    assert np.array_equal(load(f"f/{made('f')[-1]}").pixels, load("out.png").pixels)
    assert load(f"f/{made('f')[0]}").pixels.shape == (26, 33, 3)


def test_a_numbered_picture_never_replaces_an_input(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("s.png").read_bytes()
    Path("s.png").rename("0001.png")
    assert cli.main(["photos/a.png", "0001.png", *SMALL, "--save-iterates", "{number}.png"]) == 0
    assert Path("0001.png").read_bytes() == before and Path("0002.png").exists()
    assert "0001.png is also an input" in capsys.readouterr().err


def test_a_run_writes_its_contact_sheet(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["photos", "s.png", "t.png", "--grid", *SMALL, "--quiet", "--contact-sheet", "sheet.jpg"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sheet.jpg"
    assert load("sheet.jpg").pixels.shape[1] == 3 * 333 + 13
    assert cli.main(["photos/a.png", "s.png", *SMALL, "--quiet", "--contact-sheet", "one.png"]) == 0
    assert load("one.png").pixels.shape[1] == 2 * 333 + 13
