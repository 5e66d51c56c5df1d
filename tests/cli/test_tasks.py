"""The pictures of a command: names of results and of numbered pictures, and what a folder stands for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from style_transfer.cli.tasks import check_iterates, iterate_pattern, pictures, plan_several, plan_tasks
from style_transfer.errors import ImageError, SettingsError
from style_transfer.files import Task, fill
from style_transfer.settings import CommandOptions


def planned(contents: list[str], styles: list[str], output: str | None, *, grid: bool = False) -> list[str]:
    return [str(task.output) for task in plan_several(contents, styles, output, grid=grid)]


def test_long_names_are_cut_to_the_longest_that_files_can_have() -> None:
    for long in ("x" * 240, "\u753b" * 80, "\u753b" * 79 + "xyz"):
        for content, style in ((long, "s"), ("a", long), (long, long)):
            (name,) = planned([f"p/{content}.png"], [f"{style}.png"], "o", grid=True)
            assert len(os.fsencode(Path(name).name)) <= 255 - len(".checkpoint.previous.old")
            assert "\ufffd" not in name and name.encode()


def test_results_are_named_after_their_pictures() -> None:
    contents, styles = ["p/a.png", "p/b.jpg"], ["s.png", "t.png"]
    assert planned(contents, styles, None) == ["out/a.png", "out/b.png"]
    assert planned(contents, styles, None, grid=True)[0] == "out/a_s.png"
    assert planned(contents, styles, "x/y") == ["x/y/a.png", "x/y/b.png"]
    assert planned(contents, styles, "o", grid=True) == ["o/a_s.png", "o/a_t.png", "o/b_s.png", "o/b_t.png"]
    assert planned(contents, styles, "{number}-{content}.tif") == ["0001-a.tif", "0002-b.tif"]
    assert planned(contents, styles, "{style}/{content}_{number:02}.jpg")[1] == "s+t/b_02.jpg"
    assert planned(["a.png"], styles, "one.tif") == ["one.tif"]


def test_without_output_one_picture_is_a_file_and_several_are_in_a_folder() -> None:
    """A name that is given is the name of a file if it ends as one, also if it is the default's."""

    def outputs(*contents: str, output: str | None = None) -> list[str]:
        tasks = plan_tasks(contents, ["s.png"], CommandOptions(output=output), several=len(contents) > 1)
        return [str(task.output) for task in tasks]

    assert outputs("a.png") == outputs("a.png", output="out.png") == ["out.png"]
    assert outputs("a.png", "b.png") == outputs("a.png", "b.png", output="out") == ["out/a.png", "out/b.png"]
    with pytest.raises(SettingsError, match="--output out.png names one file for 2 pictures; give a folder, or a pattern"):
        outputs("a.png", "b.png", output="out.png")


@pytest.mark.parametrize(
    ("contents", "output", "word"),
    [
        (["a.png", "b.png"], "x.tif", "--output x.tif names one file for 2 pictures"),
        (["a.png", "a.jpg"], "out", "out/a.png would be the result of a.png and of a.jpg"),
        (["a.png", "b.png"], "x.gif", "x.gif: unknown extension '.gif'"),
        (["a.png", "b.png"], "{content}.pgn", "a.pgn: unknown extension '.pgn' (did you mean '.png'?)"),
        (["a.png", "b.png"], "{content}", "a: no extension"),
        (["a.png", "b.png"], "{style}.png", "put {content}, {style} or {number}"),
        (["a.png", "b.png"], "{contents}.png", "unknown field {contents} (did you mean 'content'?)"),
        (["a.png", "b.png"], "{content.__class__}.png", "unknown field {content.__class__}"),
        (["a.png", "b.png"], "{content", "--output {content"),
        (["a.png", "b.png"], "{number:q}.png", "--output {number:q}.png"),
        (["o/a.png", "o/b.png"], "o", "--output o/a.png is also an input"),
        (["a.png"], "{style}.png", "--output s.png is also an input"),
    ],
)
def test_names_that_results_cannot_have_are_refused(contents: list[str], output: str, word: str) -> None:
    with pytest.raises(SettingsError) as error:
        planned(contents, ["s.png"], output)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_a_folder_stands_for_the_pictures_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos/more.png").mkdir(parents=True)
    for name in ("b.jpg", "a.png", ".hidden.png", "notes.txt"):
        Path("photos", name).touch()
    assert pictures(["s.png", "photos"]) == ["s.png", "photos/a.png", "photos/b.jpg"]
    Path("empty").mkdir()
    with pytest.raises(ImageError, match="empty: is a folder without pictures"):
        pictures(["empty"])


def test_names_of_numbered_pictures_are_filled_in() -> None:
    assert iterate_pattern("f/out.png") == "f/out-{number}.png"
    assert iterate_pattern("{iteration:06}.jpg") == "{iteration:06}.jpg"
    assert fill("--save-iterates", "{iteration:06}_{scale:d}.jpg", {"iteration": 12, "scale": 128}) == Path("000012_128.jpg")
    tasks = [Task(name, ("s.png",), Path("o")) for name in ("a.png", "b.png")]
    with pytest.raises(SettingsError, match="the same for several pictures"):
        check_iterates("{number}.png", tasks)
    check_iterates("{content}/{number}.png", tasks)
