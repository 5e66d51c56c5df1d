"""Several pictures in one command: names, what is skipped, what fails, numbered pictures, the contact sheet."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from support.tiny import TINY, tiny_weights

from style_transfer import cli, networks
from style_transfer.cli import batch
from style_transfer.errors import ImageError, SettingsError
from style_transfer.pictures import images

SMALL = "--weights w.safetensors -ms 32 -s 46 -ii 2 -i 2".split()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with photos/a.png and b.jpg, styles s.png and t.png, and tiny weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(networks.SPECS, "vgg19", TINY)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.jpg", "s.png", "t.png"):
        Image.fromarray(rng.integers(0, 255, (48, 60, 3), dtype=np.uint8)).save(name)
    save_file({k: v.float() for k, v in tiny_weights().items()}, "w.safetensors")
    return tmp_path


def made(folder: str = "out") -> list[str]:
    return sorted(p.name for p in Path(folder).iterdir() if p.suffix not in (".json", ".checkpoint"))


# names


def planned(contents: list[str], styles: list[str], output: str, *, grid: bool = False) -> list[str]:
    return [str(task.output) for task in batch.plan(contents, styles, output, default="out.png", grid=grid)]


def test_long_names_are_cut_to_what_a_file_can_be_called() -> None:
    for long in ("x" * 240, "\u753b" * 80, "\u753b" * 79 + "xyz"):
        for content, style in ((long, "s"), ("a", long), (long, long)):
            (name,) = planned([f"p/{content}.png"], [f"{style}.png"], "o", grid=True)
            assert len(os.fsencode(Path(name).name)) <= 255 - len(".checkpoint.previous.old")
            assert "\ufffd" not in name and name.encode()


def test_results_are_named_after_their_pictures() -> None:
    contents, styles = ["p/a.png", "p/b.jpg"], ["s.png", "t.png"]
    assert planned(contents, styles, "out.png") == ["out/a.png", "out/b.png"]
    assert planned(contents, styles, "x/y") == ["x/y/a.png", "x/y/b.png"]
    assert planned(contents, styles, "o", grid=True) == ["o/a_s.png", "o/a_t.png", "o/b_s.png", "o/b_t.png"]
    assert planned(contents, styles, "{number}-{content}.tif") == ["0001-a.tif", "0002-b.tif"]
    assert planned(contents, styles, "{style}/{content}_{number:02}.jpg")[1] == "s+t/b_02.jpg"
    assert planned(["a.png"], styles, "one.tif") == ["one.tif"]


@pytest.mark.parametrize(
    ("contents", "output", "word"),
    [
        (["a.png", "b.png"], "x.tif", "--output x.tif names one file for 2 pictures"),
        (["a.png", "a.jpg"], "out", "out/a.png would be the result of a.png and of a.jpg"),
        (["a.png", "b.png"], "{style}.png", "put {content}, {style} or {number}"),
        (["a.png", "b.png"], "{contents}.png", "unknown field {contents} (did you mean 'content'?)"),
        (["a.png", "b.png"], "{content.__class__}.png", "unknown field {content.__class__}"),
        (["a.png", "b.png"], "{content", "--output {content"),
        (["a.png", "b.png"], "{number:q}.png", "--output {number:q}.png"),
        (["o/a.png", "o/b.png"], "o", "--output o/a.png is also an input"),
        (["a.png"], "{style}.png", "--output s.png is also an input"),
    ],
)
def test_names_that_cannot_be_are_refused_before_the_work(contents: list[str], output: str, word: str) -> None:
    with pytest.raises(SettingsError) as error:
        planned(contents, ["s.png"], output)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_a_folder_stands_for_the_pictures_in_it(place: Path) -> None:
    Path("photos/.hidden.png").write_bytes(b"")
    Path("photos/notes.txt").write_text("")
    Path("photos/more.png").mkdir()
    assert batch.pictures(["s.png", "photos"]) == ["s.png", "photos/a.png", "photos/b.jpg"]
    Path("empty").mkdir()
    with pytest.raises(ImageError, match="empty: is a folder without pictures"):
        batch.pictures(["empty"])


def test_numbered_names() -> None:
    assert batch.iterate_pattern("f/out.png") == "f/out-{number}.png"
    assert batch.iterate_pattern("{iteration:06}.jpg") == "{iteration:06}.jpg"
    assert batch.fill("--save-iterates", "{iteration:06}_{scale:d}.jpg", {"iteration": 12, "scale": 128}) == Path(
        "000012_128.jpg"
    )
    tasks = [batch.Task(name, ("s.png",), Path("o")) for name in ("a.png", "b.png")]
    with pytest.raises(SettingsError, match="the same for several pictures"):
        batch.check_iterates("{number}.png", tasks)
    batch.check_iterates("{content}/{number}.png", tasks)


# runs


def test_a_folder_is_painted_picture_by_picture_and_the_network_loads_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loads = []
    fetch = networks.fetch
    monkeypatch.setattr(networks, "fetch", lambda *a, **k: loads.append(1) or fetch(*a, **k))
    assert cli.main(["photos", "s.png", "t.png", "-sw", "2", "1", *SMALL, "-o", "new/folder"]) == 0
    out, err = capsys.readouterr()
    assert out == "new/folder/a.png\nnew/folder/b.png\n" and len(loads) == 1
    assert "1 of 2: new/folder/a.png" in err and "2 pictures: 2 painted" in err
    recipe = json.loads(Path("new/folder/b.png.json").read_text())
    assert recipe["finished"] and recipe["content"]["name"] == "b.jpg" and len(recipe["styles"]) == 2
    alone = ["photos/b.jpg", "s.png", "t.png", "-sw", "2", "1", *SMALL, "--quiet"]
    assert cli.main(alone) == 0
    assert np.array_equal(images.load("new/folder/b.png").pixels, images.load("out.png").pixels)


def test_each_and_grid(place: Path) -> None:
    assert cli.main(["s.png", "t.png", "--each", "photos/a.png", "photos", *SMALL, "-o", "{number}.png", "--quiet"]) == 0
    assert [p for p in made(".") if p.startswith("000")] == ["0001.png", "0002.png", "0003.png"]
    assert cli.main(["s.png", "t.png", "--each", "photos", "--grid", *SMALL, "--quiet"]) == 0
    assert made() == ["a_s.png", "a_t.png", "b_s.png", "b_t.png"]
    assert json.loads(Path("out/a_t.png.json").read_text())["styles"][0]["name"] == "t.png"


def test_what_is_there_already_stays_unless_asked_or_unfinished(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["photos", "s.png", *SMALL]
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"somebody's")
    assert cli.main(argv) == 0
    err = capsys.readouterr().err
    assert "out/a.png is there already; --overwrite" in err and "1 painted, 1 there already" in err
    assert Path("out/a.png").read_bytes() == b"somebody's"
    assert cli.main([*argv, "-cw", "1"]) == 0
    assert "out/b.png is there already, painted with other settings" in capsys.readouterr().err
    report = Path("out/b.png.json")
    report.write_text(report.read_text().replace('"finished": true', '"finished": false'))
    assert cli.main(argv) == 0
    assert "1 painted, 1 there already" in capsys.readouterr().err
    assert cli.main([*argv, "--overwrite"]) == 0
    assert "2 painted" in capsys.readouterr().err
    assert images.load("out/a.png").pixels.shape == (37, 46, 3)


def test_a_failure_does_not_stop_the_rest_and_is_told_at_the_end(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/0.png").write_bytes(b"no picture")
    Path("photos/c.png").write_bytes(b"")
    assert cli.main(["photos", "s.png", *SMALL, "--quiet"]) == 3
    out, err = capsys.readouterr()
    assert out == "out/a.png\nout/b.png\n"
    *_, summary, first, second = err.splitlines()
    assert summary == "style_transfer: 4 pictures: 2 painted, 2 failed"
    assert "out/0.png: photos/0.png: is not a picture" in first and "photos/c.png: is empty" in second


def test_an_output_that_cannot_be_written_is_a_failure_of_its_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out/a.png").mkdir(parents=True)
    assert cli.main(["photos", "s.png", *SMALL, "--overwrite"]) == 6
    assert "1 painted, 1 failed" in capsys.readouterr().err and "b.png" in made()


def test_ctrl_c_ends_the_batch_after_writing_the_picture(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from style_transfer.observers import console

    monkeypatch.setattr(console.Bar, "update", lambda self, iterate, left: os.kill(os.getpid(), signal.SIGINT))
    assert cli.main(["photos", "s.png", *SMALL]) == 130
    assert "1 painted, 1 not begun" in capsys.readouterr().err
    assert made() == ["a.png"] and not json.loads(Path("out/a.png.json").read_text())["finished"]


def test_ctrl_c_when_a_picture_is_done_already_or_is_read_ends_the_batch_too(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from style_transfer.cli.painting import Painting

    assert cli.main(["photos", "s.png", *SMALL, "--quiet"]) == 0
    there = Path("out/b.png").read_bytes()
    capsys.readouterr()
    with monkeypatch.context() as patch:
        write = Painting._write_last
        patch.setattr(Painting, "_write_last", lambda self, it: os.kill(os.getpid(), signal.SIGINT) or write(self, it))
        assert cli.main(["photos", "s.png", *SMALL, "--overwrite", "-r", "1"]) == 130
    assert "1 painted, 1 not begun" in capsys.readouterr().err
    assert Path("out/b.png").read_bytes() == there and json.loads(Path("out/a.png.json").read_text())["finished"]
    load = images.load

    def interrupted(path: str, **about: Any) -> Any:
        if path.endswith("b.jpg"):
            raise KeyboardInterrupt
        return load(path, **about)

    monkeypatch.setattr(images, "load", interrupted)
    assert cli.main(["photos", "s.png", *SMALL, "--overwrite", "-r", "2"]) == 130
    assert "1 painted, 1 not begun" in capsys.readouterr().err
    assert Path("out/b.png").read_bytes() == there


def test_a_batch_that_was_cut_short_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finished pictures stay, the one in work goes on from its checkpoint, the others begin; numbered pictures go on counting."""
    from style_transfer.observers import console

    argv = ["photos", "s.png", *SMALL, "--save-every", "1", "--save-iterates", "f/{content}{number}.png"]
    assert cli.main([*argv, "-o", "straight", "--save-iterates", "g/{content}{number}.png", "--quiet"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(console.Bar, "update", lambda self, iterate, left: os.kill(os.getpid(), signal.SIGINT))
        assert cli.main(argv) == 130
    assert made() == ["a.png"] and Path("out/a.png.checkpoint").exists()
    assert "--resume goes on" in capsys.readouterr().err
    assert cli.main([*argv, "--resume"]) == 0
    assert "going on from out/a.png.checkpoint: 33x26, iteration 1" in capsys.readouterr().err
    assert not list(Path("out").glob("*checkpoint*"))
    for name in ("a.png", "b.png"):
        assert np.array_equal(images.load(f"out/{name}").pixels, images.load(f"straight/{name}").pixels)
    assert made("f") == made("g")


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["photos"], "required: style"),
        (["photos", "s.png", "--checkpoint", "c"], "--checkpoint c is one file for several pictures"),
        (["--each", "photos"], "required: style"),
        (["photos", "s.png", "--grid", "-sw", "1"], "leave --style-weights out"),
        (["photos", "s.png", "--style-layers", "relu9_1"], "relu9_1"),
        (["photos", "s.png", "-o", "x.png"], "names one file"),
        (["photos", "s.png", "--contact-sheet", "s.png"], "also an input"),
        (["photos", "s.png", "--contact-sheet", "x.gif"], "unknown extension '.gif'"),
        (["photos", "s.png", "--save-iterates", "{n}.png"], "unknown field {n}"),
        (["photos", "s.png", "-sw", "1", "2"], "--style-weights has 2 values"),
    ],
)
def test_what_is_wrong_for_all_pictures_ends_the_run_at_once(
    argv: list[str], word: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*argv, "--weights", "w.safetensors"]) == 2
    err = capsys.readouterr().err
    assert word in err and err.count("\n") == 1
    assert not Path("out").exists()


