"""Files that are refused: other formats, damaged, truncated and forged files, pictures that are too large."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.picture_files import noise, pil_bytes, png, png_chunk, put, refused

from style_transfer import pictures
from style_transfer.errors import ImageError, SettingsError


def test_paths_without_a_regular_file_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing.png", "no such file")
    refused(tmp_path, "folder")
    refused(put(tmp_path / "empty.png", b""), "empty")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    refused(tmp_path / "pipe.png", "not a regular file")
    refused(Path("/dev/zero"), "not a regular file")
    refused(tmp_path / "loop.png", "cannot be read")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", png(noise(2, 2)))
    path.chmod(0)
    refused(path, "cannot be read")


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf\n <html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "metafile"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"just some text", "not a picture in a supported format"),
    ],
)
def test_other_files_are_named_for_what_they_are(head: bytes, match: str, tmp_path: Path) -> None:
    refused(put(tmp_path / "a.png", head), match)


def whole_files(tmp_path: Path) -> dict[str, bytes]:
    samples = noise(64, 48)
    small = Image.fromarray((samples >> 8).astype(np.uint8))
    files = {"png": png(samples), "jpg": pil_bytes(small, "JPEG"), "webp": pil_bytes(small, "WEBP")}
    files |= {"progressive.jpg": pil_bytes(small, "JPEG", progressive=True), "ppm": pil_bytes(small, "PPM")}
    for name, options in (("none", {}), ("zlib", {"compression": "zlib"}), ("lzw", {"compression": "lzw"})):
        tifffile.imwrite(tmp_path / "x.tif", samples, photometric="rgb", rowsperstrip=16, metadata=None, **options)
        files[f"{name}.tif"] = (tmp_path / "x.tif").read_bytes()
    tifffile.imwrite(tmp_path / "x.tif", np.asarray(small), photometric="rgb", compression="jpeg", metadata=None)
    files["jpeg.tif"] = (tmp_path / "x.tif").read_bytes()
    return files


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.99])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    for name, data in whole_files(tmp_path).items():
        assert pictures.load(put(tmp_path / f"whole.{name}", data)).pixels.shape == (64, 48, 3)
        with pytest.raises(ImageError):
            pictures.load(put(tmp_path / f"cut.{name}", data[: max(13, int(len(data) * share))]))


def test_flipped_bytes_are_refused_or_read_but_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    refusals = 0
    for name, data in whole_files(tmp_path).items():
        for _ in range(25):
            damaged = bytearray(data)
            for at in rng.integers(0, min(len(data), 400), 3):
                damaged[at] ^= int(rng.integers(1, 256))
            try:
                pixels = pictures.load(put(tmp_path / f"f.{name}", bytes(damaged)), max_pixels=1_000_000).pixels
                assert np.isfinite(pixels).all()
            except ImageError as error:
                refusals += 1
                assert not re.search(r"0x|<|NoneType|_io|\bobject\b|\bb'|\w=", str(error).removeprefix(str(tmp_path)))
    assert refusals > 50


def test_messages_do_not_speak_of_python(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jpg", b"\xff\xd8\xff\xe0" + bytes(99))
    with pytest.raises(ImageError, match="its metadata cannot be read; "):
        pictures.read_metadata(path)
    refused(put(tmp_path / "a.gif", b"GIF89a" + bytes(3)), "damaged or truncated GIF; ")
    path = put(tmp_path / "a.bmp", b"BM" + struct.pack("<3I", 100, 0, 54) + struct.pack("<IiiHH", 40, 4, 4, 1, 7) + bytes(99))
    refused(path, "BMP of a kind that is not supported")


def test_flipped_png_data_is_refused(tmp_path: Path) -> None:
    data = bytearray(png(noise(64, 48)))
    data[len(data) // 2] ^= 4
    refused(put(tmp_path / "a.png", bytes(data)), "damaged")


def forged_png(width: int, height: int) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(bytes(10000))) + png_chunk(b"IEND", b"")


def forged_tiff(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((16, 16, 3), np.uint16), photometric="rgb", compression="zlib", metadata=None)
    buffer.seek(0)
    with tifffile.TiffFile(buffer) as file:
        tags = file.pages.first.tags
        places = {tags[256].valueoffset: width, tags[257].valueoffset: height, tags[278].valueoffset: height}
        types = {tags[code].valueoffset: tags[code].dtype for code in (256, 257, 278)}
    data = bytearray(buffer.getvalue())
    for at, value in places.items():
        form = "<H" if types[at] == 3 else "<I"
        data[at : at + struct.calcsize(form)] = struct.pack(form, value)
    return bytes(data)


def forged_jpeg(width: int, height: int) -> bytes:
    data = pil_bytes(Image.new("RGB", (16, 16)), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def forged_webp(width: int, height: int) -> bytes:
    data = bytearray(pil_bytes(Image.new("RGBA", (16, 16), (9, 9, 9, 9)), "WEBP"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def forged_gif(width: int, height: int) -> bytes:
    data = pil_bytes(Image.new("P", (16, 16)), "GIF", transparency=3, disposal=2)  # Pillow fills the screen with it
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def forged_gif_frame(width: int, height: int) -> bytes:
    """Return a GIF whose first image is larger than its screen, behind an extension."""
    data = pil_bytes(Image.new("P", (16, 16)), "GIF", comment=b"so small", transparency=3, disposal=2)
    at = data.index(b",\0\0\0\0\x10\0\x10\0")
    return data[: at + 5] + struct.pack("<HH", width, height) + data[at + 9 :]


def forged_jpeg2000(width: int, height: int) -> bytes:
    """Return a picture of one tile."""
    data = bytearray(pil_bytes(Image.new("RGB", (16, 16)), "JPEG2000", no_jp2=True))
    at = data.index(b"\xff\x51") + 6
    for place in (at, at + 16):  # of the reference grid and of its tiles
        data[place : place + 8] = struct.pack(">II", width, height)
    return bytes(data)


FORGERIES = [forged_png, forged_tiff, forged_jpeg, forged_webp, forged_gif, forged_gif_frame, forged_jpeg2000]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("forge", FORGERIES)
def test_a_size_within_the_limit_that_the_data_cannot_fill_takes_no_memory(forge: Any, tmp_path: Path) -> None:
    path = put(tmp_path / "bomb", forge(19000, 21000))  # 399 megapixels
    program = (
        "import sys; from style_transfer import pictures; from style_transfer.errors import ImageError\n"
        "peak = lambda: next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        "try: pictures.load(sys.argv[1], max_pixels=int(sys.argv[2]))\n"
        "except ImageError as error: print(peak() - before, error)\n"
    )
    limit = "500000000" if forge is forged_jpeg2000 else "300000000"
    done = subprocess.run([sys.executable, "-c", program, path, limit], capture_output=True, text=True, check=True)
    kilobytes, _, message = done.stdout.partition(" ")
    assert "19000 x 21000" in message and int(kilobytes) < 100_000


@pytest.mark.parametrize("forge", FORGERIES)
def test_bomb_is_refused_from_the_header(forge: Any, tmp_path: Path) -> None:
    path = put(tmp_path / "bomb", forge(60000, 60000))
    pictures.load(put(tmp_path / "ok.png", png(noise(2, 2))))  # imports allocate memory too
    tracemalloc.start()
    refused(path, "60000 x 60000 pixels")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_pixel_limit_is_a_limit_and_can_be_raised(tmp_path: Path) -> None:
    for suffix in (".png", ".tif", ".jpg", ".webp"):
        path = tmp_path / f"a{suffix}"
        pictures.save(path, noise(10, 11) / 65535)
        assert pictures.load(path, max_pixels=110).pixels.shape == (10, 11, 3)
        refused(path, "--max-pixels 110", max_pixels=109)


def test_pillows_own_limit_does_not_stop_an_honest_scan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("JPEG", "BMP", "GIF"):
        image = Image.new("RGB", (40, 40), (10, 20, 30))
        assert pictures.load(put(tmp_path / "a", pil_bytes(image, kind))).pixels.shape == (40, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_zero_size_is_refused(tmp_path: Path) -> None:
    refused(put(tmp_path / "a.png", forged_png(0, 5)), "no pixels")
    refused(put(tmp_path / "a.ppm", b"P6 0 4 255\n"), "no pixels")
    refused(put(tmp_path / "a.tif", forged_tiff(0, 5)), "no pixels|damaged")


def test_forged_tiff_size_below_the_limit_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16, 3), np.uint16), photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages.first.tags[256].overwrite(20000)
        file.pages.first.tags[257].overwrite(20000)
    refused(tmp_path / "a.tif", "damaged")


def test_jpeg2000_box_longer_than_the_file(tmp_path: Path) -> None:
    data = bytearray(pil_bytes(Image.new("RGB", (16, 16)), "JPEG2000"))
    at = data.index(b"jp2h") - 4
    data[at : at + 4] = b"\xff\xff\xff\xf0"
    tracemalloc.start()
    refused(put(tmp_path / "a.jp2", bytes(data)), "damaged")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_mistyped_name_gets_a_suggestion(tmp_path: Path) -> None:
    put(tmp_path / "tubingen.jpg", b"x")
    refused(tmp_path / "tubingn.jpg", r"tubingn\.jpg: no such file \(did you mean 'tubingen\.jpg'\?\)")
    put(tmp_path / "press.icc", b"x")
    with pytest.raises(SettingsError, match=r"--proof .*pres\.icc: no such file \(did you mean 'press\.icc'\?\)"):
        pictures.load(tmp_path / "tubingen.jpg", proof=tmp_path / "pres.icc")


def test_names_are_escaped_in_messages(tmp_path: Path) -> None:
    refused(tmp_path / "x\x1b[2J\n.png", r"x\\x1b\[2J\\n.png")
    odd = put(tmp_path / "-o\n\udcff.png", png(noise(2, 2)))
    assert pictures.load(odd).pixels.shape == (2, 2, 3)
    pictures.save(tmp_path / "-\n\udcff.tif", noise(2, 2) / 65535)
    assert pictures.load(tmp_path / "-\n\udcff.tif").pixels.shape == (2, 2, 3)
