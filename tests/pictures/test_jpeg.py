"""JPEG: profiles in parts, depths other than 8 bits, files without an end marker."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from support.picture_files import close, exif_of, noise, pil_bytes, put, refused, stored_as
from support.profiles import P3_TO_D50, Array, rgb_expected, rgb_profile

from style_transfer import pictures

PROFILE = rgb_profile(P3_TO_D50, 2.2)


def flat_jpeg(**options: Any) -> bytes:
    return pil_bytes(Image.new("RGB", (24, 16), (200, 120, 40)), "JPEG", quality=100, subsampling=0, **options)


def icc_segments(profile: bytes, parts: int) -> list[bytes]:
    step = -(-len(profile) // parts)
    found = []
    for number in range(parts):
        body = b"ICC_PROFILE\0" + bytes([number + 1, parts]) + profile[number * step : (number + 1) * step]
        found.append(b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body)
    return found


def with_segments(data: bytes, segments: list[bytes], marker: bytes) -> bytes:
    """Put segments before the one that begins with `marker`."""
    at = data.index(marker)
    return data[:at] + b"".join(segments) + data[at:]


@pytest.mark.parametrize("order", [(0,), (0, 1, 2), (2, 0, 1), (1, 1, 2, 0)])
@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4", b"\xff\xda"])  # before SOF, between SOF and the scan
def test_parts_of_a_profile_count_wherever_they_stand(marker: bytes, order: tuple[int, ...], tmp_path: Path) -> None:
    parts = icc_segments(PROFILE, max(order) + 1)
    path = put(tmp_path / "a.jpg", with_segments(flat_jpeg(), [parts[number] for number in order], marker))
    expected = rgb_expected(np.array([200, 120, 40]) / 255, P3_TO_D50, 2.2)
    picture = pictures.load(path)
    close(picture.pixels, expected, 0.006)  # JPEG itself is off by one level
    assert picture.notes == ()
    assert np.abs(expected - np.array([200, 120, 40]) / 255).max() > 0.05


def test_a_profile_that_lacks_a_part_is_a_note(tmp_path: Path) -> None:
    parts = icc_segments(PROFILE, 3)
    picture = pictures.load(put(tmp_path / "a.jpg", with_segments(flat_jpeg(), [parts[0], parts[2]], b"\xff\xdb")))
    close(picture.pixels, np.array([200, 120, 40]) / 255, 0.005)
    assert any("profile" in note for note in picture.notes)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [2, 8, 12, 16])
def test_lossless_jpeg_is_exact(bits: int, channels: int, tmp_path: Path) -> None:
    top = 2**bits - 1
    samples = noise(13, 17, channels).astype(np.uint32) * top // 65535
    stored = samples.astype(np.uint8 if bits <= 8 else np.uint16).squeeze()
    data = bytes(imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=bits))
    assert data.find(b"\xff\xc3") > 0
    values: Array = samples / top
    if channels == 4:  # without Adobe's marker samples are amounts of ink
        values = (1 - values[..., :3]) * (1 - values[..., 3:])
    close(pictures.load(put(tmp_path / "a.jpg", data)).pixels, values, 1e-6)


@pytest.mark.parametrize("adobe", [False, True])
def test_cmyk_of_twelve_bits(adobe: bool, tmp_path: Path) -> None:
    ink = np.broadcast_to(np.array([0.8, 0.1, 0.3, 0.2]), (16, 16, 4))
    stored = np.rint((1 - ink if adobe else ink) * 4095).astype(np.uint16)
    spaces = {"colorspace": "CMYK", "outcolorspace": "CMYK"} if adobe else {}
    data = bytes(imagecodecs.jpeg8_encode(stored, level=100, bitspersample=12, **spaces))
    assert (b"Adobe" in data) == adobe
    close(pictures.load(put(tmp_path / "a.jpg", data)).pixels, (1 - ink[..., :3]) * (1 - ink[..., 3:]), 1e-3)


def test_twelve_bits_keep_their_depth_profile_and_orientation(tmp_path: Path) -> None:
    samples = np.broadcast_to(np.linspace(0, 4095, 40)[:, None, None], (40, 24, 3)).astype(np.uint16)
    data = bytes(imagecodecs.jpeg8_encode(stored_as(samples, 6), level=100, bitspersample=12))
    exif = exif_of(6).tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path = put(tmp_path / "a.jpg", with_segments(data, [segment, *icc_segments(PROFILE, 2)], b"\xff\xdb"))
    close(pictures.load(path).pixels, rgb_expected(samples / 4095, P3_TO_D50, 2.2), 2e-3)


@pytest.mark.parametrize(("marker", "kind"), [(0xC5, "hierarchical"), (0xCB, "arithmetic"), (0xF7, "JPEG-LS")])
def test_kinds_that_are_not_read_are_named(marker: int, kind: str, tmp_path: Path) -> None:
    data = flat_jpeg().replace(b"\xff\xc0", bytes([0xFF, marker]))
    refused(put(tmp_path / "a.jpg", data), f"(?s)^(?!.*damaged).*{kind}")


def whole(kind: str) -> tuple[bytes, bytes]:
    """Return a JPEG file up to its end marker, and the marker."""
    image = Image.fromarray(noise(40, 56, dtype=np.uint8))
    options: dict[str, Any] = {"progressive": {"progressive": True}, "restart": {"restart_marker_blocks": 4}}.get(kind, {})
    if kind == "twelve":
        data = bytes(imagecodecs.jpeg8_encode(noise(40, 56) >> 4, level=90, bitspersample=12))
    else:
        data = pil_bytes(image, "JPEG", **options)
    assert data.endswith(b"\xff\xd9")
    return data[:-2], data[-2:]


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restart", "twelve"])
@pytest.mark.parametrize("tail", [b"", b"\xff", bytes(64)])
def test_a_file_without_only_its_end_marker_is_read_with_a_note(kind: str, tail: bytes, tmp_path: Path) -> None:
    data, end = whole(kind)
    expected = pictures.load(put(tmp_path / "whole.jpg", data + end))
    picture = pictures.load(put(tmp_path / "a.jpg", data + tail))
    np.testing.assert_array_equal(picture.pixels, expected.pixels)
    assert expected.notes == () and any("end marker" in note for note in picture.notes)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restart", "twelve"])
def test_a_file_without_its_last_pixels_is_refused(kind: str, tmp_path: Path) -> None:
    data, _ = whole(kind)
    for length in (len(data) - 6, len(data) - 100, len(data) * 2 // 3):
        refused(put(tmp_path / "a.jpg", data[:length]), "damaged or truncated")
    if kind == "restart":  # cut where an interval of macroblocks ends
        refused(put(tmp_path / "a.jpg", data[: data.rindex(b"\xff\xd1")]), "damaged or truncated")