def test_a_dry_run_of_several_pictures_makes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["photos", "s.png", *SMALL, "--dry-run", "--save-iterates", "f/{content}-{number}.png"]) == 0
    assert capsys.readouterr().out.count("46x37") == 2
    assert not Path("out").exists() and not Path("f").exists()


def test_numbered_pictures_are_kept_on_the_way(place: Path) -> None:
    argv = ["photos/a.png", "s.png", *SMALL, "--quiet", "--save-every", "1"]
    assert cli.main([*argv, "--save-iterates", "f/{scale}_{step:02}_{number}.png"]) == 0
    assert made("f") == ["0032_01_0001.png", "0032_02_0002.png", "0046_01_0003.png", "0046_02_0004.png"] or made("f") == [
        "0033_01_0001.png", "0033_02_0002.png", "0046_01_0003.png", "0046_02_0004.png"]  # fmt: skip
    assert np.array_equal(images.load(f"f/{made('f')[-1]}").pixels, images.load("out.png").pixels)
    assert images.load(f"f/{made('f')[0]}").pixels.shape == (26, 33, 3)


def test_a_numbered_picture_never_replaces_an_input(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("s.png").read_bytes()
    Path("s.png").rename("0001.png")
    assert cli.main(["photos/a.png", "0001.png", *SMALL, "--save-iterates", "{number}.png"]) == 0
    assert Path("0001.png").read_bytes() == before and Path("0002.png").exists()
    assert "0001.png is also an input" in capsys.readouterr().err


# the contact sheet


def flat(path: str, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> str:
    Image.new("RGB", size, colour).save(path)
    return path


def test_a_grid_is_a_table_of_contents_by_styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    colours = {"a.png": (250, 0, 0), "b.png": (0, 250, 0), "s.png": (0, 0, 250), "t.png": (250, 250, 0)}
    for name, colour in colours.items():
        flat(name, colour)
    tasks = batch.plan(["a.png", "b.png"], ["s.png", "t.png"], "o", default="out.png", grid=True)
    for number, task in enumerate(tasks):
        task.output.parent.mkdir(exist_ok=True)
        flat(str(task.output), (60 * number, 100, 100))
    made = {task: task.output for task in tasks} | {tasks[3]: None}
    sheet = np.rint(batch.contact_sheet(tasks, made, grid=True) * 255)
    pitch_x, pitch_y = (sheet.shape[1] - 13) / 3, (sheet.shape[0] - 13) / 3
    centres = [[tuple(sheet[int(13 + (y + 0.5) * pitch_y), int(13 + (x + 0.4) * pitch_x)].astype(int)) for x in range(3)]
               for y in range(3)]  # fmt: skip
    white = (255, 255, 255)
    assert centres[0] == [white, (0, 0, 250), (250, 250, 0)]
    assert centres[1] == [(250, 0, 0), (0, 100, 100), (60, 100, 100)]
    assert centres[2][:2] == [(0, 250, 0), (120, 100, 100)]
    cell = sheet[int(13 + 2 * pitch_y) : int(13 + 2 * pitch_y) + 240, int(13 + 2 * pitch_x) : int(13 + 2 * pitch_x) + 320]
    assert 3 * 240 < sheet.shape[0] < 3 * 320  # rows are as high as the pictures, 4:3
    assert 0 < (cell < 100).all(axis=2).sum() < 2000  # the word "failed" on white


def test_many_results_are_laid_out_in_a_square_and_labels_stay_in_their_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tasks = [batch.Task(f"{'very long name ' * 9}{i}.png", ("s.png",), Path(flat(f"{i}.png", (9, 9, 9)))) for i in range(5)]
    sheet = batch.contact_sheet(tasks, {task: task.output for task in tasks}, grid=False)
    assert 1.6 < sheet.shape[1] / sheet.shape[0] < 2
    assert (sheet[:, :13] == 1).all() and (sheet[:, -13:] == 1).all()


def test_a_run_writes_its_contact_sheet(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["photos", "s.png", "t.png", "--grid", *SMALL, "--quiet", "--contact-sheet", "sheet.jpg"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "sheet.jpg"
    assert images.load("sheet.jpg").pixels.shape[1] == 3 * 333 + 13
    assert cli.main(["photos/a.png", "s.png", *SMALL, "--quiet", "--contact-sheet", "one.png"]) == 0
    assert images.load("one.png").pixels.shape[1] == 2 * 333 + 13
