"""What a run writes and prints: the picture, its recipe, notes, events, and a dry run's table."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.command_line import SMALL, command, fails, pixels

from style_transfer import cli, pictures
from style_transfer.cli import outputs
from style_transfer.cli.recipe import LIBRARIES
from style_transfer.compute import devices
from style_transfer.engine import stylize
from style_transfer.errors import OutputError
from style_transfer.networks import download
from style_transfer.pictures.credits import Credits, read_credits, xmp_packet
from style_transfer.pictures.tensors import to_pixels, to_tensor
from style_transfer.settings import Settings


@pytest.mark.parametrize("name", ["o.tif", "o.png", "o.jpg", "o.webp"])
def test_a_run_writes_the_picture_and_its_recipe_and_prints_the_path(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in place.iterdir()}
    assert cli.main(command("-o", name, "--dpi", "300", "-r", "7")) == 0
    out, err = capsys.readouterr()
    assert out == f"{name}\n"
    assert "scale 2 of 2: 46x37, 3 steps" in err
    assert pixels(name).shape == (37, 46, 3)
    recipe = json.loads(Path(f"{name}.json").read_text())
    assert recipe["finished"] is True
    assert recipe["settings"]["random_seed"] == 7
    assert recipe["command"].startswith("style_transfer c.png s.png --weights")
    assert recipe["threads"] == torch.get_num_threads()
    assert set(recipe["versions"]) == {"python", *LIBRARIES}
    inside = json.loads(pictures.read_metadata(name)["Recipe"])
    assert inside["settings"] == recipe["settings"] and "command" not in inside
    assert inside["content"]["sha256"] == recipe["content"]["sha256"]
    assert {path.name for path in place.iterdir()} == before | {name, f"{name}.json"}
    assert torch.get_default_dtype() == torch.float32


def test_colour_at_half_the_resolution_is_a_note_for_prints(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, noted in ((("--dpi", "300"), True), ((), False), (("--dpi", "300", "--lossless"), False)):
        assert cli.main(command("-o", "o.webp", "--overwrite", *options)) == 0
        assert ("4:2:0" in capsys.readouterr().err) == noted
    assert Path("o.webp").read_bytes()[12:16] == b"VP8X" and b"VP8L" in Path("o.webp").read_bytes()
    fails(command("-o", "o.jpg", "--lossless"), 2, capsys, "JPEG is not lossless")
    assert cli.main(command("-o", "o.png", "--lossless", "--save-iterates", "f{number}.jpg")) == 0


def test_the_recipe_makes_the_same_picture_again(place: Path) -> None:
    assert cli.main(command("-o", "a.tif", "--init", "uniform", "-r", "9", "--quiet")) == 0
    settings = json.loads(Path("a.tif.json").read_text())["settings"]
    content, style = (to_tensor(pictures.load(p)) for p in ("c.png", "s.png"))
    *_, last = stylize(content, [style], Settings.from_dict(settings))
    again = pictures.quantize(to_pixels(last.image()), np.uint16)
    assert np.array_equal(pictures.quantize(pixels("a.tif"), np.uint16), again)


def test_without_network_access_the_built_in_network_is_used_with_a_note(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(url: str) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(place / "cache"))
    monkeypatch.setattr(download, "_open", offline)
    argv = ["c.png", "s.png", *SMALL, "-o", "o.png"]
    assert cli.main(argv) == 0
    (note,) = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    for word in ("built-in compact network", "Name or service not known", "--weights", "https://", str(place / "cache")):
        assert word in note
    recipe = json.loads((place / "o.png.json").read_text())
    assert recipe["network"]["name"] == "compact"
    assert recipe["network"]["weights"].startswith("built-in sha256:")
    assert note.endswith(recipe["network"]["note"])
    assert str(place) not in pictures.read_metadata("o.png")["Recipe"]  # the picture may be published
    fails([*argv, "--network", "vgg19"], 4, capsys, "cannot be downloaded", "Name or service not known")
    assert cli.main([*argv, "--network", "compact"]) == 0
    assert "note" not in capsys.readouterr().err
    assert json.loads((place / "o.png.json").read_text())["network"]["note"] is None
    fails([*argv, "--network", "compact", "--style-layers", "relu3_4"], 2, capsys, "compact has no layer 'relu3_4'")


def test_quiet_prints_the_path_alone(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--quiet")) == 0
    assert capsys.readouterr() == ("out.png\n", "")
    monkeypatch.setattr(devices, "_fast", lambda device: "bf16")
    monkeypatch.setattr(devices, "available", lambda: ("cuda:0", "cpu"))
    monkeypatch.setattr(devices, "problem", lambda device, features=None: "is broken" if device.type == "cuda" else None)
    assert cli.main(command()) == 0
    noisy = capsys.readouterr().err
    assert "computes in bf16 on cpu" in noisy and "cuda:0 is broken" in noisy
    assert cli.main(command("--quiet")) == 0
    assert capsys.readouterr() == ("out.png\n", "")


def test_json_prints_each_iteration_and_the_end(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("--json", "-o", "o.png")) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events] == ["iterate"] * 7 + ["done"]
    assert events[0]["loss"] == pytest.approx(sum(events[0]["parts"].values()), rel=1e-5)
    assert events[-1] == {"event": "done", "output": "o.png", "width": 46, "height": 37, "interrupted": False}


def test_the_picture_is_saved_every_so_many_steps_and_after_each_scale(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    save = outputs.save

    def spy(path: Path, pixels: np.ndarray, **more: object) -> None:
        written.append(pixels.shape[:2])
        save(path, pixels, **more)

    monkeypatch.setattr(outputs, "save", spy)
    assert cli.main(command("--save-every", "2", "--quiet")) == 0
    assert written == [(26, 33)] * 2 + [(37, 46)] * 2  # steps 2 and 4; step 2 and the end
    written.clear()
    assert cli.main(command("--save-every", "0", "--quiet")) == 0
    assert written == [(26, 33), (37, 46)]


def test_a_save_that_fails_before_the_end_does_not_end_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, calls = outputs.save, []

    def full_at_first(*args: object, **more: object) -> None:
        calls.append(1)
        if len(calls) < 3:
            raise OutputError("o.png: cannot be written: No space left on device; free some space")
        save(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "save", full_at_first)
    assert cli.main(command("-o", "o.png", "--save-every", "2")) == 0
    err = capsys.readouterr().err
    assert err.count("No space left") == 2 and "the run continues without saving" in err
    assert json.loads((place / "o.png.json").read_text())["finished"] is True


def test_a_picture_file_may_be_the_initial_picture(place: Path) -> None:
    assert cli.main(["c.png", "s.png", "t.jpg", "-sw", "2", "1", "--init", "t.jpg", *command("--quiet")[2:]]) == 0
    assert json.loads(Path("out.png.json").read_text())["init"]["name"] == "t.jpg"


def test_replacing_a_picture_keeps_its_mode(place: Path) -> None:
    (place / "o.png").write_bytes(b"old")
    (place / "o.png").chmod(0o600)
    assert cli.main(command("-o", "o.png")) == 0
    assert stat.S_IMODE((place / "o.png").stat().st_mode) == 0o600


def test_a_path_that_standard_output_cannot_encode_is_escaped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    assert cli.main(command("-o", "bild_ü.png")) == 0
    sys.stdout.flush()
    assert buffer.getvalue() == b"bild_\\xfc.png\n"


def test_a_dry_run_prints_sizes_steps_tiles_memory_and_time_and_writes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command("-o", "o.png", "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["size", "steps", "tiles", "memory", "time"]
    assert [line.split()[:3] for line in lines[1:3]] == [["33x26", "4", "1"], ["46x37", "3", "1"]]
    assert lines[-1].startswith(("vgg19 on cpu; about 0:0", "tiny on cpu; about 0:0"))
    assert not (place / "o.png").exists()


def test_the_number_of_tiles_on_each_device_is_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command("-o", "o.png", "--tile", "16", "--padding", "network", "--devices", "cpu", "cpu")) == 0
    assert "46x37 is processed in 9 + 6 tiles" in capsys.readouterr().err
    assert json.loads((place / "o.png.json").read_text())["devices"] == ["cpu", "cpu"]


def test_credits_of_the_photograph_are_kept_on_request(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packet = xmp_packet(72, Credits("Ana", copyright="© Ana", latitude="52,31.2N", longitude="13,24.3E"))
    Image.open("c.png").save("c.jpg", xmp=packet)
    run = command("-o", "o.tif", content="c.jpg")
    assert cli.main(run) == 0 and read_credits("o.tif") == Credits()
    capsys.readouterr()
    assert cli.main([*run, "--keep-metadata"]) == 0
    assert "c.jpg: metadata kept: author, copyright\n" in capsys.readouterr().err
    assert read_credits("o.tif") == Credits("Ana", copyright="© Ana")
    assert cli.main([*run, "--keep-metadata", "--keep-place"]) == 0
    assert read_credits("o.tif").latitude == "52,31.2N"
    fails([*run, "--keep-place"], 2, capsys, "--keep-place goes with --keep-metadata")
