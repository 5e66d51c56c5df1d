"""Colours that files state without a profile, against published matrices and hand-worked values."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from support.coloured_files import bmp
from support.picture_files import close, iccp, png, put
from support.profiles import (
    ADOBE_TO_D50,
    P3_TO_D50,
    SRGB_TO_D50,
    Array,
    gamma_tag,
    icc,
    rgb_expected,
    rgb_profile,
    s15,
    srgb_encode,
    to_d50,
)

from style_transfer import pictures
from style_transfer.pictures import signals
from style_transfer.pictures.icc import written_profile

BT2020_TO_D50 = to_d50((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
CHRM = {
    "srgb": (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    "adobe": (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06),
    "own": (0.3127, 0.3290, 0.66, 0.32, 0.25, 0.65, 0.15, 0.05),
}


def chrm(name: str) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in CHRM[name]))


def gama(exponent: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(100000 / exponent))


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, matrix, full])


def p3_expected(values: Array) -> Array:
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return srgb_encode(linear @ P3_TO_D50.T @ np.linalg.inv(SRGB_TO_D50).T)


SAMPLES = np.rint(np.random.default_rng(2).random((24, 31, 3)) * 65535).astype(np.uint16)
VALUES = SAMPLES / 65535
EIGHT_BITS = (SAMPLES >> 8).astype(np.uint8)


def read_png(tmp_path: Path, *chunks: tuple[bytes, bytes], samples: Array = SAMPLES) -> pictures.Picture:
    return pictures.load(put(tmp_path / "a.png", png(samples, *chunks)))


def test_linear_png(tmp_path: Path) -> None:
    close(read_png(tmp_path, gama(1.0)).pixels, srgb_encode(VALUES), 1e-3)


def test_gamma_and_primaries_of_png(tmp_path: Path) -> None:
    own = to_d50((0.66, 0.32), (0.25, 0.65), (0.15, 0.05))
    close(read_png(tmp_path, gama(1.8), chrm("own")).pixels, rgb_expected(VALUES, own, 1.8), 2e-3)
    close(read_png(tmp_path, gama(563 / 256), chrm("adobe")).pixels, rgb_expected(VALUES, ADOBE_TO_D50, 563 / 256), 2e-3)


def test_gamma_of_png_that_means_srgb(tmp_path: Path) -> None:
    """Programs that do not know the sRGB chunk write 45455 with the primaries of sRGB."""
    found = read_png(tmp_path, gama(2.2), chrm("srgb"))
    close(found.pixels, VALUES, 1e-6)
    assert found.notes == ()


def test_gray_png_with_gamma(tmp_path: Path) -> None:
    found = read_png(tmp_path, gama(1.0), samples=SAMPLES[..., 0].copy())
    close(found.pixels, np.repeat(srgb_encode(VALUES[..., :1]), 3, 2), 1e-3)


def test_precedence_of_png_chunks(tmp_path: Path) -> None:
    adobe = iccp(rgb_profile(ADOBE_TO_D50, 2.2))
    close(read_png(tmp_path, gama(1.0), (b"sRGB", b"\0")).pixels, VALUES, 1e-6)
    close(read_png(tmp_path, adobe, gama(1.0)).pixels, rgb_expected(VALUES, ADOBE_TO_D50, 2.2), 1e-3)
    close(read_png(tmp_path, cicp(12, 13), adobe, (b"sRGB", b"\0"), gama(1.0)).pixels, p3_expected(VALUES), 1e-3)
    ignored = read_png(tmp_path, cicp(12, 13, matrix=1), adobe)
    close(ignored.pixels, rgb_expected(VALUES, ADOBE_TO_D50, 2.2), 1e-3)
    assert len(ignored.notes) == 1 and "cICP" in ignored.notes[0]


@pytest.mark.parametrize("chunk", [gama(50.0), *((b"cHRM", struct.pack(">8I", *[value] * 8)) for value in (0, 30000))])
def test_absurd_primaries_and_gammas(chunk: tuple[bytes, bytes], tmp_path: Path) -> None:
    found = read_png(tmp_path, chunk)
    close(found.pixels, VALUES, 1e-6)
    assert len(found.notes) == 1 and "cannot be right" in found.notes[0]


def pq_code(luminance: float) -> float:
    """The PQ value of a luminance in cd/m2, by the inverse function in ST 2084."""
    y = (luminance / 10000) ** (2610 / 16384)
    return float(((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32))


@pytest.mark.parametrize(("luminance", "expected"), [(0.0, 0.0), (203.0, 1.0), (101.5, 0.73536), (1000.0, 1.0)])
def test_pq_white_is_203_cd(luminance: float, expected: float, tmp_path: Path) -> None:
    """BT.2408: PQ 0.58 is 203 cd/m2."""
    samples = np.full((4, 5, 3), round(65535 * pq_code(luminance)), np.uint16)
    found = read_png(tmp_path, cicp(9, 16), samples=samples)
    close(found.pixels, np.full((4, 5, 3), expected), 1e-3)
    assert len(found.notes) == 1 and "203 cd/m2" in found.notes[0]
    assert round(pq_code(203), 2) == 0.58


def test_hlg_white_is_75_per_cent(tmp_path: Path) -> None:
    """BT.2408: HLG 75 % is 203 cd/m2 on a display of 1000 cd/m2."""
    found = read_png(tmp_path, cicp(9, 18), samples=np.full((4, 5, 3), round(0.75 * 65535), np.uint16))
    close(found.pixels, np.ones((4, 5, 3)), 2e-3)


def test_pq_colours_are_converted(tmp_path: Path) -> None:
    """A colour within sRGB keeps its chromaticity."""
    srgb = np.array([0.7, 0.4, 0.2])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    wide = linear @ SRGB_TO_D50.T @ np.linalg.inv(BT2020_TO_D50).T
    samples = np.tile([round(65535 * pq_code(203 * value)) for value in wide], (4, 5, 1)).astype(np.uint16)
    close(read_png(tmp_path, cicp(9, 16), samples=samples).pixels, np.tile(srgb, (4, 5, 1)), 1e-3)


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_narrow_range_of_png(bits: int, dtype: type, tmp_path: Path) -> None:
    """ITU-R BT.709: black is 16 and white 235 in 8 bits, and 256 times that in 16."""
    levels = np.array([16, 81, 126, 235]) << (bits - 8)
    samples = np.repeat(levels[None, :, None], 3, 2).astype(dtype)
    found = read_png(tmp_path, cicp(1, 13, full=0), samples=samples)
    close(found.pixels[0, :, 0], [0, 65 / 219, 110 / 219, 1], 1e-6)
    assert found.notes == ()


def test_alpha_beside_a_signal(tmp_path: Path) -> None:
    samples = np.concatenate([SAMPLES, SAMPLES[..., :1]], axis=2)
    for chunk in (cicp(9, 16), cicp(12, 13), cicp(1, 13, full=0)):
        found = pictures.load(put(tmp_path / "a.png", png(samples, chunk)), alpha=True)
        assert found.alpha is not None
        close(found.alpha, VALUES[..., 0], 1e-6)
        opaque = read_png(tmp_path, chunk, samples=SAMPLES)
        np.testing.assert_array_equal(found.pixels, opaque.pixels)


@pytest.mark.parametrize("luminance", [0.05, 1.0, 20.0, 100.0, 150.0])
def test_hlg_gray_is_shown_with_the_system_gamma(luminance: float, tmp_path: Path) -> None:
    """BT.2100: gray of luminance Y on a display of 1000 cd/m2 is scene light (Y / 1000) ** (1 / 1.2), and coded by the OETF."""
    scene = (luminance / 1000) ** (1 / 1.2)
    coded = np.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073
    found = read_png(tmp_path, cicp(9, 18), samples=np.full((2, 2, 3), round(coded * 65535), np.uint16))
    close(found.pixels, np.full((2, 2, 3), srgb_encode(np.array(luminance / 203))), 1e-3)


def test_xyz_by_codes(tmp_path: Path) -> None:
    """Primaries that are the axes of XYZ: equal values are white, also where a primary has y = 0."""
    samples = np.repeat(np.arange(0, 65536, 4369, dtype=np.uint16)[None, :, None], 3, 2)
    close(read_png(tmp_path, cicp(10, 8), samples=samples).pixels, srgb_encode(samples / 65535), 1e-3)


def test_numbers_that_pillow_reads(tmp_path: Path) -> None:
    for chunks in ([gama(1.0)], [gama(1.8), chrm("own")], [gama(2.2), chrm("srgb")], [(b"sRGB", b"\0"), gama(1.0)], [gama(50.0)]):
        expected = read_png(tmp_path, *chunks, samples=EIGHT_BITS)
        with Image.open(tmp_path / "a.png") as image:
            found = pictures.from_pil(image)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        assert len(found.notes) == len(expected.notes)


# other containers


def read_bmp(tmp_path: Path, data: bytes) -> pictures.Picture:
    return pictures.load(put(tmp_path / "a.bmp", data))


BMP_COLOUR = np.broadcast_to(np.array([100, 200, 90]) / 255, (3, 4, 3))


def test_profile_of_bmp(tmp_path: Path) -> None:
    data = bmp(b"DEBM", more=rgb_profile(ADOBE_TO_D50, 563 / 256))
    close(read_bmp(tmp_path, data).pixels, rgb_expected(BMP_COLOUR, ADOBE_TO_D50, 563 / 256), 2e-3)
    for broken in (data[:-10], bmp(b"DEBM", more=b"x", length=0xFFFFFFFF), bmp(b"DEBM")):
        found = read_bmp(tmp_path, broken)
        close(found.pixels, BMP_COLOUR, 1e-6)
        assert len(found.notes) == 1 and "profile is broken" in found.notes[0]
    linked = read_bmp(tmp_path, bmp(b"KNIL", more=b"C:\\x.icm\0"))
    assert len(linked.notes) == 1 and "another file" in linked.notes[0]


@pytest.mark.parametrize("reciprocal", [False, True])
def test_numbers_of_bmp(reciprocal: bool, tmp_path: Path) -> None:
    """Endpoints have 30 binary digits behind the point, gammas 16."""
    x = CHRM["own"][2:]
    ends = [round(v * 2**30) for i in (0, 2, 4) for v in (x[i], x[i + 1], 1 - x[i] - x[i + 1])]
    gamma = round((1 / 1.8 if reciprocal else 1.8) * 65536)
    found = read_bmp(tmp_path, bmp(bytes(4), struct.pack("<9i3I", *ends, gamma, gamma, gamma)))
    own = to_d50((0.66, 0.32), (0.25, 0.65), (0.15, 0.05))
    close(found.pixels, rgb_expected(BMP_COLOUR, own, 1.8), 2e-3)
    for numbers, notes in ((bytes(48), 0), (struct.pack("<9i3I", *[2**28] * 9, gamma, gamma, gamma), 1)):
        plain = read_bmp(tmp_path, bmp(bytes(4), numbers))
        close(plain.pixels, BMP_COLOUR, 1e-6)
        assert len(plain.notes) == notes


def test_primaries_of_tiff(tmp_path: Path) -> None:
    """The default of the transfer function in TIFF 6.0 is the exponent 2.2."""
    own = to_d50((0.66, 0.32), (0.25, 0.65), (0.15, 0.05))
    for values, expected, notes in (
        (CHRM["own"], rgb_expected(VALUES, own, 2.2), 0),
        (CHRM["srgb"], VALUES, 0),
        ((0.0,) * 8, VALUES, 1),
        ((0.3,) * 8, VALUES, 1),
    ):
        points = [number for value in values for number in (round(value * 10000), 10000)]
        tags = [(318, "2I", 2, points[:4], True), (319, "2I", 6, points[4:], True)]
        tifffile.imwrite(tmp_path / "a.tif", SAMPLES, photometric="rgb", extratags=tags)
        found = pictures.load(tmp_path / "a.tif")
        close(found.pixels, expected, 2e-3)
        assert len(found.notes) == notes
    tifffile.imwrite(tmp_path / "a.tif", SAMPLES, photometric="rgb", extratags=[(319, "2I", 6, [1, 0] * 6, True)])
    assert len(pictures.load(tmp_path / "a.tif").notes) == 1


# profiles


@pytest.mark.parametrize(
    "profile",
    [
        rgb_profile(SRGB_TO_D50 * 0.3, 2.2),
        rgb_profile(SRGB_TO_D50 * 1.6, 2.2),
        rgb_profile(SRGB_TO_D50[:, ::-1] * [0.2, 1, 4], 2.2),
        rgb_profile(SRGB_TO_D50, b"curv" + bytes(4) + struct.pack(">I2H", 2, 65535, 0)),
    ],
    ids=["dark", "bright", "tinted", "negative"],
)
def test_absurd_profile_is_ignored(profile: bytes, tmp_path: Path) -> None:
    """Formally right profiles that turn white into another colour."""
    found = read_png(tmp_path, iccp(profile))
    close(found.pixels, VALUES, 1e-6)
    assert len(found.notes) == 1 and "white" in found.notes[0]


def test_absurd_gray_profile_is_ignored(tmp_path: Path) -> None:
    gray = SAMPLES[..., 0].copy()
    dark = icc(b"GRAY", {b"kTRC": b"curv" + bytes(4) + struct.pack(">I2H", 2, 0, 9000)})
    found = read_png(tmp_path, iccp(dark), samples=gray)
    close(found.pixels, np.repeat(VALUES[..., :1], 3, 2), 1e-6)
    assert len(found.notes) == 1 and "white" in found.notes[0]


def test_written_profile_is_version_2_and_srgb(tmp_path: Path) -> None:
    data = written_profile()
    assert data[8] == 2 and len(data) < 3500
    mine, reference = (ImageCms.ImageCmsProfile(x) for x in (io.BytesIO(data), ImageCms.createProfile("sRGB")))
    assert ImageCms.getProfileDescription(mine).strip() == "sRGB IEC61966-2.1"
    image = Image.fromarray(EIGHT_BITS)
    converted = ImageCms.profileToProfile(image, mine, reference)
    assert np.abs(np.asarray(converted).astype(int) - np.asarray(image)).max() <= 1
    for ending in ("tif", "jpg", "png", "webp"):
        pictures.save(tmp_path / f"a.{ending}", np.full((8, 8, 3), 0.4, np.float32))
        with Image.open(tmp_path / f"a.{ending}") as file:
            assert file.info["icc_profile"] == data


@pytest.mark.parametrize("codes", [(1, 13), (12, 13), (9, 8), (22, 4), (11, 8)])
def test_profiles_agree_with_littlecms(codes: tuple[int, int]) -> None:
    """The colorants of a profile, against those that LittleCMS's own reading of the matrix gives: white is D50."""
    signal = signals.from_codes(*codes)
    assert signal is not None
    made = ImageCms.ImageCmsProfile(io.BytesIO(signals.profile(signal))).profile
    total = np.sum([made.red_colorant[0], made.green_colorant[0], made.blue_colorant[0]], axis=0)
    np.testing.assert_allclose(total, (0.9642, 1.0, 0.8249), atol=3e-4)


def test_support_profiles_are_of_the_same_numbers() -> None:
    for primaries, expected in ((signals.SRGB, SRGB_TO_D50), (signals.ADOBE, ADOBE_TO_D50), (signals.BT2020, BT2020_TO_D50)):
        np.testing.assert_allclose(signals.to_d50(primaries), expected, atol=1e-12)
    assert len(icc(b"RGB ", {b"rTRC": gamma_tag(2.2), b"rXYZ": b"XYZ " + bytes(4) + s15((1, 1, 1))})) > 128
