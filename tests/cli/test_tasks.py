"""The pictures of a command: names of results and of numbered pictures, and what a folder stands for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from style_transfer.cli.tasks import check_iterates, is_result, iterate_pattern, pictures, plan_several, plan_tasks, shard_of
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


def test_results_in_a_folder_are_not_taken_for_photographs(tmp_path: Path) -> None:
    """A second run of `style_transfer p s.jpg -o p` paints the same photographs as the first."""
    for name in ("a.png", "b.jfif", "a_painted.png"):
        (tmp_path / name).touch()
    (tmp_path / "a_painted.png.json").write_text(json.dumps({"program": "style_transfer 0.1.0", "settings": {}}))
    (tmp_path / "a.png.json").write_text(json.dumps({"title": "of another program"}))
    assert is_result(tmp_path / "a_painted.png") and not is_result(tmp_path / "a.png")
    assert pictures([str(tmp_path)]) == [str(tmp_path / "a.png"), str(tmp_path / "b.jfif")]
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.jfif").unlink()
    with pytest.raises(ImageError, match="except for results"):
        pictures([str(tmp_path)])


def test_a_folder_names_what_it_leaves_out(tmp_path: Path) -> None:
    for name in ("a.png", "b.heic", "c.CR2", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    lines: list[str] = []
    assert pictures([str(tmp_path)], lines.append) == [str(tmp_path / "a.png")]
    assert len(lines) == 1 and all(name in lines[0] for name in ("b.heic", "c.CR2", "gone.jpg")) and "notes" not in lines[0]


def test_quoted_patterns_are_expanded(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "c.jpg", "[x].png"):
        (tmp_path / name).touch()
    assert pictures([str(tmp_path / "?.png")]) == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert pictures([str(tmp_path / "[x].png")]) == [str(tmp_path / "[x].png")]  # the name of a file
    with pytest.raises(ImageError, match="no file matches"):
        pictures([str(tmp_path / "*.tif")])


def test_one_picture_goes_to_a_folder_or_a_pattern_as_several_do() -> None:
    for output, expected in (("o/", "o/a.png"), ("{content}_{style}.tif", "a_s.tif"), ("b.png", "b.png")):
        (task,) = plan_tasks(["p/a.jpg"], ["s.jpg"], CommandOptions(output=output), several=False)
        assert str(task.output) == expected


def test_contents_of_the_same_name_are_numbered_in_a_folder() -> None:
    assert planned(["p/a.png", "q/a.jpg", "r/a.tif"], ["s.png"], "o") == ["o/a.png", "o/a-2.png", "o/a-3.png"]
    with pytest.raises(SettingsError, match="would be the result of"):
        planned(["p/a.png", "q/a.jpg"], ["s.png"], "{content}.png")


def test_shards_share_the_pictures() -> None:
    tasks = plan_several([f"{n}.png" for n in range(10)], ["s.png"], "o", grid=False)
    shards = [shard_of(tasks, f"{part}/4") for part in range(1, 5)]
    assert sorted((task for shard in shards for task in shard), key=tasks.index) == tasks
    assert [task.content for task in shards[1]] == ["1.png", "5.png", "9.png"]
    with pytest.raises(SettingsError, match="only 10"):
        shard_of(tasks, "11/11")
    for wrong in ("0/3", "4/3", "3", "a/b", "-1/2"):
        with pytest.raises(SettingsError, match="--shard"):
            CommandOptions(shard=wrong)
