"""TIFF: chains of directories, camera raw files, orientation, floats, CIELAB, YCbCr and faxes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.picture_files import close, noise, pil_bytes, put, refused, stored_as
from support.profiles import SRGB_TO_D50, Array, rgb_profile, srgb_encode, xyz_of
from support.tiff_files import page, tiff

from style_transfer import pictures
from style_transfer.pictures.decode import tiff_pages

RGB = noise(6, 8, dtype=np.uint8)
FULL = (page(8, 6, 3, 2), RGB.tobytes())
SMALL = (page(4, 3, 3, 2, t254=("I", [1])), bytes(36))


def load_tiff(tmp_path: Path, data: bytes) -> pictures.Picture:
    return pictures.load(put(tmp_path / "a.tif", data))


# chains of directories


def test_a_whole_file_has_no_notes(tmp_path: Path) -> None:
    picture = load_tiff(tmp_path, tiff(FULL))
    close(picture.pixels, RGB / 255, 1e-7)
    assert picture.notes == ()


@pytest.mark.parametrize("following", [10_000_000, 8])
def test_a_broken_chain_behind_the_first_page_is_a_note(following: int, tmp_path: Path) -> None:
    picture = load_tiff(tmp_path, tiff(FULL, following=following))  # behind the end of the file, and a loop
    close(picture.pixels, RGB / 255, 1e-7)
    assert any("damaged" in note for note in picture.notes)


def test_a_chain_without_its_last_offset_is_a_note(tmp_path: Path) -> None:
    data = tiff(FULL)
    end = 8 + 2 + 12 * struct.unpack_from("<H", data, 8)[0]
    moved = b"II*\0" + struct.pack("<I", len(data)) + data[8:] + data[8:end]  # a copy of the directory ends the file
    picture = load_tiff(tmp_path, moved)
    close(picture.pixels, RGB / 255, 1e-7)
    assert any("no end" in note for note in picture.notes)


def test_a_broken_later_page_is_a_note(tmp_path: Path) -> None:
    data = bytearray(tiff(FULL, FULL))
    second = struct.unpack_from("<I", data, 8 + 2 + 12 * struct.unpack_from("<H", data, 8)[0])[0]
    struct.pack_into("<H", data, second, 65000)  # so many entries do not fit into the file
    picture = load_tiff(tmp_path, bytes(data))
    close(picture.pixels, RGB / 255, 1e-7)
    assert any("page 2" in note for note in picture.notes)


def test_a_preview_before_the_picture_is_not_the_picture(tmp_path: Path) -> None:
    mask = (page(8, 6, 1, 4, t254=("I", [4])), bytes(48))
    picture = load_tiff(tmp_path, tiff(SMALL, mask, FULL))
    close(picture.pixels, RGB / 255, 1e-7)
    assert picture.notes == ()


def test_a_long_chain_of_long_directories_takes_little_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that overlap, each of as many entries as the file has room for."""
    first, total = tiff(FULL, following=1000).ljust(1000, b"\0"), 6000
    chain = b"".join(struct.pack("<H", 0) + struct.pack("<I", 1000 + 6 * (number + 1)) for number in range(total - 1))
    path = put(tmp_path / "a.tif", first + chain + bytes(6))
    picture = pictures.load(path)
    close(picture.pixels, RGB / 255, 1e-7)
    assert any(f"{total + 1} pages" in note for note in picture.notes)
    parsed = []
    values = tiff_pages._Reader._values
    monkeypatch.setattr(tiff_pages._Reader, "_values", lambda *arguments: parsed.append(1) or values(*arguments))
    many = struct.pack("<H", 2000) + struct.pack("<HHII", 254, 4, 1, 0) * 2000
    long = b"".join(many + struct.pack("<I", 1000 + len(many) * (number + 1) + 4 * (number + 1)) for number in range(300))
    close(pictures.load(put(path, first + long + bytes(6))).pixels, RGB / 255, 1e-7)
    assert len(parsed) <= tiff_pages.MAX_PARSED * tiff_pages.MAX_ENTRIES


# camera raw files


def sensor(photometric: int) -> tuple[Any, bytes]:
    return page(8, 6, 1, photometric), bytes(48)


