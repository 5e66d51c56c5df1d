"""Decoding: layouts and depths of every format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.picture_files import close, noise, pil_bytes, png, put, stored_as
from support.profiles import SRGB_TO_D50, Array, gamma_tag, icc, rgb_profile, srgb_encode

from style_transfer import pictures
from style_transfer.errors import ImageError


def test_values_that_eight_bits_cannot_hold_survive_loading(tmp_path: Path) -> None:
    samples = (np.arange(5 * 4 * 3).reshape(5, 4, 3) * 7 + 12345).astype(np.uint16)
    expected = samples / 65535
    close(pictures.load(put(tmp_path / "a.png", png(samples))).pixels, expected, 1e-7)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    close(pictures.load(tmp_path / "a.tif").pixels, expected, 1e-7)
    ppm = b"P6\n# made by hand\n4 5\n65535\n" + samples.astype(">u2").tobytes()
    close(pictures.load(put(tmp_path / "a.ppm", ppm)).pixels, expected, 1e-7)
    jp2 = imagecodecs.jpeg2k_encode(samples, reversible=True, level=0)
    close(pictures.load(put(tmp_path / "a.jp2", bytes(jp2))).pixels, expected, 1e-7)


@pytest.mark.parametrize("maxval", [1, 100, 255, 1000])
def test_ppm_counts_to_its_own_largest_value(maxval: int, tmp_path: Path) -> None:
    samples = np.array([[0, maxval // 2, maxval]])
    body = samples.astype(">u2" if maxval > 255 else "u1").tobytes()
    picture = pictures.load(put(tmp_path / "a.pgm", b"P5 3 1 %d\n" % maxval + body))
    close(picture.pixels[..., 1], samples / maxval, 1e-7)


def test_sixteen_bit_gray_keeps_its_tone(tmp_path: Path) -> None:
    samples = np.array([[0, 300, 32768, 65535]], np.uint16)
    expected = np.repeat(samples[..., None] / 65535, 3, 2)
    close(pictures.load(put(tmp_path / "a.png", png(samples))).pixels, expected, 1e-7)
    tifffile.imwrite(tmp_path / "a.tif", samples)
    close(pictures.load(tmp_path / "a.tif").pixels, expected, 1e-7)
    for image in (Image.fromarray(samples), Image.fromarray(samples.astype(np.int32))):
        assert image.mode in ("I;16", "I")
        close(pictures.from_pil(image).pixels, expected, 1e-7)


@pytest.mark.parametrize(
    "layout", ["contig", "planar", "tiled", "big-endian", "bigtiff", "lzw", "float16", "float64", "uint32", "jpeg"]
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
    picture = pictures.load(tmp_path / "a.tif")
    close(picture.pixels, values, tolerance)
    assert len(picture.notes) == layout.startswith("float")


def test_tiff_bilevel_min_is_white_palette_and_twelve_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    bits = noise(9, 13, 1)[..., 0] > 30000
    tifffile.imwrite(path, bits, photometric="minisblack")
    np.testing.assert_array_equal(pictures.load(path).pixels[..., 0], bits)
    tifffile.imwrite(path, bits, photometric="miniswhite")
    np.testing.assert_array_equal(pictures.load(path).pixels[..., 2], ~bits)
    gray = noise(9, 13, 1)[..., 0]
    tifffile.imwrite(path, gray, photometric="miniswhite")
    close(pictures.load(path).pixels[..., 0], 1 - gray / 65535, 1e-7)
    table = noise(3, 256, 1, seed=3)[..., 0]
    index = noise(9, 13, 1, np.uint8)[..., 0]
    tifffile.imwrite(path, index, photometric="palette", colormap=table)
    close(pictures.load(path).pixels, table.T[index] / 65535, 1e-7)
    tifffile.imwrite(path, gray >> 4, photometric="minisblack", bitspersample=12)
    close(pictures.load(path).pixels[..., 1], (gray >> 4) / 4095, 1e-7)


def test_tiff_that_is_no_rgb_is_refused_with_its_kind(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 4, dtype=np.uint8), photometric="itulab")
    with pytest.raises(ImageError, match="ITULAB"):
        pictures.load(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", noise(4, 4).astype(np.int16), photometric="rgb")
    with pytest.raises(ImageError, match="int16"):
        pictures.load(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG", "TGA", "PPM", "TIFF", "WEBP", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_common_eight_bit_files(kind: str, mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(noise(12, 10, dtype=np.uint8)).convert(mode)
    if (kind, mode) in {("PPM", "P"), ("WEBP", "1"), ("JPEG2000", "1"), ("JPEG2000", "P"), ("TGA", "1")}:
        image = image.convert("RGB")
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    path = tmp_path / ("a.tga" if kind == "TGA" else "a.png")  # the content counts, not the name
    image.save(path, kind, **options)
    close(pictures.load(path).pixels, np.asarray(image.convert("RGB")) / 255, 0.02 if kind == "AVIF" else 1e-6)


def test_interlaced_and_low_depth_png(tmp_path: Path) -> None:
    image = Image.fromarray(noise(5, 9, 1, np.uint8)[..., 0] // 16 * 17)
    picture = pictures.load(put(tmp_path / "a.png", pil_bytes(image, "PNG", bits=4)))
    close(picture.pixels[..., 0], np.asarray(image) / 255, 1e-6)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_uses_its_first_frame(kind: str, tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    first.save(tmp_path / "a", kind, save_all=True, append_images=[second])
    picture = pictures.load(tmp_path / "a")
    close(picture.pixels[4, 4], [1, 0, 0], 0.02)
    assert any("first frame" in note for note in picture.notes)


def test_multi_page_tiff_uses_its_first_page(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for value in (200, 10):
            file.write(np.full((8, 9, 3), value, np.uint8), photometric="rgb", metadata=None)
    picture = pictures.load(tmp_path / "a.tif")
    close(picture.pixels, np.full((8, 9, 3), 200 / 255), 1e-6)
    assert any("2 pages" in note for note in picture.notes)


def test_hdr_is_clipped_with_a_note_and_nan_refused(tmp_path: Path) -> None:
    values = np.array([[[0.5, 12.5, -0.25]]], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    picture = pictures.load(tmp_path / "a.tif")
    close(picture.pixels, [[[0.5, 1, 0]]], 0)
    assert any("12.5" in note and "clipped" in note for note in picture.notes)
    for bad in (np.nan, np.inf, -np.inf):
        values[0, 0, 1] = bad
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
        with pytest.raises(ImageError, match="NaN"):
            pictures.load(tmp_path / "a.tif")


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
    back = pictures.load(tmp_path / "a.tif")
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
    close(pictures.load(tmp_path / "a.png").pixels, colours, 1e-6)


def test_importing_does_not_import_torch() -> None:
    code = "import sys, style_transfer.pictures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
