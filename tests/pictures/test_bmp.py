"""BMP: bit fields of any layout."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from support.picture_files import close, put, refused

from style_transfer import pictures


def bit_fields(
    bits: int, masks: tuple[int, ...], rows: list[bytes], height: int, compression: int = 3, header: int = 40
) -> bytes:
    """Return a BMP of 5 pixels a row; `height` is negative for rows from the top down."""
    data = b"".join(row + bytes(-len(row) % 4) for row in rows)
    info = struct.pack("<IiiHHIIiiII", header, 5, height, 1, bits, compression, len(data), 2835, 2835, 0, 0)
    info += struct.pack(f"<{len(masks)}I", *masks)
    info += bytes(max(0, header - len(info)))
    start = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + data


@pytest.mark.parametrize(
    ("bits", "masks", "compression", "header"),
    [
        (16, (0xF800, 0x7E0, 0x1F), 3, 40),
        (16, (0xF00, 0xF0, 0xF), 3, 40),
        (16, (0xF00, 0xF0, 0xF, 0xF000), 6, 40),
        (16, (0xE0, 0x1C, 0x3), 3, 40),
        (32, (0xFF0000, 0xFF00, 0xFF), 3, 40),
        (32, (0x3FF00000, 0xFFC00, 0x3FF), 3, 56),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), 3, 124),
        (32, (0xFFF00000, 0xFFF00, 0xFF), 3, 40),
    ],
)
@pytest.mark.parametrize("height", [4, -4])
def test_bit_fields_of_any_layout(
    bits: int, masks: tuple[int, ...], compression: int, header: int, height: int, tmp_path: Path
) -> None:
    words = np.random.default_rng(0).integers(0, 2**bits, (4, 5), dtype=np.uint64)
    rows = [row.astype(f"<u{bits // 8}").tobytes() for row in words]
    path = put(tmp_path / "a.bmp", bit_fields(bits, masks, rows[::-1] if height > 0 else rows, height, compression, header))
    channels = []
    for mask in masks:
        shift = f"{mask:b}"[::-1].index("1")
        channels.append((words.astype(np.int64) & mask) >> shift)
        channels[-1] = channels[-1] / (mask >> shift)
    picture = pictures.load(path, alpha=True)
    close(picture.pixels, np.stack(channels[:3], -1), 1e-5)
    assert (picture.alpha is None) == (len(masks) == 3)
    if picture.alpha is not None:
        close(picture.alpha, channels[3], 1e-5)


def test_truncated_and_forged_bit_fields_are_refused(tmp_path: Path) -> None:
    data = bit_fields(16, (0xF00, 0xF0, 0xF), [bytes(10)] * 4, 4)
    refused(put(tmp_path / "a.bmp", data[:-1]), "damaged or truncated")
    forged = data[:18] + struct.pack("<ii", 60000, 60000) + data[26:]
    refused(put(tmp_path / "a.bmp", forged), "--max-pixels")
    refused(put(tmp_path / "a.bmp", bit_fields(16, (0, 0xF0, 0xF), [bytes(10)] * 4, 4)), "damaged")
