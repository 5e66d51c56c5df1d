"""The colour space that EXIF names: Adobe RGB by the interoperability index R03."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from support.coloured_files import exif_bytes, tiff_with_exif
from support.picture_files import close, iccp, pil_bytes, png, put
from support.profiles import ADOBE_TO_D50, P3_TO_D50, Array, rgb_expected, rgb_profile

from style_transfer import pictures

COLOUR = np.array([100, 200, 90], np.uint8)


def adobe_expected(values: Array) -> Array:
    return rgb_expected(values, ADOBE_TO_D50, 563 / 256)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(("space", "index"), [(65535, "R03"), (65535, "R98"), (65535, None), (1, "R98"), (2, None)])
def test_adobe_rgb_by_exif(kind: str, space: int, index: str | None, tmp_path: Path) -> None:
    stream = io.BytesIO()
    options = {"quality": 100} if kind == "JPEG" else {"lossless": True}
    Image.new("RGB", (16, 16), (100, 200, 90)).save(stream, kind, exif=exif_bytes(space, index), **options)
    found = pictures.load(put(tmp_path / f"a.{kind.lower()}", stream.getvalue()))
    colour = np.array([100, 200, 90]) / 255
    adobe = index == "R03" or space == 2
    expected = rgb_expected(colour, ADOBE_TO_D50, 563 / 256) if adobe else colour
    close(found.pixels, np.broadcast_to(expected, (16, 16, 3)), 0.012 if kind == "JPEG" else 2e-3)
    assert len(found.notes) == (1 if space == 65535 and index != "R03" else 0)


def test_a_profile_counts_before_exif(tmp_path: Path) -> None:
    stream = io.BytesIO()
    profile = rgb_profile(P3_TO_D50, 2.2)
    image = Image.new("RGB", (16, 16), (100, 200, 90))
    image.save(stream, "WEBP", exif=exif_bytes(65535, "R03"), lossless=True, icc_profile=profile)
    expected = rgb_expected(np.array([100, 200, 90]) / 255, P3_TO_D50, 2.2)
    close(pictures.load(put(tmp_path / "a.webp", stream.getvalue())).pixels, np.broadcast_to(expected, (16, 16, 3)), 2e-3)


def test_adobe_rgb_by_exif_in_tiff(tmp_path: Path) -> None:
    expected = adobe_expected(COLOUR / 255)
    close(
        pictures.load(put(tmp_path / "a.tif", tiff_with_exif(65535, "R03"))).pixels, np.broadcast_to(expected, (16, 16, 3)), 2e-3
    )


def test_adobe_rgb_by_exif_in_png_counts_last(tmp_path: Path) -> None:
    samples = np.broadcast_to(COLOUR, (16, 16, 3)).copy()
    exif = b"eXIf", exif_bytes(65535, "R03")[6:]
    found = pictures.load(put(tmp_path / "a.png", png(samples, exif)))
    close(found.pixels, np.broadcast_to(adobe_expected(COLOUR / 255), (16, 16, 3)), 2e-3)
    assert found.notes == () and found.reading is not None and found.reading.colour == "Adobe RGB (1998) by EXIF"
    for chunk in ((b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 45455)), (b"cICP", bytes([1, 13, 0, 1]))):
        close(pictures.load(put(tmp_path / "a.png", png(samples, chunk, exif))).pixels, samples / 255, 1e-6)
    by_profile = pictures.load(put(tmp_path / "a.png", png(samples, iccp(rgb_profile(P3_TO_D50, 2.2)), exif))).pixels
    close(by_profile, np.broadcast_to(rgb_expected(COLOUR / 255, P3_TO_D50, 2.2), (16, 16, 3)), 2e-3)


def test_adobe_rgb_by_exif_in_deep_jpeg(tmp_path: Path) -> None:
    samples = np.broadcast_to(COLOUR.astype(np.uint16) * 16, (16, 16, 3)).copy()
    data = bytes(imagecodecs.jpeg8_encode(samples, lossless=True, bitspersample=12))
    block = exif_bytes(65535, "R03")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    found = pictures.load(put(tmp_path / "a.jpg", data)).pixels
    close(found, np.broadcast_to(adobe_expected(samples[0, 0] / 4095), (16, 16, 3)), 2e-3)


def test_adobe_rgb_by_exif_of_gray_and_pil_pictures(tmp_path: Path) -> None:
    gray = Image.new("L", (16, 16), 60)
    path = put(tmp_path / "a.jpg", pil_bytes(gray, "JPEG", exif=exif_bytes(65535, "R03")))
    expected = adobe_expected(np.full((16, 16, 3), 60 / 255))
    close(pictures.load(path).pixels, expected, 2e-3)
    assert abs(expected[0, 0, 0] - 60 / 255) > 4e-3
    with Image.open(path) as image:
        close(pictures.from_pil(image).pixels, expected, 2e-3)


def test_damaged_exif_is_survived_in_silence(tmp_path: Path) -> None:
    whole, of_tiff = exif_bytes(65535, "R03"), tiff_with_exif(65535, "R03")
    image, samples = Image.new("RGB", (4, 4)), np.zeros((4, 4, 3), np.uint8)
    at = of_tiff.index(struct.pack("<HHI", 0xA001, 3, 1))
    with warnings.catch_warnings(record=True) as caught:  # Pillow's reader of EXIF warns
        warnings.simplefilter("always")
        for end in range(7, len(whole), 3):
            path = put(tmp_path / "a.webp", pil_bytes(image, "WEBP", exif=whole[:end]))
            assert pictures.load(path).size == (4, 4)
            assert pictures.load(put(tmp_path / "a.png", png(samples, (b"eXIf", whole[6:end])))).size == (4, 4)
        for entry in (b"\1\xa0\3\0\xff\xff\xff\x7f", b"\1\xa0\x0b\0\1\1\1\0"):
            path = put(tmp_path / "a.tif", of_tiff[:at] + entry + of_tiff[at + 8 :])
            assert pictures.load(path).size == (16, 16)
    assert caught == []
