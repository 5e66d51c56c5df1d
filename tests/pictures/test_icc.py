"""ICC profiles and soft proofs against independent float64 formulas."""

from __future__ import annotations

import io
import itertools
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from support.picture_files import close, iccp, noise, pil_bytes, png, put
from support.profiles import (
    ADOBE_TO_D50,
    P3_TO_D50,
    SRGB_TO_D50,
    Array,
    cmyk_profile,
    gamma_tag,
    icc,
    lab_of,
    lut16,
    rgb_expected,
    rgb_profile,
    srgb_encode,
)

from style_transfer import pictures
from style_transfer.errors import SettingsError
from style_transfer.pictures import picture
from style_transfer.pictures.shaper import shaper

RAMP = np.concatenate([np.geomspace(1e-4, 0.05, 40), np.linspace(0, 1, 60)])


def colours() -> Array:
    """Random colours and dark ones, (40, 50, 3) in [0, 1]."""
    rng = np.random.default_rng(1)
    values = rng.random((40, 50, 3))
    values[:20] **= 4
    values[0, :, :] = np.resize(RAMP, (50, 1))
    return values


@pytest.mark.parametrize(
    ("matrix", "gamma"),
    [(ADOBE_TO_D50, 563 / 256), (P3_TO_D50, 2.4), (SRGB_TO_D50, 1.0), (SRGB_TO_D50, 1.8)],
    ids=["adobe", "p3", "linear", "gamma1.8"],
)
@pytest.mark.parametrize("kind", ["png16", "tif16", "tif32"])
def test_rgb_profiles(matrix: Array, gamma: float, kind: str, tmp_path: Path) -> None:
    profile = rgb_profile(matrix, gamma)
    samples = np.rint(colours() * 65535).astype(np.uint16)
    if kind == "png16":
        path = put(tmp_path / "a.png", png(samples, iccp(profile)))
    else:
        data = samples if kind == "tif16" else (samples / 65535).astype(np.float32)
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, data, photometric="rgb", iccprofile=profile)
    picture = pictures.load(path)
    assert picture.notes == ()
    close(picture.pixels, rgb_expected(samples / 65535, matrix, gamma), 1e-3)


def lut_profile() -> bytes:
    """An RGB profile of a table in which channels are not independent: green takes from red where both are high."""
    grid = np.array(list(itertools.product(np.linspace(0, 1, 9), repeat=3)))
    mixed = grid - np.stack([0.3 * grid[:, 0] * grid[:, 1] * (1 - grid[:, 2]), *np.zeros((2, len(grid)))], 1)
    lab = lab_of(mixed @ SRGB_TO_D50.T)
    table = np.column_stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256]) / 65535
    return icc(b"RGB ", {b"A2B0": lut16(3, 3, 9, np.clip(table, 0, 1))}, pcs=b"Lab ")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kind", ["adobe", "linear", "table"])
def test_integers_are_converted_as_floats_are(kind: str, dtype: Any, tmp_path: Path) -> None:
    profile = {"adobe": rgb_profile(ADOBE_TO_D50, 563 / 256), "linear": rgb_profile(P3_TO_D50, 1.0), "table": lut_profile()}[kind]
    assert (shaper(profile, np.dtype(dtype)) is None) == (kind == "table")
    white = np.iinfo(dtype).max
    samples = np.rint(colours() * white).astype(dtype)
    for name, values in (("integer", samples), ("float", (samples / white).astype(np.float32))):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric="rgb", iccprofile=profile)
    integer, floating = (pictures.load(tmp_path / f"{name}.tif").pixels for name in ("integer", "float"))
    close(integer, floating, 1.1 / 65535)


def test_colour_blocks_equal_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", png(noise(33, 21), iccp(rgb_profile(ADOBE_TO_D50, 2.2))))
    whole = pictures.load(path).pixels
    monkeypatch.setattr(picture, "BLOCK_PIXELS", 50)
    np.testing.assert_array_equal(pictures.load(path).pixels, whole)