@pytest.mark.parametrize(
    "data",
    [
        tiff((page(8, 6, 3, 2, t50706=("B", [1, 4, 0, 0])), RGB.tobytes())),  # DNGVersion
        tiff(FULL, inner=[sensor(32803)]),  # a colour filter array below the preview
        tiff(FULL, inner=[SMALL, sensor(34892)]),  # LinearRaw
        tiff(FULL, sensor(32803)),
        tiff(SMALL),  # NewSubfileType 1 alone
        b"II*\0\x10\0\0\0CR\2\0\0\0\0\0" + tiff(FULL)[8:],
    ],
    ids=["dng", "cfa", "linear", "page", "preview", "cr2"],
)
def test_camera_raw_is_recognized_by_content(data: bytes, tmp_path: Path) -> None:
    refused(put(tmp_path / "a.tif", data), "camera raw")


@pytest.mark.parametrize("head", [b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0", b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx ", b"FOVb"])
def test_camera_raw_of_other_kinds_is_recognized_by_its_first_bytes(head: bytes, tmp_path: Path) -> None:
    refused(put(tmp_path / "a.jpg", head + bytes(64)), "camera raw")


def test_camera_raw_is_recognized_by_suffix(tmp_path: Path) -> None:
    for suffix in "iiq 3fr fff nrw sr2 srf erf mef mos kdc dcr rwl gpr NEF".split():
        refused(put(tmp_path / f"a.{suffix}", tiff(FULL)), "camera raw")


# orientation


@pytest.mark.parametrize("value", [("B", [6]), ("I", [6]), ("s", "6"), ("rational", [(6, 1)]), ("f", [6.0]), ("d", [6.0])])
def test_an_orientation_of_any_type_counts(value: Any, tmp_path: Path) -> None:
    stored = stored_as(RGB, 6)
    picture = load_tiff(tmp_path, tiff((page(6, 8, 3, 2, t274=value), stored.tobytes())))
    close(picture.pixels, RGB / 255, 1e-7)
    assert picture.notes == ()


# floating point and the value of white


def float_tiff(tmp_path: Path, values: Array, **options: Any) -> Path:
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", metadata=None, **options)
    return tmp_path / "a.tif"


def test_floats_say_what_was_assumed(tmp_path: Path) -> None:
    values = noise(5, 7).astype(np.float32) / 65535
    picture = pictures.load(float_tiff(tmp_path, values))
    close(picture.pixels, values, 1e-7)
    assert len(picture.notes) == 1 and "sRGB" in picture.notes[0]
    assert pictures.load(float_tiff(tmp_path, values, iccprofile=rgb_profile(SRGB_TO_D50, 1.0))).notes == ()


@pytest.mark.parametrize(
    ("top", "factor"), [(255, "255"), (254, "255"), (4000, "4095"), (65535, "65535"), (1e6, "1e.?06|1000000")]
)
@pytest.mark.parametrize("background", [0.0, 0.7])
def test_floats_on_another_scale_are_refused_with_their_factor(
    top: float, factor: str, background: float, tmp_path: Path
) -> None:
    values = noise(8, 8).astype(np.float32) * np.float32(top / 65535)
    values[0, 0] = top
    values[int(8 - 8 * background) :] = 0  # black does not tell
    refused(float_tiff(tmp_path, values), f"divide.*by ({factor})\\b")


