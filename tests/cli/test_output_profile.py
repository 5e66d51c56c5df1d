"""--output-profile and its options: what a run writes, records and refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from support.command_line import command, fails
from support.picture_files import iccp, noise, png, put
from support.profiles import ADOBE_TO_D50, cmyk_profile, rgb_profile

from style_transfer import cli, pictures
from style_transfer.observers.report import page
from style_transfer.pictures.press import Press
from style_transfer.pictures.proofing import GamutMap, GamutReport, SoftProof
from style_transfer.pictures.working import read_space


def test_a_run_writes_cmyk(place: Path) -> None:
    put(place / "press.icc", cmyk_profile(0.1))
    assert cli.main(command("-o", "rgb.tif")) == 0
    more = "--output-profile", "press.icc", "--intent", "perceptual", "--no-black-point", "--ink-limit", "240"
    assert cli.main(command("-o", "o.tif", *more, "--save-iterates", "f{number}.png", "--dpi", "300")) == 0
    with tifffile.TiffFile("o.tif") as file:
        ink, profile = file.asarray(), file.pages.first.iccprofile
    assert profile == cmyk_profile(0.1) and ink.shape == (37, 46, 4)
    press = Press(profile, "cmyk", "test", intent=0, black_point=False, ink_limit=2.4)
    expected = press.convert(pictures.load("rgb.tif").pixels)
    np.testing.assert_allclose(ink / 65535, expected, atol=1e-3)  # the table amplifies the rounding of rgb.tif
    assert ink.astype(int).sum(-1).max() <= 2.4 * 65535 + 4
    recipe = json.loads(Path("o.tif.json").read_text())
    assert recipe["output_profile"]["name"] == "press.icc"
    assert recipe["print"] == {"intent": "perceptual", "black_point": False, "ink_limit": 240.0, "dpi": 300.0}
    words = page.command(recipe)
    assert "--intent perceptual --no-black-point" in words and "--output-profile press.icc" in words
    assert pictures.load("f0001.png").size == (26, 33)  # numbered pictures stay RGB


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-o", "o.png", "--output-profile", "press.icc"], ["o.png: PNG is not for CMYK; use ."]),
        (["-o", "o.tif", "--output-profile", "pres.icc"], ["no such file", "did you mean 'press.icc'"]),
        (["-o", "o.tif", "--output-profile", "c.png"], ["is not an ICC profile"]),
        (["-o", "o.tif", "--output-profile", "press.icc", "--ink-limit", "90"], ["--ink-limit must be at least 100"]),
        (["-o", "o.tif", "--ink-limit", "300"], ["--ink-limit 300 goes with --output-profile"]),
        (["-o", "o.tif", "--output-profile", "adobe.icc", "--ink-limit", "300"], ["--ink-limit goes with a CMYK"]),
        (["-o", "o.tif", "--output-profile", "press.icc", "--intent", "percptual"], ["did you mean 'perceptual'"]),
    ],
)
def test_faults_are_reported_before_the_run(
    more: list[str], words: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(place / "press.icc", cmyk_profile(0.1))
    put(place / "adobe.icc", rgb_profile(ADOBE_TO_D50, 2.2))
    fails([*command(*more), "--weights", "none.safetensors"], 2, capsys, *words)


def test_colours_beyond_srgb_stay_through_a_run(place: Path) -> None:
    """With a strength of 0 and one scale of the content's size the photograph comes back, also its reddest red."""
    samples = noise(48, 60)
    samples[:24, :30] = [65535, 0, 0]
    samples[24:, 30:] = samples[24:, 30:, :1]
    put(place / "p3.png", png(samples, iccp(read_space("--output-space", "display-p3").icc)))  # type: ignore[union-attr]
    run = command("-s", "0", "-ms", "1000", "-ii", "1", "--strength", "0", "--output-space", "display-p3", content="p3.png")
    assert cli.main([*run, "-o", "o.tif", "--animation", "a.gif", "--report", "r.html"]) == 0
    with tifffile.TiffFile("o.tif") as file:
        stored, profile = file.asarray(), file.pages.first.iccprofile
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() == "Display P3"
    assert np.abs(stored.astype(int) - samples).max() <= 1
    assert (stored[24:, 30:] == stored[24:, 30:, :1]).all()
    assert json.loads(Path("o.tif.json").read_text())["output_space"] == "display-p3"
    with Image.open("a.gif") as shown:  # what is shown is sRGB, where that red is clipped
        shown.seek(shown.n_frames - 1)
        red = np.asarray(shown.convert("RGB"))[:20, :25].reshape(-1, 3).mean(0)
    assert red[0] > 250 and red[1:].max() < 5
    assert "--output-space display-p3" in Path("r.html").read_text()
    press = put(place / "press.icc", cmyk_profile(0.1))
    assert cli.main([*run, "-o", "p.tif", "--output-profile", str(press)]) == 0
    ink = Press(press.read_bytes(), "cmyk", "test").convert(stored / np.float32(65535), read_space("", "display-p3").exact)  # type: ignore[union-attr]
    with tifffile.TiffFile("p.tif") as file:
        np.testing.assert_allclose(file.asarray() / 65535, ink, atol=1e-3)