def test_profile_in_jpeg_webp_and_pil(tmp_path: Path) -> None:
    profile = rgb_profile(ADOBE_TO_D50, 563 / 256)
    image = Image.new("RGB", (16, 16), (100, 200, 90))
    expected = rgb_expected(np.array([100, 200, 90]) / 255, ADOBE_TO_D50, 563 / 256)
    jpeg = put(tmp_path / "a.jpg", pil_bytes(image, "JPEG", icc_profile=profile, quality=100))
    webp = put(tmp_path / "a.webp", pil_bytes(image, "WEBP", icc_profile=profile, lossless=True))
    close(pictures.load(jpeg).pixels[8, 8], expected, 0.012)
    close(pictures.load(webp).pixels[8, 8], expected, 1e-3)
    image.info["icc_profile"] = profile
    close(pictures.from_pil(image).pixels[8, 8], expected, 1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("method", [2, 3])
def test_a_profile_in_jpeg_2000(dtype: Any, method: int, tmp_path: Path) -> None:
    profile = rgb_profile(ADOBE_TO_D50, 563 / 256)
    samples = (noise(33, 21) if dtype is np.uint8 else noise(33, 21).astype(np.uint16) * 257).astype(dtype)
    data = bytes(imagecodecs.jpeg2k_encode(samples, reversible=True, level=0, codecformat="jp2"))
    at = data.index(b"colr") - 4
    length, whole = int.from_bytes(data[at : at + 4], "big"), data.index(b"jp2h") - 4
    colour = (11 + len(profile)).to_bytes(4, "big") + b"colr" + bytes([method, 0, 0]) + profile
    header = int.from_bytes(data[whole : whole + 4], "big") - length + len(colour)
    data = data[:whole] + header.to_bytes(4, "big") + data[whole + 4 : at] + colour + data[at + length :]
    expected = pictures.load(put(tmp_path / "a.png", png(samples, iccp(profile)))).pixels
    plain = pictures.load(put(tmp_path / "b.png", png(samples))).pixels
    close(pictures.load(put(tmp_path / "a.jp2", data)).pixels, expected, 1e-6)
    assert abs(expected - plain).max() > 0.05


def test_gray_profile(tmp_path: Path) -> None:
    profile = icc(b"GRAY", {b"kTRC": gamma_tag(1.8)})
    samples = np.rint(RAMP * 65535).astype(np.uint16)[None]
    expected = srgb_encode((samples / 65535) ** (round(1.8 * 256) / 256))
    picture = pictures.load(put(tmp_path / "a.png", png(samples, iccp(profile))))
    assert picture.notes == ()
    close(picture.pixels, expected[..., None], 1e-3)


def test_rgb_profile_on_a_gray_picture(tmp_path: Path) -> None:
    samples = np.rint(RAMP * 65535).astype(np.uint16)[None]
    expected = srgb_encode((samples / 65535) ** (563 / 256))
    picture = pictures.load(put(tmp_path / "a.png", png(samples, iccp(rgb_profile(ADOBE_TO_D50, 563 / 256)))))
    close(picture.pixels, expected[..., None], 1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_profile(dtype: Any, tmp_path: Path) -> None:
    ink = np.array(list(itertools.product(np.linspace(0, 1, 6), repeat=4)))
    samples = np.rint(ink * np.iinfo(dtype).max).astype(dtype).reshape(36, 36, 4)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="separated", iccprofile=cmyk_profile(0.0))
    picture = pictures.load(tmp_path / "a.tif")
    assert picture.notes == ()
    light = (1 - ink[:, :3]) * (1 - ink[:, 3:])
    bright = light.min(axis=1) > 0.01  # Lab in 16 bits is coarse in the darks
    actual = picture.pixels.reshape(-1, 3)
    close(actual[bright], srgb_encode(light)[bright], 3e-3)
    close(actual, srgb_encode(light), 0.02)


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    samples = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 102, 255, 51]]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="separated")
    picture = pictures.load(tmp_path / "a.tif")
    close(picture.pixels, [[[1, 1, 1], [0, 1, 1], [0.8, 0.48, 0]]], 1e-6)
    assert any("CMYK" in note for note in picture.notes)


def strip_adobe(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    (length,) = struct.unpack(">H", data[at + 2 : at + 4])
    assert data[at + 4 : at + 9] == b"Adobe"
    return data[:at] + data[at + 2 + length :]


def test_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 204, 255, 51))
    data = pil_bytes(image, "JPEG", quality=100)
    close(pictures.load(put(tmp_path / "a.jpg", data)).pixels[8, 8], [0.8, 0.16, 0], 0.02)
    plain = pictures.load(put(tmp_path / "b.jpg", strip_adobe(data))).pixels[8, 8]  # the same bytes mean 1 - ink
    close(plain, [0, 0.8 * 0.2, 0.2], 0.02)
    with_profile = pil_bytes(image, "JPEG", quality=100, icc_profile=cmyk_profile(0.0))
    close(pictures.load(put(tmp_path / "c.jpg", with_profile)).pixels[8, 8], srgb_encode(np.array([0.8, 0.16, 0])), 0.02)


BROKEN = {
    "garbage": b"notaprofile",
    "zeros": bytes(500),
    "cut": rgb_profile(ADOBE_TO_D50, 2.2)[:200],
    "no tags": icc(b"RGB ", {}),
    "cmyk": cmyk_profile(0.0),
    "gray": icc(b"GRAY", {b"kTRC": gamma_tag(1.8)}),
}


@pytest.mark.parametrize("which", BROKEN)
def test_broken_or_foreign_profile_is_a_note(which: str, tmp_path: Path) -> None:
    samples = noise(4, 4)
    picture = pictures.load(put(tmp_path / "a.png", png(samples, iccp(BROKEN[which]))))
    close(picture.pixels, samples / 65535, 1e-7)
    assert len(picture.notes) == 1 and "profile" in picture.notes[0] and "\n" not in picture.notes[0]


