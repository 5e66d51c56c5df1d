"""AVIF: depth, crop, and the codes of its colours."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from support.avif_files import with_property
from support.picture_files import close, exif_of, noise, pil_bytes, put
from support.profiles import ADOBE_TO_D50, Array, rgb_expected, rgb_profile, srgb_encode

from style_transfer import pictures


def lossless(samples: Array, bits: int, codes: tuple[int, int] = (1, 13)) -> bytes:
    data = bytes(imagecodecs.avif_encode(samples, level=100, bitspersample=bits))
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", *codes) + data[at + 4 :]


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_deep_avif_keeps_its_bits(bits: int, channels: int, tmp_path: Path) -> None:
    samples = noise(20, 30, channels) >> (16 - bits)
    data = lossless(samples.squeeze(2) if channels == 1 else samples, bits)
    picture = pictures.load(put(tmp_path / "a.avif", data), alpha=channels == 4)
    close(picture.pixels, samples[..., :3] / (2**bits - 1), 1e-6)
    assert picture.notes == () and picture.reading is not None and picture.reading.bits == f"{bits} bits"
    if channels == 4:
        assert picture.alpha is not None
        close(picture.alpha, samples[..., 3] / (2**bits - 1), 1e-6)


def clap(width: int, height: int, right: tuple[int, int], down: tuple[int, int]) -> bytes:
    return struct.pack(">IIIIiIiI", width, 1, height, 1, *right, *down)


def test_the_crop_is_applied(tmp_path: Path) -> None:
    """A clean aperture of 11 x 8 at (4, 7) of 30 x 20 pixels has its centre 5.5 pixels left of the picture's, and 1 below it."""
    samples = noise(20, 30, dtype=np.uint8)
    whole = lossless(samples, 8)
    data = with_property(whole, b"clap", clap(11, 8, (-11, 2), (1, 1)))
    picture = pictures.load(put(tmp_path / "a.avif", data))
    close(picture.pixels, samples[7:15, 4:15] / 255, 1e-6)
    assert picture.notes == () and pictures.load(put(tmp_path / "b.avif", whole)).size == (20, 30)
    with_rotation = with_property(data, b"irot", b"\1")  # a quarter turn anticlockwise, behind the crop
    close(pictures.load(put(tmp_path / "c.avif", with_rotation)).pixels, np.rot90(samples[7:15, 4:15]) / 255, 1e-6)


@pytest.mark.parametrize(
    "crop",
    [
        clap(11, 8, (0, 1), (0, 1)),
        clap(0, 8, (0, 1), (0, 1)),
        clap(40, 8, (0, 1), (0, 1)),
        clap(10, 8, (99, 1), (0, 1)),
        clap(10, 8, (0, 0), (0, 1)),
        bytes(32),
    ],
    ids=["half a pixel", "empty", "wider", "outside", "fraction", "zeros"],
)
def test_a_crop_that_is_not_of_pixels_is_a_note(crop: bytes, tmp_path: Path) -> None:
    samples = noise(20, 30) >> 6
    picture = pictures.load(put(tmp_path / "a.avif", with_property(lossless(samples, 10), b"clap", crop)))
    close(picture.pixels, samples / 1023, 1e-6)
    assert any("crop" in note for note in picture.notes)


def test_linear_light_by_codes(tmp_path: Path) -> None:
    samples = noise(20, 30) >> 4
    close(pictures.load(put(tmp_path / "a.avif", lossless(samples, 12, (1, 8)))).pixels, srgb_encode(samples / 4095), 1e-3)


def test_pq_of_ten_bits_is_smooth(tmp_path: Path) -> None:
    """PQ codes around 203 cd/m2 (BT.2408: 0.58) are white from there on, and below it they all differ."""
    ramp = np.broadcast_to(np.arange(500, 620, dtype=np.uint16)[None, :, None], (4, 120, 3))
    picture = pictures.load(put(tmp_path / "a.avif", lossless(np.ascontiguousarray(ramp), 10, (9, 16))))
    row = picture.pixels[0, :, 1]
    first_white = int(np.argmax(row > 1 - 1e-4)) + 500
    assert abs(first_white / 1023 - 0.5807) < 2e-3 and (np.diff(row[: first_white - 500]) > 0).all()
    assert picture.reading is not None and "PQ" in picture.reading.colour


@pytest.mark.parametrize(("codes", "notes"), [((2, 2), 0), ((1, 2), 0), ((2, 13), 0), ((6, 99), 1), ((0, 13), 1), ((77, 77), 1)])
def test_unspecified_codes_are_srgb_and_unknown_ones_a_note(codes: tuple[int, int], notes: int, tmp_path: Path) -> None:
    samples = noise(20, 30, dtype=np.uint8)
    picture = pictures.load(put(tmp_path / "a.avif", lossless(samples, 8, codes)))
    close(picture.pixels, samples / 255, 1e-6)
    assert len(picture.notes) == notes and all("nclx" in note for note in picture.notes)


def test_a_profile_counts_before_codes(tmp_path: Path) -> None:
    samples = noise(20, 30) >> 6
    profile = rgb_profile(ADOBE_TO_D50, 2.2)
    data = with_property(lossless(samples, 10, (12, 8)), b"colr", b"prof" + profile)
    close(pictures.load(put(tmp_path / "a.avif", data)).pixels, rgb_expected(samples / 1023, ADOBE_TO_D50, 2.2), 1e-3)


def test_codes_of_another_item_do_not_count(tmp_path: Path) -> None:
    """The first colour box is not associated with the primary item, as that of a gain map."""
    samples = noise(20, 30, dtype=np.uint8)
    data = with_property(lossless(samples, 8, (9, 16)), b"colr", b"nclx" + struct.pack(">HHHB", 1, 13, 0, 0x80))
    assert b"\5\1\2\x83\4\x85" in data
    picture = pictures.load(put(tmp_path / "a.avif", data.replace(b"\5\1\2\x83\4\x85", b"\5\1\2\x83\2\x85")))
    close(picture.pixels, samples / 255, 1e-6)
    assert picture.notes == ()


def test_orientation_of_deep_avif(tmp_path: Path) -> None:
    samples = noise(20, 30, dtype=np.uint8)
    data = pil_bytes(Image.fromarray(samples), "AVIF", quality=100, subsampling="4:4:4", exif=exif_of(6))
    plain = pictures.load(put(tmp_path / "a.avif", data)).pixels
    assert plain.shape == (30, 20, 3)
    deep = with_property(lossless(noise(20, 30) >> 6, 10), b"irot", b"\3")
    close(pictures.load(put(tmp_path / "b.avif", deep)).pixels, np.rot90(noise(20, 30) >> 6, -1) / 1023, 1e-6)
