"""Pictures by blocks of rows: equal to those read whole, reduced as torch reduces, and in the memory of their samples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support.coloured_files import exif_bytes
from support.picture_files import exif_of, iccp, noise, pil_bytes, png, put, stored_as
from support.profiles import ADOBE_TO_D50, rgb_profile

from style_transfer import pictures
from style_transfer.compute.resampling import resize
from style_transfer.errors import ImageError
from style_transfer.pictures import picture, tensors

SIZE = (37, 53)
PROFILE = rgb_profile(ADOBE_TO_D50, 2.2)


def palette(channels: int, **options: Any) -> bytes:
    image = Image.fromarray(noise(*SIZE, channels, np.uint8)).convert("RGB").quantize(32)
    return pil_bytes(image, "GIF", **options)


def cmyk(adobe: bool) -> bytes:
    data = pil_bytes(Image.fromarray(noise(*SIZE, 4, np.uint8), "CMYK"), "JPEG", quality=95)
    return data if adobe else data.replace(b"\xff\xee\0\x0eAdobe", b"\xff\xee\0\x0eOther")


def tiff(tmp_path: Path, samples: Any, **options: Any) -> bytes:
    tifffile.imwrite(tmp_path / "made.tif", samples, metadata=None, **options)
    return (tmp_path / "made.tif").read_bytes()


FILES: dict[str, Callable[[Path], bytes]] = {
    "16-bit PNG": lambda _: png(noise(*SIZE)),
    "PNG with a profile": lambda _: png(noise(*SIZE), iccp(PROFILE)),
    "PNG with alpha": lambda _: png(noise(*SIZE, 4)),
    "PNG of narrow range": lambda _: png(noise(*SIZE, 4), (b"cICP", bytes([9, 16, 0, 0]))),
    "GIF": lambda _: palette(3),
    "GIF with a transparent colour": lambda _: palette(3, transparency=3),
    "JPEG": lambda _: pil_bytes(Image.fromarray(noise(*SIZE, 3, np.uint8)), "JPEG", exif=exif_bytes(65535, "R03")),
    "CMYK JPEG": lambda _: cmyk(adobe=True),
    "CMYK JPEG, not inverted": lambda _: cmyk(adobe=False),
    "WebP with alpha": lambda _: pil_bytes(Image.fromarray(noise(*SIZE, 4, np.uint8)), "WEBP", lossless=True, exact=True),
    "multiplied TIFF": lambda path: tiff(path, noise(*SIZE, 4), photometric="rgb", extrasamples=["ASSOCALPHA"]),
    "min-is-white TIFF": lambda path: tiff(path, noise(*SIZE, 1)[..., 0], photometric="miniswhite"),
    "CIELAB TIFF": lambda path: tiff(path, noise(*SIZE, dtype=np.uint8), photometric="cielab"),
    "float TIFF": lambda path: tiff(path, noise(*SIZE) / np.float32(60000), photometric="rgb"),
}


@pytest.mark.parametrize("name", FILES)
def test_blocks_are_rows_of_the_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a", FILES[name](tmp_path))
    whole = pictures.load(path, alpha=True)
    monkeypatch.setattr(picture, "BLOCK_PIXELS", 4 * SIZE[1])
    opened = pictures.open_picture(path, alpha=True)
    assert opened.size == whole.size == SIZE
    blocks = list(opened.blocks())
    assert [len(block) for block in blocks] == [4] * 9 + [1]
    assert np.array_equal(np.concatenate(blocks), whole.pixels) and whole.pixels.std() > 0.05
    again = opened.picture()
    assert np.array_equal(again.pixels, whole.pixels) and again.notes[: len(whole.notes)] == whole.notes
    assert (again.alpha is None) == (whole.alpha is None) and again.reading == whole.reading
    assert whole.alpha is None or np.array_equal(np.asarray(again.alpha), whole.alpha)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_blocks_of_turned_pictures_come_upright(orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upright = noise(*SIZE, 4, np.uint8)
    stored = stored_as(upright, orientation)
    put(tmp_path / "a.png", pil_bytes(Image.fromarray(stored), "PNG", exif=exif_of(orientation)))
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    monkeypatch.setattr(picture, "BLOCK_PIXELS", 3 * SIZE[1])
    for found in (pictures.load(tmp_path / "a.png", alpha=True), pictures.from_pil(image, alpha=True)):
        assert np.array_equal(np.rint(found.pixels * 255), upright[..., :3]) and found.pixels.flags.c_contiguous
        assert np.array_equal(np.rint(np.asarray(found.alpha) * 255), upright[..., 3])


@pytest.mark.parametrize("mode", "1 L LA P PA RGB RGBA RGBa RGBX CMYK HSV YCbCr I F I;16".split())
def test_blocks_of_every_pil_mode(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(noise(*SIZE, 4, np.uint8))
    image = image.convert("L" if mode in ("1", "I", "F", "I;16") else "RGBA" if mode == "RGBa" else "RGB").convert(mode)
    if mode == "F":
        image = image.point(lambda value: value / 255)
    whole = pictures.from_pil(image, alpha=True)
    monkeypatch.setattr(picture, "BLOCK_PIXELS", SIZE[1])
    assert np.array_equal(pictures.from_pil(image, alpha=True).pixels, whole.pixels) and whole.pixels.max() > 0


def test_notes_and_errors_of_values_come_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "BLOCK_PIXELS", SIZE[1])
    samples = noise(*SIZE) / np.float32(65535)
    samples[30, 7] = 1.5
    opened = pictures.open_picture(put(tmp_path / "a.tif", tiff(tmp_path, samples, photometric="rgb")))
    before = opened.notes
    assert len(list(opened.blocks())) == SIZE[0]
    assert opened.notes == (*before, "values from 0 to 1.5: clipped to 0 ... 1")
    samples[30, 7] = np.nan
    opened = pictures.open_picture(put(tmp_path / "a.tif", tiff(tmp_path, samples, photometric="rgb")))
    with pytest.raises(ImageError, match=r"a\.tif: contains NaN"):
        list(opened.blocks())


def test_large_pictures_are_reduced_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.png", png(noise(*SIZE), iccp(PROFILE)))
    monkeypatch.setattr(picture, "BLOCK_PIXELS", 5 * SIZE[1])
    sizes = [(10, 15), (21, 30), (10, 15)]
    whole = tensors.pyramid_of(pictures.open_picture(path), sizes)
    assert whole.size == SIZE and len(whole.levels) == 1
    assert torch.equal(whole.largest, tensors.to_tensor(pictures.load(path)))
    monkeypatch.setattr(tensors, "WHOLE_PIXELS", 1000)
    reduced = tensors.pyramid_of(pictures.open_picture(path), sizes)
    assert reduced.size == SIZE and [tuple(level.shape[2:]) for level in reduced.levels] == [(10, 15), (21, 30)]
    for size in sizes:
        expected = resize(whole.largest, size, antialias=True).clamp(0, 1)
        assert torch.allclose(reduced.nearest(size), expected, rtol=0, atol=2e-6)
    for enlarged in ([(38, 53)], [(37, 53)], [(30, 40), (36, 52)]):
        assert tensors.pyramid_of(pictures.open_picture(path), enlarged).levels[0].shape == (1, 3, *SIZE)


READ = """
import sys
from style_transfer import pictures
from style_transfer.pictures.tensors import pyramid_of
def peak(): return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
pyramid_of(pictures.open_picture(sys.argv[1]), [(20, 30)])
before = peak()
height, width = pyramid_of(pictures.open_picture(sys.argv[2]), [(256, 384), (724, 1086), (1365, 2048)]).size
print(height, width, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("suffix", "depth"), [("jpg", 1), ("webp", 1), ("tif", 2)])
def test_memory_is_bounded_by_the_samples_of_the_file(suffix: str, depth: int, tmp_path: Path) -> None:
    """At most 1.5 times the samples and 200 MB; a float32 picture has 12 bytes for a pixel."""

    def make(path: Path, height: int, width: int) -> Path:
        ramp = np.add.outer(np.arange(height, dtype=np.uint8), np.arange(width, dtype=np.uint8))
        samples = np.stack([ramp, ramp >> 1, ~ramp], -1)
        if depth == 2:
            tifffile.imwrite(path, samples.astype(np.uint16) * 257, photometric="rgb", iccprofile=PROFILE, rowsperstrip=64)
        else:
            Image.fromarray(samples).save(path, icc_profile=PROFILE, exif=exif_of(6), quality=80, method=0)
        return path

    small, large = make(tmp_path / f"s.{suffix}", 40, 60), make(tmp_path / f"l.{suffix}", 4500, 7000)
    done = subprocess.run([sys.executable, "-c", READ, small, large], capture_output=True, text=True, check=True)
    height, width, taken = map(int, done.stdout.split())
    assert height * width == 31_500_000 and taken <= 1.5 * height * width * 3 * depth + 200e6
