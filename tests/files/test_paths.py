"""Paths: existence, names in messages, similar names; and free space."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from style_transfer import files
from style_transfer.errors import OutputError


def test_unprintable_characters_are_escaped() -> None:
    assert files.shown("a\x1b[31m\nb\u202e\udcff é.png") == "a\\x1b[31m\\nb\\u202e\\udcff é.png"


def test_existence_of_impossible_names() -> None:
    for name in ("a\0b", "x" * 300, "none/x"):
        assert not files.exists(name) and not files.is_folder(name)
    assert files.is_folder(".") and files.exists(__file__) and not files.is_folder(__file__)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("tubingn.jpg", "tubingen.jpg"),
        ("tubingen", "tubingen.jpg"),
        ("tubingen.png", "tubingen.jpg"),
        ("img_0042.jpg", "IMG_0042.JPG"),
        ("completely different.tif", None),
    ],
)
def test_the_closest_name_in_the_folder_is_found(wrong: str, right: str | None, tmp_path: Path) -> None:
    for name in ("tubingen.jpg", "starry_night.jpg", "IMG_0042.JPG"):
        (tmp_path / name).touch()
    assert files.similar_name(tmp_path / wrong) == (f" (did you mean {right!r}?)" if right else "")


def test_no_name_is_similar_in_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert files.similar_name(tmp_path / "none" / "a.png") == files.similar_name("a\0b") == ""


def test_links_to_the_same_file_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "b").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "c")
    (tmp_path / "loop").symlink_to("loop")
    assert files.same_file(tmp_path / "a", tmp_path / "b") and files.same_file(tmp_path / "a", tmp_path / "c")
    assert not files.same_file(tmp_path / "a", tmp_path / "d") and not files.same_file(tmp_path / "a", tmp_path / "loop")


def test_a_disk_that_is_too_small_is_refused_in_advance(tmp_path: Path) -> None:
    files.check_space({tmp_path / "a": 1000})
    with pytest.raises(OutputError, match="needs up to .* MB of disk there and .* MB are free"):
        files.check_space({tmp_path / "a": 10**18, tmp_path / "b": 10**18})
