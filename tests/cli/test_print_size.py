"""--print-size: pixels and resolution of the result, framing of the photograph, its masks and initial picture, faults."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import fails, pixels

from style_transfer import cli, pictures
from style_transfer.pictures.color.sharpening import sharpen

RUN = ["c.png", "s.png", "--weights", "w.safetensors", "-ms", "1000", "-ii", "1", "-i", "1", "--print-size"]
"""c.png is 60x48, so that at 25.4 dpi, which is a pixel a millimetre, it is 60x48 mm."""


def test_the_result_has_the_size_of_the_print(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*RUN, "66x33mm", "--bleed", "3mm", "--dpi", "25.4", "-o", "o.tif"]) == 0
    notes = capsys.readouterr().err
    assert "c.png: 37.5% of its height is cut off for the print of 6.6 x 3.3 cm; --print-fit pad keeps it" in notes
    assert "c.png: 3 mm of bleed at each side show the photograph, and its mirror image at left, right" in notes
    assert pixels("o.tif").shape == (39, 72, 3)
    with Image.open("o.tif") as image:
        assert image.info["dpi"] == pytest.approx((25.4, 25.4))
    recipe = json.loads(Path("o.tif.json").read_text())
    assert recipe["dpi"] == 25.4 and recipe["scales"][-1]["width"] == 72
    assert recipe["print"] == {"print_size": "66x33mm", "dpi": 25.4, "bleed": "3mm"}
    sheet = {"width_mm": 66.0, "height_mm": 33.0, "bleed_mm": 3.0, "dpi": 25.4}
    assert recipe["sheet"] == sheet | {"added_at_top_and_bottom": pytest.approx(-0.1307, abs=1e-4),
        "added_at_left_and_right": pytest.approx(1 / 22)}  # fmt: skip


def test_the_photograph_is_where_it_belongs(place: Path) -> None:
    """With a strength of 0 the result is the photograph, so that crop and reflection can be compared pixel by pixel."""
    photograph = pictures.load("c.png").pixels
    run = [*RUN, "60x40mm", "--bleed", "2mm", "--dpi", "25.4", "--strength", "0", "-o", "o.tif"]
    assert cli.main(run) == 0
    mirrored = np.pad(photograph[2:-2], ((0, 0), (2, 2), (0, 0)), "reflect")  # 4 rows are cut off, and 2 are in the bleed
    np.testing.assert_allclose(pixels("o.tif"), mirrored, atol=1e-4)
    assert cli.main([*run, "--print-fit", "pad", "--bleed-from", "crop"]) == 0
    assert pixels("o.tif").shape == (44, 64, 3)
    assert cli.main([*RUN, "60x60mm", "--print-fit", "pad", "--dpi", "25.4", "--strength", "0", "-o", "o.tif"]) == 0
    np.testing.assert_allclose(pixels("o.tif"), np.pad(photograph, ((6, 6), (0, 0), (0, 0)), "reflect"), atol=1e-4)


def test_masks_and_initial_pictures_follow_the_photograph(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The masked half is painted, and the other one keeps the photograph; the mask has half of the photograph's pixels."""
    mask = np.zeros((24, 30), np.uint8)
    mask[:, 15:] = 255
    Image.fromarray(mask).save("m.png")
    masked = [*RUN, "40x60mm", "--dpi", "25.4", "--content-mask", "m.png", "--init", "s.png", "-o", "o.tif"]
    assert cli.main(masked) == 0
    found = pixels("o.tif")
    assert found.shape == (60, 40, 3)
    with Image.open("c.png") as image:  # 32 of 60 columns, enlarged from 48 to 60 rows
        expected = np.asarray(image.crop((14, 0, 46, 48)).resize((40, 60), Image.Resampling.BICUBIC)) / 255
    assert np.abs(found[:, :18] - expected[:, :18]).mean() < 0.05 < np.abs(found[:, 22:] - expected[:, 22:]).mean()
    mask[:, 5:] = 0
    mask[:, :4] = 255
    Image.fromarray(mask).save("m.png")
    fails([*masked, "--quiet"], 3, capsys, "a region of --content-mask is cut off for the print")


def test_styles_are_sized_in_the_print(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*RUN, "60x48mm", "--dpi", "25.4", "--style-print-size", "3cm", "-o", "o.png"]) == 0
    assert "strokes" not in capsys.readouterr().err
    assert cli.main([*RUN, "60x48mm", "--dpi", "50.8", "--style-print-size", "6cm", "--dry-run"]) == 0
    assert "s.png: 60 pixels, and --style-print-size 6cm takes 120: strokes become smaller" in capsys.readouterr().err


def test_a_dry_run_prints_centimetres_and_pixels(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*RUN, "A4", "--bleed", "3mm", "--dpi", "30", "--dry-run"]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == "print of 29.7 x 21 cm and 3 mm of bleed at 30 dpi: 358x255 pixels"
    assert "memory" in rows[0] and rows[-2].startswith("358x255 ") and "about" in rows[-1]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["A3-landcape"], ["--print-size", "did you mean 'A3-landscape'"]),
        (["10x15cm", "--bleed", "10cm"], ["--bleed 10cm must be at most a quarter"]),
        (["10x15cm", "-s", "300"], ["--print-size sets the long side; leave out --end-scale"]),
        (["10x15cm", "--style-print-size", "3cm", "--style-size", "300"], ["leave out --style-size"]),
        (["10x15cm", "--print-fit", "exact"], ["60x48 pixels", "choose --print-fit crop or pad"]),
        (["99x99m", "--dpi", "9999"], ["above the limit of 1000000", "fewer --dpi"]),
    ],
)
def test_faults(more: list[str], words: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails([*RUN, *more], 2, capsys, *words)


def test_a_pdf_has_the_boxes_of_the_print(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = [*RUN, "66x33mm", "--bleed", "3mm", "--dpi", "25.4", "--crop-marks"]
    assert cli.main([*run, "-o", "o.pdf", "--report", "r.html"]) == 0
    assert "o.pdf, at a small size" in Path("r.html").read_text()
    data = Path("o.pdf").read_bytes()
    boxes = {name: [float(x) for x in box.split()] for name, box in re.findall(rb"/(\w+Box) \[([^]]*)\]", data)}
    assert boxes[b"TrimBox"] == pytest.approx([side * 72 / 25.4 for side in (8, 8, 74, 41)], abs=1e-4)
    assert boxes[b"BleedBox"] == pytest.approx([side * 72 / 25.4 for side in (5, 5, 77, 44)], abs=1e-4)
    assert b"/Width 72 /Height 39 " in data
    fails([*run, "-o", "o.tif"], 2, capsys, "--crop-marks goes with a .pdf, not with o.tif")


def test_sharpening_has_a_radius_in_the_print(place: Path) -> None:
    """1 mm at 25.4 dpi is a pixel; with a strength of 0 the result is the photograph, sharpened."""
    run = [*RUN, "60x48mm", "--dpi", "25.4", "--strength", "0", "--sharpen", "0.8", "--sharpen-radius", "1mm", "-o", "o.tif"]
    assert cli.main(run) == 0
    np.testing.assert_allclose(pixels("o.tif"), sharpen(pictures.load("c.png").pixels, 0.8, 1.0), atol=3e-4)
    assert json.loads(Path("o.tif.json").read_text())["print"]["sharpen"] == 0.8
