"""PBM, PGM, PPM and PFM: text and binary, every depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.picture_files import close, noise, pil_bytes, put, refused
from support.profiles import Array

from style_transfer import pictures
from style_transfer.pictures.decode import pnm


def text_of(samples: Array, separator: str = " ") -> bytes:
    return separator.join(str(value) for value in samples.flat).encode()


@pytest.mark.parametrize("top", [1, 100, 255, 1000, 65535])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("separator", [" ", "\n", "\t\r\n # 9 x\n"])
def test_text_files_keep_their_depth(separator: str, channels: int, top: int, tmp_path: Path) -> None:
    samples = noise(5, 7, channels).astype(np.int64) * top // 65535
    head = b"P%d # a comment\n7 5\n%d\n" % (2 if channels == 1 else 3, top)
    path = put(tmp_path / "a.ppm", head + text_of(samples, separator) + b"\n# the end\n")
    close(pictures.load(path).pixels, samples / top, 1e-7)


def test_text_is_read_by_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(40, 30)
    lines = b"\n".join(text_of(row) + b" # 12 34" for row in samples)
    path = put(tmp_path / "a.ppm", b"P3 30 40 65535\n" + lines)
    for size in (700, 701, 1000):
        monkeypatch.setattr(pnm, "TEXT_BYTES", size)
        close(pictures.load(path).pixels, samples / 65535, 1e-7)


def test_bitmaps(tmp_path: Path) -> None:
    bits = noise(9, 13, 1)[..., 0] > 30000
    for separator in ("", " "):
        text = separator.join("01"[int(not bit)] for bit in bits.flat).encode()
        np.testing.assert_array_equal(pictures.load(put(tmp_path / "a.pbm", b"P1\n13 9\n" + text)).pixels[..., 0], bits)
    np.testing.assert_array_equal(
        pictures.load(put(tmp_path / "a.pbm", pil_bytes(Image.fromarray(bits), "PPM"))).pixels[..., 0], bits
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", ["-1.0", "1", "-0.5"])
def test_floating_point_is_read_from_the_bottom_up_with_a_note(channels: int, scale: str, tmp_path: Path) -> None:
    values = (noise(5, 7, channels) / 65535).astype(np.float32)
    stored = values[::-1].astype("<f4" if float(scale) < 0 else ">f4").tobytes()
    picture = pictures.load(put(tmp_path / "a.pfm", (b"Pf" if channels == 1 else b"PF") + f"\n7 5\n{scale}\n".encode() + stored))
    close(picture.pixels, values * abs(float(scale)), 1e-7)
    assert len(picture.notes) == 1 and "sRGB" in picture.notes[0]


@pytest.mark.filterwarnings("error")
def test_a_scale_that_makes_values_infinite_is_refused(tmp_path: Path) -> None:
    refused(put(tmp_path / "a.pfm", b"Pf\n1 1\n-1e38\n" + np.float32(1e9).tobytes()), "infinite")


@pytest.mark.parametrize(
    "data",
    [b"P3 2 1 255\n1 2 3 4 5", b"P3 2 1 255\n1 2 3 4 5 x", b"P1 3 1\n01", b"P2 2 1 70000\n1 2", b"P6 2 1 255\nabc",
     b"P4 9 2\nabc", b"PF\n2 1\n-1\nabcd", b"PF\n1 1\nnan\n" + bytes(12), b"P2 2 1 255\n   \n  \n    ", b"P2 2 1 255\n1.5 2.5"],
)  # fmt: skip
def test_short_and_wrong_files_are_refused(data: bytes, tmp_path: Path) -> None:
    refused(put(tmp_path / "a.ppm", data), "damaged or truncated")