@pytest.mark.parametrize(("dtype", "top"), [(np.float32, 4095), (np.float32, 255), (np.uint16, 4095), (np.uint16, 1023)])
def test_the_declared_largest_value_is_white(dtype: Any, top: int, tmp_path: Path) -> None:
    values = (noise(5, 7).astype(np.int64) * top // 65535).astype(dtype)
    picture = pictures.load(float_tiff(tmp_path, values, extratags=[(281, 3, 3, (top,) * 3, True)]))
    close(picture.pixels, values / top, 1e-6)
    assert any(str(top) in note for note in picture.notes)


@pytest.mark.parametrize("top", [3000, 65535, 1])
def test_a_largest_value_that_is_a_statistic_or_exceeded_is_not_white(top: int, tmp_path: Path) -> None:
    values = noise(5, 7)
    close(pictures.load(float_tiff(tmp_path, values, extratags=[(281, 3, 1, top, True)])).pixels, values / 65535, 1e-7)
    values[0, 0] = 65535
    close(pictures.load(float_tiff(tmp_path, values, extratags=[(281, 3, 1, 4095, True)])).pixels, values / 65535, 1e-7)


# colour spaces


def lab_colours(lab: Array) -> Array:
    return srgb_encode(xyz_of(lab) @ np.linalg.inv(SRGB_TO_D50).T)


LAB = np.array([[[100, 0, 0], [50, 0, 0], [0, 0, 0], [60, 25, -30], [70, -30, 40], [40, 30, 20], [75, 5, 70]]])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [8, 9])
def test_cielab_is_converted(photometric: int, bits: int, tmp_path: Path) -> None:
    unit = 1 << bits - 8
    top = 65280 if (photometric, bits) == (9, 16) else 2**bits - 1
    stored = LAB * np.array([top / 100, unit, unit]) + (0 if photometric == 8 else np.array([0, 128 * unit, 128 * unit]))
    samples = np.rint(stored).astype(np.int64).astype(f"u{bits // 8}")  # negative numbers wrap around
    tags = {**page(7, 1, 3, photometric), 258: ("H", [bits] * 3)}
    picture = load_tiff(tmp_path, tiff((tags, samples.tobytes())))
    close(picture.pixels, lab_colours(LAB), 5e-3 if bits == 8 else 2e-3)
    assert picture.notes == ()
    tags = {**tags, 258: ("H", [bits] * 4), 277: ("H", [4]), 338: ("H", [2])}
    opacity = np.array([0, 10, 20, 30, 40, 50, 255]) * (1 if bits == 8 else 257)
    with_alpha = np.dstack([samples, opacity.astype(samples.dtype)])
    picture = pictures.load(put(tmp_path / "b.tif", tiff((tags, with_alpha.tobytes()))), alpha=True)
    close(picture.pixels, lab_colours(LAB), 5e-3 if bits == 8 else 2e-3)
    assert picture.alpha == pytest.approx(opacity[None] / (255 if bits == 8 else 65535), abs=1e-4)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("compressed", [False, True])
def test_subsampled_ycbcr_is_read(subsampling: tuple[int, int], compressed: bool, tmp_path: Path) -> None:
    wide, high = subsampling
    luma = noise(8, 12, 1, np.uint8)[..., 0]
    blue, red = (noise(8 // high, 12 // wide, 1, np.uint8, seed)[..., 0] for seed in (1, 2))
    units = (  # TIFF 6.0, section 21: the luma of a block, then its chrominance
        [*luma[r * high : (r + 1) * high, c * wide : (c + 1) * wide].flat, blue[r, c], red[r, c]]
        for r in range(8 // high)
        for c in range(12 // wide)
    )
    data = bytes(int(value) for unit in units for value in unit)
    cb, cr = (plane.repeat(high, 0).repeat(wide, 1) - 128.0 for plane in (blue, red))
    expected = np.stack([luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], -1).clip(0, 255) / 255
    tags = page(12, 8, 3, 6, t530=("H", list(subsampling)), t274=("H", [6]), t259=("H", [8 if compressed else 1]))
    tags[532] = ("rational", [(0, 1), (255, 1), (128, 1), (255, 1), (128, 1), (255, 1)])  # ReferenceBlackWhite
    picture = load_tiff(tmp_path, tiff((tags, zlib.compress(data) if compressed else data)))
    close(picture.pixels, np.rot90(expected, -1), 0.6 / 255)


def test_ycbcr_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    tags = page(12, 8, 3, 6, t530=("H", [2, 2]), t259=("H", [34712]))
    refused(put(tmp_path / "a.tif", tiff((tags, bytes(500)))), "(?s)^(?!.*damaged).*YCbCr")


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_a_corrupt_fax_is_a_note(compression: str, photometric: int, tmp_path: Path) -> None:
    bits = (np.random.default_rng(0).random((64, 101)) > 0.8).repeat(2, 0)
    options = {"tiffinfo": {262: photometric}} if photometric == 0 else {}
    data = bytearray(pil_bytes(Image.fromarray(bits), "TIFF", compression=compression, **options))
    picture = load_tiff(tmp_path, bytes(data))
    assert picture.notes == () and len(np.unique(picture.pixels)) == 2
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.photometric == photometric
        start, length = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    data[start + length // 2 : start + length // 2 + 3] = b"\x5a\xff\0"
    picture = load_tiff(tmp_path, bytes(data))
    assert any("fax" in note for note in picture.notes)