def test_a_soft_proof_is_written_at_the_end(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    press = Press(put(place / "press.icc", cmyk_profile(0.1)).read_bytes(), "cmyk", "test")
    assert cli.main(command("-o", "o.tif", "--proof-output", "press.icc", "--save-every", "1", "--report", "r.html")) == 0
    shown = Path("r.html").read_text()
    assert "As the print will look" in shown and "colours that test does not have" in shown and "Most ink" in shown
    assert capsys.readouterr().err.count("out of gamut of test") == 1
    painted = pictures.load("o.tif").pixels
    found = json.loads(Path("o.tif.json").read_text())["gamut"]
    report = GamutReport.of(painted, press)
    assert found["out_of_gamut"] == pytest.approx(report.out_of_gamut, abs=2e-3) and found["threshold"] == 3
    assert found["largest_difference"] == pytest.approx(report.largest_difference, abs=0.05)
    for name, conversion in (("o.tif.proof.png", SoftProof(press)), ("o.tif.gamut.png", GamutMap(press))):
        difference = np.abs(pictures.load(name).pixels - conversion.convert(painted))
        assert difference.mean() < 1e-3 and difference.shape == (37, 46, 3)
    Path("t.png").write_bytes(Path("s.png").read_bytes())
    Path("t.png").replace("p.tif.proof.png")
    fails(["c.png", "p.tif.proof.png", "-o", "p.tif", "--proof-output", "press.icc"], 2, capsys, "--proof-output p.tif.proof.png")
    fails(command("--proof-output", "c.png"), 2, capsys, "--proof-output c.png: is not an ICC profile")


def test_a_finished_picture_is_written_again_from_its_checkpoint(place: Path) -> None:
    """Another format, with a profile, a soft proof and marks, without a further step."""
    put(place / "press.icc", cmyk_profile(0.1))
    run = [*command()[:4], "-ms", "32", "-ii", "2", "-i", "1", "--print-size", "60x48mm", "--dpi", "25.4", "--keep-checkpoint"]
    assert cli.main([*run, "-o", "o.tif"]) == 0
    again = ["--resume", "--checkpoint", "o.tif.checkpoint", "--output-profile", "press.icc", "--proof-output", "press.icc"]
    assert cli.main([*run, *again, "-o", "p.tif"]) == 0
    expected = Press(cmyk_profile(0.1), "cmyk", "test").convert(pictures.load("o.tif").pixels)
    with tifffile.TiffFile("p.tif") as file:
        np.testing.assert_allclose(file.asarray() / 65535, expected, atol=1e-3)
    assert json.loads(Path("p.tif.json").read_text())["gamut"]["profile"] == "test"
    assert cli.main([*run, *again, "--crop-marks", "-o", "p.pdf"]) == 0
    assert b"PDF/X-4" in Path("p.pdf").read_bytes() and Path("p.pdf.proof.png").exists()