def test_profile_that_unpacks_without_end_is_a_note(tmp_path: Path) -> None:
    bomb = b"test\0\0" + zlib.compress(bytes(200_000_000), 9)
    path = put(tmp_path / "a.png", png(noise(4, 4), (b"iCCP", bomb)))
    tracemalloc.start()
    picture = pictures.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000
    assert any("profile" in note for note in picture.notes)


def test_proof_reduces_the_gamut_and_keeps_precision(tmp_path: Path) -> None:
    proof = put(tmp_path / "press.icc", cmyk_profile(0.15))
    ramp = np.linspace(0.5, 1, 2000)
    samples = np.zeros((2, 2000, 3), np.uint16)
    samples[0] = np.rint(ramp * 65535)[:, None]
    samples[1, :6] = [[65535, 0, 0], [0, 65535, 0], [0, 0, 65535], [65535] * 3, [0] * 3, [40000, 36000, 38000]]
    path = put(tmp_path / "a.png", png(samples))
    before, after = pictures.load(path).pixels, pictures.load(path, proof=proof).pixels
    assert np.ptp(after[1, :3], axis=1).max() < 0.7 < np.ptp(before[1, :3], axis=1).min()  # the primaries are duller
    close(after[1, 3], [1, 1, 1], 5e-3)  # paper white stays white
    close(after[1, 4], np.full(3, srgb_encode(np.array(0.15))), 0.08)  # the press has no deeper black
    # Black point compensation maps linear light 0 ... 1 to 0.15^... 1, so colours inside move only a little.
    close(after[1, 5], before[1, 5], 0.2)
    assert len(np.unique(after[0, :, 1])) > 1000  # no 8-bit step anywhere


def test_proof_equals_littlecms_at_eight_bits(tmp_path: Path) -> None:
    """Pillow's own soft proof, in 8 bits, is the independent reference."""
    data = cmyk_profile(0.1)
    samples = noise(20, 20, dtype=np.uint8)
    srgb = ImageCms.createProfile("sRGB")
    reference = ImageCms.buildProofTransform(
        srgb,
        srgb,
        io.BytesIO(data),
        "RGB",
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        proofRenderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.SOFTPROOFING | ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOOPTIMIZE,
    )
    expected = np.asarray(ImageCms.applyTransform(Image.fromarray(samples), reference)) / 255
    path = put(tmp_path / "a.png", png(samples))
    close(pictures.load(path, proof=put(tmp_path / "p.icc", data)).pixels, expected, 0.012)


@pytest.mark.parametrize(
    "content", [None, b"", b"notaprofile" * 50, rgb_profile(ADOBE_TO_D50, 2.2), cmyk_profile(0.1)[:300], icc(b"CMYK", {})]
)
def test_bad_proof_profile(content: bytes | None, tmp_path: Path) -> None:
    proof = tmp_path / "p.icc"
    if content is not None:
        proof.write_bytes(content)
    path = put(tmp_path / "a.png", png(noise(2, 2)))
    with pytest.raises(SettingsError, match="--proof"):
        pictures.load(path, proof=proof)


def srgb_table(points: int) -> bytes:
    values = np.linspace(0, 1, points)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return b"curv" + bytes(4) + struct.pack(">I", points) + np.rint(linear * 65535).astype(">u2").tobytes()


COLORANTS_OF_1998 = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Published colorants of the first sRGB profile, in its rounding."""


@pytest.mark.parametrize(("matrix", "points"), [(COLORANTS_OF_1998, 1024), (SRGB_TO_D50, 256), (SRGB_TO_D50, 4096)])
def test_profiles_of_srgb_change_nothing(matrix: Array, points: int, tmp_path: Path) -> None:
    profile = rgb_profile(matrix, srgb_table(points))
    samples = noise(9, 9)
    picture = pictures.load(put(tmp_path / "a.png", png(samples, iccp(profile))))
    np.testing.assert_array_equal(picture.pixels, samples / np.float32(65535))
    assert picture.notes == () and picture.reading is not None and picture.reading.colour == "profile test"


@pytest.mark.parametrize(("matrix", "gamma"), [(SRGB_TO_D50, 2.2), (P3_TO_D50, 2.2)])
def test_profiles_near_srgb_are_converted(matrix: Array, gamma: float, tmp_path: Path) -> None:
    samples = noise(9, 9)
    picture = pictures.load(put(tmp_path / "a.png", png(samples, iccp(rgb_profile(matrix, gamma)))))
    close(picture.pixels, rgb_expected(samples / 65535, matrix, gamma), 1e-3)
    assert np.abs(picture.pixels - samples / 65535).max() > 5e-3
