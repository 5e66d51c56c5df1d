"""Animation, report and preview of whole commands."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import command, fails
from support.movies import opened
from support.ranks import ENVIRONMENT, PROGRAM, TORCHRUN
from support.report_page import Page
from support.terminals import decode_kitty

from style_transfer import cli
from style_transfer import pictures as images
from style_transfer.errors import NumericError, OutputError
from style_transfer.observers.animation import Animation, movie
from style_transfer.observers.animation.options import CODECS
from style_transfer.observers.animation.spool import change
from style_transfer.observers.console import TimeLeft
from style_transfer.observers.observer import Progress
from style_transfer.observers.preview import drawing
from style_transfer.settings import Settings


def stop_at(monkeypatch: pytest.MonkeyPatch, index: int, step: int) -> None:
    """Send SIGINT to this process at an iteration."""
    update = TimeLeft.update

    def press(self: TimeLeft, i: int, s: int, seconds: float) -> float:
        if (i, s) == (index, step):
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, i, s, seconds)

    monkeypatch.setattr(TimeLeft, "update", press)


def written(path: str) -> np.ndarray:
    return np.rint(255 * images.load(path).pixels).astype(np.uint8)


def smooth() -> None:
    """Make the content a smooth picture, which lossy compression hardly changes."""
    coarse = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((60, 48), Image.Resampling.BICUBIC).save("c.png")


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.webp"])
def test_an_animation_goes_from_the_content_to_the_result(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smooth()
    if Path(name).suffix in CODECS:
        pytest.importorskip("av")
    assert cli.main(command("-o", "o.png", "--animation", name, "--animation-seconds", "2", "-ss", "0.2")) == 0
    out, err = capsys.readouterr()
    assert out == "o.png\n" and f"writing {name}" in err
    frames = opened(Path(name))
    assert sum(seconds for _, seconds in frames) == pytest.approx(2, abs=0.02)
    assert {frame.shape for frame, _ in frames} == {(36, 46, 3)}
    small = np.asarray(Image.open("c.png").resize((46, 36), Image.Resampling.BICUBIC))
    near = np.asarray(Image.fromarray(written("o.png")).resize((46, 36), Image.Resampling.BICUBIC))
    assert change(frames[0][0], small) < 0.04
    assert change(frames[-1][0], near) < 0.4 * change(frames[-1][0], small)
    assert not list(place.glob("*.frames")) and not list(place.glob(".style_transfer*"))


def test_frames_have_finished_colours(place: Path) -> None:
    gray = np.asarray(Image.open("c.png").convert("L").convert("RGB"))
    Image.fromarray(gray).save("c.png")
    assert cli.main(command("--quiet", "--animation", "a.webp", "--color", "luminance")) == 0
    for frame, _ in opened(Path("a.webp"))[::9]:
        assert np.abs(np.ptp(frame.astype(int), axis=2)).mean() < 8  # the content's own, which are gray


def test_outside_the_masks_frames_show_the_content(place: Path) -> None:
    mask = np.zeros((48, 60), np.uint8)
    mask[:, 30:] = 255
    Image.fromarray(mask).save("m.png")
    Image.fromarray(np.full((48, 60, 3), 90, np.uint8)).save("c.png")
    assert cli.main(command("--quiet", "--animation", "a.webp", "--content-mask", "m.png")) == 0
    frames = opened(Path("a.webp"))
    assert all(abs(float(frame[:, :18].mean()) - 90) < 3 for frame, _ in frames)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--animation", "a.mp3"], 2, ["--animation a.mp3", "did you mean '.mp4'"]),
        (["--animation", "a.gif", "--animation-rate", "60"], 2, ["at most 50 frames per second", "60"]),
        (["--animation", "no/a.gif"], 6, ["no/a.gif", "make it first"]),
        (["--animation", "{name}.gif"], 2, ["unknown field {name}", "{content}", "{output}"]),
        (["--animation", "a.gif", "--animation-seconds", "0"], 2, ["--animation-seconds", "0.1"]),
        (["--report", "r.pdf"], 2, ["--report r.pdf", ".html"]),
        (["--report", "no/r.html"], 6, ["no/r.html"]),
        (["--report", "o.html", "-o", "o.png", "--checkpoint", "o.html"], 2, ["--report o.html is also"]),
        (["--preview-protocol", "kity"], 2, ["--preview-protocol", "kitty"]),
    ],
)
def test_impossible_requests_are_errors_before_the_run(
    more: list[str], code: int, words: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(command(*more), code, capsys, *words)
    assert not list(place.glob("o*.png"))


def test_an_animation_does_not_overwrite_a_picture(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.open("s.png").save("s.webp")
    fails(["c.png", "s.webp", *command()[2:], "--animation", "s.webp"], 2, capsys, "--animation s.webp is also an input")
    fails(command("-o", "o.webp", "--animation", "o.webp"), 2, capsys, "--animation o.webp is also")


def test_each_of_several_pictures_has_files_of_its_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [*command("-o", "out"), "--each", "c.png", "t.jpg"]
    argv = ["s.png", *argv[2:]]
    fails([*argv, "--animation", "a.gif"], 2, capsys, "--animation a.gif is the same for several pictures", "{output}")
    fails([*argv, "--report", "a.html"], 2, capsys, "--report a.html is the same")
    more = ["--animation", "films/{content}.gif", "--animation-seconds", "0.5", "--report", "films/{output}.html", "--quiet"]
    assert cli.main([*argv, *more]) == 0
    assert sorted(path.name for path in Path("films").iterdir()) == ["c.gif", "c.html", "t.gif", "t.html"]
    for name in "ct":
        assert len(Page(Path(f"films/{name}.html").read_text("utf-8")).all("img")) >= 4


def test_ctrl_c_writes_the_animation_and_the_report_so_far(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["-o", "o.png", "--animation", "a.webp", "--animation-seconds", "1", "--report", "r.html"]
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2)
        assert cli.main(command(*more)) == 130
    first = opened(Path("a.webp"))
    near = np.asarray(Image.fromarray(written("o.png")).resize((46, 36), Image.Resampling.BICUBIC))
    assert change(first[-1][0], near) < 0.08
    page = Page(Path("r.html").read_text("utf-8"))
    assert any(text.startswith("stopped at 46x37, iteration 2 of 3") for text in page.texts)
    assert Path("a.webp.frames").exists()

    capsys.readouterr()
    assert cli.main(command(*more, "--resume")) == 0
    assert "no earlier frames" not in capsys.readouterr().err
    again = opened(Path("a.webp"))
    assert change(again[0][0], first[0][0]) < 0.01  # the content, not the picture at the checkpoint
    assert not Path("a.webp.frames").exists()
    page = Page(Path("r.html").read_text("utf-8"))
    assert any("after iteration 6" in text for text in page.texts)
    assert any(text.startswith("finished") for text in page.texts)


def test_resuming_without_earlier_frames_is_reported(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2)
        assert cli.main(command("-o", "o.png")) == 130
    assert cli.main(command("-o", "o.png", "--resume", "--animation", "a.gif")) == 0
    assert "no earlier frames of a.gif are stored" in capsys.readouterr().err
    assert len(opened(Path("a.gif"))) > 10


def test_a_run_that_fails_leaves_the_animation_and_the_report_so_far(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Animation.step

    def burst(self: Animation, progress: Progress) -> None:
        step(self, progress)
        if (progress.iterate.index, progress.iterate.step) == (1, 2):
            raise NumericError("loss or picture is not finite; take smaller steps")

    monkeypatch.setattr(Animation, "step", burst)
    assert cli.main(command("-o", "o.png", "--animation", "a.gif", "--report", "r.html")) == 7
    assert "not finite" in capsys.readouterr().err
    assert len(opened(Path("a.gif"))) > 10
    page = Page(Path("r.html").read_text("utf-8"))
    assert any(text.startswith("failed: loss or picture is not finite") for text in page.texts)


def test_an_animation_that_cannot_be_written_spoils_nothing_else(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("a.gif: cannot be written: No space left on device; free some space or choose another disk")

    monkeypatch.setattr(movie, "write", full)
    assert cli.main(command("-o", "o.png", "--animation", "a.gif", "--report", "r.html")) == 6
    out, err = capsys.readouterr()
    assert out == "o.png\n" and "a.gif: cannot be written" in err and "o.png has the picture at 46x37" in err
    assert Path("r.html").exists() and json.loads(Path("o.png.json").read_text())["finished"]


def test_json_lines_name_the_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--json", "--animation", "a.gif", "--report", "r.html")) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (done["event"], done["animation"], done["report"]) == ("done", "a.gif", "r.html")


def test_the_report_of_a_command(place: Path) -> None:
    assert cli.main(command("-o", "o.tif", "--report", "r.html", "-cw", "0.5", "--quiet")) == 0
    text = Path("r.html").read_text("utf-8")
    page = Page(text)
    assert len(page.all("path")) == len(json.loads(Path("o.tif.json").read_text())["parts"]) + 1
    assert [image["alt"] for image in page.all("img")][:3] == ["The result, o.tif", "The content, c.png", "The style, s.png"]
    assert ["--content-weight", "0.5", str(Settings().resolve().content_weight)] in page.rows
    assert str(place) not in text and len(text) < 2_000_000
    ends = {row[0]: row[1:] for row in page.rows}["sum"]
    assert float(ends[-1]) == pytest.approx(json.loads(Path("o.tif.json").read_text())["loss"], rel=1e-3)


def test_the_report_shows_transparent_pictures(place: Path) -> None:
    content = np.asarray(Image.open("c.png").convert("RGBA")).copy()
    content[:, :30, 3] = 0
    Image.fromarray(content).save("c.png")
    assert cli.main(command("-o", "o.png", "--report", "r.html", "--alpha", "keep", "--quiet", "--animation", "a.webp")) == 0
    sources = [image["src"] for image in Page(Path("r.html").read_text("utf-8")).all("img")]
    assert sources[0].startswith("data:image/png") and sources[1].startswith("data:image/png")
    assert opened(Path("a.webp"))[-1][0][:, :20].mean() > 240  # on white


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "more", "expected"),
    [
        ({"TERM": "xterm-kitty"}, [], True),
        ({"TERM": "xterm-256color"}, [], False),
        ({"TERM": "xterm-256color"}, ["--preview-protocol", "kitty"], True),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, [], False),
        ({"TERM": "xterm-kitty"}, ["--json"], False),
        ({"TERM": "xterm-kitty"}, ["--quiet"], False),
    ],
)
def test_a_terminal_with_graphics_gets_the_picture(
    environment: dict[str, str], more: list[str], expected: bool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID", "KONSOLE_VERSION", "TMUX", "STY", "ZELLIJ"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(command("--preview", *more)) == 0
    text = stream.getvalue()
    assert ("\x1b_G" in text) is expected
    if expected:
        begin = text.rindex("\x1b_Ga=T")
        _, found = decode_kitty(text[begin : text.rindex("\x1b\\") + 2])
        size = found.shape[1], found.shape[0]
        near = np.asarray(Image.fromarray(written("out.png")).resize(size, Image.Resampling.BICUBIC))
        assert change(found, near) < 0.03


def test_without_a_terminal_there_is_no_preview(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.setattr(drawing, "Snapshot", lambda *_: pytest.fail("a picture was made"))
    assert cli.main(command("--preview")) == 0
    assert "\x1b" not in capsys.readouterr().err


def test_under_torchrun_rank_0_writes_animation_and_report(place: Path) -> None:
    (place / "prog.py").write_text(PROGRAM)
    more = ["-ms", "64", "-s", "91", "-ii", "6", "-i", "5", "-o", "o.png", "--animation", "a.gif", "--report", "r.html"]
    argv = [*TORCHRUN, "2", "prog.py", "c.png", "s.png", "--weights", "w.safetensors", *more]
    done = subprocess.run(argv, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    frames = opened(place / "a.gif")
    near = np.asarray(Image.fromarray(written("o.png")).resize((frames[0][0].shape[1::-1]), Image.Resampling.BICUBIC))
    assert change(frames[-1][0], near) < 0.08 and len(frames) > 20
    page = Page((place / "r.html").read_text("utf-8"))
    assert ["devices", "cpu, cpu"] in page.rows and len(page.all("img")) == 5
