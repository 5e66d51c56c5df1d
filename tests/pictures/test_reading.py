"""How a file was understood, in words: format, bits, profile or signal, orientation, alpha."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.picture_files import exif_of, iccp, noise, pil_bytes, png, put
from support.profiles import P3_TO_D50, cmyk_profile, rgb_profile
from support.tiff_files import page, tiff

from style_transfer import pictures
from style_transfer.registry import INPUT_FORMATS


def reading(path: Path, **options: Any) -> dict[str, str]:
    found = pictures.load(path, **options).reading
    assert found is not None and "\n" not in str(found)
    return vars(found)


def test_a_plain_file(tmp_path: Path) -> None:
    found = pictures.load(put(tmp_path / "a.jpg", pil_bytes(Image.new("RGB", (8, 8)), "JPEG"))).reading
    assert str(found) == "JPEG, 8 bits, no profile, sRGB assumed, upright, no transparency"


def test_profiles_used_and_ignored(tmp_path: Path) -> None:
    used = png(noise(4, 5), iccp(rgb_profile(P3_TO_D50, 2.2)))
    assert reading(put(tmp_path / "a.png", used))["colour"] == "profile test"
    pictures.save(tmp_path / "b.png", noise(4, 5) / 65535)
    assert "sRGB" in reading(tmp_path / "b.png")["colour"] and "assumed" not in reading(tmp_path / "b.png")["colour"]
    for profile in (b"no profile", cmyk_profile(0.02)):
        assert reading(put(tmp_path / "c.png", png(noise(4, 5), iccp(profile))))["colour"] == "profile ignored, sRGB assumed"
    Image.new("CMYK", (8, 8)).save(tmp_path / "d.jpg")
    assert reading(tmp_path / "d.jpg")["colour"] == "no profile, plain CMYK assumed"


def test_signals_other_than_profiles(tmp_path: Path) -> None:
    assert reading(put(tmp_path / "a.tif", tiff((page(4, 4, 3, 8), bytes(48)))))["colour"] == "CIELAB"
    ycbcr = page(4, 4, 3, 6, t530=("H", [1, 1]))
    assert reading(put(tmp_path / "a.tif", tiff((ycbcr, bytes(48)))))["colour"] == "YCbCr, sRGB assumed"


@pytest.mark.parametrize(
    ("bits", "words"),
    [(1, "1 bit"), (4, "4 bits"), (8, "8 bits"), (12, "12 bits"), (16, "16 bits"), (32, "32-bit floating point")],
)
def test_bits_of_the_file(bits: int, words: str, tmp_path: Path) -> None:
    gray = noise(8, 8, 1)[..., 0]
    if bits == 32:
        tifffile.imwrite(tmp_path / "a", (gray / 65535).astype(np.float32))
    elif bits == 12:
        (tmp_path / "a").write_bytes(imagecodecs.jpeg8_encode(gray >> 4, bitspersample=12))
    elif bits == 16:
        (tmp_path / "a").write_bytes(png(gray))
    else:
        Image.fromarray((gray >> 8).astype(np.uint8)).convert("1" if bits == 1 else "L").save(tmp_path / "a", "PNG", bits=bits)
    assert reading(tmp_path / "a")["bits"] == words
    if bits in (1, 16):
        tifffile.imwrite(tmp_path / "w.tif", gray if bits == 16 else gray > 30000, photometric="miniswhite")
        assert reading(tmp_path / "w.tif")["bits"] == words


def test_orientation(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 6))
    for orientation, words in ((1, "upright"), (6, "orientation 6 applied"), (9, "orientation ignored")):
        image.save(tmp_path / "a.jpg", exif=exif_of(orientation))
        assert reading(tmp_path / "a.jpg")["orientation"] == words


def test_alpha(tmp_path: Path) -> None:
    samples = noise(4, 5, 4)
    samples[..., 3] = 65535
    assert reading(put(tmp_path / "a.png", png(samples)))["alpha"] == "no transparency"
    samples[0, 0, 3] = 9
    assert reading(put(tmp_path / "a.png", png(samples)))["alpha"] == "alpha ignored"
    assert reading(tmp_path / "a.png", alpha=True)["alpha"] == "alpha kept"
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["ASSOCALPHA"])
    assert reading(tmp_path / "a.tif")["alpha"] == "alpha ignored, colours divided by alpha"


def test_every_decoder_declares_what_it_reads() -> None:
    for name, known in INPUT_FORMATS.items():
        assert known.scope is not None, name
        assert all(sentence.endswith(".") for sentence in known.scope.more), name
