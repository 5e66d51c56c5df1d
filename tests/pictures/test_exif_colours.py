"""The colour space that EXIF names: Adobe RGB by the interoperability index R03."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from support.picture_files import close, iccp, pil_bytes, png, put
from support.profiles import ADOBE_TO_D50, P3_TO_D50, Array, rgb_expected, rgb_profile

from style_transfer import pictures

COLOUR = np.array([100, 200, 90], np.uint8)


def adobe_expected(values: Array) -> Array:
    return rgb_expected(values, ADOBE_TO_D50, 563 / 256)


def exif_bytes(space: int, index: str | None) -> bytes:
    """A block with an Exif IFD and an interoperability IFD, written by hand."""
    entries = [(0xA001, 3, 1, struct.pack("<HH", space, 0))]
    start = 8 + 2 + 12 + 4
    after = start + 2 + 12 * (1 + (index is not None)) + 4
    if index is not None:
        entries.append((0xA005, 4, 1, struct.pack("<I", after)))
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIII", 1, 0x8769, 4, 1, start, 0)
    data += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHI", *e[:3]) + e[3] for e in entries) + bytes(4)
    if index is not None:
        data += struct.pack("<HHHI", 1, 1, 2, 4) + index.encode().ljust(4, b"\0") + bytes(4)
    return b"Exif\0\0" + data


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
    pixels, (width, height) = bytes([100, 200, 90] * 256), (16, 16)
    tags = {256: width, 257: height, 258: 8, 262: 2, 273: 0, 277: 3, 278: height, 279: len(pixels), 34665: 0}
    tags[34665] = 8 + 2 + 12 * len(tags) + 4
    block = exif_bytes(65535, "R03")[6 + 26 :]  # its Exif and interoperability IFDs, which lie at 26 there
    block = block.replace(struct.pack("<I", 26 + 30), struct.pack("<I", tags[34665] + 30))
    tags[273] = tags[34665] + len(block)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + block + pixels
    expected = rgb_expected(np.array([100, 200, 90]) / 255, ADOBE_TO_D50, 563 / 256)
    close(pictures.load(put(tmp_path / "a.tif", data)).pixels, np.broadcast_to(expected, (16, 16, 3)), 2e-3)


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


def test_damaged_exif_is_survived(tmp_path: Path) -> None:
    whole = exif_bytes(65535, "R03")
    for end in range(7, len(whole), 3):
        path = put(tmp_path / "a.webp", pil_bytes(Image.new("RGB", (4, 4)), "WEBP", exif=whole[:end]))
        assert pictures.load(path).size == (4, 4)
