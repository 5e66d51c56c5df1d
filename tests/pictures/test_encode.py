"""Encoding: depth and round trips, tags of files, reproducibility."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from support.picture_files import chunks_of, close, noise

from style_transfer import pictures
from style_transfer.errors import SettingsError
from style_transfer.pictures.encode import png as png_encoder
from style_transfer.pictures.encode import tiff as tiff_encoder
from style_transfer.pictures.icc import srgb_profile
from style_transfer.registry import OUTPUT_FORMATS


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 150), width=st.integers(1, 97), seed=st.integers(0, 99))
def test_sixteen_bits_come_back_exactly(suffix: str, tmp_path: Path, height: int, width: int, seed: int) -> None:
    samples = noise(height, width, seed=seed)
    path = tmp_path / f"a{suffix}"
    pictures.save(path, (samples / 65535).astype(np.float32))
    back = pictures.load(path)
    assert back.pixels.dtype == np.float32 and back.pixels.flags.c_contiguous
    np.testing.assert_array_equal(np.rint(back.pixels.astype(np.float64) * 65535), samples)
    assert back.notes == ()


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_other_readers_see_the_same_sixteen_bits(suffix: str, tmp_path: Path) -> None:
    samples = noise(131, 37)
    path = tmp_path / f"a{suffix}"
    pictures.save(path, samples / 65535)
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
        pictures.save(tmp_path / f"a{suffix}", samples / 65535)
        np.testing.assert_array_equal(np.rint(pictures.load(tmp_path / f"a{suffix}").pixels * 65535.0), samples)
    if suffix == ".png":
        pictures.save(tmp_path / "b.png", columns_differ / 65535)
        assert (tmp_path / "b.png").stat().st_size < 0.2 * columns_differ.nbytes


@pytest.mark.parametrize(("suffix", "limit"), [(".jpg", 0.02), (".webp", 0.035)])
def test_eight_bit_formats(suffix: str, limit: float, tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 0.5 + 0 * ramp[None]), -1)
    pictures.save(tmp_path / f"a{suffix}", pixels)
    picture = pictures.load(tmp_path / f"a{suffix}")
    assert np.abs(picture.pixels - pixels).mean() < limit / 3
    close(picture.pixels, pixels, limit)
    assert picture.notes == ()


def test_out_of_range_pixels_are_clipped_and_rounded(tmp_path: Path) -> None:
    pixels = np.array([[[-0.5, 1.5, 0.6 / 65535]]])
    pictures.save(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), [[[0, 65535, 1]]])
    assert pictures.to_pil(np.array([[[-1.0, 2.0, 127.6 / 255]]])).getpixel((0, 0)) == (0, 255, 128)


def test_strips_equal_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pixels = noise(130, 20) / 65535
    results = []
    for rows in (1, 7, 64, 1000):
        for module in (png_encoder, tiff_encoder):
            monkeypatch.setattr(module, "STRIP_ROWS", rows)
        pictures.save(tmp_path / "a.tif", pixels)
        pictures.save(tmp_path / "a.png", pixels)
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            assert file.pages.first.rowsperstrip == min(rows, 130)
        results += [tifffile.imread(tmp_path / "a.tif"), imagecodecs.png_decode((tmp_path / "a.png").read_bytes())]
    for result in results:
        np.testing.assert_array_equal(result, noise(130, 20))


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_saving_needs_no_memory_in_proportion(suffix: str, tmp_path: Path) -> None:
    pixels = np.zeros((6000, 256, 3), np.float32)
    tracemalloc.start()
    pictures.save(tmp_path / f"a{suffix}", pixels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 256 * 6 / 2  # half of the 16-bit samples


def test_tiff_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pictures.save(path, noise(70, 10) / 65535, dpi=300, metadata={"Software": "style_transfer 1", "a": "é\n"})
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
        monkeypatch.setattr(tiff_encoder, "CLASSIC_BYTES", limit)
        pictures.save(tmp_path / "a.tif", pixels)
        assert (tmp_path / "a.tif").read_bytes()[2] == version
        assert pictures.load(tmp_path / "a.tif").pixels.shape == (10, 10, 3)


def test_png_chunks(tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.png", noise(9, 9) / 65535, dpi=300, metadata={"Software": "x"})
    chunks = chunks_of((tmp_path / "a.png").read_bytes())
    assert struct.unpack(">IIB", chunks[b"pHYs"]) == (11811, 11811, 1)
    assert chunks[b"IHDR"][8:] == bytes([16, 2, 0, 0, 0])
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.info["Software"] == "x"
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)


def test_jpeg_is_not_subsampled_and_has_its_tags(tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.jpg", noise(16, 16) / 65535, dpi=300)
    with Image.open(tmp_path / "a.jpg") as image:
        assert [part[1:3] for part in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        assert image.info["dpi"] == (300, 300)
        assert image.info["jfif_unit"] == 1 and image.info["jfif_density"] == (300, 300)
        assert image.info["icc_profile"]
        assert max(image.quantization[0]) <= 12  # type: ignore[attr-defined]  # quality 95
    with Image.open(io.BytesIO(pictures.encode_jpeg(noise(8, 8) / 65535))) as image:
        assert [part[1:3] for part in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    assert len(pictures.encode_jpeg(noise(64, 64) / 65535, 30)) < len(pictures.encode_jpeg(noise(64, 64) / 65535))


@pytest.mark.parametrize("dpi", [72.0, 150.5, 1 / 3, 65535.0])
def test_webp_resolution_and_profile(dpi: float, tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.webp", noise(16, 16) / 65535, dpi=dpi)
    with Image.open(tmp_path / "a.webp") as image:
        assert image.getexif()[0x011A] == pytest.approx(dpi, rel=1e-6) and image.getexif()[0x0128] == 2
        assert image.info["icc_profile"]
        packet = image.info["xmp"].decode("utf-8")
    tree = ElementTree.fromstring(packet)
    about = tree.find(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert about is not None
    names = "XResolution", "YResolution", "ResolutionUnit"
    across, down, unit = (about.get(f"{{http://ns.adobe.com/tiff/1.0/}}{name}", "0") for name in names)
    assert float(Fraction(across)) == pytest.approx(dpi, rel=1e-6) and across == down and unit == "2"


@pytest.mark.parametrize("channels", [3, 4])
def test_lossless_webp_keeps_the_colour_of_every_pixel(channels: int, tmp_path: Path) -> None:
    """Columns of one pixel in red and green: at half the resolution they become one colour."""
    pixels = np.zeros((16, 16, channels), np.float32)
    pixels[:, ::2, 0] = pixels[:, 1::2, 1] = 1
    pixels[8:, :, 3:] = 0.4
    for lossless, limit in ((True, 0.5 / 255), (False, 1.0)):
        pictures.save(tmp_path / "a.webp", pixels, lossless=lossless)
        back = pictures.load(tmp_path / "a.webp", alpha=True)
        worst = float(np.abs(back.pixels - pixels[..., :3]).max())
        assert (worst < limit) if lossless else (worst > 0.2)
    for suffix in (".tif", ".png"):
        pictures.save(tmp_path / f"a{suffix}", pixels, lossless=True)
    if channels == 3:
        with pytest.raises(SettingsError, match="JPEG is not lossless"):
            pictures.save(tmp_path / "a.jpg", pixels, lossless=True)


def test_files_are_reproducible(tmp_path: Path) -> None:
    for suffix in OUTPUT_FORMATS:
        for name in "ab":
            pictures.save(tmp_path / f"{name}{suffix}", noise(9, 9) / 65535, metadata={"k": "v"})
            srgb_profile.cache_clear()
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_pixels_of_any_order_in_memory_are_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((3, 6, 5), np.float32).transpose(1, 2, 0)
    pictures.save(tmp_path / "a.png", pixels)
    pictures.save(tmp_path / "b.png", np.ascontiguousarray(pixels))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_live_view_shows_alpha_on_white() -> None:
    pixels = np.zeros((16, 16, 4), np.float32)
    pixels[:, 8:, 3] = 1
    shown = np.asarray(Image.open(io.BytesIO(pictures.encode_jpeg(pixels))))
    assert shown[:, :7].min() > 250 and shown[:, 9:].max() < 5
