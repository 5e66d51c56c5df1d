"""Files that break a rule of their format, and that other readers read."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.picture_files import close, noise, pil_bytes, png, png_chunk, put, refused

from style_transfer import pictures


def webp_of_one_colour(width: int, height: int, green: int, red: int, blue: int) -> bytes:
    """Return a lossless WebP whose codes have one symbol each, 0 or 1 (WebP lossless bitstream, section 6.2)."""
    fields = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 1), (0, 3), (0, 3)]
    fields += [(1 | symbol << 3, 4) for symbol in (green, red, blue, 1, 0)]
    value = at = 0
    for field, bits in fields:
        value, at = value | field << at, at + bits
    body = value.to_bytes(-(-at // 8), "little")
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def test_a_tiny_lossless_webp_is_read(tmp_path: Path) -> None:
    data = webp_of_one_colour(3, 2, 1, 0, 1)
    assert len(data) == 28
    close(pictures.load(put(tmp_path / "a.webp", data)).pixels, np.full((2, 3, 3), [0, 1 / 255, 1 / 255]), 1e-7)
    refused(put(tmp_path / "a.webp", data[:24]), "damaged or truncated")


def test_avif_alpha_without_a_size_of_its_own_is_read_with_a_note(tmp_path: Path) -> None:
    samples = np.full((16, 24, 4), [200, 120, 40, 0], np.uint8)
    samples[..., 3] = np.arange(24) * 10
    data = pil_bytes(Image.fromarray(samples), "AVIF", quality=100, subsampling="4:4:4")
    properties = bytes.fromhex("00020401058607")  # item 2 has four properties: ispe, pixi, av1C and auxC
    assert data.count(properties) == 1
    broken = data.replace(properties, bytes.fromhex("00020405058607"))
    with pytest.raises(OSError):
        Image.open(io.BytesIO(broken))
    picture = pictures.load(put(tmp_path / "a.avif", broken), alpha=True)
    close(picture.pixels, samples[..., :3] / 255, 0.01)
    assert picture.alpha == pytest.approx(samples[..., 3] / 255, abs=0.01)
    assert any("rule" in note for note in picture.notes)
    at = broken.index(b"ispe") + 8
    refused(put(tmp_path / "a.avif", broken[:at] + struct.pack(">II", 60000, 60000) + broken[at + 8 :]), "--max-pixels")


Edit = Callable[[bytes, bytes], list[tuple[bytes, bytes]]]


def edited(data: bytes, edit: Edit) -> bytes:
    """Return a PNG in which each chunk is replaced by what `edit` returns for its type and body."""
    result, at = data[:8], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        for kind, body in edit(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]):
            result += png_chunk(kind, body)
        at += 12 + length
    return result


@pytest.mark.parametrize(
    "edit",
    [
        lambda kind, body: [(kind, b"\xff\xff\xff\xff" + bytes(4) if kind == b"acTL" else body)],
        lambda kind, body: [(kind, bytes(8) if kind == b"acTL" else body)],
        lambda kind, body: [(kind, b"\0\0" if kind == b"acTL" else body)],
        lambda kind, body: [(kind, body)] * (2 if kind == b"acTL" else 1),
        lambda kind, body: [(kind, body[:4] + bytes(8) + body[12:] if kind == b"fcTL" else body)],
        lambda kind, body: [] if kind == b"fcTL" else [(kind, body)],
    ],
    ids=["huge", "none", "short", "twice", "size", "missing"],
)
def test_a_bad_animation_leaves_the_picture_of_a_png(edit: Edit, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = pil_bytes(frames[0], "PNG", save_all=True, append_images=frames[1:])
    close(pictures.load(put(tmp_path / "a.png", edited(data, edit))).pixels, np.full((8, 8, 3), [1, 0, 0]), 1e-7)
    assert capfd.readouterr().err == ""


def test_bad_ancillary_chunks_of_a_png_are_not_a_matter_for_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = noise(4, 5)
    data = png(samples, (b"cHRM", b"abc"), (b"gAMA", bytes(4)), (b"tIME", b"x" * 7), (b"bKGD", b"\0"), (b"sBIT", b"\x40" * 3))
    close(pictures.load(put(tmp_path / "a.png", data)).pixels, samples / 65535, 1e-7)
    assert capfd.readouterr().err == ""
