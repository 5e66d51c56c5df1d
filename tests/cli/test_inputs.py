"""Pictures and weights that cannot be used are refused before any work, and names of files are data."""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.command_line import command, fails, pixels

from style_transfer import cli
from style_transfer.cli import job


@pytest.fixture
def old(place: Path) -> Iterator[Path]:
    """Return the folder `place` with an older out.png, and check in the end that it is untouched."""
    (place / "out.png").write_bytes(b"old")
    yield place
    assert (place / "out.png").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.png", ("none.png: no such file",)),
        ("ct.jpg", ("ct.jpg: no such file (did you mean 'cut.jpg'?)",)),
        ("nothin", ("nothin: no such file (did you mean 'nothing'?)",)),
        ("nothing", ("is a folder without pictures",)),
        ("empty.png", ("empty.png: is empty",)),
        ("page.png", ("looks like HTML",)),
        ("pointer.png", ("Git LFS pointer", "git lfs pull")),
        ("cut.jpg", ("cut.jpg",)),
        ("strip.png", ("at least 16 pixels each way", "raise --min-scale")),
        ("circle.png", ("circle.png: cannot be read",)),
        ("socket.png", ("is not a regular file",)),
    ],
)
def test_pictures_that_cannot_be_used_are_refused_before_weights_load(
    name: str, words: tuple[str, ...], old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("nothing").mkdir()
    Path("empty.png").touch()
    Path("page.png").write_text("<!DOCTYPE html><html>sign in</html>")
    Path("pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    Path("cut.jpg").write_bytes(Path("t.jpg").read_bytes()[:700])
    Image.new("RGB", (20000, 3)).save("strip.png")
    Path("circle.png").symlink_to("back.png")
    Path("back.png").symlink_to("circle.png")
    monkeypatch.setattr(job, "load_weights", lambda *a, **k: pytest.fail("the weights were loaded"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        fails(command(content=name), 3, capsys, *words)
        fails(["c.png", name, *command()[2:]], 3, capsys, *words)
        if name in ("none.png", "ct.jpg"):
            fails(command("--content-mask", name), 3, capsys, *words)


def test_a_folder_is_no_initial_picture(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    fails(command("--init", "folder"), 3, capsys, "is a folder")


@pytest.mark.parametrize("side", [1, 2, 8])
def test_a_tiny_content_is_enlarged_and_a_tiny_style_refused(side: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (side, side), "red").save("x.png")
    assert cli.main(command(content="x.png")) == 0
    fails(["c.png", "x.png", *command()[2:]], 3, capsys, f"style picture 1 is {side}x{side}", "at least 16 pixels")


def test_a_picture_of_ten_gigabytes_is_refused_from_its_header(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sparse BigTIFF of its full length, so that only the limit on pixels stops it."""
    with tifffile.TiffWriter("x.tif", bigtiff=True) as file:
        file.write(np.zeros((64, 64, 3), np.uint16), photometric="rgb")
    data = bytearray(Path("x.tif").read_bytes())
    for tag in (256, 257):
        at = data.index(tag.to_bytes(2, "little"), 16)
        data[at + 12 : at + 20] = (40000).to_bytes(8, "little")
    Path("x.tif").write_bytes(data)
    os.truncate("x.tif", 40000 * 40000 * 6 + 4096)
    fails(command(content="x.tif"), 3, capsys, "40000 x 40000", "--max-pixels 1600000000")


@pytest.mark.parametrize(
    "name",
    ["a\nb.png", "-x.png", "\x1b[31mred.png", os.fsdecode(b"\xff\xfe.png"), "CON.png", "x" * 240 + ".png", "ü 漢 🎨.png",
     "a;b$(c).png"],
)  # fmt: skip
def test_odd_names_of_files_are_used_as_they_are_and_shown_escaped(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.png").rename("style.png")
    Path("c.png").rename(name)
    argv = [f"./{name}", "style.png", *command()[2:], "-o", f"./o{name[-200:]}"]
    assert cli.main(argv) == 0
    assert "\x1b" not in capsys.readouterr().err
    assert pixels(f"o{name[-200:]}").shape == (37, 46, 3)
    assert cli.main([f"./{name}x", *argv[1:]]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "\x1b" not in err


def test_control_characters_in_a_name_are_escaped_in_the_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(["a\x1b[31m\nb.png", "s.png"], 3, capsys, "a\\x1b[31m\\nb.png")


def test_weights_that_cannot_be_used_exit_with_4(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("w.safetensors").write_bytes(b"nothing")
    fails(command(), 4, capsys, "w.safetensors")
    fails([*command()[:3], "v.safetensors"], 4, capsys, "v.safetensors: no such file (did you mean 'w.safetensors'?)")


def test_a_zip_bomb_is_refused_as_weights(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An archive whose header claims 4 GB for a member of 5 MB."""
    with (
        zipfile.ZipFile("x.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("x/data/0", "w", force_zip64=True) as member,
    ):
        member.write(bytes(5 * 2**20))
    forged = Path("x.pth").read_bytes().replace((5 * 2**20).to_bytes(4, "little"), (2**32 - 2).to_bytes(4, "little"))
    Path("x.pth").write_bytes(forged)
    fails(["c.png", "s.png", "--weights", "x.pth"], 4, capsys, "x.pth")


def test_what_masks_leave_out_keeps_its_colours(place: Path) -> None:
    Image.new("RGB", (60, 48), (90, 120, 60)).save("c.png")
    mask = np.zeros((48, 60), np.uint8)
    mask[:, 30:] = 255
    Image.fromarray(mask).save("m.png")
    assert cli.main(command("--quiet", "--content-mask", "m.png", "--color", "match-content")) == 0
    left = pixels()[:, :20].reshape(-1, 3).mean(0)
    assert np.abs(left - np.array([90, 120, 60]) / 255).max() < 0.01
