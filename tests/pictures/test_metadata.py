"""Metadata: the EXIF orientation, and the texts that are embedded in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.picture_files import close, exif_of, noise, pil_bytes, png, put, stored_as

from style_transfer import pictures
from style_transfer.registry import OUTPUT_FORMATS


@pytest.mark.parametrize("suffix", list(OUTPUT_FORMATS))
def test_metadata_comes_back(suffix: str, tmp_path: Path) -> None:
    metadata = {"Software": "naïve 1.0", "settings": '{"a": 1}', "style files": "ü\n日本.png", "empty": ""}
    pictures.save(tmp_path / f"a{suffix}", noise(5, 6) / 65535, metadata=metadata)
    assert pictures.read_metadata(tmp_path / f"a{suffix}") == metadata
    pictures.save(tmp_path / f"a{suffix}", noise(5, 6) / 65535)
    assert pictures.read_metadata(tmp_path / f"a{suffix}") == {}


def test_metadata_too_long_for_jpeg_does_not_stop_the_picture(tmp_path: Path) -> None:
    pictures.save(tmp_path / "a.jpg", noise(5, 6) / 65535, metadata={"Software": "s", "long": "x" * 70000})
    assert pictures.read_metadata(tmp_path / "a.jpg") == {"Software": "s"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_upright(orientation: int, tmp_path: Path) -> None:
    upright = noise(3, 5, dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    stored = stored_as(upright, orientation)
    image = Image.fromarray(stored)
    exif = exif_of(orientation)
    path = put(tmp_path / "a.jpg", pil_bytes(image, "JPEG", quality=95, subsampling=0, exif=exif))
    close(pictures.load(path).pixels, upright / 255, 0.03)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        path = put(tmp_path / "a", pil_bytes(image, kind, exif=exif, **options))
        close(pictures.load(path).pixels, upright / 255, 1e-6)
    deep = stored.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    close(pictures.load(tmp_path / "a.tif").pixels, upright / 255, 1e-6)
    image.getexif()[0x0112] = orientation
    picture = pictures.from_pil(image)
    close(picture.pixels, upright / 255, 1e-6)
    assert picture.pixels.flags.c_contiguous and picture.notes == ()


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_impossible_orientation_is_a_note(orientation: int, tmp_path: Path) -> None:
    image = Image.fromarray(noise(6, 9, dtype=np.uint8))
    picture = pictures.load(put(tmp_path / "a.png", pil_bytes(image, "PNG", exif=exif_of(orientation))))
    close(picture.pixels, np.asarray(image) / 255, 1e-6)
    assert any(f"orientation {orientation}" in note for note in picture.notes)


def test_cut_exif_is_survived(tmp_path: Path) -> None:
    samples = noise(6, 9)
    for cut in (b"II*", b"garbage here", exif_of(6).tobytes()[6:16]):
        close(pictures.load(put(tmp_path / "a.png", png(samples, (b"eXIf", cut)))).pixels, samples / 65535, 1e-7)
