"""Colours that files state without a profile, against published matrices and hand-worked values."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
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
    assert len(found.notes) == 1 and "absurd" in found.notes[0]


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


# EXIF


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
    assert len(found.notes) == (1 if (space, index) == (65535, None) else 0)


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


# other containers


def test_codes_of_avif(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(EIGHT_BITS).save(stream, "AVIF", quality=100, subsampling="4:4:4")
    data = stream.getvalue()
    at = data.index(b"colrnclx") + 8
    plain = pictures.load(put(tmp_path / "a.avif", data)).pixels
    marked = put(tmp_path / "b.avif", data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :])
    close(pictures.load(marked).pixels, p3_expected(plain.astype(np.float64)), 2e-3)


def test_profile_of_bmp(tmp_path: Path) -> None:
    profile = rgb_profile(ADOBE_TO_D50, 563 / 256)
    header = struct.pack("<IiiHHIIiiII", 124, 4, 3, 1, 24, 0, 36, 2835, 2835, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 4, 124 + 36, len(profile), 0)
    row = bytes([90, 200, 100] * 4)
    data = b"BM" + struct.pack("<IHHI", 14 + 124 + 36 + len(profile), 0, 0, 138) + header + row * 3 + profile
    expected = rgb_expected(np.array([100, 200, 90]) / 255, ADOBE_TO_D50, 563 / 256)
    assert len(header) == 124
    close(pictures.load(put(tmp_path / "a.bmp", data)).pixels, np.broadcast_to(expected, (3, 4, 3)), 2e-3)
    cut = pictures.load(put(tmp_path / "b.bmp", data[:-10]))
    assert len(cut.notes) == 1 and "profile is broken" in cut.notes[0]


# profiles


def test_absurd_profile_is_ignored(tmp_path: Path) -> None:
    """Colorants of half the right size: formally right, and white becomes gray."""
    found = read_png(tmp_path, iccp(rgb_profile(SRGB_TO_D50 * 0.3, 2.2)))
    close(found.pixels, VALUES, 1e-6)
    assert len(found.notes) == 1 and "white" in found.notes[0]


def test_written_profile_is_version_2_and_srgb(tmp_path: Path) -> None:
    data = written_profile()
    assert data[8] == 2 and len(data) < 3500
    mine, reference = (ImageCms.ImageCmsProfile(x) for x in (io.BytesIO(data), ImageCms.createProfile("sRGB")))
    assert ImageCms.getProfileDescription(mine).strip() == "sRGB"
    image = Image.fromarray(EIGHT_BITS)
    converted = ImageCms.profileToProfile(image, mine, reference)
    assert np.abs(np.asarray(converted).astype(int) - np.asarray(image)).max() <= 1
    for ending in ("tif", "jpg", "png", "webp"):
        path = tmp_path / f"a.{ending}"
        pictures.save(path, np.full((8, 8, 3), 0.4, np.float32))
        stored = tifffile.TiffFile(path).pages[0].iccprofile if ending == "tif" else Image.open(path).info["icc_profile"]
        assert stored == data


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
