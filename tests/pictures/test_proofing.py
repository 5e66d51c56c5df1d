"""Soft proofs and gamut maps of finished pictures, against a press whose gamut is known."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from support.picture_files import close
from support.profiles import P3_TO_D50, SRGB_TO_D50, Array, cmyk_profile, lab_of, rgb_profile

from style_transfer import pictures
from style_transfer.pictures.color.difference import ciede2000
from style_transfer.pictures.icc import soft_proof
from style_transfer.pictures.press import Press
from style_transfer.pictures.proofing import STRIKING, VISIBLE, GamutMap, GamutReport, SoftProof
from style_transfer.pictures.working import read_space

FLOOR = 0.15
"""The press lets so much light through its inks: it has the colours whose linear light is above that."""
PRESS = Press(cmyk_profile(FLOOR), "cmyk", "test")


def decode(values: Array) -> Array:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def picture() -> Array:
    """A quarter red, which the press has not, and light grays, which it has."""
    pixels = np.linspace(0.6, 1, 40 * 48 * 3).reshape(40, 48, 3)
    pixels[:, :, :] = pixels.mean(axis=2, keepdims=True)
    pixels[:20, :24] = [1, 0, 0]
    return pixels.astype(np.float32)


def test_the_proof_is_that_of_input_pictures(tmp_path: Path) -> None:
    """An independent path: with relative colorimetric intent and black point compensation it is what --proof does to inputs."""
    expected = np.clip(soft_proof(picture(), PRESS.icc), 0, 1)
    close(SoftProof(PRESS).convert(picture()), expected, 1e-6)
    pictures.save(tmp_path / "a.png", picture(), press=SoftProof(PRESS))
    close(pictures.load(tmp_path / "a.png").pixels, expected, 2e-5)


def test_the_gamut_of_a_press() -> None:
    differences = GamutMap(PRESS).differences(picture())
    red = np.array([1.0, FLOOR, FLOOR]) @ SRGB_TO_D50.T  # the reddest red of the press
    expected = ciede2000(lab_of(np.array([1.0, 0, 0]) @ SRGB_TO_D50.T), lab_of(red))
    np.testing.assert_allclose(differences[:20, :24], expected, atol=1.5)  # the tables have 6 and 17 points
    assert differences[20:].max() < VISIBLE < differences[:20, :24].min()
    report = GamutReport.of(picture(), PRESS)
    assert report.out_of_gamut == 0.25 and report.largest_difference == differences.max()
    assert report.mean_difference == pytest.approx(differences.mean()) and report.profile == "test"
    assert report.largest_ink == pytest.approx(100 * PRESS.convert(picture()).sum(-1).max(), abs=1e-3)
    assert str(report).startswith("25.0% of the pixels are out of gamut of test (CIEDE2000 above 3), by up to ")
    assert report.recorded()["threshold"] == VISIBLE


def test_the_map_marks_what_the_press_has_not(tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.png", picture(), press=GamutMap(PRESS))
    found = imagecodecs.png_decode((tmp_path / "a.png").read_bytes()) / 65535
    share = np.clip((GamutMap(PRESS).differences(picture())[0, 0] - VISIBLE) / (STRIKING - VISIBLE), 0, 1)
    close(found[:20, :24], [1, 1 - share, 0], 1e-4)
    assert np.ptp(found[20:], axis=2).max() == 0 and (np.diff(found[20:, :, 0].ravel()) >= 0).all()


def test_a_working_space_and_a_printer(tmp_path: Path) -> None:
    """A printer whose inks are Display P3 has all colours of sRGB, and of Display P3 its own."""
    printer = Press(rgb_profile(P3_TO_D50, 2.2), "rgb", "printer")
    report = GamutReport.of(picture(), printer)
    assert report.out_of_gamut == 0 and report.largest_ink is None and "ink" not in str(report)
    space = read_space("--output-space", "display-p3")
    assert GamutReport.of(picture(), printer, space).largest_difference < 0.5
    assert GamutReport.of(picture(), Press(rgb_profile(SRGB_TO_D50, 2.2), "rgb", "screen"), space).out_of_gamut == 0.25
    pictures.save(tmp_path / "a.png", picture(), press=SoftProof(printer), space=space)
    assert pictures.load(tmp_path / "a.png").pixels[0, 0].tolist() == [1, 0, 0]  # P3's red as sRGB shows it
