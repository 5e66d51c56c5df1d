"""Picture files: depth, colour, orientation, damaged input, and writing that never harms the old file."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from support.profiles import SRGB_TO_D50, Array, cmyk_profile, icc, s15, to_d50

from style_transfer.errors import ImageError, OutputError, SettingsError
from style_transfer.files import atomic as files
from style_transfer.pictures import images

# ------------------------------------------------------- helpers and oracles (float64)


ADOBE_TO_D50 = to_d50((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3_TO_D50 = to_d50((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))


def srgb_encode(linear: Array) -> Array:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_decode(encoded: Array) -> Array:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def gamma_tag(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def rgb_profile(matrix: Array, gamma: float) -> bytes:
    columns = {name: b"XYZ " + bytes(4) + s15(matrix[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return icc(b"RGB ", {**columns, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma_tag(gamma))})


def rgb_expected(values: Array, matrix: Array, gamma: float) -> Array:
    gamma = round(gamma * 256) / 256
    return srgb_encode(values**gamma @ matrix.T @ np.linalg.inv(SRGB_TO_D50).T)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: Array, *chunks: tuple[bytes, bytes]) -> bytes:
    """Encode samples with libpng and put chunks behind the header."""
    data = bytes(imagecodecs.png_encode(samples))
    return data[:33] + b"".join(png_chunk(*c) for c in chunks) + data[33:]


def iccp(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"test\0\0" + zlib.compress(profile)


def chunks_of(data: bytes) -> dict[bytes, bytes]:
    found, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found[data[at + 4 : at + 8]] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def noise(height: int, width: int, channels: int = 3, dtype: Any = np.uint16, seed: int = 0) -> Array:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype=dtype, endpoint=True)


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pil_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def close(actual: Array, expected: Array, tolerance: float) -> None:
    np.testing.assert_allclose(actual, np.broadcast_to(expected, actual.shape), rtol=0, atol=tolerance)


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


# ----------------------------------------------------------------------- depth and round trips


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 150), width=st.integers(1, 97), seed=st.integers(0, 99))
def test_sixteen_bits_come_back_exactly(suffix: str, tmp_path: Path, height: int, width: int, seed: int) -> None:
    samples = noise(height, width, seed=seed)
    path = tmp_path / f"a{suffix}"
    images.save(path, (samples / 65535).astype(np.float32))
    back = images.load(path)
    assert back.pixels.dtype == np.float32 and back.pixels.flags.c_contiguous
    np.testing.assert_array_equal(np.rint(back.pixels.astype(np.float64) * 65535), samples)
    assert back.notes == ()


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_other_readers_see_the_same_sixteen_bits(suffix: str, tmp_path: Path) -> None:
    samples = noise(131, 37)
    path = tmp_path / f"a{suffix}"
    images.save(path, samples / 65535)
    data = path.read_bytes()
    other = tifffile.imread(path) if suffix == ".tif" else imagecodecs.png_decode(data)
    np.testing.assert_array_equal(other, samples)
    with Image.open(path) as image:  # Pillow has only 8 bits of it
        close(np.asarray(image.convert("RGB")).astype(float), samples / 257, 1.0)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_smooth_pictures_come_back_exactly(suffix: str, tmp_path: Path) -> None:
    """Gradients make PNG use all its row filters, which noise does not; steps straddle the strips."""
    rows, columns = np.mgrid[:200, :90]
    columns_differ = noise(1, 90) + (rows // 3)[..., None].astype(np.uint16)  # down: differences are small
    rows_differ = noise(200, 1, seed=1) + (columns // 3)[..., None].astype(np.uint16)  # across
    for samples in (columns_differ, rows_differ, np.zeros((130, 5, 3), np.uint16)):
        images.save(tmp_path / f"a{suffix}", samples / 65535)
        np.testing.assert_array_equal(np.rint(images.load(tmp_path / f"a{suffix}").pixels * 65535.0), samples)
    if suffix == ".png":
        images.save(tmp_path / "b.png", columns_differ / 65535)
        assert (tmp_path / "b.png").stat().st_size < 0.2 * columns_differ.nbytes


def test_values_that_eight_bits_cannot_hold_survive_loading(tmp_path: Path) -> None:
    samples = (np.arange(5 * 4 * 3).reshape(5, 4, 3) * 7 + 12345).astype(np.uint16)
    expected = samples / 65535
    close(images.load(put(tmp_path / "a.png", png(samples))).pixels, expected, 1e-7)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    close(images.load(tmp_path / "a.tif").pixels, expected, 1e-7)
    ppm = b"P6\n# made by hand\n4 5\n65535\n" + samples.astype(">u2").tobytes()
    close(images.load(put(tmp_path / "a.ppm", ppm)).pixels, expected, 1e-7)
    jp2 = imagecodecs.jpeg2k_encode(samples, reversible=True, level=0)
    close(images.load(put(tmp_path / "a.jp2", bytes(jp2))).pixels, expected, 1e-7)


@pytest.mark.parametrize("maxval", [1, 100, 255, 1000])
def test_ppm_counts_to_its_own_largest_value(maxval: int, tmp_path: Path) -> None:
    samples = np.array([[0, maxval // 2, maxval]])
    body = samples.astype(">u2" if maxval > 255 else "u1").tobytes()
    picture = images.load(put(tmp_path / "a.pgm", b"P5 3 1 %d\n" % maxval + body))
    close(picture.pixels[..., 1], samples / maxval, 1e-7)


@pytest.mark.parametrize(("suffix", "limit"), [(".jpg", 0.02), (".webp", 0.035)])
def test_eight_bit_formats(suffix: str, limit: float, tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 0.5 + 0 * ramp[None]), -1)
    images.save(tmp_path / f"a{suffix}", pixels)
    picture = images.load(tmp_path / f"a{suffix}")
    assert np.abs(picture.pixels - pixels).mean() < limit / 3
    close(picture.pixels, pixels, limit)
    assert picture.notes == ()


def test_out_of_range_pixels_are_clipped_and_rounded(tmp_path: Path) -> None:
    pixels = np.array([[[-0.5, 1.5, 0.6 / 65535]]])
    images.save(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), [[[0, 65535, 1]]])
    assert images.to_pil(np.array([[[-1.0, 2.0, 127.6 / 255]]])).getpixel((0, 0)) == (0, 255, 128)


def test_strips_equal_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = noise(130, 20) / 65535
    results = []
    for rows in (1, 7, 64, 1000):
        monkeypatch.setattr(images, "_STRIP_ROWS", rows)
        images.save(tmp_path / "a.tif", pixels)
        images.save(tmp_path / "a.png", pixels)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.pages.first.rowsperstrip == min(rows, 130)
        results += [
            tifffile.imread(tmp_path / "a.tif"),
            imagecodecs.png_decode((tmp_path / "a.png").read_bytes()),
        ]
    for result in results:
        np.testing.assert_array_equal(result, noise(130, 20))


def test_colour_blocks_equal_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", png(noise(33, 21), iccp(rgb_profile(ADOBE_TO_D50, 2.2))))
    whole = images.load(path).pixels
    monkeypatch.setattr(images, "_BLOCK_PIXELS", 50)
    np.testing.assert_array_equal(images.load(path).pixels, whole)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_saving_needs_no_memory_in_proportion(suffix: str, tmp_path: Path) -> None:
    pixels = np.zeros((6000, 256, 3), np.float32)
    tracemalloc.start()
    images.save(tmp_path / f"a{suffix}", pixels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 256 * 6 / 2  # half of the 16-bit samples


# ------------------------------------------------------------------------------- tags of files


def test_tiff_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    images.save(path, noise(70, 10) / 65535, dpi=300, metadata={"Software": "style_transfer 1", "a": "é\n"})
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert not file.is_bigtiff and len(file.pages) == 1
        assert page.tags["XResolution"].value == page.tags["YResolution"].value == (300, 1)
        assert page.tags["ResolutionUnit"].value == 2
        assert page.compression == 8 and page.predictor == 2 and page.planarconfig == 1 and page.rowsperstrip == 64
        assert page.bitspersample == 16 and page.photometric == 2
        assert page.tags["Software"].value == "style_transfer 1"
        assert json.loads(page.tags["ImageDescription"].value) == {"Software": "style_transfer 1", "a": "é\n"}
        profile = page.iccprofile
    assert profile is not None
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))


def test_big_tiff_is_chosen_by_the_size_of_the_raw_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = np.zeros((10, 10, 3), np.float32)
    for limit, version in ((600, 42), (599, 43)):
        monkeypatch.setattr(images, "_CLASSIC_TIFF_BYTES", limit)
        images.save(tmp_path / "a.tif", pixels)
        assert (tmp_path / "a.tif").read_bytes()[2] == version
        assert images.load(tmp_path / "a.tif").pixels.shape == (10, 10, 3)


def test_png_chunks(tmp_path: Path) -> None:
    images.save(tmp_path / "a.png", noise(9, 9) / 65535, dpi=300, metadata={"Software": "x"})
    chunks = chunks_of((tmp_path / "a.png").read_bytes())
    assert struct.unpack(">IIB", chunks[b"pHYs"]) == (11811, 11811, 1)
    assert chunks[b"IHDR"][8:] == bytes([16, 2, 0, 0, 0])
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.info["Software"] == "x"
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_jpeg_is_not_subsampled_and_has_its_tags(tmp_path: Path) -> None:
    images.save(tmp_path / "a.jpg", noise(16, 16) / 65535, dpi=300)
    with Image.open(tmp_path / "a.jpg") as image:
        assert [part[1:3] for part in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        assert image.info["dpi"] == (300, 300)
        assert image.info["jfif_unit"] == 1 and image.info["jfif_density"] == (300, 300)
        assert image.info["icc_profile"]
        assert max(image.quantization[0]) <= 12  # type: ignore[attr-defined]  # quality 95
    with Image.open(io.BytesIO(images.encode_jpeg(noise(8, 8) / 65535))) as image:
        assert [part[1:3] for part in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    assert len(images.encode_jpeg(noise(64, 64) / 65535, 30)) < len(images.encode_jpeg(noise(64, 64) / 65535))


def test_webp_resolution_and_profile(tmp_path: Path) -> None:
    images.save(tmp_path / "a.webp", noise(16, 16) / 65535, dpi=150.5)
    with Image.open(tmp_path / "a.webp") as image:
        assert image.getexif()[0x011A] == 150.5 and image.getexif()[0x0128] == 2
        assert image.info["icc_profile"]


@pytest.mark.parametrize("suffix", list(images.WRITERS))
def test_metadata_comes_back(suffix: str, tmp_path: Path) -> None:
    metadata = {"Software": "naïve 1.0", "settings": '{"a": 1}', "style files": "ü\n日本.png", "empty": ""}
    images.save(tmp_path / f"a{suffix}", noise(5, 6) / 65535, metadata=metadata)
    assert images.read_metadata(tmp_path / f"a{suffix}") == metadata
    images.save(tmp_path / f"a{suffix}", noise(5, 6) / 65535)
    assert images.read_metadata(tmp_path / f"a{suffix}") == {}


def test_metadata_too_long_for_jpeg_does_not_stop_the_picture(tmp_path: Path) -> None:
    images.save(tmp_path / "a.jpg", noise(5, 6) / 65535, metadata={"Software": "s", "long": "x" * 70000})
    assert images.read_metadata(tmp_path / "a.jpg") == {"Software": "s"}


def test_files_are_reproducible(tmp_path: Path) -> None:
    for suffix in images.WRITERS:
        for name in "ab":
            images.save(tmp_path / f"{name}{suffix}", noise(9, 9) / 65535, metadata={"k": "v"})
            images._srgb_profile.cache_clear()
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


# -------------------------------------------------------------------------------------- colour

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
    picture = images.load(path)
    assert picture.notes == ()
    close(picture.pixels, rgb_expected(samples / 65535, matrix, gamma), 1e-3)


def test_profile_in_jpeg_webp_and_pil(tmp_path: Path) -> None:
    profile = rgb_profile(ADOBE_TO_D50, 563 / 256)
    image = Image.new("RGB", (16, 16), (100, 200, 90))
    expected = rgb_expected(np.array([100, 200, 90]) / 255, ADOBE_TO_D50, 563 / 256)
    jpeg = put(tmp_path / "a.jpg", pil_bytes(image, "JPEG", icc_profile=profile, quality=100))
    webp = put(tmp_path / "a.webp", pil_bytes(image, "WEBP", icc_profile=profile, lossless=True))
    close(images.load(jpeg).pixels[8, 8], expected, 0.012)
    close(images.load(webp).pixels[8, 8], expected, 1e-3)
    image.info["icc_profile"] = profile
    close(images.from_pil(image).pixels[8, 8], expected, 1e-3)


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
    expected = images.load(put(tmp_path / "a.png", png(samples, iccp(profile)))).pixels
    plain = images.load(put(tmp_path / "b.png", png(samples))).pixels
    close(images.load(put(tmp_path / "a.jp2", data)).pixels, expected, 1e-6)
    assert abs(expected - plain).max() > 0.05


def test_gray_profile(tmp_path: Path) -> None:
    profile = icc(b"GRAY", {b"kTRC": gamma_tag(1.8)})
    samples = np.rint(RAMP * 65535).astype(np.uint16)[None]
    expected = srgb_encode((samples / 65535) ** (round(1.8 * 256) / 256))
    picture = images.load(put(tmp_path / "a.png", png(samples, iccp(profile))))
    assert picture.notes == ()
    close(picture.pixels, expected[..., None], 1e-3)


def test_rgb_profile_on_a_gray_picture(tmp_path: Path) -> None:
    samples = np.rint(RAMP * 65535).astype(np.uint16)[None]
    expected = srgb_encode((samples / 65535) ** (563 / 256))
    picture = images.load(put(tmp_path / "a.png", png(samples, iccp(rgb_profile(ADOBE_TO_D50, 563 / 256)))))
    close(picture.pixels, expected[..., None], 1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_profile(dtype: Any, tmp_path: Path) -> None:
    ink = np.array(list(itertools.product(np.linspace(0, 1, 6), repeat=4)))
    samples = np.rint(ink * np.iinfo(dtype).max).astype(dtype).reshape(36, 36, 4)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="separated", iccprofile=cmyk_profile(0.0))
    picture = images.load(tmp_path / "a.tif")
    assert picture.notes == ()
    light = (1 - ink[:, :3]) * (1 - ink[:, 3:])
    bright = light.min(axis=1) > 0.01  # Lab in 16 bits is coarse in the darks
    actual = picture.pixels.reshape(-1, 3)
    close(actual[bright], srgb_encode(light)[bright], 3e-3)
    close(actual, srgb_encode(light), 0.02)


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    samples = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 102, 255, 51]]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="separated")
    picture = images.load(tmp_path / "a.tif")
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
    close(images.load(put(tmp_path / "a.jpg", data)).pixels[8, 8], [0.8, 0.16, 0], 0.02)
    plain = images.load(put(tmp_path / "b.jpg", strip_adobe(data))).pixels[8, 8]  # the same bytes mean 1 - ink
    close(plain, [0, 0.8 * 0.2, 0.2], 0.02)
    with_profile = pil_bytes(image, "JPEG", quality=100, icc_profile=cmyk_profile(0.0))
    close(
        images.load(put(tmp_path / "c.jpg", with_profile)).pixels[8, 8],
        srgb_encode(np.array([0.8, 0.16, 0])),
        0.02,
    )


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
    picture = images.load(put(tmp_path / "a.png", png(samples, iccp(BROKEN[which]))))
    close(picture.pixels, samples / 65535, 1e-7)
    assert len(picture.notes) == 1 and "profile" in picture.notes[0] and "\n" not in picture.notes[0]


def test_profile_that_unpacks_without_end_is_a_note(tmp_path: Path) -> None:
    bomb = b"test\0\0" + zlib.compress(bytes(200_000_000), 9)
    path = put(tmp_path / "a.png", png(noise(4, 4), (b"iCCP", bomb)))
    tracemalloc.start()
    picture = images.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000
    assert any("profile" in note for note in picture.notes)


# --------------------------------------------------------------------------------------- proof


def test_proof_reduces_the_gamut_and_keeps_precision(tmp_path: Path) -> None:
    proof = put(tmp_path / "press.icc", cmyk_profile(0.15))
    ramp = np.linspace(0.5, 1, 2000)
    samples = np.zeros((2, 2000, 3), np.uint16)
    samples[0] = np.rint(ramp * 65535)[:, None]
    samples[1, :6] = [
        [65535, 0, 0],
        [0, 65535, 0],
        [0, 0, 65535],
        [65535] * 3,
        [0] * 3,
        [40000, 36000, 38000],
    ]
    path = put(tmp_path / "a.png", png(samples))
    before, after = images.load(path).pixels, images.load(path, proof=proof).pixels
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
    close(images.load(path, proof=put(tmp_path / "p.icc", data)).pixels, expected, 0.012)


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"notaprofile" * 50,
        rgb_profile(ADOBE_TO_D50, 2.2),
        cmyk_profile(0.1)[:300],
        icc(b"CMYK", {}),
    ],
)
def test_bad_proof_profile(content: bytes | None, tmp_path: Path) -> None:
    proof = tmp_path / "p.icc"
    if content is not None:
        proof.write_bytes(content)
    path = put(tmp_path / "a.png", png(noise(2, 2)))
    with pytest.raises(SettingsError, match="--proof"):
        images.load(path, proof=proof)


# -------------------------------------------------------------------------- layouts and channels


def test_sixteen_bit_gray_keeps_its_tone(tmp_path: Path) -> None:
    samples = np.array([[0, 300, 32768, 65535]], np.uint16)
    expected = np.repeat(samples[..., None] / 65535, 3, 2)
    close(images.load(put(tmp_path / "a.png", png(samples))).pixels, expected, 1e-7)
    tifffile.imwrite(tmp_path / "a.tif", samples)
    close(images.load(tmp_path / "a.tif").pixels, expected, 1e-7)
    for image in (Image.fromarray(samples), Image.fromarray(samples.astype(np.int32))):
        assert image.mode in ("I;16", "I")
        close(images.from_pil(image).pixels, expected, 1e-7)


@pytest.mark.parametrize(
    "layout",
    ["contig", "planar", "tiled", "big-endian", "bigtiff", "lzw", "float16", "float64", "uint32", "jpeg"],
)
def test_tiff_layouts(layout: str, tmp_path: Path) -> None:
    samples = noise(70, 50)
    values: Array = samples / 65535
    options: dict[str, Any] = {}
    file_options: dict[str, Any] = {}
    data: Array = samples
    tolerance = 1e-7
    if layout == "planar":
        data, options = np.moveaxis(samples, -1, 0), {"planarconfig": "separate"}
    elif layout == "tiled":
        options = {"tile": (16, 32)}
    elif layout == "lzw":
        options = {"compression": "lzw", "predictor": True, "rowsperstrip": 9}
    elif layout == "big-endian":
        file_options = {"byteorder": ">"}
    elif layout == "bigtiff":
        file_options = {"bigtiff": True}
    elif layout.startswith("float"):
        data, tolerance = values.astype(layout), 1e-3 if layout == "float16" else 1e-7
    elif layout == "uint32":
        data = samples.astype(np.uint32) * 65537
    elif layout == "jpeg":
        smooth = np.linspace(0, 255, 50)[None, :, None] + np.zeros((70, 1, 3))
        smooth[..., 2] = 40
        data, values, tolerance = smooth.astype(np.uint8), smooth / 255, 0.03
        options = {"compression": "jpeg", "compressionargs": {"level": 95}}
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", metadata=None, **options, **file_options)
    picture = images.load(tmp_path / "a.tif")
    close(picture.pixels, values, tolerance)
    assert picture.notes == ()


def test_tiff_bilevel_min_is_white_palette_and_twelve_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    bits = noise(9, 13, 1)[..., 0] > 30000
    tifffile.imwrite(path, bits, photometric="minisblack")
    np.testing.assert_array_equal(images.load(path).pixels[..., 0], bits)
    tifffile.imwrite(path, bits, photometric="miniswhite")
    np.testing.assert_array_equal(images.load(path).pixels[..., 2], ~bits)
    gray = noise(9, 13, 1)[..., 0]
    tifffile.imwrite(path, gray, photometric="miniswhite")
    close(images.load(path).pixels[..., 0], 1 - gray / 65535, 1e-7)
    table = noise(3, 256, 1, seed=3)[..., 0]
    index = noise(9, 13, 1, np.uint8)[..., 0]
    tifffile.imwrite(path, index, photometric="palette", colormap=table)
    close(images.load(path).pixels, table.T[index] / 65535, 1e-7)
    tifffile.imwrite(path, gray >> 4, photometric="minisblack", bitspersample=12)
    close(images.load(path).pixels[..., 1], (gray >> 4) / 4095, 1e-7)


def test_tiff_that_is_no_rgb_is_refused_with_its_kind(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 4, dtype=np.uint8), photometric="cielab")
    with pytest.raises(ImageError, match="CIELAB"):
        images.load(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 4).astype(np.int16), photometric="rgb")
    with pytest.raises(ImageError, match="int16"):
        images.load(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["png16", "png8", "la16", "tif", "webp", "gif", "palette"])
def test_alpha_is_ignored_with_a_note(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a." + {"tif": "tif", "webp": "webp", "gif": "gif"}.get(kind, "png"))
    small = noise(4, 5, 4, np.uint8)
    small[..., 3] = [[0, 255, 3, 9, 100]] * 4
    expected = small[..., :3] / 255
    if kind == "png16":
        samples = noise(4, 5, 4)
        path.write_bytes(png(samples))
        expected = samples[..., :3] / 65535
    elif kind == "la16":
        samples = noise(4, 5, 2)
        path.write_bytes(png(samples))
        expected = np.repeat(samples[..., :1] / 65535, 3, 2)
    elif kind == "png8":
        path.write_bytes(png(small))
    elif kind == "tif":
        tifffile.imwrite(path, small, photometric="rgb", extrasamples=["unassalpha"])
    elif kind == "webp":
        path.write_bytes(pil_bytes(Image.fromarray(small), "WEBP", lossless=True, exact=True))
    else:
        image = Image.fromarray(small[..., :3]).quantize(8)
        expected = np.asarray(image.convert("RGB")) / 255
        path.write_bytes(pil_bytes(image, "GIF" if kind == "gif" else "PNG", transparency=2))
    picture = images.load(path)
    close(picture.pixels, expected, 1e-6)
    assert any("alpha" in note for note in picture.notes)


def test_an_opaque_alpha_needs_no_note(tmp_path: Path) -> None:
    samples = noise(4, 5, 4)
    samples[..., 3] = 65535
    assert images.load(put(tmp_path / "a.png", png(samples))).notes == ()


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG", "TGA", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_common_eight_bit_files(kind: str, mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(noise(12, 10, dtype=np.uint8)).convert(mode)
    if (kind, mode) in {("PPM", "P"), ("WEBP", "1"), ("JPEG2000", "1"), ("JPEG2000", "P"), ("TGA", "1")}:
        image = image.convert("RGB")
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    path = tmp_path / ("a.tga" if kind == "TGA" else "a.png")  # the content counts, not the name
    image.save(path, kind, **options)
    close(images.load(path).pixels, np.asarray(image.convert("RGB")) / 255, 0.02 if kind == "AVIF" else 1e-6)


def test_interlaced_and_low_depth_png(tmp_path: Path) -> None:
    image = Image.fromarray(noise(5, 9, 1, np.uint8)[..., 0] // 16 * 17)
    picture = images.load(put(tmp_path / "a.png", pil_bytes(image, "PNG", bits=4)))
    close(picture.pixels[..., 0], np.asarray(image) / 255, 1e-6)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_uses_its_first_frame(kind: str, tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    first.save(tmp_path / "a", kind, save_all=True, append_images=[second])
    picture = images.load(tmp_path / "a")
    close(picture.pixels[4, 4], [1, 0, 0], 0.02)
    assert any("first frame" in note for note in picture.notes)


def test_multi_page_tiff_uses_its_first_page(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for value in (200, 10):
            file.write(np.full((8, 9, 3), value, np.uint8), photometric="rgb", metadata=None)
    picture = images.load(tmp_path / "a.tif")
    close(picture.pixels, np.full((8, 9, 3), 200 / 255), 1e-6)
    assert any("2 pages" in note for note in picture.notes)


def test_hdr_is_clipped_with_a_note_and_nan_refused(tmp_path: Path) -> None:
    values = np.array([[[0.5, 12.5, -0.25]]], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    picture = images.load(tmp_path / "a.tif")
    close(picture.pixels, [[[0.5, 1, 0]]], 0)
    assert "12.5" in picture.notes[0] and "clipped" in picture.notes[0]
    for bad in (np.nan, np.inf, -np.inf):
        values[0, 0, 1] = bad
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
        with pytest.raises(ImageError, match="NaN"):
            images.load(tmp_path / "a.tif")


# --------------------------------------------------------------------------------- orientation


def stored_as(upright: Array, orientation: int) -> Array:
    """Lay an upright picture out as EXIF 2.32 says: where row 0 and column 0 of the file belong."""
    height, width = upright.shape[:2]
    place = {
        1: lambda r, c: (r, c),  # row 0 is the top, column 0 the left
        2: lambda r, c: (r, width - 1 - c),  # top, right
        3: lambda r, c: (height - 1 - r, width - 1 - c),  # bottom, right
        4: lambda r, c: (height - 1 - r, c),  # bottom, left
        5: lambda r, c: (c, r),  # left, top
        6: lambda r, c: (c, width - 1 - r),  # right, top
        7: lambda r, c: (height - 1 - c, width - 1 - r),  # right, bottom
        8: lambda r, c: (height - 1 - c, r),  # left, bottom
    }[orientation]
    rows, columns = (height, width) if orientation < 5 else (width, height)
    return np.array([[upright[place(r, c)] for c in range(columns)] for r in range(rows)])


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_upright(orientation: int, tmp_path: Path) -> None:
    upright = noise(3, 5, dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    stored = stored_as(upright, orientation)
    image = Image.fromarray(stored)
    exif = exif_of(orientation)
    path = put(tmp_path / "a.jpg", pil_bytes(image, "JPEG", quality=95, subsampling=0, exif=exif))
    close(images.load(path).pixels, upright / 255, 0.03)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        path = put(tmp_path / "a", pil_bytes(image, kind, exif=exif, **options))
        close(images.load(path).pixels, upright / 255, 1e-6)
    deep = stored.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    close(images.load(tmp_path / "a.tif").pixels, upright / 255, 1e-6)
    image.getexif()[0x0112] = orientation
    picture = images.from_pil(image)
    close(picture.pixels, upright / 255, 1e-6)
    assert picture.pixels.flags.c_contiguous and picture.notes == ()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 97),
    width=st.integers(1, 97),
    channels=st.sampled_from([1, 2, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    orientation=st.integers(1, 8),
    profile=st.booleans(),
    layout=st.sampled_from(["strips", "tiles", "planes"]),
    compression=st.sampled_from([None, "zlib", "lzw", "packbits"]),
    predictor=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_tiff_is_read_as_it_was_written(
    tmp_path: Path, height: int, width: int, channels: int, dtype: Any, orientation: int, profile: bool, layout: str,
    compression: str | None, predictor: bool, seed: int,
) -> None:  # fmt: skip
    values = np.random.default_rng(seed).random((height, width, channels))
    if channels in (2, 4):
        values[..., -1] = 1  # opaque
    white = 1 if dtype is np.float32 else np.iinfo(dtype).max
    upright = (values * white).astype(dtype)
    stored = stored_as(upright, orientation)
    planes = layout == "planes" and channels > 1
    rgb, gray = rgb_profile(SRGB_TO_D50, 1.8), icc(b"GRAY", {b"kTRC": gamma_tag(1.8)})
    more: dict[str, Any] = {"tile": (16, 32)} if layout == "tiles" else {"rowsperstrip": 1 + seed % 9}
    if compression in ("zlib", "lzw"):
        more["predictor"] = predictor
    tifffile.imwrite(
        tmp_path / "a.tif", np.moveaxis(stored, 2, 0) if planes else stored.squeeze(2) if channels == 1 else stored,
        photometric="rgb" if channels > 2 else "minisblack", planarconfig="separate" if planes else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None, compression=compression,
        iccprofile=None if not profile else rgb if channels > 2 else gray, extratags=[(274, "H", 1, orientation, True)], **more,
    )  # fmt: skip
    expected = upright[..., : 3 if channels > 2 else 1].astype(np.float64) / white
    if profile:
        expected = srgb_encode(expected ** (round(1.8 * 256) / 256))
    back = images.load(tmp_path / "a.tif")
    close(back.pixels, expected, 1e-3 if profile else 1e-6)
    assert back.pixels.flags.c_contiguous


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 97),
    width=st.integers(1, 97),
    channels=st.sampled_from([1, 2, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 99),
)
def test_any_png_is_read_as_it_was_written(tmp_path: Path, height: int, width: int, channels: int, dtype: Any, seed: int) -> None:
    white = np.iinfo(dtype).max
    stored = np.random.default_rng(seed).integers(0, white, (height, width, channels), dtype, endpoint=True)
    if channels in (2, 4):
        stored[..., -1] = white
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(stored.squeeze(2) if channels == 1 else stored))
    colours = stored[..., : 3 if channels > 2 else 1] / white
    close(images.load(tmp_path / "a.png").pixels, colours, 1e-6)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_impossible_orientation_is_a_note(orientation: int, tmp_path: Path) -> None:
    image = Image.fromarray(noise(6, 9, dtype=np.uint8))
    picture = images.load(put(tmp_path / "a.png", pil_bytes(image, "PNG", exif=exif_of(orientation))))
    close(picture.pixels, np.asarray(image) / 255, 1e-6)
    assert any(f"orientation {orientation}" in note for note in picture.notes)


def test_cut_exif_is_survived(tmp_path: Path) -> None:
    samples = noise(6, 9)
    for cut in (b"II*", b"garbage here", exif_of(6).tobytes()[6:16]):
        close(images.load(put(tmp_path / "a.png", png(samples, (b"eXIf", cut)))).pixels, samples / 65535, 1e-7)


# -------------------------------------------------------------------------- files to be refused


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(ImageError, match=match) as caught:
        images.load(path, **options)
    message = str(caught.value)
    assert "\n" not in message and message.isprintable() and path.name.isprintable() <= (path.name in message)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing.png", "no such file")
    refused(tmp_path, "folder")
    refused(put(tmp_path / "empty.png", b""), "empty")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    started = time.monotonic()
    refused(tmp_path / "pipe.png", "not a regular file")
    refused(Path("/dev/zero"), "not a regular file")
    refused(tmp_path / "loop.png", "cannot be read")
    assert time.monotonic() - started < 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", png(noise(2, 2)))
    path.chmod(0)
    refused(path, "cannot be read")


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf\n <html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "metafile"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"just some text", "not a picture format"),
    ],
)
def test_other_files_are_named_for_what_they_are(head: bytes, match: str, tmp_path: Path) -> None:
    refused(put(tmp_path / "a.png", head), match)


def whole_files(tmp_path: Path) -> dict[str, bytes]:
    samples = noise(64, 48)
    small = Image.fromarray((samples >> 8).astype(np.uint8))
    files = {"png": png(samples), "jpg": pil_bytes(small, "JPEG"), "webp": pil_bytes(small, "WEBP")}
    files |= {"progressive.jpg": pil_bytes(small, "JPEG", progressive=True), "ppm": pil_bytes(small, "PPM")}
    for name, options in (("none", {}), ("zlib", {"compression": "zlib"}), ("lzw", {"compression": "lzw"})):
        tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", rowsperstrip=16, metadata=None, **options)
        files[f"{name}.tif"] = (tmp_path / "x.tif").read_bytes()
    tifffile.imwrite(tmp_path / "x.tif", np.asarray(small), photometric="rgb", compression="jpeg", metadata=None)
    files["jpeg.tif"] = (tmp_path / "x.tif").read_bytes()
    return files


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    for name, data in whole_files(tmp_path).items():
        assert images.load(put(tmp_path / f"whole.{name}", data)).pixels.shape == (64, 48, 3)
        with pytest.raises(ImageError):
            images.load(put(tmp_path / f"cut.{name}", data[: max(13, int(len(data) * share))]))


def test_flipped_bytes_are_refused_or_read_but_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    refusals = 0
    for name, data in whole_files(tmp_path).items():
        for _ in range(25):
            damaged = bytearray(data)
            for at in rng.integers(0, min(len(data), 400), 3):
                damaged[at] ^= int(rng.integers(1, 256))
            try:
                pixels = images.load(put(tmp_path / f"f.{name}", bytes(damaged)), max_pixels=1_000_000).pixels
                assert np.isfinite(pixels).all()
            except ImageError:
                refusals += 1
    assert refusals > 50


def test_flipped_png_data_is_refused(tmp_path: Path) -> None:
    data = bytearray(png(noise(64, 48)))
    data[len(data) // 2] ^= 4
    refused(put(tmp_path / "a.png", bytes(data)), "damaged")


def forged_png(width: int, height: int) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(bytes(10000))) + png_chunk(b"IEND", b"")


def forged_tiff(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((16, 16, 3), np.uint16), photometric="rgb", compression="zlib", metadata=None)
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        tags = file.pages.first.tags
        places = {tags[256].valueoffset: width, tags[257].valueoffset: height, tags[278].valueoffset: height}
        types = {tags[code].valueoffset: tags[code].dtype for code in (256, 257, 278)}
    data = bytearray(buffer.getvalue())
    for at, value in places.items():
        form = "<H" if types[at] == 3 else "<I"
        data[at : at + struct.calcsize(form)] = struct.pack(form, value)
    return bytes(data)


def forged_jpeg(width: int, height: int) -> bytes:
    data = pil_bytes(Image.new("RGB", (16, 16)), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def forged_webp(width: int, height: int) -> bytes:
    data = bytearray(pil_bytes(Image.new("RGBA", (16, 16), (9, 9, 9, 9)), "WEBP"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


@pytest.mark.parametrize("forge", [forged_png, forged_tiff, forged_jpeg, forged_webp])
def test_bomb_is_refused_from_the_header(forge: Any, tmp_path: Path) -> None:
    path = put(tmp_path / "bomb", forge(60000, 60000))
    images.load(put(tmp_path / "ok.png", png(noise(2, 2))))  # imports are not what is timed
    tracemalloc.start()
    started = time.monotonic()
    refused(path, "--max-pixels")
    assert time.monotonic() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_pixel_limit_is_a_limit_and_can_be_raised(tmp_path: Path) -> None:
    for suffix in (".png", ".tif", ".jpg", ".webp"):
        path = tmp_path / f"a{suffix}"
        images.save(path, noise(10, 11) / 65535)
        assert images.load(path, max_pixels=110).pixels.shape == (10, 11, 3)
        refused(path, "--max-pixels 110", max_pixels=109)


def test_pillows_own_limit_does_not_stop_an_honest_scan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("JPEG", "BMP", "GIF"):
        image = Image.new("RGB", (40, 40), (10, 20, 30))
        assert images.load(put(tmp_path / "a", pil_bytes(image, kind))).pixels.shape == (40, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_zero_size_is_refused(tmp_path: Path) -> None:
    refused(put(tmp_path / "a.png", forged_png(0, 5)), "no pixels")
    refused(put(tmp_path / "a.ppm", b"P6 0 4 255\n"), "no pixels")
    refused(put(tmp_path / "a.tif", forged_tiff(0, 5)), "no pixels|damaged")


def test_forged_tiff_size_below_the_limit_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16, 3), np.uint16), photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages.first.tags[256].overwrite(20000)
        file.pages.first.tags[257].overwrite(20000)
    refused(tmp_path / "a.tif", "damaged")


def test_jpeg2000_box_longer_than_the_file(tmp_path: Path) -> None:
    data = bytearray(pil_bytes(Image.new("RGB", (16, 16)), "JPEG2000"))
    at = data.index(b"jp2h") - 4
    data[at : at + 4] = b"\xff\xff\xff\xf0"
    tracemalloc.start()
    refused(put(tmp_path / "a.jp2", bytes(data)), "damaged")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_tiff_page_loop_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(4, 4), photometric="rgb", metadata=None)
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[first : first + 2])
    data[first + 2 + 12 * count : first + 6 + 12 * count] = struct.pack("<I", first)
    refused(put(path, bytes(data)), "loop")


def test_names_are_escaped_in_messages(tmp_path: Path) -> None:
    assert images.shown("a\x1b[31m\nb\u202e\udcff é.png") == "a\\x1b[31m\\nb\\u202e\\udcff é.png"
    refused(tmp_path / "x\x1b[2J\n.png", r"x\\x1b\[2J\\n.png")
    odd = put(tmp_path / "-o\n\udcff.png", png(noise(2, 2)))
    assert images.load(odd).pixels.shape == (2, 2, 3)
    images.save(tmp_path / "-\n\udcff.tif", noise(2, 2) / 65535)
    assert images.load(tmp_path / "-\n\udcff.tif").pixels.shape == (2, 2, 3)


def test_unreadable_pil_pictures() -> None:
    with pytest.raises(ImageError, match="LAB"):
        images.from_pil(Image.new("LAB", (2, 2)))
    cut = Image.open(io.BytesIO(pil_bytes(Image.fromarray(noise(64, 64, dtype=np.uint8)), "JPEG")[:1500]))
    with pytest.raises(ImageError, match="truncated"):
        images.from_pil(cut)


# -------------------------------------------------------------------------------------- output


@pytest.mark.parametrize(
    ("name", "size", "match"),
    [
        ("a.xyz", None, r"\.tif.*\.webp"),
        ("a.jpge", None, "did you mean '.jp"),
        ("a", None, "no extension"),
        ("a.bmp", None, "unknown"),
        ("a.jpg", (10, 65536), r"65535.*\.tif"),
        ("a.webp", (16384, 10), r"16383.*\.tif"),
    ],
)
def test_outputs_that_settings_forbid(name: str, size: tuple[int, int] | None, match: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=match):
        images.check_output(tmp_path / name, size)


def test_outputs_that_the_disk_forbids(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    put(tmp_path / "file", b"x")
    (tmp_path / "device.png").symlink_to("/dev/full")
    for name, match in (
        ("none/a.png", "no folder"),
        ("file/a.png", "no folder|cannot"),
        ("folder.png", "is a folder"),
        ("device.png", "not a regular file"),
    ):
        with pytest.raises(OutputError, match=match):
            images.check_output(tmp_path / name)
    assert images.check_output(tmp_path / "A.TIF", (70000, 70000)) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["device.png", "file", "folder.png"]


def test_folder_that_is_not_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(OutputError, match="not writable"):
        images.check_output(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", list(images.WRITERS))
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_failed_save_leaves_the_old_file(
    suffix: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = put(tmp_path / f"a{suffix}", b"old")

    def fail(_: int) -> None:
        assert leftovers(tmp_path)  # the new file is there, under another name
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        images.save(path, noise(9, 9) / 65535)
    if isinstance(error, OSError):
        assert path.name in str(caught.value) and "No space" in str(caught.value)
    assert path.read_bytes() == b"old" and not leftovers(tmp_path)
    monkeypatch.undo()
    images.save(path, noise(9, 9) / 65535)
    assert images.load(path).pixels.shape == (9, 9, 3) and not leftovers(tmp_path)


@pytest.mark.parametrize("suffix", list(images.WRITERS))
def test_disk_quota_hit_while_writing(suffix: str, tmp_path: Path) -> None:
    """A real short write: the child may write 4 kB to a file and no more."""
    path = put(tmp_path / f"a{suffix}", b"old")
    code = (
        "import resource, sys, numpy as np\n"
        "from style_transfer import errors\n"
        "from style_transfer.pictures import images\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    images.save(sys.argv[1], np.random.default_rng(0).random((90, 90, 3)))\n"
        "except errors.OutputError as error:\n"
        "    assert 'too large' in str(error), error\n"
        "    sys.exit(42)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 42, result.stderr
    assert path.read_bytes() == b"old" and not leftovers(tmp_path)


def test_what_cannot_be_a_picture_is_not_written(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tif", b"old")
    pixels = np.zeros((4, 4, 3), np.float32)
    pixels[3, 3, 2] = np.nan
    for bad in (
        pixels,
        np.zeros((4, 4)),
        np.zeros((4, 4, 5)),
        np.zeros((0, 4, 3)),
        np.zeros((4, 4, 3), np.uint8),
    ):
        with pytest.raises(OutputError):
            images.save(path, bad)
    for dpi in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(SettingsError, match="dpi"):
            images.save(path, np.zeros((4, 4, 3)), dpi=dpi)
    with pytest.raises(OutputError, match="metadata"):
        images.save(path, np.zeros((4, 4, 3)), metadata={"bad\nname": "x"})
    assert path.read_bytes() == b"old" and not leftovers(tmp_path)


def test_saving_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    real = put(tmp_path / "real.png", b"old")
    (tmp_path / "link.png").symlink_to(real)
    images.save(tmp_path / "link.png", noise(3, 3) / 65535)
    assert (tmp_path / "link.png").is_symlink() and images.load(real).pixels.shape == (3, 3, 3)


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    images.save(tmp_path / "a.png", noise(3, 3) / 65535)
    (tmp_path / "b").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_write_text_is_atomic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(OutputError, match=r"a\.json"):
        files.write_text(path, "new")
    assert path.read_bytes() == "é\n".encode() and not leftovers(tmp_path)


def test_pil_round_trip() -> None:
    samples = noise(5, 7, dtype=np.uint8)
    picture = images.from_pil(Image.fromarray(samples))
    np.testing.assert_array_equal(np.asarray(images.to_pil(picture.pixels)), samples)
    assert images.to_pil(picture.pixels).mode == "RGB"


def test_importing_does_not_import_torch() -> None:
    code = "import sys, style_transfer.pictures.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------------ alpha


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_alpha_comes_back_as_it_was_saved(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 1, (70, 33, 4)).astype(np.float32)
    pixels[:5, :, 3] = 0
    images.save(tmp_path / name, pixels)
    found = images.load(tmp_path / name, alpha=True)
    assert found.alpha is not None and not found.notes
    assert np.abs(found.alpha - pixels[..., 3]).max() < (1 / 255 if name == "a.webp" else 1e-5)
    if name != "a.webp":
        assert np.abs(found.pixels - pixels[..., :3]).max() < 1e-5
    ignored = images.load(tmp_path / name)
    assert ignored.alpha is None and "alpha channel ignored" in ignored.notes[0]


def test_colours_stored_times_alpha_are_divided_by_it(tmp_path: Path) -> None:
    alpha = np.array([[65535, 32768, 13107, 0]], np.uint16)
    straight = np.array([60000, 30000, 10000])
    stored = np.dstack([*(np.rint(c * (alpha / 65535)).astype(np.uint16) for c in straight), alpha])
    tifffile.imwrite(tmp_path / "p.tif", stored, photometric="rgb", extrasamples=["ASSOCALPHA"])
    found = images.load(tmp_path / "p.tif", alpha=True)
    assert found.pixels[0, :3] == pytest.approx(np.tile(straight / 65535, (3, 1)), abs=1e-4)
    assert (found.pixels[0, 3] == 0).all()
    assert found.alpha == pytest.approx(alpha / 65535, abs=1e-6)
    assert images.load(tmp_path / "p.tif").pixels[0, 1] == pytest.approx(stored[0, 1, :3] / 65535, abs=1e-4)


def test_alpha_is_turned_upright_with_its_picture(tmp_path: Path) -> None:
    image = Image.fromarray(np.dstack([np.full((4, 6, 3), 200, np.uint8), np.arange(24, dtype=np.uint8).reshape(4, 6)]))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "t.png", exif=exif)
    found = images.load(tmp_path / "t.png", alpha=True)
    expected = np.rot90(np.arange(24).reshape(4, 6), -1)
    assert found.alpha is not None and np.array_equal(np.rint(found.alpha * 255), expected)


def test_a_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    pixels = np.full((4, 5, 3), 100, np.uint8)
    pixels[1:3, 1:3] = [255, 0, 255]
    image = Image.fromarray(pixels)
    image.save(tmp_path / "k.png", transparency=(255, 0, 255))
    wanted = np.ones((4, 5))
    wanted[1:3, 1:3] = 0
    for found in (images.load(tmp_path / "k.png", alpha=True), images.from_pil(Image.open(tmp_path / "k.png"), alpha=True)):
        assert found.alpha is not None and np.array_equal(found.alpha, wanted)
    palette = image.quantize(4)
    index = int(np.asarray(palette)[1, 1])
    palette.save(tmp_path / "k.gif", transparency=index)
    gif = images.load(tmp_path / "k.gif", alpha=True)
    assert gif.alpha is not None and np.array_equal(gif.alpha, wanted)


def test_an_opaque_picture_has_no_alpha(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 5), (1, 2, 3, 255)).save(tmp_path / "o.png")
    assert images.load(tmp_path / "o.png", alpha=True).alpha is None


def test_a_live_view_shows_alpha_on_white() -> None:
    pixels = np.zeros((16, 16, 4), np.float32)
    pixels[:, 8:, 3] = 1
    shown = np.asarray(Image.open(io.BytesIO(images.encode_jpeg(pixels))))
    assert shown[:, :7].min() > 250 and shown[:, 9:].max() < 5


def test_pixels_of_any_order_in_memory_are_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((3, 6, 5), np.float32).transpose(1, 2, 0)
    images.save(tmp_path / "a.png", pixels)
    images.save(tmp_path / "b.png", np.ascontiguousarray(pixels))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_is_no_pil_picture_is_told() -> None:
    with pytest.raises(ImageError, match="not ndarray"):
        images.from_pil(np.zeros((4, 4, 3), np.uint8))  # type: ignore[arg-type]
